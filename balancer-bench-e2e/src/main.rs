//! Measures balancerd end to end, beside its peers; `cargo xtask bench` builds the release and runs this.
#![allow(
    clippy::cast_precision_loss,
    reason = "counts, bytes and nanoseconds here are far below 2^53"
)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that unwraps in vain has failed")
)]

mod contender;
mod cpus;
mod daemon;
mod ends;
mod flood;
mod frame;
mod interrupt;
mod machine;
mod measure;
mod plan;
mod plot;
mod results;
mod run;
mod site;
mod table;
mod wrk;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use crate::daemon::Binaries;
use crate::measure::Measurement;
use crate::results::Results;

/// Measures balancerd end to end, beside its peers.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", version)]
struct Cli {
    /// Fewer and shorter samples
    #[arg(long)]
    quick: bool,
    /// Only these
    #[arg(long, value_enum, value_name = "NAME", num_args = 1..)]
    only: Vec<Measurement>,
    /// Where the results go: results.json, results.md and a plot for each figure
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where balancerd and balancerctl are
    #[arg(long, value_name = "DIR")]
    binaries: PathBuf,
    /// The checkout that they were built from
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
}

fn main() -> ExitCode {
    match bench(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(cli: &Cli) -> anyhow::Result<()> {
    interrupt::listen()?;
    let binaries = Binaries {
        directory: cli.binaries.clone(),
    };
    let results = run::run(&run::Options {
        quick: cli.quick,
        only: &cli.only,
        binaries,
        root: &cli.root,
    })?;
    write(&results, &cli.out)?;
    println!("{}", table::table(&results, &[]));
    println!("written to {}", cli.out.display());
    Ok(())
}

/// Writes all forms of the results into a folder.
fn write(results: &Results, out: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let mut plots = Vec::new();
    for figure in results
        .figures
        .iter()
        .filter(|figure| plot::worthwhile(figure))
    {
        let name = format!("{}.svg", figure.name);
        plot::plot(figure, &out.join(&name))?;
        plots.push((figure.name.clone(), name));
    }
    let json = serde_json::to_string_pretty(results)? + "\n";
    fs::write(out.join("results.json"), json)?;
    fs::write(out.join("results.md"), table::table(results, &plots))?;
    Ok(())
}
