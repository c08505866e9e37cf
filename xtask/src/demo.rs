//! `cargo xtask demo`.

use anyhow::bail;
use clap::Args;

use crate::{run, setup, workspace::Workspace};

/// The demo's options.
#[derive(Debug, Default, Args)]
pub struct DemoArgs {
    /// Leave the demo's network namespaces and programs running at the end
    #[arg(long)]
    keep: bool,
}

/// Runs setup, builds the release, then shows it at work.
pub fn demo(workspace: &Workspace, args: &DemoArgs) -> anyhow::Result<()> {
    setup::setup(workspace)?;
    run::timed(
        "release build",
        &mut workspace.cargo(["build", "--release", "--package", "balancer"]),
    )?;
    let DemoArgs { keep: _ } = args;
    bail!("the demo is not built yet")
}
