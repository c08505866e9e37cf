//! What workers share, and who has frames for them.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use balancer_common::abi::Note;

use super::member::Member;
use super::task::Task;
use crate::datapath::injector::Injector;
use crate::datapath::maps::Maps;
use crate::slow_path::Handover;

/// What workers share.
#[derive(Debug)]
pub struct Common {
    pub maps: Arc<Maps>,
    pub injector: Injector,
    /// Whether they never sleep.
    pub spins: bool,
    pub slow_path: OnceLock<Handover>,
    staff: Mutex<Staff>,
}

/// The workers, and what each has.
#[derive(Debug, Default)]
pub struct Staff {
    pub members: Vec<Member>,
    /// Which worker has the socket of an interface's queue.
    pub places: HashMap<(u32, u32), usize>,
    /// Sockets that went with a worker, as above.
    pub closed: Vec<((u32, u32), usize)>,
}

impl Common {
    pub fn new(maps: Arc<Maps>, injector: Injector, spins: bool) -> Self {
        Self {
            maps,
            injector,
            spins,
            slow_path: OnceLock::new(),
            staff: Mutex::default(),
        }
    }

    /// The staff. Not to be held while a worker is waited for: it may want it too.
    pub fn staff(&self) -> MutexGuard<'_, Staff> {
        self.staff.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn has_slow_path(&self) -> bool {
        self.slow_path.get().is_some()
    }

    /// Hands a frame over. Says whether there was room.
    pub fn hand_over(&self, interface: u32, queue: u32, note: Note, frame: &[u8]) -> bool {
        let slow_path = self.slow_path.get();
        slow_path.is_some_and(|it| it.give(interface, queue, note, frame))
    }

    /// Gives the worker a frame that has the socket of a queue, or else of the interface's first. Says whether there was room.
    fn give(&self, interface: u32, queue: u32, task: Task) -> bool {
        let staff = self.staff();
        let place = staff
            .places
            .get(&(interface, queue))
            .or_else(|| staff.places.get(&(interface, 0)));
        let Some(member) = place.and_then(|&place| staff.members.get(place)) else {
            return false;
        };
        member.give_frame(task)
    }

    /// Has the worker send a frame that can, and count what became of it. Says whether there was room.
    pub fn transmit(&self, out: u32, counter: Option<usize>, frame: &[u8]) -> bool {
        let task = Task::Send {
            out,
            counter,
            frame: frame.to_vec(),
        };
        self.give(out, 0, task)
    }
}

/// For whoever has frames for the workers.
#[derive(Clone, Debug)]
pub struct Inbox(pub(super) Arc<Common>);

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
        self.0.transmit(interface, None, frame)
    }
}
