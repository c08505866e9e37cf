//! Folders on the BPF file system, gone with the lab.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use crate::{Result, error::Context, process::lock};

/// Where the BPF file system is, by convention.
const BPFFS: &str = "/sys/fs/bpf";

/// The folder for pins of a lab; the BPF file system is mounted first if it is not yet.
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    static MOUNTING: Mutex<()> = Mutex::new(());
    let _one = lock(&MOUNTING);
    let mounted = statfs(BPFFS).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
    if !mounted {
        mount(
            Some("bpf"),
            BPFFS,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .context(|| format!("mounting {BPFFS}"))?;
    }
    Ok(Path::new(BPFFS).join(name))
}

/// The names of folders there.
pub(crate) fn list() -> Vec<String> {
    let entries = fs::read_dir(BPFFS).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Removes a folder and its pins: links first, so that programs end before their maps. That it is not there is fine.
pub(crate) fn remove(name: &str) -> Result<()> {
    let path = Path::new(BPFFS).join(name);
    let failed = || format!("removing {}", path.display());
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.context(failed)?,
    };
    let mut pins: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    pins.sort_by_key(|pin| {
        !pin.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("link-"))
    });
    for pin in pins {
        fs::remove_file(&pin).context(failed)?;
    }
    fs::remove_dir(&path).context(failed)
}
