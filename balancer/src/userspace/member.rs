//! A worker as others see it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

use balancer_common::verdict::{Drop, Exit};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::Pid;

use super::common::Common;
use super::epoch::Epoch;
use super::lane::Lane;
use super::task::Task;
use super::worker::{Ends, Worker};
use crate::datapath::counters::Counters;

/// How many frames may wait for a worker.
const WAITING: usize = 1024;

/// A thread that works on packets.
#[derive(Debug)]
pub struct Member {
    tasks: Sender<Task>,
    /// How many of them wait that are frames.
    waiting: Arc<AtomicUsize>,
    /// Whether it sleeps, or is about to.
    sleeps: Arc<AtomicBool>,
    bell: Arc<EventFd>,
    /// Whether it is at work.
    pub epoch: Arc<Epoch>,
    /// What it has counted.
    pub counters: Arc<Counters>,
    thread: JoinHandle<()>,
}

impl Member {
    /// Begins one, which goes on counting in these counters.
    ///
    /// # Errors
    /// There can be no thread, or no event.
    pub fn begin(
        name: String,
        cpu: Option<usize>,
        common: Arc<Common>,
        counters: Arc<Counters>,
    ) -> io::Result<Self> {
        let bell = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Arc::new(EventFd::from_flags(bell)?);
        let epoch = Arc::new(Epoch::default());
        let waiting = Arc::<AtomicUsize>::default();
        let sleeps = Arc::<AtomicBool>::default();
        let (tasks, receiver) = channel();
        let lane = Lane::new(Arc::clone(&common.maps), Arc::clone(&counters));
        let ends = Ends {
            epoch: Arc::clone(&epoch),
            bell: Arc::clone(&bell),
            tasks: receiver,
            waiting: Arc::clone(&waiting),
            sleeps: Arc::clone(&sleeps),
        };
        let thread = Builder::new().name(name).spawn(move || {
            if let Some(cpu) = cpu {
                pin(cpu);
            }
            Worker::new(common, lane, ends).run();
        })?;
        Ok(Self {
            tasks,
            waiting,
            sleeps,
            bell,
            epoch,
            counters,
            thread,
        })
    }

    /// Whether it has ended by itself.
    pub fn has_died(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it, and waits for that. Says whether it was well until then.
    pub fn end(self) -> bool {
        self.give(Task::End);
        self.thread.join().is_ok()
    }

    /// Counts the frames that wait for one that has died: nobody will work on them.
    pub fn count_lost(&self) {
        let lost = self.waiting.load(Ordering::Relaxed) as u64;
        let counter = Exit::from(Drop::QueueFull).counter();
        self.counters.count(counter, lost);
    }

    /// Tells it something. Says whether it is there to hear it.
    pub fn give(&self, task: Task) -> bool {
        let is_given = self.tasks.send(task).is_ok();
        let _ = self.bell.write(1);
        is_given
    }

    /// Gives it a frame, if not too many wait. Says whether it was given.
    pub fn give_frame(&self, task: Task) -> bool {
        let has_room = self.waiting.fetch_add(1, Ordering::SeqCst) < WAITING;
        let is_given = has_room && self.tasks.send(task).is_ok();
        if !is_given {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        // Either it sees that something waits before it sleeps, or this sees that it sleeps: both look after they have written.
        if self.sleeps.swap(false, Ordering::SeqCst) {
            let _ = self.bell.write(1);
        }
        true
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
