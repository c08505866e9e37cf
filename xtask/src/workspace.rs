//! Where the project's files are, and the cargo that builds them.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

/// The checkout that this task was started in.
#[derive(Debug)]
pub struct Workspace {
    /// Its root directory.
    pub root: PathBuf,
}

impl Workspace {
    /// The one that the tasks themselves were compiled in.
    pub fn find() -> anyhow::Result<Self> {
        // Set anew by every `cargo run`, so a checkout that moved is found too.
        let package = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package
            .parent()
            .context("there is no workspace around the package xtask")?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Where setup puts the tools.
    pub fn tools_dir(&self) -> PathBuf {
        balancer_build::tools_dir(&self.root)
    }

    /// The manifest of the XDP program.
    pub fn ebpf_manifest(&self) -> PathBuf {
        self.root.join("balancer-ebpf/Cargo.toml")
    }

    /// Cargo's target directory for the workspace.
    pub fn target_dir(&self) -> PathBuf {
        std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| self.root.join("target"), |dir| self.root.join(dir))
    }

    /// `cargo` with these arguments, in the root directory.
    pub fn cargo<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.current_dir(&self.root).args(args);
        command
    }
}

/// Whether `program` is on `PATH`, or where programs for root are, which may not be on a user's `PATH`.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .any(|dir: PathBuf| Path::is_file(&dir.join(program)))
}

/// Whether this process is root's.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
