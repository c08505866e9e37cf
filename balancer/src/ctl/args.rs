//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::control::DEFAULT_SOCKET;
use crate::control::protocol::DEFAULT_CONNECTION_LIMIT;

/// Where the daemon pins its programs and maps unless its configuration says otherwise.
const DEFAULT_PIN_PATH: &str = "/sys/fs/bpf/balancerd";

/// The exit statuses, for the help and the manual page.
pub(super) const EXIT_STATUS: &str =
    "0 done, 1 an error, 2 wrong usage. Errors go to standard error.";

/// Looks at and controls balancerd, the L4 load balancer
#[derive(Debug, Parser)]
#[command(
    name = "balancerctl",
    version,
    after_help = format!("Exit status: {EXIT_STATUS}")
)]
pub struct Cli {
    /// The daemon's control socket
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub socket: PathBuf,

    /// Print a versioned JSON document instead of text
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show engine, interfaces, uptime, generation, last reload, table fill and pressure
    Status,
    /// Show services and backends: state, weight, connections, packets and bytes each way
    Services,
    /// Show live connections: both tuples, state, age, idle time, bytes
    Connections {
        /// Only those of this service
        #[arg(long)]
        service: Option<String>,
        /// Only those on the backend of this address
        #[arg(long, value_name = "ADDRESS:PORT")]
        backend: Option<String>,
        /// Show at most so many; 0: all
        #[arg(long, value_name = "N", default_value_t = DEFAULT_CONNECTION_LIMIT)]
        limit: u64,
    },
    /// Give a backend no new connections; known ones stay
    Drain {
        /// Which backend.
        #[command(flatten)]
        backend: BackendName,
        /// Return when its last connection has ended
        #[arg(long)]
        wait: bool,
        /// Wait at most so long, "90s" or "1h30m"; the backend stays drained
        #[arg(long, value_name = "DURATION", requires = "wait", value_parser = humantime::parse_duration)]
        timeout: Option<Duration>,
    },
    /// Give a drained backend new connections again
    Undrain {
        /// Which backend.
        #[command(flatten)]
        backend: BackendName,
    },
    /// Change the weight of a backend
    Weight {
        /// Which backend.
        #[command(flatten)]
        backend: BackendName,
        /// The new weight, 0 to 65535; 0: no new connections
        weight: u16,
    },
    /// Read the configuration file again and apply the difference
    Reload {
        /// Show the difference, apply nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Show dropped packets by reason
    Drops,
    /// Forget state
    #[command(subcommand)]
    Flush(Flush),
    /// Take programs and pins away when no daemon runs
    Detach {
        /// The daemon's pin path
        #[arg(long, value_name = "PATH", default_value = DEFAULT_PIN_PATH)]
        pin_path: PathBuf,
    },
    /// Print the completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page
    Man,
}

/// A backend, named as `services` shows it.
#[derive(Debug, Args)]
pub struct BackendName {
    /// Name of the service
    pub service: String,
    /// Address of the backend, as `services` shows it
    #[arg(value_name = "ADDRESS:PORT")]
    pub backend: String,
}

/// What to forget.
#[derive(Debug, Subcommand)]
pub enum Flush {
    /// Forget connections
    Connections {
        /// Only those of this service
        #[arg(long)]
        service: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn clap_finds_nothing_wrong() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_and_after_the_command() {
        for line in [
            "balancerctl --json --socket /s status",
            "balancerctl status --json --socket /s",
        ] {
            let cli = parse(line).unwrap();
            assert!(cli.json, "{line}");
            assert_eq!(cli.socket, PathBuf::from("/s"), "{line}");
        }
        assert_eq!(
            parse("balancerctl status").unwrap().socket,
            PathBuf::from(DEFAULT_SOCKET)
        );
    }

    #[test]
    fn wrong_usage_is_refused() {
        let cases = [
            "balancerctl",
            "balancerctl stauts",
            "balancerctl drain web",
            "balancerctl drain web 10.0.0.3:80 --timeout 1s",
            "balancerctl drain web 10.0.0.3:80 --wait --timeout soon",
            "balancerctl weight web 10.0.0.3:80 65536",
            "balancerctl weight web 10.0.0.3:80 -1",
            "balancerctl flush",
            "balancerctl completions tcsh",
        ];
        for line in cases {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
