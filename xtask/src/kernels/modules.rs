//! Kernel modules, with those that they need.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

/// A module, ready to be loaded.
pub struct Module {
    /// Its name.
    pub name: String,
    /// The file's contents.
    pub contents: Vec<u8>,
}

/// The modules of these names and all that they need, in an order in which they can be loaded. One that is not there
/// is taken for a part of the kernel.
pub fn closure(dir: &Path, names: &[&str]) -> anyhow::Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    find(dir, &mut files)?;
    let mut loaded = Vec::new();
    for name in names {
        add(name, &files, &mut loaded)?;
    }
    Ok(loaded)
}

fn add(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    loaded: &mut Vec<Module>,
) -> anyhow::Result<()> {
    if loaded.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let Some(file) = files.get(name) else {
        return Ok(());
    };
    let contents = read(file)?;
    for needed in depends(&contents) {
        add(&needed, files, loaded)?;
    }
    loaded.push(Module {
        name: name.to_owned(),
        contents,
    });
    Ok(())
}

/// The files of all modules below `dir`, by name.
fn find(dir: &Path, files: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            find(&path, files)?;
        } else if let Some((name, "ko" | "ko.xz")) =
            entry.file_name().to_string_lossy().split_once('.')
        {
            files.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// The file's contents, without their compression.
fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(file).with_context(|| format!("cannot read {}", file.display()));
    }
    let output = Command::new("xz")
        .args(["--decompress", "--stdout"])
        .arg(file)
        .output()
        .context("xz cannot be run")?;
    ensure!(
        output.status.success(),
        "xz: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.stdout)
}

/// The names in the line `depends=` of a module's information, which ends with a NUL.
fn depends(contents: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = contents.windows(KEY.len()).position(|bytes| bytes == KEY) else {
        return Vec::new();
    };
    let list = &contents[start + KEY.len()..];
    let end = list.iter().position(|&byte| byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&list[..end])
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_tells_what_it_needs() {
        for (information, expected) in [
            (
                "license=GPL\0depends=stp,llc\0name=bridge\0",
                vec!["stp", "llc"],
            ),
            ("license=GPL\0depends=\0name=veth\0", vec![]),
            ("license=GPL\0", vec![]),
        ] {
            assert_eq!(depends(information.as_bytes()), expected);
        }
    }
}
