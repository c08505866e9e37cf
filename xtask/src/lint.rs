//! `cargo xtask lint`: formatting, lints and documentation, all without a remark.

use std::{fs, process::Command};

use anyhow::Context as _;
use balancer_build::{BpfTarget, ebpf_cargo, ebpf_target_dir, find_tools};

use crate::{
    run::timed,
    setup,
    workspace::{Workspace, is_installed},
};

/// The folders of shell scripts.
const SCRIPTS: [&str; 2] = ["benches/pktgen", "xtask/src/kernels"];

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
    // The second run finds all but the fuzz targets checked.
    for (what, features) in [
        ("lints", ""),
        ("lints under libFuzzer", "balancer-fuzz/libfuzzer"),
    ] {
        timed(
            what,
            &mut workspace.cargo([
                "clippy",
                "--locked",
                "--workspace",
                "--all-targets",
                "--features",
                features,
                "--",
                "-Dwarnings",
            ]),
        )?;
    }
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
        let folders = SCRIPTS.join(" and ");
        eprintln!("left out: lints of {folders}, since there is no shellcheck");
        return Ok(());
    }
    for folder in SCRIPTS {
        let path = workspace.root.join(folder);
        let mut files = Vec::new();
        for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "sh") {
                files.push(file);
            }
        }
        files.sort();
        timed(
            &format!("lints of the scripts in {folder}"),
            Command::new("shellcheck")
                .arg("--external-sources")
                .args(files)
                .current_dir(path),
        )?;
    }
    Ok(())
}
