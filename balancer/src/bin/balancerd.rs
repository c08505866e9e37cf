//! The daemon; all of it is in `balancer::daemon`.

use std::process::ExitCode;

fn main() -> ExitCode {
    balancer::daemon::main()
}
