//! Which integration tests need root.

use std::fs;

use anyhow::Context as _;

use crate::workspace::Workspace;

/// The line, in the documentation at the top of a file in `tests/`, by which it says so.
const NEEDS_ROOT: &str = "//! Needs root.";

/// The integration tests of the workspace by name, sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Those that anybody can run.
    pub unprivileged: Vec<String>,
    /// Those that make namespaces or load programs.
    pub root: Vec<String>,
    /// There is a test `verifier`, which needs root too and runs last, with its output shown.
    pub verifier: bool,
}

impl Plan {
    /// Reads the first lines of `*/tests/*.rs` and `*/tests/*/main.rs`.
    pub fn of(workspace: &Workspace) -> anyhow::Result<Self> {
        let mut plan = Self::default();
        let packages = fs::read_dir(&workspace.root).context("the workspace cannot be read")?;
        for package in packages.filter_map(Result::ok) {
            let Ok(tests) = fs::read_dir(package.path().join("tests")) else {
                continue;
            };
            for test in tests.filter_map(Result::ok) {
                let named = test.path();
                let main = named.join("main.rs");
                let path = if main.is_file() { &main } else { &named };
                if path.extension().is_some_and(|extension| extension == "rs") {
                    let source = fs::read_to_string(path)
                        .with_context(|| format!("{} cannot be read", path.display()))?;
                    let name = named.file_stem().unwrap_or_default().to_string_lossy();
                    plan.add(&name, &source);
                }
            }
        }
        plan.unprivileged.sort();
        plan.root.sort();
        Ok(plan)
    }

    fn add(&mut self, name: &str, source: &str) {
        if name == "verifier" {
            self.verifier = true;
            return;
        }
        let needs_root = source
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .any(|line| line.trim_end() == NEEDS_ROOT);
        let tests = if needs_root {
            &mut self.root
        } else {
            &mut self.unprivileged
        };
        tests.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_says_itself_that_it_needs_root() {
        let mut plan = Plan::default();
        plan.add("config", "//! The examples parse.\nuse std::fs;\n");
        plan.add(
            "netns",
            "//! End to end.\n//!\n//! Needs root.\nuse std::fs;\n",
        );
        plan.add("late", "use std::fs;\n//! Needs root.\n");
        plan.add("verifier", "");
        assert_eq!(
            plan,
            Plan {
                unprivileged: vec!["config".to_owned(), "late".to_owned()],
                root: vec!["netns".to_owned()],
                verifier: true,
            }
        );
    }
}
