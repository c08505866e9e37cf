//! Compiles the wrapper that restores packets; `BALANCER_RESTORE_OBJECT` is its path.

use std::process::ExitCode;

fn main() -> ExitCode {
    balancer_build::build_script("restore", "BALANCER_RESTORE_OBJECT")
}
