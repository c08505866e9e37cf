//! What a task tells the user while it works: a spinner on a terminal, plain lines elsewhere.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// How often a step says in plain lines that it still works.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// One step of a task, with its clock.
#[derive(Debug)]
pub struct Step {
    name: String,
    started: Instant,
    told: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Begins a step.
    pub fn start(name: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_prefix(name.to_owned());
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix}  {elapsed} {wide_msg:.dim}")
            {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self {
            name: name.to_owned(),
            started: Instant::now(),
            told: Instant::now(),
            bar,
        }
    }

    /// Says what begins now.
    pub fn say(&mut self, what: &str) {
        self.told = Instant::now();
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        } else {
            eprintln!(".. {}: {what}", self.name);
        }
    }

    /// Shows a line of a program's output: at once on a terminal, as a sign of life elsewhere.
    pub fn show(&mut self, line: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(line.trim().to_owned());
        } else if self.told.elapsed() > HEARTBEAT {
            self.told = Instant::now();
            let elapsed = self.started.elapsed().as_secs();
            eprintln!(".. {}: {elapsed} s, {}", self.name, line.trim());
        }
    }

    /// Ends the step well.
    pub fn done(self, outcome: &str) {
        self.end("ok", outcome);
    }

    /// Ends the step with something left out.
    pub fn left_out(self, outcome: &str) {
        self.end("--", outcome);
    }

    /// Ends the step badly; others follow.
    pub fn failed(self, outcome: &str) {
        self.end("!!", outcome);
    }

    fn end(self, mark: &str, outcome: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let elapsed = self.started.elapsed().as_secs_f32();
        eprintln!("{mark} {}: {outcome} ({elapsed:.1} s)", self.name);
    }
}

impl Drop for Step {
    /// A step that failed leaves no spinner behind.
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
