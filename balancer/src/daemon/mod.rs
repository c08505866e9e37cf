//! balancerd: one task for each concern.
//!
//! | module | concern |
//! | --- | --- |
//! | `tables` | the only writer of maps: configuration, image, attached interfaces |
//! | `paths` | ways to backends, followed by netlink |
//! | `sweeper` | idle connections |
//! | `supervisor` | workers of engine `userspace` that have died |
//! | `reload` | reading the configuration again |
//! | `requests`, `report` | the control socket |
//! | `preflight`, `surroundings` | whether the machine, and the box around it, are fit |

pub mod args;
pub mod overrides;
pub mod paths;
pub mod preflight;
pub mod reload;
pub mod report;
pub mod requests;
pub mod shared;
mod start;
pub mod supervisor;
pub mod surroundings;
pub mod sweeper;
pub mod tables;

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use self::args::Args;
use self::reload::ReadError;
use crate::chain::chain;
use crate::config::{self, Config, Rendering};

/// The whole program: reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    if args.schema {
        return print(&format!("{:#}\n", config::schema()));
    }
    // The command line has one or the other.
    let path = args.config.unwrap_or_default();
    let Some(config) = read(&path) else {
        return ExitCode::FAILURE;
    };
    if args.check {
        return print(&format!("{}: valid\n", path.display()));
    }
    log();
    match start::run(&path, config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("balancerd: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output; that nobody reads it to its end is not an error.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("balancerd: standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Reads the configuration, or says what is wrong with it.
fn read(path: &Path) -> Option<Config> {
    let rendering = if std::io::stderr().is_terminal() {
        Rendering::Colour
    } else {
        Rendering::Plain
    };
    match reload::read(path) {
        Ok(config) => return Some(config),
        Err(ReadError::Wrong(errors)) => {
            eprint!("{}", errors.render(rendering));
            eprintln!("balancerd: {errors}");
        }
        Err(error) => eprintln!("balancerd: {error}"),
    }
    None
}

/// Logs to standard error, from level info on unless `RUST_LOG` says otherwise.
fn log() {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
