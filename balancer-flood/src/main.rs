//! `balancer-flood`: sends a scenario's packets, or counts those that come.

use std::fs;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use balancer_flood::{Interface, Receiver, Scenario, Sender};
use clap::Parser;
use miette::{Context as _, IntoDiagnostic as _};
use serde::Serialize;

/// Sends packets out of an interface as a scenario says, or counts those that come in by one. Needs root
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// The interface
    #[arg(long, value_name = "DEV")]
    interface: String,
    /// What to send
    #[arg(
        value_name = "SCENARIO.toml",
        required_unless_present = "receive",
        conflicts_with = "receive"
    )]
    scenario: Option<PathBuf>,
    /// Count TCP and UDP packets that come in, and drop them
    #[arg(long, requires = "time")]
    receive: bool,
    /// How long to count
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, requires = "receive")]
    time: Option<Duration>,
    /// Count only packets to this port; others pass
    #[arg(long, requires = "receive")]
    port: Option<u16>,
    /// End after so many packets: instead of the scenario's `count`
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// End after so long: instead of the scenario's `duration`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "receive")]
    duration: Option<Duration>,
    /// Packets a second, instead of the scenario's `rate`; 0: as many as can be
    #[arg(long, value_name = "R", conflicts_with = "receive")]
    rate: Option<u64>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Whether the user wants to end.
static STOP: AtomicBool = AtomicBool::new(false);

fn main() -> miette::Result<()> {
    let cli = Cli::parse();
    ctrlc::set_handler(|| STOP.store(true, Ordering::Relaxed)).into_diagnostic()?;
    match (&cli.scenario, cli.time) {
        (Some(file), _) => {
            let scenario = scenario(&cli, file)?;
            let interface = Interface::find(&cli.interface).into_diagnostic()?;
            let mut sender = Sender::new(&interface, &scenario).into_diagnostic()?;
            print(&sender.send(&STOP).into_diagnostic()?, cli.json)
        }
        (None, time) => {
            let interface = Interface::find(&cli.interface).into_diagnostic()?;
            let receiver = Receiver::attach(&interface, cli.port).into_diagnostic()?;
            // For who starts a sender next.
            eprintln!("counting on {}", interface.name);
            let count = cli.count.map(NonZeroU64::get);
            let report = receiver.receive(time.unwrap_or_default(), count, &STOP);
            print(&report.into_diagnostic()?, cli.json)
        }
    }
}

/// The file's scenario, with what the command line says instead.
fn scenario(cli: &Cli, file: &PathBuf) -> miette::Result<Scenario> {
    let name = file.display().to_string();
    let text = fs::read_to_string(file)
        .into_diagnostic()
        .wrap_err_with(|| format!("{name} cannot be read"))?;
    let mut scenario = Scenario::parse(&name, &text).map_err(|error| *error)?;
    scenario.count = cli.count.or(scenario.count);
    scenario.duration = cli.duration.or(scenario.duration);
    if let Some(rate) = cli.rate {
        scenario.rate = NonZeroU64::new(rate);
    }
    Ok(scenario)
}

fn print<T: Serialize + std::fmt::Display>(report: &T, json: bool) -> miette::Result<()> {
    if json {
        println!("{}", serde_json::to_string(report).into_diagnostic()?);
    } else {
        println!("{report}");
    }
    Ok(())
}
