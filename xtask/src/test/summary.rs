//! One summary over many test programs.

use std::{
    fmt,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};

/// What `cargo test` reported so far.
#[derive(Debug, Default)]
pub struct Summary {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// The names of the failed tests.
    failures: Vec<String>,
    /// Runs of cargo that ended with an error: they did not compile, or a test failed.
    bad_runs: Vec<String>,
    /// The lines that follow name failed tests.
    in_failures: bool,
}

impl Summary {
    /// Runs `cargo` with its output shown and read along. Tests that fail are no error yet: the others still run.
    pub fn run(&mut self, what: &str, cargo: &mut Command) -> anyhow::Result<()> {
        eprintln!("== {what}");
        let started = Instant::now();
        let mut child = cargo
            .stdout(Stdio::piped())
            .spawn()
            .context("cargo cannot be run")?;
        let Some(stdout) = child.stdout.take() else {
            bail!("cargo has no output");
        };
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("the output of the tests broke off")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            self.read(&line);
        }
        self.in_failures = false;
        let status = child.wait().context("cargo was lost")?;
        if !status.success() {
            self.bad_runs.push(what.to_owned());
        }
        eprintln!("== {what}: {:.1} s", started.elapsed().as_secs_f32());
        Ok(())
    }

    /// Takes in one line of a test program's output.
    fn read(&mut self, line: &str) {
        if let Some(result) = line.strip_prefix("test result: ") {
            for part in result.split([';', '.']) {
                match part.trim().split_once(' ') {
                    Some((count, "passed")) => self.passed += count.parse().unwrap_or(0),
                    Some((count, "failed")) => self.failed += count.parse().unwrap_or(0),
                    Some((count, "ignored")) => self.ignored += count.parse().unwrap_or(0),
                    _ => {}
                }
            }
        } else if line == "failures:" {
            self.in_failures = true;
        } else if self.in_failures && !line.is_empty() {
            match line.strip_prefix("    ") {
                Some(name) if !name.starts_with(' ') => self.failures.push(name.to_owned()),
                _ => self.in_failures = false,
            }
        }
    }

    /// Whether everything that was run went well.
    pub fn is_success(&self) -> bool {
        self.failed == 0 && self.bad_runs.is_empty()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for what in &self.bad_runs {
            writeln!(f, "failed: {what}")?;
        }
        for name in &self.failures {
            writeln!(f, "failed: test {name}")?;
        }
        let Self {
            passed,
            failed,
            ignored,
            ..
        } = self;
        write!(
            f,
            "tests: {passed} passed, {failed} failed, {ignored} ignored"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up_and_failures_are_named() {
        let mut summary = Summary::default();
        let output = "\
test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s

failures:

---- nat::reply stdout ----
thread 'nat::reply' panicked at src/nat.rs:7:9:

failures:
    nat::reply

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";
        output.lines().for_each(|line| summary.read(line));
        assert_eq!(summary.failures, ["nat::reply"]);
        assert!(!summary.is_success());
        assert_eq!(
            summary.to_string(),
            "failed: test nat::reply\ntests: 7 passed, 1 failed, 1 ignored"
        );
    }
}
