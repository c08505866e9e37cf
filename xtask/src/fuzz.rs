//! `cargo xtask fuzz`: the fuzz targets under libFuzzer, guided by what code an input reaches.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use anyhow::{Context as _, bail, ensure};
use balancer_build::Toolchain;
use clap::Args;

use crate::{run, setup, workspace::Workspace};

/// Coverage as libFuzzer wants it, which the compiler has without unstable options; numbers that overflow are errors.
const RUSTFLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions";

/// The fuzz task's options.
#[derive(Debug, Args)]
pub struct FuzzArgs {
    /// The targets, all if there is none
    targets: Vec<String>,
    /// How long each runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Then replace the committed inputs by the fewest and shortest that reach as much
    #[arg(long)]
    keep: bool,
}

/// Where a target has its inputs.
struct Folders {
    /// The committed ones.
    corpus: PathBuf,
    /// All that were found on this machine.
    found: PathBuf,
    /// What failed.
    failed: PathBuf,
}

/// Runs each target for a while. What it finds stays in `target/fuzz`, and is where the next run begins.
pub fn fuzz(workspace: &Workspace, args: &FuzzArgs) -> anyhow::Result<()> {
    let committed = workspace.root.join("balancer-fuzz/corpus");
    let mut all = names(&committed)?;
    all.sort();
    if let Some(unknown) = args.targets.iter().find(|target| !all.contains(target)) {
        bail!("there is no target {unknown}, only {}", all.join(", "));
    }
    setup::setup(workspace)?;
    let toolchain = Toolchain::current()?;
    let folder = workspace.root.join("target/fuzz");
    let mut failed = Vec::new();
    for target in if args.targets.is_empty() {
        &all
    } else {
        &args.targets
    } {
        let folders = Folders {
            corpus: committed.join(target),
            found: folder.join("found").join(target),
            failed: folder.join("failed").join(target),
        };
        fs::create_dir_all(&folders.found)?;
        fs::create_dir_all(&folders.failed)?;
        let mut cargo = libfuzzer(workspace, &toolchain, target);
        cargo
            .env("BALANCER_FUZZ_SEEDS", &folders.found)
            .arg(format!("-max_total_time={}", args.seconds))
            .arg(format!("-artifact_prefix={}/", folders.failed.display()))
            .args(["-timeout=10", "-print_final_stats=1"])
            .args([&folders.found, &folders.corpus]);
        // The others run all the same.
        if let Err(error) = run::timed(&format!("target {target}"), &mut cargo) {
            eprintln!("{error:#}: see {}", folders.failed.display());
            failed.push(target.as_str());
        } else if args.keep {
            keep(workspace, &toolchain, target, &folders)?;
        }
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// The names in a folder.
fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// The test program with libFuzzer in it; arguments that are added are libFuzzer's.
fn libfuzzer(workspace: &Workspace, toolchain: &Toolchain, target: &str) -> Command {
    // With the target named, the flags are not those of build scripts.
    let mut cargo = workspace.cargo(["test", "--release", "--package", "balancer-fuzz"]);
    cargo
        .args(["--features", "libfuzzer"])
        .args(["--target", &toolchain.host, "--", "--exact", target])
        .args(["--nocapture", "--"])
        .env("RUSTFLAGS", RUSTFLAGS)
        .env("CARGO_TARGET_DIR", workspace.root.join("target/fuzz"));
    cargo
}

/// Replaces the committed inputs by those that reach code which neither the seeds nor another one does.
fn keep(
    workspace: &Workspace,
    toolchain: &Toolchain,
    target: &str,
    folders: &Folders,
) -> anyhow::Result<()> {
    let kept = folders.found.with_extension("kept");
    match fs::remove_dir_all(&kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => fs::create_dir_all(&kept)?,
    }
    let mut merge = libfuzzer(workspace, toolchain, target);
    merge
        .env("BALANCER_FUZZ_SEEDS", &kept)
        // How often each place is reached does not count.
        .args(["-set_cover_merge=1", "-use_counters=0"])
        .args([&kept, &folders.found, &folders.corpus]);
    run::timed(&format!("inputs of {target}"), &mut merge)?;
    fs::remove_dir_all(&folders.corpus)?;
    fs::create_dir_all(&folders.corpus)?;
    for name in names(&kept)? {
        if !name.starts_with("seed-") {
            fs::copy(kept.join(&name), folders.corpus.join(&name))?;
        }
    }
    Ok(())
}
