//! What is run in a guest: the project's own programs, tools of this machine, and the libraries of both.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::{setup::fresh_dir, workspace::Workspace};

/// The tests that are run in a guest.
pub const TESTS: [&str; 4] = ["verifier", "vectors_kernel", "differential", "e2e"];

/// The daemon and the operator's tool, which the end-to-end tests start.
pub const DAEMON: &str = "balancerd";
/// The same.
pub const TOOL: &str = "balancerctl";

/// A program of the project.
pub struct Program {
    /// Where cargo has put it.
    pub path: PathBuf,
    /// A copy without debugging information, which is most of it.
    pub stripped: PathBuf,
}

/// Builds the tests and what they start: the programs by their names, with copies in `dir`.
pub fn build(workspace: &Workspace, dir: &Path) -> anyhow::Result<BTreeMap<String, Program>> {
    eprintln!("== tests for the guests");
    let mut cargo = workspace.cargo(["test", "--no-run", "--release", "--package", "balancer"]);
    cargo.arg("--message-format=json-render-diagnostics");
    for test in TESTS {
        cargo.args(["--test", test]);
    }
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .context("cargo cannot be run")?;
    ensure!(output.status.success(), "the tests cannot be built");
    let mut built = executables(&String::from_utf8_lossy(&output.stdout))?;
    let mut programs = BTreeMap::new();
    fresh_dir(dir)?;
    for name in TESTS.iter().chain(&[DAEMON, TOOL]) {
        let path = built
            .remove(*name)
            .with_context(|| format!("cargo has not built {name}"))?;
        let stripped = dir.join(name);
        let strip = Command::new("strip")
            .args(["--strip-debug", "-o"])
            .args([&stripped, &path])
            .status()
            .context("strip cannot be run")?;
        ensure!(strip.success(), "{name} cannot be stripped");
        programs.insert((*name).to_owned(), Program { path, stripped });
    }
    Ok(programs)
}

/// The programs that cargo tells of, one JSON document a line.
fn executables(messages: &str) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut programs = BTreeMap::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).context("cargo's message")?;
        if let (Some(name), Some(path)) = (
            message["target"]["name"].as_str(),
            message["executable"].as_str(),
        ) {
            programs.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    Ok(programs)
}

/// Where a tool of this machine is.
pub fn tool(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// The libraries that a program loads, the loader among them.
pub fn libraries(program: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("ldd cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if text.contains("not found") {
        bail!("{} lacks libraries: {text}", program.display());
    }
    Ok(text
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(PathBuf::from)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"aya"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"e2e"},"executable":"/target/release/deps/e2e-1"}
{"reason":"build-finished","success":true}"#;
        let programs = executables(messages).expect("they are documents");
        assert_eq!(programs.len(), 1);
        assert_eq!(programs["e2e"], Path::new("/target/release/deps/e2e-1"));
    }
}
