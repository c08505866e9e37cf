//! The sockets of all receive queues of an interface.

use std::io;
use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::{Duration, Instant};

use balancer_common::abi::{Link, MAX_SOCKETS};
use nix::libc;

/// How long the kernel may take to be done with a socket that was closed.
const BUSY: Duration = Duration::from_secs(2);

/// The sockets of an interface.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Their numbers.
    pub link: Link,
    /// The sockets, in the order of the queues. Who works with them has them too; these keep them open.
    pub sockets: Vec<OwnedFd>,
    /// Why the next queue has none, if there is one.
    pub error: Option<io::Error>,
}

impl Sockets {
    /// These, with numbers that the `others` do not have; `None` when there are too many.
    pub fn number<'a>(mut self, others: impl Iterator<Item = &'a Link>) -> Option<Self> {
        let count = self.sockets.len() as u32;
        self.link = Link {
            first_socket: room(count, others)?,
            sockets: count,
            ..Link::default()
        };
        Some(self)
    }
}

/// Opens sockets for the queues of an interface, without numbers yet, until there is no queue any more.
///
/// # Errors
/// What `open`, which is given the number of a queue, says of the first.
pub fn of_all_queues(
    interface: u32,
    mut open: impl FnMut(u32) -> io::Result<OwnedFd>,
) -> io::Result<Sockets> {
    let mut opened = Sockets::default();
    for queue in 0.. {
        match patiently(|| open(queue)) {
            Ok(socket) => opened.sockets.push(socket),
            Err(error) if queue > 0 && error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) if queue > 0 => {
                tracing::warn!(interface, queue, %error, "no AF_XDP socket for this queue and those behind it");
                opened.error = Some(error);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(opened)
}

/// Opens a socket as soon as the kernel has done with the one of an earlier daemon, or a worker, that has just ended.
fn patiently(mut open: impl FnMut() -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    const A_WHILE: Duration = Duration::from_millis(10);
    let end = Instant::now() + BUSY;
    loop {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < end => {
                sleep(A_WHILE);
            }
            opened => return opened,
        }
    }
}

/// The lowest numbers that none of the `others` has, so many in a row.
fn room<'a>(count: u32, others: impl Iterator<Item = &'a Link>) -> Option<u32> {
    let mut taken: Vec<(u32, u32)> = others.map(|it| (it.first_socket, it.sockets)).collect();
    taken.sort_unstable();
    let mut first = 0;
    for (start, length) in taken {
        if first + count <= start {
            break;
        }
        first = start + length;
    }
    (first + count <= MAX_SOCKETS).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_lowest_that_are_free() {
        let link = |first_socket, sockets| Link {
            first_socket,
            sockets,
            ..Link::default()
        };
        let others = [link(8, 4), link(0, 2), link(0, 0), link(3, 1)];
        assert_eq!(room(1, others.iter()), Some(2));
        assert_eq!(room(4, others.iter()), Some(4));
        assert_eq!(room(5, others.iter()), Some(12));
        assert_eq!(room(MAX_SOCKETS - 12, others.iter()), Some(12));
        assert_eq!(room(MAX_SOCKETS - 11, others.iter()), None);
        assert_eq!(room(0, [].iter()), Some(0));
    }
}
