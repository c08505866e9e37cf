//! The socket file: made with its mode and group from the first instant on, and taken away again.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, Flock, FlockArg};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};
use nix::unistd::{Gid, Group, Uid, fchownat};

use super::peer::Access;

/// The group that may control the daemon, where there is one of that name.
const GROUP: &str = "balancerd";

/// Connections the kernel holds until they are accepted.
const BACKLOG: i32 = 64;

/// A listening control socket. Dropping it removes the file, if it is still this one.
#[derive(Debug)]
pub struct ControlListener {
    pub(super) socket: UnixListener,
    path: PathBuf,
    access: Access,
    /// Device and inode of the file.
    identity: (u64, u64),
}

/// Why the socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A daemon is at work there.
    #[error("another balancerd answers on {0}")]
    Alive(PathBuf),
    /// Something that is not a socket has the name.
    #[error("{0} exists and is not a socket; it is left alone")]
    NotASocket(PathBuf),
    /// A system call failed.
    #[error("{what} {path}: {source}")]
    Io {
        /// What was tried: "cannot bind".
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ControlListener {
    /// Listens on `path`: mode 0660, of the group `balancerd` where that exists, else of the process's effective group.
    ///
    /// The directory is made, with mode 0755, where it is missing. The socket of a daemon that is gone is replaced. A file
    /// beside it, `path` with `.lock` added, keeps two daemons that start at the same time from replacing each other's;
    /// it stays.
    ///
    /// # Errors
    /// [`BindError::Alive`] when a daemon listens there, [`BindError::NotASocket`] when the name is taken otherwise, and
    /// [`BindError::Io`].
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |what| {
            move |source: io::Error| BindError::Io {
                what,
                path: path.to_owned(),
                source,
            }
        };
        let errno = |what| move |errno: Errno| failed(what)(errno.into());

        let address = UnixAddr::new(path).map_err(errno("not a name for a socket:"))?;
        create_parent(path)?;
        let _lock = lock(path)?;
        remove_stale(path, &address)?;

        let socket = private_socket(&address).map_err(errno("cannot bind"))?;
        let gid = give_to_group(path).map_err(errno("cannot set the group of"))?;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IWGRP;
        fchmodat(AT_FDCWD, path, mode, FchmodatFlags::NoFollowSymlink)
            .map_err(errno("cannot set the mode of"))?;
        let file = fs::symlink_metadata(path).map_err(failed("cannot read"))?;
        // Until here connecting is refused, whoever it is.
        Backlog::new(BACKLOG)
            .and_then(|backlog| socket::listen(&socket, backlog))
            .map_err(errno("cannot listen on"))?;

        Ok(Self {
            socket: UnixListener::from(socket),
            path: path.to_owned(),
            access: Access {
                uid: Uid::effective(),
                gid,
            },
            identity: (file.dev(), file.ino()),
        })
    }

    /// Who is let in.
    #[must_use]
    pub fn access(&self) -> Access {
        self.access
    }

    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ControlListener {
    fn drop(&mut self) {
        // The socket still listens, so no starting daemon takes it for stale and replaces it between the two calls.
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the control socket");
        }
    }
}

fn stream_socket(flags: SockFlag) -> nix::Result<OwnedFd> {
    socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | flags,
        None,
    )
}

/// A bound socket whose file nobody but the daemon may use, and which does not listen yet.
///
/// Linux gives the file the mode of the socket's own inode, less the umask: set before `bind`, there is no instant at
/// which it is wider. (The umask itself belongs to all threads and is not to be touched.)
fn private_socket(address: &UnixAddr) -> nix::Result<OwnedFd> {
    let socket = stream_socket(SockFlag::empty())?;
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    socket::bind(socket.as_raw_fd(), address)?;
    Ok(socket)
}

/// Makes the directories above `path`, those that are missing, with mode 0755 whatever the umask.
fn create_parent(path: &Path) -> Result<(), BindError> {
    let missing: Vec<_> = path
        .ancestors()
        .skip(1)
        .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists())
        .collect();
    for dir in missing.into_iter().rev() {
        DirBuilder::new()
            .mode(0o755)
            .create(dir)
            .and_then(|()| fs::set_permissions(dir, Permissions::from_mode(0o755)))
            .or_else(|error| if dir.is_dir() { Ok(()) } else { Err(error) })
            .map_err(|source| BindError::Io {
                what: "cannot make the directory",
                path: dir.to_owned(),
                source,
            })?;
    }
    Ok(())
}

/// Held while the socket is looked at, replaced and made to listen.
///
/// The file belongs to the daemon alone (0600): on the directory itself anyone who may read it could hold the lock.
fn lock(path: &Path) -> Result<Flock<File>, BindError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let failed = |source: io::Error| BindError::Io {
        what: "cannot lock",
        path: PathBuf::from(&lock_path),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&lock_path)
        .map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| failed(errno.into()))
}

fn remove_stale(path: &Path, address: &UnixAddr) -> Result<(), BindError> {
    let failed = |what, source| BindError::Io {
        what,
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("cannot read", error)),
        Ok(file) if !file.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    // Not blocking: a daemon whose backlog is full is alive all the same, and answers EAGAIN.
    let probe = stream_socket(SockFlag::SOCK_NONBLOCK)
        .map_err(|errno| failed("cannot make a socket for", errno.into()))?;
    match socket::connect(probe.as_raw_fd(), address) {
        Ok(()) | Err(Errno::EAGAIN | Errno::EINPROGRESS) => Err(BindError::Alive(path.to_owned())),
        Err(Errno::ECONNREFUSED) => {
            fs::remove_file(path).map_err(|error| failed("cannot replace the stale", error))
        }
        Err(errno) => Err(failed(
            "cannot tell whether a balancerd answers on",
            errno.into(),
        )),
    }
}

/// Sets the group of the file and returns it.
fn give_to_group(path: &Path) -> nix::Result<Gid> {
    let chown = |gid| {
        fchownat(
            AT_FDCWD,
            path,
            None,
            Some(gid),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        )
    };
    let own = Gid::effective();
    // A user database that cannot be read names no group.
    if let Some(group) = Group::from_name(GROUP).ok().flatten() {
        match chown(group.gid) {
            Ok(()) => return Ok(group.gid),
            Err(errno) => tracing::warn!(
                %errno, group = GROUP, "the control socket cannot be given to the group; it gets the daemon's own"
            ),
        }
    }
    // Explicitly: in a directory with the set-group-ID bit the file has the directory's.
    chown(own)?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn the_file_has_its_mode_and_group_and_the_directory_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/control.sock");
        let listener = ControlListener::bind(&path).unwrap();
        assert_eq!(mode(&path), 0o660);
        assert_eq!(mode(&dir.path().join("a")), 0o755);
        assert_eq!(mode(&dir.path().join("a/b")), 0o755);
        assert_eq!(mode(&dir.path().join("a/b/control.sock.lock")), 0o600);
        let gid = fs::symlink_metadata(&path).unwrap().gid();
        assert_eq!(gid, listener.access().gid.as_raw());
    }

    #[test]
    fn the_file_is_born_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _socket = private_socket(&UnixAddr::new(&path).unwrap()).unwrap();
        assert_eq!(mode(&path), 0o600, "before its mode and group are set");
        let refused = UnixStream::connect(&path).unwrap_err();
        assert_eq!(
            refused.kind(),
            io::ErrorKind::ConnectionRefused,
            "it does not listen yet"
        );
    }

    #[test]
    fn a_directory_that_exists_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        let _listener = ControlListener::bind(&dir.path().join("control.sock")).unwrap();
        assert_eq!(mode(dir.path()), 0o700);
    }

    #[test]
    fn dropping_removes_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(ControlListener::bind(&path).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn dropping_leaves_a_file_that_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let listener = ControlListener::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file");
        let _listener = ControlListener::bind(&path).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_live_socket_is_refused_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let _first = ControlListener::bind(&path).unwrap();
        let error = ControlListener::bind(&path).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("another balancerd answers on {}", path.display())
        );
        assert!(UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_socket_with_a_full_backlog_is_live() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let full = stream_socket(SockFlag::empty()).unwrap();
        socket::bind(full.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        socket::listen(&full, Backlog::new(0).unwrap()).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert!(matches!(
            ControlListener::bind(&path),
            Err(BindError::Alive(_))
        ));
    }

    #[test]
    fn what_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "kept").unwrap();
        assert!(matches!(
            ControlListener::bind(&file),
            Err(BindError::NotASocket(_))
        ));
        assert_eq!(fs::read_to_string(&file).unwrap(), "kept");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(matches!(
            ControlListener::bind(&link),
            Err(BindError::NotASocket(_))
        ));
    }

    #[test]
    fn of_many_that_start_at_once_one_gets_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        // Without the lock two get it within a few rounds.
        for round in 0..200 {
            drop(UnixListener::bind(&path).unwrap());
            let start = std::sync::Barrier::new(4);
            let bind = || {
                start.wait();
                ControlListener::bind(&path)
            };
            let results: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(bind)).collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            let count = results.iter().filter(|result| result.is_ok()).count();
            assert_eq!(count, 1, "round {round}: {results:?}");
            assert!(
                UnixStream::connect(&path).is_ok(),
                "round {round}: it answers"
            );
            let refused =
                |result: &Result<_, _>| matches!(result, Ok(_) | Err(BindError::Alive(_)));
            assert!(results.iter().all(refused), "round {round}: {results:?}");
        }
    }
}
