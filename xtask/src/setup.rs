//! `cargo xtask setup`: gets what is missing, and is done at once where nothing is.

mod linker;
pub mod packages;
mod rust_src;

use std::{fs, path::Path};

use anyhow::Context as _;
use balancer_build::Toolchain;

use crate::workspace::Workspace;

/// Makes sure of the compiler's sources, the linker and the lab's programs.
pub fn setup(workspace: &Workspace) -> anyhow::Result<()> {
    let toolchain = Toolchain::current()?;
    rust_src::ensure(workspace, &toolchain)?;
    linker::ensure(workspace, &toolchain)?;
    packages::ensure()
}

/// An empty directory for a half-finished installation; renamed into its place, it counts.
pub fn fresh_dir(dir: &Path) -> anyhow::Result<()> {
    remove_dir(dir)?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}

/// Removes a directory, if it is there.
pub fn remove_dir(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
