//! The operator's tool; all of it is in `balancer::ctl`.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    balancer::ctl::main(detach)
}

fn detach(_pin_path: &Path) -> anyhow::Result<Vec<String>> {
    anyhow::bail!("detach is not built yet")
}
