//! Compiles the far ends; `BALANCER_ENDS_OBJECT` is their path.

use std::process::ExitCode;

fn main() -> ExitCode {
    balancer_build::build_script("ends", "BALANCER_ENDS_OBJECT")
}
