//! The command line of `balancerd`.

use std::path::PathBuf;

use clap::{ArgGroup, Parser};

/// An L4 load balancer in XDP.
///
/// SIGHUP reads the configuration again; known connections stay on their backends. SIGTERM and SIGINT end the
/// daemon; whether it leaves forwarding on is `daemon.on_exit` of the configuration.
#[derive(Debug, Parser)]
#[command(name = "balancerd", version, group(ArgGroup::new("what").required(true)))]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE", group = "what")]
    pub config: Option<PathBuf>,
    /// Only check the configuration; needs no privilege
    #[arg(long, requires = "config")]
    pub check: bool,
    /// Print the JSON schema of the configuration file
    #[arg(long, group = "what")]
    pub schema: bool,
}
