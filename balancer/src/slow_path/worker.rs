//! The thread of the slow path.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::desk::Desk;
use super::socket::{Socket, queues};

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
            let gone = match self.wait() {
                Ok(gone) => gone,
                Err(error) => {
                    tracing::error!(%error, "the slow path has ended: nobody is told of dropped packets");
                    return;
                }
            };
            self.sockets
                .retain(|bound| !gone.contains(&bound.interface));
            // Before the sockets, which new ones may stand behind.
            let _ = self.bell.read();
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Open { interface, answer } => {
                        let _ = answer.send(self.open(interface));
                    }
                    Command::Retain(interfaces) => self
                        .sockets
                        .retain(|bound| interfaces.contains(&bound.interface)),
                    Command::FragmentTimeout(timeout) => self.desk.fragment_timeout = timeout,
                    Command::End => return,
                }
            }
            for bound in &mut self.sockets {
                let (interface, queue) = (bound.interface, bound.queue);
                let lost = bound
                    .socket
                    .receive(|note, frame| self.desk.take(interface, queue, note, frame));
                self.desk.counters.unsent.add_many(lost);
            }
            self.desk.look(Instant::now());
        }
    }

    /// Waits until there is something to do. Gives the interfaces that are gone.
    fn wait(&self) -> io::Result<Vec<u32>> {
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
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let broken = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        let gone = polled[1..].iter().zip(&self.sockets);
        let gone = gone.filter(|(polled, _)| {
            polled
                .revents()
                .is_some_and(|events| events.intersects(broken))
        });
        Ok(gone.map(|(_, bound)| bound.interface).collect())
    }

    fn open(&mut self, interface: u32) -> io::Result<Vec<OwnedFd>> {
        self.sockets.retain(|bound| bound.interface != interface);
        let mut opened = Vec::new();
        let mut descriptors = Vec::new();
        for queue in 0..queues(interface)? {
            let socket = Socket::open(interface, queue)?;
            descriptors.push(socket.duplicate()?);
            opened.push(Bound {
                interface,
                queue,
                socket,
            });
        }
        self.sockets.append(&mut opened);
        Ok(descriptors)
    }
}
