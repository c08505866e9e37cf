//! The thread of the slow path.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::desk::Desk;
use super::socket::Socket;

/// What `poll` counts time in.
const TICK: Duration = Duration::from_millis(1);

/// What the worker is told.
pub enum Command {
    /// To open sockets for the queues of an interface, instead of those that it may have.
    Open {
        /// Its index.
        interface: u32,
        /// Where to say what came of it.
        answer: Sender<io::Result<Vec<OwnedFd>>>,
    },
    /// To close the sockets of all interfaces but these.
    Retain(Vec<u32>),
    /// How long fragments wait.
    FragmentTimeout(Duration),
    /// That there is a way that was not there before.
    Way,
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
    sockets: Vec<Bound>,
    desk: Desk,
}

impl Worker {
    /// Without sockets.
    pub fn new(bell: Arc<EventFd>, commands: Receiver<Command>, desk: Desk) -> Self {
        Self {
            bell,
            commands,
            sockets: Vec::new(),
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
                    Command::End => return,
                }
            }
            let mut answers = Vec::new();
            for bound in &mut self.sockets {
                let (interface, queue) = (bound.interface, bound.queue);
                bound.socket.receive(|noted| {
                    let Some((note, frame)) = noted else {
                        self.desk.counters.failed.add();
                        return;
                    };
                    let answer = self.desk.take(interface, queue, note, frame);
                    answers.extend(answer.map(|answer| (interface, answer)));
                });
            }
            answers.extend(self.desk.look(Instant::now()));
            for (interface, answer) in answers {
                // By its first queue: there may be fewer to send than to receive.
                let at = |bound: &&mut Bound| bound.interface == interface;
                let socket = self.sockets.iter_mut().find(at);
                if !socket.is_some_and(|bound| bound.socket.transmit(&answer)) {
                    self.desk.counters.unsent.add();
                }
            }
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

    fn open(&mut self, interface: u32) -> io::Result<Vec<OwnedFd>> {
        self.sockets.retain(|bound| bound.interface != interface);
        let mut descriptors = Vec::new();
        for queue in 0.. {
            let socket = match Socket::open(interface, queue) {
                Ok(socket) => socket,
                // There is no such queue any more.
                Err(error) if queue > 0 && error.raw_os_error() == Some(libc::EINVAL) => break,
                Err(error) if queue > 0 => {
                    tracing::warn!(interface, queue, %error, "no AF_XDP socket for this queue and those behind it");
                    break;
                }
                Err(error) => return Err(error),
            };
            descriptors.push(socket.duplicate()?);
            self.sockets.push(Bound {
                interface,
                queue,
                socket,
            });
        }
        Ok(descriptors)
    }
}
