//! What a guest told.

use std::collections::BTreeMap;

/// A guest's output, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What its kernel calls itself; nothing when it never got so far.
    pub release: Option<String>,
    /// The steps that ended.
    pub steps: Vec<Outcome>,
    /// Whether the plan was run to its end.
    pub is_done: bool,
    /// Instructions that the verifier processed, by `flow_lookup`.
    pub verified: BTreeMap<String, u32>,
}

/// How a step ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Its exit status.
    pub status: i32,
    /// Tests that passed.
    pub passed: u32,
}

impl Report {
    /// Reads the output.
    pub fn read(output: &str) -> Self {
        let mut report = Self::default();
        let mut passed = 0;
        for line in output.lines().map(str::trim_end) {
            if let Some(release) = line.strip_prefix("BOOTED ") {
                report.release = Some(release.to_owned());
            } else if line.starts_with("STEP ") {
                passed = 0;
            } else if let Some((status, name)) = line
                .strip_prefix("STATUS ")
                .and_then(|rest| rest.split_once(' '))
            {
                report.steps.push(Outcome {
                    name: name.to_owned(),
                    status: status.parse().unwrap_or(-1),
                    passed,
                });
            } else if let Some(count) = line
                .strip_prefix("test result: ok. ")
                .and_then(|rest| rest.split_once(" passed"))
            {
                passed += count.0.parse::<u32>().unwrap_or(0);
            } else if let Some((lookup, count)) = verified(line) {
                // The larger of the programs counts.
                let most = report.verified.entry(lookup).or_default();
                *most = count.max(*most);
            } else if line == "DONE" {
                report.is_done = true;
            }
        }
        report
    }

    /// Tests that passed, in all steps.
    pub fn passed(&self) -> u32 {
        self.steps.iter().map(|step| step.passed).sum()
    }

    /// What is wrong: steps of the plan that failed, or never ended, or passed fewer tests than they have; and
    /// instructions over the budget.
    pub fn complaints(&self, plan: &[(&str, u32)], budget: &[(&str, u32)]) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.release.is_none() {
            complaints.push("the kernel did not start its first process".to_owned());
        }
        for (name, tests) in plan {
            match self.steps.iter().find(|step| step.name == *name) {
                None => complaints.push(format!("{name} did not end")),
                Some(step) if step.status != 0 => {
                    complaints.push(format!("{name} failed (exit status {})", step.status));
                }
                Some(step) if step.passed < *tests => {
                    complaints.push(format!("{name} passed {} tests, not {tests}", step.passed));
                }
                Some(_) => {}
            }
        }
        if !self.is_done {
            complaints.push("the plan was not run to its end".to_owned());
        }
        for (lookup, most) in budget {
            match self.verified.get(*lookup) {
                None => complaints.push(format!(
                    "nothing is known of the instructions with flow_lookup = \"{lookup}\""
                )),
                Some(count) if count > most => complaints.push(format!(
                    "{count} instructions verified with flow_lookup = \"{lookup}\", {most} budgeted"
                )),
                Some(_) => {}
            }
        }
        complaints
    }
}

/// What the test `verifier` prints: `XDP program NAME, flow_lookup = "table": 123 instructions verified`.
fn verified(line: &str) -> Option<(String, u32)> {
    let (_, rest) = line.split_once("flow_lookup = \"")?;
    let (lookup, rest) = rest.split_once("\": ")?;
    let (count, _) = rest.split_once(" instructions verified")?;
    Some((lookup.to_owned(), count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "BOOTED 6.1.0\r
STEP verifier\r
XDP program balancer, flow_lookup = \"table\": 4000 instructions verified (budget 100000)\r
XDP program fragments, flow_lookup = \"table\": 3000 instructions verified (budget 100000), bytes of stack\r
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.0s\r
STATUS 0 verifier\r
STEP vectors\r
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.0s\r
STATUS 0 vectors\r
DONE\r
";

    #[test]
    fn a_good_run_has_no_complaints() {
        let report = Report::read(OUTPUT);
        assert_eq!(report.release.as_deref(), Some("6.1.0"));
        assert_eq!(report.passed(), 3);
        let plan = [("verifier", 1), ("vectors", 2)];
        assert_eq!(
            report.complaints(&plan, &[("table", 4000)]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_is_missing_is_a_complaint() {
        let broken = OUTPUT
            .replace("STATUS 0 vectors", "STATUS 101 vectors")
            .replace("DONE", "");
        let plan = [("verifier", 2), ("vectors", 2), ("e2e", 1)];
        let budget = [("table", 3999), ("hash", 3999)];
        let expected = [
            "verifier passed 1 tests, not 2",
            "vectors failed (exit status 101)",
            "e2e did not end",
            "the plan was not run to its end",
            "4000 instructions verified with flow_lookup = \"table\", 3999 budgeted",
            "nothing is known of the instructions with flow_lookup = \"hash\"",
        ];
        assert_eq!(Report::read(&broken).complaints(&plan, &budget), expected);
        assert_eq!(
            Report::read("").complaints(&[], &[]),
            [
                "the kernel did not start its first process",
                "the plan was not run to its end"
            ]
        );
    }
}
