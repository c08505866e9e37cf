//! The thread of the slow path.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use balancer_common::verdict::{Exit, Verdict};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::answer::Complaint;
use super::counters::Counters;
use super::limit::Limits;
use super::socket::{Socket, queues};

/// How long an interface's address is taken for what it was.
const REMEMBERED: Duration = Duration::from_secs(1);

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
    /// To end.
    End,
}

/// What the thread works with.
pub struct Worker {
    bell: Arc<EventFd>,
    commands: Receiver<Command>,
    sockets: Vec<(u32, Socket)>,
    desk: Desk,
}

impl Worker {
    /// Without sockets.
    pub fn new(bell: Arc<EventFd>, commands: Receiver<Command>, counters: Arc<Counters>) -> Self {
        Self {
            bell,
            commands,
            sockets: Vec::new(),
            desk: Desk {
                counters,
                limits: Limits::new(Instant::now()),
                addresses: HashMap::new(),
            },
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
                .retain(|(interface, _)| !gone.contains(interface));
            // Before the sockets, which new ones may stand behind.
            let _ = self.bell.read();
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Open { interface, answer } => {
                        let _ = answer.send(self.open(interface));
                    }
                    Command::Retain(interfaces) => self
                        .sockets
                        .retain(|(interface, _)| interfaces.contains(interface)),
                    Command::End => return,
                }
            }
            for (interface, socket) in &mut self.sockets {
                let lost = socket.receive(|note, frame| self.desk.answer(*interface, note, frame));
                for _ in 0..lost {
                    self.desk.counters.unsent.add();
                }
            }
        }
    }

    /// Waits until there is something to do. Gives the interfaces that are gone.
    fn wait(&self) -> io::Result<Vec<u32>> {
        let sockets = self.sockets.iter().map(|(_, socket)| socket.fd());
        let mut polled: Vec<PollFd<'_>> = std::iter::once(self.bell.as_fd())
            .chain(sockets)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut polled, PollTimeout::NONE) {
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
        Ok(gone.map(|(_, (interface, _))| *interface).collect())
    }

    fn open(&mut self, interface: u32) -> io::Result<Vec<OwnedFd>> {
        self.sockets.retain(|(other, _)| *other != interface);
        let mut opened = Vec::new();
        let mut descriptors = Vec::new();
        for queue in 0..queues(interface)? {
            let socket = Socket::open(interface, queue)?;
            descriptors.push(socket.duplicate()?);
            opened.push((interface, socket));
        }
        self.sockets.append(&mut opened);
        Ok(descriptors)
    }
}

/// Where frames are looked at.
struct Desk {
    counters: Arc<Counters>,
    limits: Limits,
    /// The addresses of interfaces, IPv4 and IPv6, and when they were asked for.
    addresses: HashMap<u32, ([Option<IpAddr>; 2], Instant)>,
}

impl Desk {
    /// The answer to a frame that came in by an interface, with a note of the program.
    fn answer(&mut self, interface: u32, note: u32, frame: &[u8]) -> Option<Vec<u8>> {
        let counters = Arc::clone(&self.counters);
        let exit = Exit::of_counter(note);
        let (true, Verdict::Drop(reason)) = (exit.is_told(), Verdict::from(exit)) else {
            counters.unknown.add();
            return None;
        };
        counters.dropped[reason as usize].add();
        let now = Instant::now();
        let Some(complaint) = Complaint::of(reason, frame) else {
            counters.untold.add();
            return None;
        };
        if !self.limits.allow(complaint.source, now) {
            counters.limited.add();
            return None;
        }
        let is_ipv6 = complaint.source.is_ipv6();
        let answer = complaint.answer(|| self.address(interface, is_ipv6, now));
        match answer {
            Some(_) => counters.told.add(),
            None => counters.untold.add(),
        }
        answer
    }

    /// The box's own address on an interface.
    fn address(&mut self, interface: u32, is_ipv6: bool, now: Instant) -> Option<IpAddr> {
        let (addresses, _) = match self.addresses.get(&interface) {
            Some(known) if now.saturating_duration_since(known.1) < REMEMBERED => *known,
            _ => {
                let addresses = (addresses(interface).unwrap_or_default(), now);
                self.addresses.insert(interface, addresses);
                addresses
            }
        };
        addresses[usize::from(is_ipv6)]
    }
}

/// The first address of an interface in either family that other links know too.
fn addresses(interface: u32) -> io::Result<[Option<IpAddr>; 2]> {
    let name = nix::net::if_::if_indextoname(interface)?;
    let name = name.to_string_lossy();
    let mut found = [None; 2];
    for entry in nix::ifaddrs::getifaddrs()? {
        let address = entry.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::from(it.ip())))
        });
        if let Some(address) = address
            && entry.interface_name == name
            && !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
        {
            found[usize::from(address.is_ipv6())].get_or_insert(address);
        }
    }
    Ok(found)
}
