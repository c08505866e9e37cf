//! `cargo xtask lint`: formatting, lints and documentation, all without a remark.

use balancer_build::{BpfTarget, ebpf_cargo, ebpf_target_dir, find_tools};

use crate::{run::timed, setup, workspace::Workspace};

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
