//! An initramfs: a cpio archive in the format newc, as the kernel unpacks it (Documentation/driver-api/early-userspace/
//! buffer-format.rst).

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::Context as _;

/// What a file's mode begins with.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// The name of the record that ends an archive.
const END: &str = "TRAILER!!!";

/// An archive that is being written. Paths are absolute; folders come by themselves.
pub struct Archive<W: Write> {
    out: W,
    names: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// An empty one.
    pub fn new(out: W) -> Self {
        Self {
            out,
            names: BTreeSet::new(),
        }
    }

    /// Adds a file that everybody may read and run. One that is there already stays.
    pub fn add(&mut self, path: &str, contents: &[u8]) -> io::Result<()> {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent)?;
        }
        self.entry(path, REGULAR | 0o755, contents)
    }

    /// Adds a copy of a file.
    pub fn copy(&mut self, path: &str, from: &Path) -> anyhow::Result<()> {
        let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.add(path, &contents)?;
        Ok(())
    }

    /// Adds a folder, and those above it.
    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        for (end, _) in path.match_indices('/').skip(1) {
            self.entry(&path[..end], DIRECTORY | 0o755, &[])?;
        }
        if path.is_empty() {
            return Ok(());
        }
        self.entry(path, DIRECTORY | 0o755, &[])
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.record(END, 0, &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, path: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        let name = path.trim_start_matches('/');
        if !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        self.record(name, mode, contents)
    }

    fn record(&mut self, name: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        let size = u32::try_from(contents.len()).map_err(io::Error::other)?;
        // With a NUL.
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // No two are links to the same file.
        let inode = u32::try_from(self.names.len()).map_err(io::Error::other)?;
        let fields = [
            inode, mode, 0, 0, // user, group
            1, // links
            0, // time
            size, 0, 0, 0, 0, // device, and that which a device file names
            name_size, 0, // checksum: none
        ];
        let fields = fields.map(|field| format!("{field:08X}"));
        let header = format!("070701{}", fields.concat());
        self.out.write_all(header.as_bytes())?;
        self.out.write_all(name.as_bytes())?;
        self.out.write_all(&[0])?;
        self.pad(header.len() + name.len() + 1)?;
        self.out.write_all(contents)?;
        self.pad(contents.len())
    }

    /// Names end, and contents end, at multiples of four bytes.
    fn pad(&mut self, length: usize) -> io::Result<()> {
        self.out
            .write_all(&[0; 3][..length.next_multiple_of(4) - length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_once_and_records_are_aligned() {
        let mut archive = Archive::new(Vec::new());
        archive.add("/bin/sh", b"hello").expect("it is written");
        archive.add("/bin/true", b"").expect("it is written");
        archive.add("/init", b"#!").expect("it is written");
        let bytes = archive.finish().expect("it ends");
        let mut rest = bytes.as_slice();
        let mut found = Vec::new();
        while !rest.is_empty() {
            let text = |range| std::str::from_utf8(&rest[range]).expect("digits");
            assert_eq!(text(0..6), "070701");
            let field = |number: usize| {
                let start = 6 + 8 * number;
                usize::from_str_radix(text(start..start + 8), 16).expect("a number")
            };
            let (size, name_size) = (field(6), field(11));
            let contents = (110 + name_size).next_multiple_of(4);
            found.push((
                text(110..110 + name_size - 1).to_owned(),
                field(1),
                rest[contents..contents + size].to_vec(),
            ));
            rest = &rest[(contents + size).next_multiple_of(4)..];
        }
        let expected = [
            ("bin", 0o040_755, ""),
            ("bin/sh", 0o100_755, "hello"),
            ("bin/true", 0o100_755, ""),
            ("init", 0o100_755, "#!"),
            (END, 0, ""),
        ]
        .map(|(name, mode, contents)| (name.to_owned(), mode, contents.as_bytes().to_vec()));
        assert_eq!(found, expected);
    }
}
