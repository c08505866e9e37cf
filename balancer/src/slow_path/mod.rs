//! The slow path: what the XDP program hands to the daemon, by `AF_XDP` sockets, one for each receive queue.
//!
//! The program decides what a packet gets; here is done what it cannot do itself. Without a daemon every packet still gets
//! something: see [`balancer_common::verdict`].
//!
//! - Of a packet that was dropped because what it wants is not to be had, the sender is told ([`answer`]), as often as
//!   [`limit`] allows.
//! - An IPv4 packet that is too long for its next link is [`cut`], and its fragments go through the program again.
//! - A new connection for which the program found no source port gets one, if any is free ([`ports`]), and goes through the
//!   program again.
//! - A packet for which there is no way waits until one to a backend comes, and goes through the program again.
//! - A fragment that comes before the one before it waits for that ([`held`]), and then goes through the program again.
//!
//! The sockets copy, also where a driver could do without: with zero-copy it would give every frame of the queue to
//! the socket's memory, and those that the program sends out of another interface, which are nearly all, would be
//! copied instead.

pub mod answer;
mod budgets;
pub mod counters;
pub mod cut;
mod desk;
pub mod held;
mod interface;
pub mod limit;
pub mod ports;
mod socket;
mod worker;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use balancer_common::abi::{Link, MAX_SOCKETS};
use balancer_common::family::{V4, V6};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::datapath::flows::View;
use crate::datapath::injector::Injector;
use crate::datapath::kernel::{Kernel, KernelError};
use crate::datapath::notes::AllNotes;
use crate::slow_path::budgets::Budgets;
use crate::slow_path::counters::Counters;
use crate::slow_path::desk::Desk;
use crate::slow_path::worker::{Command, Worker};

/// The slow path as others see it: a thread of its own. Dropped, it ends, and its sockets with it.
#[derive(Debug)]
pub struct SlowPath {
    commands: Sender<Command>,
    bell: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    /// What it has done.
    pub counters: Arc<Counters>,
}

/// What the slow path has of the program.
#[derive(Debug)]
pub struct Program {
    injector: Injector,
    budgets: Budgets,
    notes: Arc<AllNotes>,
    v4: View<V4>,
    v6: View<V6>,
}

impl Program {
    /// That of this kernel.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn of(kernel: &mut Kernel) -> Result<Self, KernelError> {
        Ok(Self {
            injector: kernel.injector()?,
            budgets: Budgets::new(Arc::clone(&kernel.budgets)),
            notes: Arc::clone(&kernel.notes),
            v4: kernel.v4.view(),
            v6: kernel.v6.view(),
        })
    }
}

/// The sockets of an interface.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Their numbers.
    pub link: Link,
    /// The sockets, in the order of the queues. The worker has them too; these keep them open.
    pub sockets: Vec<OwnedFd>,
}

impl SlowPath {
    /// Starts it, without sockets, in the network namespace of this thread. What has waited goes through
    /// `program` again.
    ///
    /// # Errors
    /// There can be no thread, or no event.
    pub fn start(program: Program) -> io::Result<Self> {
        let bell = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Arc::new(EventFd::from_flags(bell)?);
        let counters = Arc::new(Counters::default());
        let (commands, receiver) = channel();
        let (its_bell, its_counters) = (Arc::clone(&bell), Arc::clone(&counters));
        let thread = Builder::new().name("slow-path".to_owned()).spawn(move || {
            let desk = Desk::new(program, its_counters);
            Worker::new(its_bell, receiver, desk).run();
        })?;
        Ok(Self {
            commands,
            bell,
            thread: Some(thread),
            counters,
        })
    }

    /// Opens sockets for the receive queues of an interface, with numbers that the `others` do not have.
    ///
    /// # Errors
    /// What the kernel says; there are none then.
    pub fn open<'a>(
        &self,
        interface: u32,
        others: impl Iterator<Item = &'a Link>,
    ) -> io::Result<Sockets> {
        let (answer, answered) = channel();
        self.send(Command::Open { interface, answer });
        let sockets = answered.recv().map_err(io::Error::other)??;
        let count = sockets.len() as u32;
        let first = room(count, others).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Sockets {
            link: Link {
                first_socket: first,
                sockets: count,
                ..Link::default()
            },
            sockets,
        })
    }

    /// Sets how long fragments wait for those before them.
    pub fn set_fragment_timeout(&self, timeout: Duration) {
        self.send(Command::FragmentTimeout(timeout));
    }

    /// Tells it that there is a way to a backend that was not there before.
    pub fn way_has_come(&self) {
        self.send(Command::Way);
    }

    /// Closes the sockets of all interfaces but these.
    pub fn retain(&self, interfaces: &[u32]) {
        self.send(Command::Retain(interfaces.to_vec()));
    }

    fn send(&self, command: Command) {
        // Whoever waits for its answer hears that there is nobody.
        let _ = self.commands.send(command);
        let _ = self.bell.write(1);
    }
}

impl Drop for SlowPath {
    fn drop(&mut self) {
        self.send(Command::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
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
