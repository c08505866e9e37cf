//! The library sources of exactly the compiler's version.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use balancer_build::{Toolchain, find_rust_src, local_rust_src};

use crate::{
    apt::{self, Apt},
    progress::Step,
    run,
    setup::{fresh_dir, remove_dir},
    workspace::{Workspace, is_installed},
};

/// Debian's suites that newer compilers come in, the likeliest first.
const SUITES: [&str; 4] = ["trixie-backports", "forky", "sid", "trixie"];

/// Where the sources come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// rustup, or else Debian.
    Auto,
    /// The toolchain's own component.
    Rustup,
    /// Debian's package, unpacked into the tools directory.
    Debian,
}

impl Source {
    fn from_env() -> anyhow::Result<Self> {
        match env::var("BALANCER_RUST_SRC").as_deref() {
            Err(env::VarError::NotPresent) | Ok("" | "auto") => Ok(Self::Auto),
            Ok("rustup") => Ok(Self::Rustup),
            Ok("debian") => Ok(Self::Debian),
            other => bail!("BALANCER_RUST_SRC is {other:?}; it may be auto, rustup or debian"),
        }
    }
}

/// Makes sure that the sources are there.
pub fn ensure(workspace: &Workspace, toolchain: &Toolchain) -> anyhow::Result<()> {
    let source = Source::from_env()?;
    let tools = workspace.tools_dir();
    let mut step = Step::start(&format!("rust-src {}", toolchain.version));
    if let Some(library) = find_rust_src(&tools, toolchain) {
        step.done(&format!("in {}", short(&library, workspace)));
        return Ok(());
    }
    match source {
        Source::Rustup => from_rustup(&mut step, toolchain)?,
        Source::Debian => from_debian(&mut step, &tools, &toolchain.version)?,
        Source::Auto => {
            if let Err(error) = from_rustup(&mut step, toolchain) {
                // The first line names the program and its exit status; rustup's own report follows.
                let error = error.to_string();
                step.say(error.lines().next().unwrap_or_default());
                from_debian(&mut step, &tools, &toolchain.version)?;
            }
        }
    }
    let library = find_rust_src(&tools, toolchain)
        .context("rust-src was installed, but it is not where it belongs")?;
    step.done(&format!("installed in {}", short(&library, workspace)));
    Ok(())
}

/// The path as a user of this checkout would write it.
fn short(path: &Path, workspace: &Workspace) -> String {
    if let Ok(inside) = path.strip_prefix(&workspace.root) {
        inside.display().to_string()
    } else {
        "the toolchain".to_owned()
    }
}

/// Adds the component to the toolchain in use.
fn from_rustup(step: &mut Step, toolchain: &Toolchain) -> anyhow::Result<()> {
    ensure!(
        is_installed("rustup"),
        "rustup is not there to add the component rust-src"
    );
    // rustup names a toolchain by the last part of its root directory.
    let name = toolchain.sysroot.file_name().unwrap_or_default();
    step.say("rustup component add rust-src");
    let mut rustup = Command::new("rustup");
    rustup
        .args(["component", "add", "rust-src", "--toolchain"])
        .arg(name)
        .env("RUSTUP_MAX_RETRIES", "2")
        .env_remove("RUST_BACKTRACE");
    run::in_step(step, &mut rustup)
}

/// Unpacks Debian's package of that name into the tools directory.
fn from_debian(step: &mut Step, tools: &Path, version: &str) -> anyhow::Result<()> {
    // It stays until the end, so the next setup goes on with a download that broke off.
    let (apt, package) = download(step, tools, version).with_context(|| {
        format!("Debian's package rust-src {version} could not be had; run: rustup component add rust-src")
    })?;

    step.say("unpacking");
    let incoming = tools.join("incoming/rust-src");
    fresh_dir(&incoming)?;
    apt::unpack(step, &package, &incoming)?;
    let source = incoming.join(format!("usr/src/rustc-{version}"));
    let marker = source.join("src/version");
    let found = fs::read_to_string(&marker)
        .with_context(|| format!("Debian's rust-src has no {}", marker.display()))?;
    ensure!(
        found.trim_end() == version,
        "Debian's rust-src is of rustc {}, not {version}",
        found.trim_end()
    );
    let place = local_rust_src(tools, version);
    remove_dir(&place)?;
    fs::rename(source.join("library"), &place)
        .with_context(|| format!("cannot move the sources to {}", place.display()))?;
    remove_dir(&incoming)?;
    remove_dir(apt.dir())
}

/// Downloads the package for `version` from the first suite that has it.
fn download(step: &mut Step, tools: &Path, version: &str) -> anyhow::Result<(Apt, PathBuf)> {
    let apt = Apt::new(tools.join("incoming/apt"))?;
    let mut failed = None;
    for suite in SUITES {
        step.say(&format!("Debian's package, suite {suite}"));
        let package = apt
            .update(step, &[suite])
            .and_then(|()| apt.download(step, "rust-src", version));
        match package {
            Ok(package) => return Ok((apt, package)),
            // The first failure tells the most: a mirror that is out of reach fails for every suite.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| anyhow::anyhow!("no suite was tried")))
}
