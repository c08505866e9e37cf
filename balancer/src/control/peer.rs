//! Who is at the other end of a connection, and whether the daemon talks to them.
//!
//! The mode of the socket file says the same already; this check also holds when someone loosens the mode, or the file
//! is reachable through a directory that gives it away.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

/// The process at the other end, as it was when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process id; 0 when it is not visible from here.
    pub pid: i32,
    /// Its effective user.
    pub uid: Uid,
    /// Its effective group.
    pub gid: Gid,
}

/// Who may talk to the daemon: root, the daemon's own user, and the members of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The daemon's effective user.
    pub uid: Uid,
    /// The group of the socket file.
    pub gid: Gid,
}

/// Why a peer is turned away.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It is none of those [`Access`] names.
    #[error(
        "user {uid} may not control balancerd: neither root, nor its user, nor a member of group {group}"
    )]
    NotAllowed {
        /// The peer's user.
        uid: Uid,
        /// Who would be allowed.
        group: GroupName,
    },
    /// The kernel does not say who it is.
    #[error("the peer's credentials cannot be read")]
    Unknown(#[source] io::Error),
}

impl Access {
    /// Asks the kernel who the peer of a connected Unix socket is.
    ///
    /// # Errors
    /// [`Refused`] when it may not talk to the daemon, or the kernel does not say who it is.
    pub fn check(&self, connection: &impl AsFd) -> Result<Peer, Refused> {
        let unknown = |errno: nix::Error| Refused::Unknown(errno.into());
        let credentials =
            getsockopt(&connection.as_fd(), sockopt::PeerCredentials).map_err(unknown)?;
        let peer = Peer {
            pid: credentials.pid(),
            uid: Uid::from_raw(credentials.uid()),
            gid: Gid::from_raw(credentials.gid()),
        };
        let allowed = peer.uid.is_root()
            || peer.uid == self.uid
            || peer.gid == self.gid
            || supplementary_groups(connection.as_fd(), peer)
                .map_err(Refused::Unknown)?
                .contains(&self.gid);
        if allowed {
            Ok(peer)
        } else {
            Err(Refused::NotAllowed {
                uid: peer.uid,
                group: GroupName(self.gid),
            })
        }
    }
}

/// The peer's supplementary groups as the kernel knows them; where it does not tell (before Linux 4.13), those its user
/// has in the user database.
fn supplementary_groups(connection: BorrowedFd<'_>, peer: Peer) -> io::Result<Vec<Gid>> {
    match peer_groups(connection) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => database_groups(peer),
        groups => groups,
    }
}

fn peer_groups(connection: BorrowedFd<'_>) -> io::Result<Vec<Gid>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 32];
    loop {
        let mut bytes =
            libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `bytes` bytes to the buffer, which has as many, initialised and of a type
        // that any bytes make; `bytes` outlives the call.
        let result = unsafe {
            libc::getsockopt(
                connection.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = bytes as usize / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups.into_iter().map(Gid::from_raw).collect());
        }
        let error = io::Error::last_os_error();
        // Too short: the kernel has put the length it needs in place of ours.
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

fn database_groups(peer: Peer) -> io::Result<Vec<Gid>> {
    let Some(user) = User::from_uid(peer.uid)? else {
        return Ok(Vec::new());
    };
    let name = std::ffi::CString::new(user.name).map_err(io::Error::other)?;
    Ok(getgrouplist(&name, peer.gid)?)
}

/// A group, shown by its name where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupName(pub Gid);

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Group::from_gid(self.0) {
            Ok(Some(group)) => f.write_str(&group.name),
            _ => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    const NOBODY: u32 = 65534;

    #[test]
    fn the_daemons_own_user_is_let_in_with_its_pid() {
        let (here, _there) = UnixStream::pair().unwrap();
        let access = Access {
            uid: Uid::effective(),
            gid: Gid::from_raw(NOBODY),
        };
        let peer = access.check(&here).unwrap();
        assert_eq!(peer.pid, i32::try_from(std::process::id()).unwrap());
        assert_eq!(peer.uid, Uid::effective());
    }

    #[test]
    fn the_kernel_and_the_process_name_the_same_groups() {
        let (here, _there) = UnixStream::pair().unwrap();
        let mut kernel = peer_groups(here.as_fd()).unwrap();
        let mut own = nix::unistd::getgroups().unwrap();
        kernel.sort_by_key(|gid| gid.as_raw());
        own.sort_by_key(|gid| gid.as_raw());
        assert_eq!(kernel, own);
    }

    #[test]
    fn the_user_database_names_the_primary_group() {
        let peer = Peer {
            pid: 0,
            uid: Uid::from_raw(0),
            gid: Gid::from_raw(0),
        };
        assert!(database_groups(peer).unwrap().contains(&Gid::from_raw(0)));
        let nobody_there = Peer {
            uid: Uid::from_raw(3_999_999_999),
            ..peer
        };
        assert!(database_groups(nobody_there).unwrap().is_empty());
    }

    #[test]
    fn a_socket_that_is_none_is_refused() {
        let file = tempfile::tempfile().unwrap();
        let access = Access {
            uid: Uid::effective(),
            gid: Gid::effective(),
        };
        assert!(matches!(access.check(&file), Err(Refused::Unknown(_))));
    }
}
