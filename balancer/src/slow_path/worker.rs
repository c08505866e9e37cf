//! The thread of the slow path.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use balancer_common::abi::Note;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use xdp::slab::Slab as _;

use super::desk::Desk;
use crate::datapath::batch::Batch;
use crate::datapath::queues::{Sockets, of_all_queues};
use crate::datapath::socket::{Size, Socket};

/// The sockets' sizes: 1 MiB of memory each.
const SIZE: Size = Size {
    ring: 128,
    zero_copy: false,
};

/// How often the ring is emptied before others have their turn.
const ROUNDS: usize = 4;

/// The length of a note.
const NOTE: i32 = size_of::<Note>().cast_signed() as i32;

/// What `poll` counts time in.
const TICK: Duration = Duration::from_millis(1);

/// What the worker is told.
pub enum Command {
    /// To open sockets for the queues of an interface, instead of those that it may have.
    Open {
        /// Its index.
        interface: u32,
        /// Where to say what came of it.
        answer: Sender<io::Result<Sockets>>,
    },
    /// To close the sockets of all interfaces but these.
    Retain(Vec<u32>),
    /// How long fragments wait.
    FragmentTimeout(Duration),
    /// That there is a way that was not there before.
    Way,
    /// To take a frame of a worker's.
    Frame {
        /// The interface that it came in by.
        interface: u32,
        /// The queue.
        queue: u32,
        /// What it got.
        note: Note,
        /// It.
        bytes: Vec<u8>,
    },
    /// To end.
    End,
}

/// A socket and where it is.
struct Bound {
    interface: u32,
    queue: u32,
    socket: Socket,
}

/// What the thread works with.
pub struct Worker {
    bell: Arc<EventFd>,
    commands: Receiver<Command>,
    /// How many [frames](Command::Frame) wait.
    waiting: Arc<AtomicUsize>,
    sockets: Vec<Bound>,
    batch: Batch,
    desk: Desk,
}

impl Worker {
    /// Without sockets.
    pub fn new(
        bell: Arc<EventFd>,
        commands: Receiver<Command>,
        waiting: Arc<AtomicUsize>,
        desk: Desk,
    ) -> Self {
        Self {
            bell,
            commands,
            waiting,
            sockets: Vec::new(),
            batch: Batch::with_capacity(SIZE.ring as usize),
            desk,
        }
    }

    /// Works until it is told to end.
    pub fn run(mut self) {
        loop {
            if let Err(error) = self.wait() {
                tracing::error!(%error, "the slow path has ended: nobody is told of dropped packets");
                return;
            }
            // Before the sockets, which new ones may stand behind.
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Open { interface, answer } => {
                        let _ = answer.send(self.open(interface));
                    }
                    Command::Retain(interfaces) => self
                        .sockets
                        .retain(|bound| interfaces.contains(&bound.interface)),
                    Command::FragmentTimeout(timeout) => self.desk.fragment_timeout = timeout,
                    Command::Way => self.desk.way_has_come(),
                    Command::Frame {
                        interface,
                        queue,
                        note,
                        bytes,
                    } => {
                        self.waiting.fetch_sub(1, Ordering::Relaxed);
                        if let Some(answer) = self.desk.take(interface, queue, note, &bytes) {
                            self.send(interface, &answer);
                        }
                    }
                    Command::End => return,
                }
            }
            for at in 0..self.sockets.len() {
                self.receive(at);
            }
            for (interface, answer) in self.desk.look(Instant::now()) {
                self.send(interface, &answer);
            }
        }
    }

    /// Takes what has come by a socket.
    fn receive(&mut self, at: usize) {
        for _ in 0..ROUNDS {
            let Bound {
                interface,
                queue,
                ref mut socket,
            } = self.sockets[at];
            socket.refill();
            socket.take(&mut self.batch);
            if self.batch.is_empty() {
                return;
            }
            while let Some(mut packet) = self.batch.pop_back() {
                let has_note = packet.adjust_head(-NOTE).is_ok();
                let noted = packet.split_first_chunk().filter(|_| has_note);
                let answer = if let Some((note, frame)) = noted {
                    self.desk.take(interface, queue, read(*note), frame)
                } else {
                    self.desk.counters.failed.add();
                    None
                };
                self.sockets[at].socket.free(packet);
                if let Some(answer) = answer {
                    self.send(interface, &answer);
                }
            }
            self.sockets[at].socket.refill();
        }
    }

    /// Sends an answer at once: before what comes after it goes on.
    fn send(&mut self, interface: u32, answer: &[u8]) {
        // By its first queue: there may be fewer to send than to receive.
        let mut sockets = self.sockets.iter_mut();
        let sent = match sockets.find(|bound| bound.interface == interface) {
            Some(bound) => {
                let sent = bound.socket.queue(answer);
                bound.socket.flush();
                sent
            }
            None => self.desk.transmit(interface, answer),
        };
        if !sent {
            self.desk.counters.unsent.add();
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) -> io::Result<()> {
        let sockets = self.sockets.iter().map(|bound| bound.socket.fd());
        let mut polled: Vec<PollFd<'_>> = std::iter::once(self.bell.as_fd())
            .chain(sockets)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let timeout = match self.desk.next() {
            // A millisecond more, since it would wake up before the time.
            Some(next) => {
                let time = next.saturating_duration_since(Instant::now()) + TICK;
                PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if polled.first().and_then(PollFd::any) == Some(true) {
            self.bell.read()?;
        }
        Ok(())
    }

    fn open(&mut self, interface: u32) -> io::Result<Sockets> {
        self.sockets.retain(|bound| bound.interface != interface);
        of_all_queues(interface, |queue| {
            let socket = Socket::open(interface, queue, SIZE)?;
            let descriptor = socket.duplicate()?;
            self.sockets.push(Bound {
                interface,
                queue,
                socket,
            });
            Ok(descriptor)
        })
    }
}

/// A note as the program wrote it.
fn read(bytes: [u8; size_of::<Note>()]) -> Note {
    let word = u64::from_le_bytes(bytes);
    Note {
        verdict: u32::from_le(word as u32),
        mtu: u32::from_le((word >> 32) as u32),
    }
}
