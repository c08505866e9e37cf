//! Engine `userspace`: the pipeline on threads of the daemon, one for each receive queue.
//!
//! The program on the interfaces hands over what is of a connection or may open one, by `AF_XDP` sockets, and decides about the
//! rest ([`balancer_common::steer`]). The tables are the maps that the kernel's packets use with engine `kernel`, in memory that
//! both see: so connections outlive the daemon, and a change of the engine too.
//!
//! Each socket has memory of its own. A frame that leaves by another interface is copied from the one to the other: of 60 bytes
//! that is less than to look at its addresses, of 1,500 some 40 ns; and a socket that is closed takes nothing of others with it.

mod chance;
mod common;
mod epoch;
mod lane;
mod member;
mod task;
mod worker;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use balancer_common::abi::Link;

use self::common::Common;
use self::member::Member;
use self::task::Task;
use crate::datapath::injector::Injector;
use crate::datapath::maps::Maps;
use crate::datapath::queues::{Sockets, of_all_queues};
use crate::slow_path::Handover;

pub use self::common::Inbox;
pub use self::lane::Lane;
pub use self::task::Report;

/// How long a worker may take to say how it is, or to work on what has come.
const PATIENCE: Duration = Duration::from_millis(500);

/// How workers are to work.
#[derive(Clone, Debug, Default)]
pub struct Habits {
    /// The CPUs that they are pinned to, one each; empty: as many as an interface has queues, and where the kernel wants them.
    pub cpus: Vec<usize>,
    /// Whether they never sleep.
    pub spins: bool,
}

/// The workers. Dropped, they end, and their sockets with them.
#[derive(Debug)]
pub struct Workers {
    common: Arc<Common>,
    habits: Habits,
    begun_again: AtomicU64,
}

/// A worker as it is now.
#[derive(Clone, Debug)]
pub struct State {
    /// The thread's name.
    pub name: String,
    /// The CPU that it is pinned to.
    pub cpu: Option<usize>,
    /// What it said; `None`: it has ended, or says nothing.
    pub report: Option<Report>,
}

/// A socket that was opened again.
#[derive(Debug)]
pub struct Reopened {
    /// The interface's index.
    pub interface: u32,
    /// The queue.
    pub queue: u32,
    /// It, or why it is tried again later.
    pub socket: io::Result<OwnedFd>,
}

fn name(place: usize) -> String {
    format!("worker-{place}")
}

impl Workers {
    /// None yet: they begin as there are queues for them.
    #[must_use]
    pub fn new(maps: Arc<Maps>, injector: Injector, habits: Habits) -> Self {
        Self {
            common: Arc::new(Common::new(maps, injector, habits.spins)),
            habits,
            begun_again: AtomicU64::new(0),
        }
    }

    /// For whoever has frames for them.
    #[must_use]
    pub fn inbox(&self) -> Inbox {
        Inbox(Arc::clone(&self.common))
    }

    /// Says who takes what they do not finish.
    pub fn set_slow_path(&self, slow_path: Handover) {
        // There is one at most.
        let _ = self.common.slow_path.set(slow_path);
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
        let sockets = of_all_queues(interface, |queue| self.open_one(interface, queue))?;
        let sockets = sockets.number(others);
        sockets.ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn open_one(&self, interface: u32, queue: u32) -> io::Result<OwnedFd> {
        let place = match self.habits.cpus.len() {
            0 => queue as usize,
            count => queue as usize % count,
        };
        let before = {
            let mut staff = self.common.staff();
            let before = staff.members.len();
            while staff.members.len() <= place {
                let member = self.begin(staff.members.len(), Arc::default())?;
                staff.members.push(member);
            }
            before
        };
        let socket = self.open_at(place, interface, queue);
        let mut staff = self.common.staff();
        if socket.is_err() {
            // They have nothing to do.
            let idle: Vec<Member> = staff.members.drain(before..).collect();
            drop(staff);
            for member in idle {
                member.end();
            }
            return socket;
        }
        for member in &staff.members[before..] {
            self.common.maps.counters.add(Arc::clone(&member.counters));
        }
        socket
    }

    /// Has a worker open the socket of a queue, instead of the one that it may have.
    fn open_at(&self, place: usize, interface: u32, queue: u32) -> io::Result<OwnedFd> {
        let (answer, answered) = channel();
        {
            let mut staff = self.common.staff();
            staff.places.remove(&(interface, queue));
            staff.members[place].give(Task::Open {
                interface,
                queue,
                answer,
            });
        }
        let socket = answered.recv().map_err(io::Error::other).flatten()?;
        let mut staff = self.common.staff();
        staff.places.insert((interface, queue), place);
        Ok(socket)
    }

    fn begin(
        &self,
        place: usize,
        counters: Arc<crate::datapath::counters::Counters>,
    ) -> io::Result<Member> {
        let cpu = self.habits.cpus.get(place).copied();
        Member::begin(name(place), cpu, Arc::clone(&self.common), counters)
    }

    /// Begins those again that have died, and opens their sockets again.
    ///
    /// # Errors
    /// There can be no thread; it is tried again the next time.
    pub fn revive(&self) -> io::Result<Vec<Reopened>> {
        let closed = {
            let mut staff = self.common.staff();
            let died = |place: &usize| staff.members[*place].has_died();
            let dead: Vec<usize> = (0..staff.members.len()).filter(died).collect();
            for place in dead {
                let old = &staff.members[place];
                old.count_lost();
                let new = self.begin(place, Arc::clone(&old.counters))?;
                let old = std::mem::replace(&mut staff.members[place], new);
                let has_panicked = !old.end();
                tracing::error!(
                    worker = place,
                    has_panicked,
                    "a worker has died: another takes its place"
                );
                self.begun_again.fetch_add(1, Ordering::Relaxed);
                let lost = staff.places.extract_if(|_, its| *its == place);
                let lost: Vec<_> = lost.collect();
                staff.closed.extend(lost);
            }
            std::mem::take(&mut staff.closed)
        };
        let mut reopened = Vec::new();
        for (at @ (interface, queue), place) in closed {
            let socket = self.open_at(place, interface, queue);
            if socket.is_err() {
                self.common.staff().closed.push((at, place));
            }
            reopened.push(Reopened {
                interface,
                queue,
                socket,
            });
        }
        Ok(reopened)
    }

    /// How often one has been begun again.
    #[must_use]
    pub fn begun_again(&self) -> u64 {
        self.begun_again.load(Ordering::Relaxed)
    }

    /// How they are.
    #[must_use]
    pub fn states(&self) -> Vec<State> {
        let asked: Vec<_> = {
            let staff = self.common.staff();
            let ask = |member: &Member| {
                let (answer, answered) = channel();
                member.give(Task::Report(answer));
                answered
            };
            staff.members.iter().map(ask).collect()
        };
        let state = |(place, answered): (usize, std::sync::mpsc::Receiver<Report>)| State {
            name: name(place),
            cpu: self.habits.cpus.get(place).copied(),
            report: answered.recv_timeout(PATIENCE).ok(),
        };
        asked.into_iter().enumerate().map(state).collect()
    }

    /// Closes the sockets of all interfaces but these.
    pub fn retain(&self, interfaces: &[u32]) {
        let mut staff = self.common.staff();
        staff
            .places
            .retain(|(interface, _), _| interfaces.contains(interface));
        staff
            .closed
            .retain(|((interface, _), _)| interfaces.contains(interface));
        for member in &staff.members {
            member.give(Task::Retain(interfaces.to_vec()));
        }
    }

    /// Waits until every packet that was at work when this was called is done.
    pub fn grace(&self) {
        let epochs: Vec<_> = {
            let staff = self.common.staff();
            let epochs = staff.members.iter().map(|it| Arc::clone(&it.epoch));
            epochs.collect()
        };
        for epoch in epochs {
            epoch.pass();
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        // All work on what has come before one ends: what it gets may be for another to send.
        let asked: Vec<_> = {
            let staff = self.common.staff();
            let ask = |member: &Member| {
                let (answer, answered) = channel();
                member.give(Task::Finish(answer));
                answered
            };
            staff.members.iter().map(ask).collect()
        };
        for answered in asked {
            let _ = answered.recv_timeout(PATIENCE);
        }
        let members = std::mem::take(&mut self.common.staff().members);
        for member in &members {
            member.give(Task::End);
        }
        for member in members {
            member.end();
        }
    }
}
