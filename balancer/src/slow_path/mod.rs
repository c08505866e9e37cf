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
mod worker;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use balancer_common::abi::{Link, Note};
use balancer_common::family::{V4, V6};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::datapath::flows::View;
use crate::datapath::injector::Injector;
use crate::datapath::kernel::{Kernel, KernelError};
use crate::datapath::notes::AllNotes;
use crate::datapath::queues::Sockets;
use crate::slow_path::budgets::Budgets;
use crate::slow_path::counters::Counters;
use crate::slow_path::desk::Desk;
use crate::slow_path::worker::{Command, Worker};
use crate::userspace::{Inbox, Workers};

/// The slow path as others see it: a thread of its own. Dropped, it ends, and its sockets with it.
#[derive(Debug)]
pub struct SlowPath {
    commands: Sender<Command>,
    bell: Arc<EventFd>,
    /// How many frames of workers wait.
    waiting: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
    /// What it has done.
    pub counters: Arc<Counters>,
}

/// Who has the packets otherwise, and takes those that go on.
#[derive(Debug)]
pub enum Others {
    /// The program.
    Program(Injector),
    /// The workers of engine `userspace`.
    Workers(Inbox),
}

impl Others {
    /// Gives them a frame again that came in by a queue of an interface.
    fn resume(&self, interface: u32, queue: u32, frame: &[u8]) -> io::Result<()> {
        match self {
            Self::Program(injector) => injector.inject(interface, queue, frame),
            Self::Workers(inbox) => inbox.resume(interface, queue, frame),
        }
    }

    /// Has them send a frame, if they have the sockets. Says whether there was room.
    fn transmit(&self, interface: u32, frame: &[u8]) -> bool {
        match self {
            Self::Program(_) => false,
            Self::Workers(inbox) => inbox.transmit(interface, frame),
        }
    }
}

/// For the workers of engine `userspace`, who hand frames over themselves.
#[derive(Debug)]
pub struct Handover {
    commands: Sender<Command>,
    bell: Arc<EventFd>,
    waiting: Arc<AtomicUsize>,
}

impl Handover {
    /// How many frames may wait.
    const MOST: usize = 1024;

    /// Hands over a frame that came in by a queue of an interface. Says whether there was room.
    #[must_use]
    pub fn give(&self, interface: u32, queue: u32, note: Note, frame: &[u8]) -> bool {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= Self::MOST {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let bytes = frame.to_vec();
        let _ = self.commands.send(Command::Frame {
            interface,
            queue,
            note,
            bytes,
        });
        let _ = self.bell.write(1);
        true
    }
}

/// What the slow path has of the program.
#[derive(Debug)]
pub struct Program {
    others: Others,
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
    pub fn of(kernel: &mut Kernel, workers: Option<&Workers>) -> Result<Self, KernelError> {
        let others = match workers {
            Some(workers) => Others::Workers(workers.inbox()),
            None => Others::Program(kernel.injector()?),
        };
        Ok(Self {
            others,
            budgets: Budgets::new(Arc::clone(&kernel.budgets)),
            notes: Arc::clone(&kernel.notes),
            v4: kernel.v4.view(),
            v6: kernel.v6.view(),
        })
    }
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
        let waiting = Arc::<AtomicUsize>::default();
        let its_waiting = Arc::clone(&waiting);
        let thread = Builder::new().name("slow-path".to_owned()).spawn(move || {
            let desk = Desk::new(program, its_counters);
            Worker::new(its_bell, receiver, its_waiting, desk).run();
        })?;
        Ok(Self {
            commands,
            bell,
            waiting,
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
        sockets
            .number(others)
            .ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// For workers, who have sockets of their own.
    #[must_use]
    pub fn handover(&self) -> Handover {
        Handover {
            commands: self.commands.clone(),
            bell: Arc::clone(&self.bell),
            waiting: Arc::clone(&self.waiting),
        }
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
