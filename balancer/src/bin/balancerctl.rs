//! The operator's tool; all of it is in `balancer::ctl`.

use std::path::Path;
use std::process::ExitCode;

use balancer::datapath::pins::Pins;

fn main() -> ExitCode {
    balancer::ctl::main(detach)
}

fn detach(pin_path: &Path) -> anyhow::Result<Vec<String>> {
    if !pin_path.exists() {
        return Ok(Vec::new());
    }
    Ok(Pins::open(pin_path)?.remove()?)
}
