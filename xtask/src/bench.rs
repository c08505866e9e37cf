//! `cargo xtask bench`.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Args;

use crate::test::privilege;
use crate::{run, setup, workspace::Workspace};

/// Where the results go.
const OUT: &str = "docs/benchmarks";

/// The options of the benches.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Fewer and shorter samples: within ten minutes
    #[arg(long)]
    quick: bool,
    /// Only these; a wrong name tells all
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// Where the results go [default: docs/benchmarks]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs setup, builds the release, then measures it.
pub fn bench(workspace: &Workspace, args: &BenchArgs) -> anyhow::Result<()> {
    if let Some(reason) = privilege::missing() {
        bail!("the benches make network namespaces and load programs, which needs root ({reason})");
    }
    setup::setup(workspace)?;
    let packages = ["balancer", "balancer-bench-e2e", "balancer-flood"];
    run::timed(
        "release build",
        workspace
            .cargo(["build", "--release"])
            .args(packages.map(|package| format!("--package={package}"))),
    )?;
    let release = workspace.target_dir().join("release");
    let mut command = Command::new(release.join("balancer-bench-e2e"));
    command
        .arg("--binaries")
        .arg(&release)
        .arg("--root")
        .arg(&workspace.root)
        .arg("--out")
        .arg(args.out.clone().unwrap_or_else(|| workspace.root.join(OUT)));
    if args.quick {
        command.arg("--quick");
    }
    if !args.only.is_empty() {
        command.arg("--only").args(&args.only);
    }
    // It takes this one's place: signals reach what has to take everything away.
    let error = command.exec();
    Err(error).with_context(|| command.get_program().to_string_lossy().into_owned())
}
