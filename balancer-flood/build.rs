//! Compiles the generator's programs; `BALANCER_FLOOD_OBJECT` is the path of their object.

use std::process::ExitCode;

fn main() -> ExitCode {
    balancer_build::build_script("flood", "BALANCER_FLOOD_OBJECT")
}
