//! `cargo xtask lint`: formatting, lints and documentation, all without a remark.

use std::{fs, process::Command};

use anyhow::Context as _;
use balancer_build::{BpfTarget, ebpf_cargo, ebpf_target_dir, find_tools};

use crate::{
    run::timed,
    setup,
    workspace::{Workspace, is_installed},
};

/// The shell scripts.
const SCRIPTS: &str = "benches/pktgen";

/// Runs every check that needs no test.
pub fn lint(workspace: &Workspace) -> anyhow::Result<()> {
    let ebpf = workspace.ebpf_manifest();
    timed(
        "formatting",
        &mut workspace.cargo(["fmt", "--all", "--check"]),
    )?;
    timed(
        "formatting of the XDP program",
        workspace
            .cargo(["fmt", "--check", "--manifest-path"])
            .arg(&ebpf),
    )?;
    // The lints of `balancer` run its build script.
    setup::setup(workspace)?;
    timed(
        "lints",
        &mut workspace.cargo([
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "-Dwarnings",
        ]),
    )?;
    let tools = find_tools(&workspace.tools_dir())?;
    let target = BpfTarget::host();
    let target_dir = ebpf_target_dir(&workspace.target_dir(), &target);
    timed(
        "lints of the XDP program",
        ebpf_cargo(&tools, &target, "clippy", &ebpf, &target_dir).args([
            "--locked",
            "--",
            "-Dwarnings",
        ]),
    )?;
    scripts(workspace)?;
    timed(
        "documentation",
        workspace
            .cargo([
                "doc",
                "--locked",
                "--no-deps",
                "--workspace",
                "--document-private-items",
            ])
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )
}

/// Has shellcheck read every shell script, where there is one.
fn scripts(workspace: &Workspace) -> anyhow::Result<()> {
    if !is_installed("shellcheck") {
        eprintln!("left out: lints of {SCRIPTS}, since there is no shellcheck");
        return Ok(());
    }
    let folder = workspace.root.join(SCRIPTS);
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sh") {
            files.push(path);
        }
    }
    files.sort();
    timed(
        "lints of the scripts",
        Command::new("shellcheck")
            .arg("--external-sources")
            .args(files)
            .current_dir(folder),
    )
}
