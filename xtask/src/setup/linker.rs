//! `bpf-linker`, and a proof that it works.

use std::{fs, path::Path, process::Command};

use anyhow::Context as _;
use balancer_build::{LINKER_VERSION, Toolchain, find_linker, local_linker};

use crate::{
    progress::Step,
    run,
    setup::{fresh_dir, remove_dir},
    workspace::Workspace,
};

/// Makes sure of a linker that links what this compiler makes.
pub fn ensure(workspace: &Workspace, toolchain: &Toolchain) -> anyhow::Result<()> {
    let tools = workspace.tools_dir();
    let mut step = Step::start("bpf-linker");
    if let Some(linker) = find_linker(&tools, toolchain) {
        match links(&linker, &tools, toolchain) {
            Ok(()) => {
                let local = linker == local_linker(&tools);
                step.done(if local { "in target/tools" } else { "on PATH" });
                return Ok(());
            }
            Err(error) => step.say(&format!("the one that is there does not link: {error:#}")),
        }
    }
    install(&mut step, workspace, toolchain)?;
    links(&local_linker(&tools), &tools, toolchain)
        .context("bpf-linker was installed, but it does not link")?;
    step.done(&format!("{LINKER_VERSION} installed in target/tools"));
    Ok(())
}

/// Compiles it with the compiler in use, whose LLVM it loads when it runs.
fn install(step: &mut Step, workspace: &Workspace, toolchain: &Toolchain) -> anyhow::Result<()> {
    step.say(&format!(
        "compiling bpf-linker {LINKER_VERSION}, one to three minutes"
    ));
    let tools = workspace.tools_dir();
    let root = tools.join("incoming/bpf-linker");
    // Kept while the installation is not finished: the next one goes on where it broke off.
    let build = tools.join("incoming/bpf-linker-build");
    fresh_dir(&root)?;
    let mut cargo = workspace.cargo(["install", "bpf-linker", "--locked", "--force"]);
    cargo
        .args(["--version", LINKER_VERSION, "--root"])
        .arg(&root)
        .arg("--target-dir")
        .arg(&build)
        .env("RUSTC", &toolchain.rustc)
        .env("CARGO_NET_RETRY", "2")
        .env("CARGO_TERM_PROGRESS_WHEN", "never")
        // It runs on this machine, whatever the user compiles for.
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    run::in_step(step, &mut cargo)?;
    let place = local_linker(&tools);
    let bin = place
        .parent()
        .context("the tools directory has no parent")?;
    fs::create_dir_all(bin).with_context(|| format!("cannot create {}", bin.display()))?;
    fs::rename(root.join("bin/bpf-linker"), &place)
        .with_context(|| format!("cannot move bpf-linker to {}", place.display()))?;
    remove_dir(&root)?;
    remove_dir(&build)
}

/// Compiles and links an empty program: a linker with another LLVM than the compiler's, or with none, fails in it.
fn links(linker: &Path, tools: &Path, toolchain: &Toolchain) -> anyhow::Result<()> {
    let dir = tools.join("incoming/probe");
    fresh_dir(&dir)?;
    let source = dir.join("probe.rs");
    fs::write(&source, "#![feature(no_core)]\n#![no_core]\n")?;
    let output = Command::new(&toolchain.rustc)
        .args(["--edition=2024", "--crate-type=cdylib", "-Cpanic=abort"])
        .args(["--target=bpfel-unknown-none", "-Ctarget-cpu=v3"])
        .arg(format!("-Clinker={}", linker.display()))
        .arg("--out-dir")
        .arg(&dir)
        .arg(&source)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("LD_LIBRARY_PATH", toolchain.library_path())
        .output()
        .context("rustc cannot be run")?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.success(), "{}", message.trim_end());
    remove_dir(&dir)
}
