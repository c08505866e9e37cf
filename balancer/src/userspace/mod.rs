//! Engine `userspace`: the pipeline on threads of the daemon, one for each receive queue.
//!
//! The program on the interfaces hands over what is of a connection or may open one, by `AF_XDP` sockets, and decides about the
//! rest ([`balancer_common::steer`]). The tables are the maps that the kernel's packets use with engine `kernel`, in memory that
//! both see: so connections outlive the daemon, and a change of the engine too.
//!
//! Each socket has memory of its own. A frame that leaves by another interface is copied from the one to the other: of 60 bytes
//! that is less than to look at its addresses, of 1,500 some 40 ns; and a socket that is closed takes nothing of others with it.

mod chance;
mod lane;
mod worker;

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::Duration;

use balancer_common::abi::{Link, Note};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::Pid;

use crate::datapath::counters::Counters;
use crate::datapath::injector::Injector;
use crate::datapath::maps::Maps;
use crate::datapath::socket::{Sockets, of_all_queues};
use crate::slow_path::Handover;
use crate::userspace::lane::Lane;
use crate::userspace::worker::{Ends, Task, Worker};

/// How many tasks may wait for a worker.
const WAITING: usize = 1024;

/// How workers are to work.
#[derive(Clone, Debug, Default)]
pub struct Habits {
    /// The CPUs that they are pinned to, one each; empty: as many as an interface has queues, and where the kernel wants them.
    pub cpus: Vec<usize>,
    /// Whether they never sleep.
    pub spins: bool,
}

/// Whether a worker is at work: whoever sees that it is not, or has begun anew, knows that it has nothing of before.
#[derive(Debug, Default)]
struct Epoch(AtomicU64);

impl Epoch {
    fn begin(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn end(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// There is no worker any more, wherever it was.
    fn leave(&self) {
        self.0.fetch_or(1, Ordering::SeqCst);
        self.end();
    }

    /// Waits until what it is at, if anything, is done.
    fn pass(&self) {
        const A_WHILE: Duration = Duration::from_micros(20);
        let seen = self.0.load(Ordering::SeqCst);
        while seen % 2 == 1 && self.0.load(Ordering::SeqCst) == seen {
            sleep(A_WHILE);
        }
    }
}

/// A worker as others see it.
#[derive(Debug)]
struct Member {
    tasks: Sender<Task>,
    /// How many of them wait that are frames.
    waiting: Arc<AtomicUsize>,
    bell: Arc<EventFd>,
    epoch: Arc<Epoch>,
    counters: Arc<Counters>,
    thread: JoinHandle<()>,
}

impl Member {
    /// Ends it, and waits for that.
    fn end(self) {
        self.give(Task::End);
        let _ = self.thread.join();
    }

    fn give(&self, task: Task) {
        // One that has ended takes nothing.
        let _ = self.tasks.send(task);
        let _ = self.bell.write(1);
    }

    /// Gives it a frame, if not too many wait. Says whether it was given.
    fn give_frame(&self, task: Task) -> bool {
        let has_room = self.waiting.fetch_add(1, Ordering::Relaxed) < WAITING;
        if has_room {
            self.give(task);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        has_room
    }
}

/// What workers share.
#[derive(Debug)]
struct Common {
    maps: Arc<Maps>,
    injector: Injector,
    spins: bool,
    slow_path: OnceLock<Handover>,
    members: Mutex<Vec<Member>>,
    /// Which worker has the socket of an interface's queue.
    places: Mutex<HashMap<(u32, u32), usize>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Common {
    fn has_slow_path(&self) -> bool {
        self.slow_path.get().is_some()
    }

    /// Hands a frame over. Says whether there was room.
    fn hand_over(&self, interface: u32, queue: u32, note: Note, frame: &[u8]) -> bool {
        let slow_path = self.slow_path.get();
        slow_path.is_some_and(|it| it.give(interface, queue, note, frame))
    }

    /// Gives the worker a frame that has the socket of a queue, or else of the interface's first. Says whether there was room.
    fn give(&self, interface: u32, queue: u32, task: Task) -> bool {
        let places = lock(&self.places);
        let place = places
            .get(&(interface, queue))
            .or_else(|| places.get(&(interface, 0)));
        let members = lock(&self.members);
        let Some(member) = place.and_then(|&place| members.get(place)) else {
            return false;
        };
        member.give_frame(task)
    }

    fn transmit(&self, interface: u32, frame: &[u8]) -> bool {
        self.give(interface, 0, Task::Send(interface, frame.to_vec()))
    }
}

/// For whoever has frames for the workers.
#[derive(Clone, Debug)]
pub struct Inbox(Arc<Common>);

impl Inbox {
    /// Has a frame worked on as if it had just come, but that it is not handed over again.
    ///
    /// # Errors
    /// Nobody has the interface.
    pub fn resume(&self, interface: u32, queue: u32, frame: &[u8]) -> io::Result<()> {
        let frame = frame.to_vec();
        let task = Task::Resume {
            interface,
            queue,
            frame,
        };
        if self.0.give(interface, queue, task) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotConnected.into())
        }
    }

    /// Sends a frame out of an interface. Says whether somebody has it.
    #[must_use]
    pub fn transmit(&self, interface: u32, frame: &[u8]) -> bool {
        self.0.transmit(interface, frame)
    }
}

/// The workers. Dropped, they end, and their sockets with them.
#[derive(Debug)]
pub struct Workers {
    common: Arc<Common>,
    habits: Habits,
}

impl Workers {
    /// None yet: they begin as there are queues for them.
    #[must_use]
    pub fn new(maps: Arc<Maps>, injector: Injector, habits: Habits) -> Self {
        Self {
            common: Arc::new(Common {
                maps,
                injector,
                spins: habits.spins,
                slow_path: OnceLock::new(),
                members: Mutex::default(),
                places: Mutex::default(),
            }),
            habits,
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
        Sockets::number(sockets, others).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn open_one(&self, interface: u32, queue: u32) -> io::Result<OwnedFd> {
        let mut members = lock(&self.common.members);
        let place = match self.habits.cpus.len() {
            0 => queue as usize,
            count => queue as usize % count,
        };
        let before = members.len();
        while members.len() <= place {
            let member = self.begin(members.len())?;
            members.push(member);
        }
        let (answer, answered) = channel();
        members[place].give(Task::Open {
            interface,
            queue,
            answer,
        });
        drop(members);
        lock(&self.common.places).remove(&(interface, queue));
        let socket = answered.recv().map_err(io::Error::other).flatten();
        let mut members = lock(&self.common.members);
        if socket.is_err() {
            // They have nothing to do.
            let idle: Vec<Member> = members.drain(before..).collect();
            drop(members);
            idle.into_iter().for_each(Member::end);
            return socket;
        }
        for member in &members[before..] {
            self.common.maps.counters.add(Arc::clone(&member.counters));
        }
        lock(&self.common.places).insert((interface, queue), place);
        socket
    }

    fn begin(&self, number: usize) -> io::Result<Member> {
        let bell = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Arc::new(EventFd::from_flags(bell)?);
        let epoch = Arc::new(Epoch::default());
        let counters = Arc::new(Counters::default());
        let (tasks, receiver) = channel();
        let cpu = self.habits.cpus.get(number).copied();
        let (common, its_bell, its_epoch) = (
            Arc::clone(&self.common),
            Arc::clone(&bell),
            Arc::clone(&epoch),
        );
        let its_counters = Arc::clone(&counters);
        let waiting = Arc::<AtomicUsize>::default();
        let its_waiting = Arc::clone(&waiting);
        let thread = Builder::new()
            .name(format!("worker-{number}"))
            .spawn(move || {
                if let Some(cpu) = cpu {
                    pin(cpu);
                }
                let lane = Lane::new(Arc::clone(&common.maps), its_counters);
                let ends = Ends {
                    epoch: its_epoch,
                    bell: its_bell,
                    tasks: receiver,
                    waiting: its_waiting,
                };
                Worker::new(common, lane, ends).run();
            })?;
        Ok(Member {
            tasks,
            waiting,
            bell,
            epoch,
            counters,
            thread,
        })
    }

    /// Closes the sockets of all interfaces but these.
    pub fn retain(&self, interfaces: &[u32]) {
        lock(&self.common.places).retain(|(interface, _), _| interfaces.contains(interface));
        for member in lock(&self.common.members).iter() {
            member.give(Task::Retain(interfaces.to_vec()));
        }
    }

    /// Waits until every packet that was at work when this was called is done.
    pub fn grace(&self) {
        let epochs: Vec<_> = lock(&self.common.members)
            .iter()
            .map(|member| Arc::clone(&member.epoch))
            .collect();
        // Without the lock: a worker may want it before it is done.
        for epoch in epochs {
            epoch.pass();
        }
    }
}

/// Keeps this thread to a CPU.
fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    let pinned = set
        .set(cpu)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
    if let Err(error) = pinned {
        tracing::warn!(cpu, %error, "a worker is not pinned");
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let members = std::mem::take(&mut *lock(&self.common.members));
        for member in &members {
            member.give(Task::End);
        }
        members.into_iter().for_each(Member::end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_for_who_is_idle_or_gone() {
        let epoch = Epoch::default();
        epoch.pass();
        epoch.begin();
        epoch.end();
        epoch.pass();
        epoch.begin();
        epoch.leave();
        epoch.pass();
        epoch.leave();
        epoch.pass();
    }

    #[test]
    fn what_was_begun_is_waited_for() {
        let epoch = Epoch::default();
        let is_done = AtomicUsize::new(0);
        epoch.begin();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sleep(Duration::from_millis(20));
                is_done.store(1, Ordering::SeqCst);
                epoch.end();
                // Not to be waited for.
                epoch.begin();
            });
            epoch.pass();
            assert_eq!(is_done.load(Ordering::SeqCst), 1);
        });
    }
}
