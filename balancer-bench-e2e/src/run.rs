//! A run: every sample, in an order that favours nobody.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};
use balancer_lab::Lab;
use indicatif::{ProgressBar, ProgressStyle};

use crate::contender::Contender;
use crate::cpus::Cpus;
use crate::daemon::Binaries;
use crate::interrupt;
use crate::machine;
use crate::measure::{Bench, Case, Measurement};
use crate::results::{Results, SCHEMA, SPREAD};

/// How often each sample is taken.
const REPEATS: u32 = 5;
/// The same, when it has to be quick.
const QUICK: u32 = 3;

/// What to run.
pub struct Options<'a> {
    /// Fewer and shorter samples.
    pub quick: bool,
    /// Only these; none: all.
    pub only: &'a [Measurement],
    /// The release.
    pub binaries: Binaries,
    /// The checkout that it was built from.
    pub root: &'a Path,
}

/// Takes all samples.
pub fn run(options: &Options<'_>) -> anyhow::Result<Results> {
    use clap::ValueEnum as _;
    if let Err(reason) = Lab::available() {
        bail!("the benches make network namespaces and load programs: {reason}");
    }
    let started = Instant::now();
    let cpus = Cpus::take()?;
    let mut results = Results {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        commit: machine::commit(options.root),
        command: command(options),
        started: SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)?
            .as_secs(),
        took: 0,
        repeats: if options.quick { QUICK } else { REPEATS },
        spread: SPREAD,
        disturbed: 0,
        machine: machine::describe(cpus),
        left_out: Vec::new(),
        figures: Vec::new(),
    };
    let bench = Bench {
        binaries: options.binaries.clone(),
        cpus,
        quick: options.quick,
    };
    let all = Measurement::value_variants();
    let wanted: Vec<_> = all
        .iter()
        .copied()
        .filter(|one| options.only.is_empty() || options.only.contains(one))
        .collect();
    let present = present(&mut results.left_out);
    let mut plan = Vec::new();
    for measurement in wanted {
        let missing: Vec<_> = measurement
            .tools()
            .iter()
            .filter(|tool| !machine::has(tool))
            .collect();
        if let Some(tool) = missing.first() {
            let line = format!("{}: {tool} is not installed", name(measurement));
            leave_out(&mut results.left_out, line);
            continue;
        }
        let cases: Vec<_> = measurement
            .cases()
            .into_iter()
            .filter(|(contender, _)| present.contains(contender))
            .collect();
        plan.push((measurement, cases));
    }
    let samples: usize = plan.iter().map(|(_, cases)| cases.len()).sum();
    let bar = ProgressBar::new(samples as u64 * u64::from(results.repeats));
    bar.set_style(ProgressStyle::with_template(
        "{bar:30} {pos}/{len} {elapsed} (about {eta} left) {msg}",
    )?);
    bar.enable_steady_tick(Duration::from_millis(250));
    for (measurement, cases) in plan {
        let mut figures = measurement.figures();
        for repeat in 0..results.repeats {
            for &case in &order(&cases, repeat) {
                interrupt::go_on()?;
                bar.set_message(describe(measurement, case));
                if !cpus.settle()? {
                    results.disturbed += 1;
                }
                let values = measurement
                    .sample(&bench, case)
                    .with_context(|| describe(measurement, case))?;
                for (index, at, value) in values {
                    if let Some(figure) = figures.get_mut(index) {
                        figure.push(case.0, at, value);
                    }
                }
                bar.inc(1);
            }
        }
        figures
            .iter_mut()
            .for_each(crate::results::Figure::conclude);
        results.figures.extend(figures);
    }
    bar.finish_and_clear();
    results.took = started.elapsed().as_secs();
    Ok(results)
}

/// Forwards and backwards in turn: what comes later in a repeat is no better or worse off.
fn order(cases: &[Case], repeat: u32) -> Vec<Case> {
    let mut cases = cases.to_vec();
    if repeat % 2 == 1 {
        cases.reverse();
    }
    cases
}

/// The contenders whose programs are there.
fn present(left_out: &mut Vec<String>) -> Vec<Contender> {
    let mut present = Contender::AND_FLOOR.to_vec();
    present.retain(|contender| match contender.tool() {
        Some((tool, _)) if !machine::has(tool) => {
            leave_out(left_out, format!("{contender}: {tool} is not installed"));
            false
        }
        _ => true,
    });
    present
}

fn leave_out(left_out: &mut Vec<String>, line: String) {
    eprintln!("left out: {line}");
    left_out.push(line);
}

fn name(measurement: Measurement) -> String {
    use clap::ValueEnum as _;
    let value = measurement.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn describe(measurement: Measurement, (contender, at): Case) -> String {
    let parameter = if at == 0 {
        String::new()
    } else {
        format!(", {at}")
    };
    format!("{}: {contender}{parameter}", name(measurement))
}

/// The command line that a user types for this.
fn command(options: &Options<'_>) -> String {
    let mut line = "cargo xtask bench".to_owned();
    if options.quick {
        line += " --quick";
    }
    if !options.only.is_empty() {
        line += " --only";
        for &measurement in options.only {
            line += " ";
            line += &name(measurement);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_alternates() {
        let cases = [(Contender::Balancerd, 1), (Contender::Nft, 1)];
        assert_eq!(order(&cases, 0), cases);
        assert_eq!(order(&cases, 1), [cases[1], cases[0]]);
    }
}
