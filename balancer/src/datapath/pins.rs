//! The folder on the bpffs where maps and links outlive the daemon.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use balancer_common::abi::{
    self, BackendStats, DATAGRAMS, Globals, Identity, Link, MAX_BACKENDS, MAX_LINKS, MAX_SERVICES,
    ServiceStats, Stats, map,
};
use balancer_common::family::{KEYS, V4, V6};
use balancer_common::fragment::{Datagram, Key};
use balancer_common::hop::{HOPS, HopCell};
use balancer_common::pipeline::Part;
use balancer_common::ports::PORT_WORDS;
use balancer_common::table::Totals;
use balancer_common::table::flow::Flow;
use balancer_common::tuple::Tuple;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::kernel::{KernelError, Sizes};

/// The prefix of a link's pin; the interface's name follows.
const LINK: &str = "link-";

/// An interface's name as part of a file's name: a bpffs reserves the dot, which VLAN interfaces have.
fn escape(interface: &str) -> String {
    interface.replace('%', "%25").replace('.', "%2e")
}

/// The inverse of [`escape`].
fn unescape(name: &str) -> String {
    name.replace("%2e", ".").replace("%25", "%")
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// There is no bpffs.
    #[error("{path} is not on a BPF file system: mount one with `mount -t bpf bpf /sys/fs/bpf`")]
    NoBpffs {
        /// The folder.
        path: PathBuf,
    },
    /// Another daemon has it.
    #[error("another balancerd uses {path}")]
    Taken {
        /// The folder.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("{path}: {error}")]
    Io {
        /// Where.
        path: PathBuf,
        /// What.
        #[source]
        error: io::Error,
    },
}

/// The folder, ours alone as long as this lives.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Pins {
    /// Makes the folder, mode 0700, if it is not there, and takes it.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn open(path: &Path) -> Result<Self, PinError> {
        let io = |error| PinError::Io {
            path: path.to_owned(),
            error,
        };
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(path);
        // What exists below tells where a folder would have been made.
        let existing = path
            .ancestors()
            .find(|ancestor| ancestor.exists())
            .unwrap_or(path);
        let is_bpffs = statfs(existing).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC);
        if !is_bpffs {
            if made.is_ok() {
                // Not left behind where it is of no use.
                let _ = fs::remove_dir(path);
            }
            return Err(PinError::NoBpffs {
                path: path.to_owned(),
            });
        }
        made.map_err(io)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(io)?;
        let folder = File::open(path).map_err(io)?;
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(PinError::Taken {
                path: path.to_owned(),
            }),
            Err((_, error)) => Err(io(error.into())),
        }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the link of an interface is pinned.
    #[must_use]
    pub fn link(&self, interface: &str) -> PathBuf {
        self.path.join(format!("{LINK}{}", escape(interface)))
    }

    /// The interfaces that have a link pinned.
    ///
    /// # Errors
    /// [`PinError::Io`].
    pub fn links(&self) -> Result<Vec<String>, PinError> {
        let names = self.names()?;
        Ok(names
            .iter()
            .filter_map(|name| name.strip_prefix(LINK))
            .map(unescape)
            .collect())
    }

    /// Takes the link of an interface away: its packets go to the kernel from then on.
    ///
    /// # Errors
    /// [`PinError::Io`].
    pub fn remove_link(&self, interface: &str) -> Result<(), PinError> {
        let path = self.link(interface);
        fs::remove_file(&path).map_err(|error| PinError::Io { path, error })
    }

    fn names(&self) -> Result<Vec<String>, PinError> {
        let io = |error| PinError::Io {
            path: self.path.clone(),
            error,
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(io)? {
            names.push(
                entry
                    .map_err(io)?
                    .file_name()
                    .to_string_lossy()
                    .into_owned(),
            );
        }
        names.sort();
        Ok(names)
    }

    /// Takes everything away: links first, so that packets go back to the kernel at once, then maps, then the folder.
    /// Gives the names of what was there.
    ///
    /// # Errors
    /// [`PinError::Io`].
    pub fn remove(&self) -> Result<Vec<String>, PinError> {
        let mut names = self.names()?;
        names.sort_by_key(|name| !name.starts_with(LINK));
        for name in &names {
            let path = self.path.join(name);
            fs::remove_file(&path).map_err(|error| PinError::Io { path, error })?;
        }
        fs::remove_dir(&self.path).map_err(|error| PinError::Io {
            path: self.path.clone(),
            error,
        })?;
        Ok(names)
    }

    /// Compares the maps that are pinned with what this version makes: aya takes over whatever has the name.
    ///
    /// # Errors
    /// [`KernelError::Pinned`].
    pub fn check(&self, sizes: Sizes) -> Result<(), KernelError> {
        for (name, key, value, entries) in shapes(sizes) {
            let path = self.path.join(name);
            if !path.exists() {
                continue;
            }
            let info = MapInfo::from_pin(&path)?;
            let describe =
                |key, value, entries| format!("{entries} entries of {key} and {value} bytes");
            let (found, wanted) = (
                describe(info.key_size(), info.value_size(), info.max_entries()),
                describe(key, value, entries),
            );
            if found != wanted {
                return Err(KernelError::Pinned {
                    path: path.display().to_string(),
                    found,
                    wanted,
                });
            }
        }
        Ok(())
    }
}

/// The pinned maps: their names, the bytes of their keys and values, how many entries.
fn shapes(sizes: Sizes) -> [(&'static str, u32, u32, u32); map::ALL.len() - 1] {
    const fn size<T>() -> u32 {
        size_of::<T>() as u32
    }
    let lines = sizes.geometry([0; KEYS]).lines();
    let index = sizes.index_entries();
    [
        (map::FLOWS_V4, 4, size::<Flow<V4>>(), lines),
        (map::FLOWS_V6, 4, size::<Flow<V6>>(), lines),
        (map::INDEX_V4, size::<Tuple<V4>>(), 4, index),
        (map::INDEX_V6, size::<Tuple<V6>>(), 4, index),
        (
            map::DATAGRAMS_V4,
            size::<Key<V4>>(),
            size::<Datagram<V4>>(),
            DATAGRAMS,
        ),
        (
            map::DATAGRAMS_V6,
            size::<Key<V6>>(),
            size::<Datagram<V6>>(),
            DATAGRAMS,
        ),
        (map::PROGRAMS, 4, 4, Part::ALL.len() as u32),
        (map::TOTALS, 4, size::<Totals>(), 2),
        (map::LINKS, 4, size::<Link>(), MAX_LINKS),
        (map::PORTS, 4, 8, PORT_WORDS),
        (map::HOPS, 4, size::<HopCell>(), HOPS),
        (map::GLOBALS, 4, size::<Globals>(), 1),
        (map::PATHS, 4, size::<abi::Path>(), MAX_BACKENDS),
        (map::TICKETS, 4, 8, MAX_SERVICES),
        (map::WORKERS_STATS, 4, size::<Stats>(), 1),
        (map::STATS, 4, size::<Stats>(), 1),
        (map::BACKEND_STATS, 4, size::<BackendStats>(), MAX_BACKENDS),
        (map::SERVICE_STATS, 4, size::<ServiceStats>(), MAX_SERVICES),
        (map::SERVICES, 4, size::<Identity>(), MAX_SERVICES),
        (map::BACKENDS, 4, size::<Identity>(), MAX_BACKENDS),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_interfaces_come_back() {
        for name in ["eth0", "eth0.100", "a%2eb", "%", "a%25.b"] {
            assert!(!escape(name).contains('.'));
            assert_eq!(unescape(&escape(name)), name);
        }
    }
}
