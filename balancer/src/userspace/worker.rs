//! A thread that runs the pipeline on what comes by its sockets.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use balancer_common::abi::{Note, budget};
use balancer_common::pipeline::process;
use balancer_common::verdict::{Drop, Exit, Verdict};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use xdp::slab::Slab as _;

use super::lane::Lane;
use super::{Common, Epoch};
use crate::datapath::socket::{Batch, Size, Socket};
use nix::sys::eventfd::EventFd;

/// The sockets' sizes. Each is 16 MiB of memory.
const SIZE: Size = Size {
    ring: 2048,
    zero_copy: true,
};

/// How long a worker works on what is there when it has to end.
const LAST: Duration = Duration::from_millis(100);

/// How many frames are worked on before others have their turn.
const BATCH: usize = 64;

/// How long to sleep at most while something waits to be sent.
const SOON: u16 = 1;

/// What a worker is told.
pub enum Task {
    /// To open a socket on a queue of an interface, instead of the one that it may have.
    Open {
        /// The interface's index.
        interface: u32,
        /// The queue.
        queue: u32,
        /// Where to say what came of it.
        answer: Sender<io::Result<OwnedFd>>,
    },
    /// To close the sockets of all interfaces but these.
    Retain(Vec<u32>),
    /// To work on a frame that has waited.
    Resume {
        /// The interface that it came in by.
        interface: u32,
        /// The queue.
        queue: u32,
        /// It.
        frame: Vec<u8>,
    },
    /// To send a frame out of an interface.
    Send(u32, Vec<u8>),
    /// To end.
    End,
}

/// A socket and where it is.
struct Bound {
    interface: u32,
    queue: u32,
    socket: Socket,
    /// How many frames it had no room for when that was last asked.
    overruns: u64,
}

/// The worker's ends of what others have to do with it.
pub struct Ends {
    pub(super) epoch: Arc<Epoch>,
    pub(super) bell: Arc<EventFd>,
    pub(super) tasks: Receiver<Task>,
    pub(super) waiting: Arc<AtomicUsize>,
}

impl std::ops::Drop for Ends {
    /// Also of a thread that panics: nobody is to wait for it.
    fn drop(&mut self) {
        self.epoch.leave();
    }
}

/// What the thread works with.
pub struct Worker {
    common: Arc<Common>,
    lane: Lane,
    ends: Ends,
    sockets: Vec<Bound>,
    batch: Batch,
}

impl Worker {
    /// Without sockets.
    pub fn new(common: Arc<Common>, lane: Lane, ends: Ends) -> Self {
        Self {
            common,
            lane,
            ends,
            sockets: Vec::new(),
            batch: Batch::with_capacity(BATCH),
        }
    }

    /// Works until it is told to end.
    pub fn run(mut self) {
        let mut is_idle = true;
        loop {
            let spins = self.common.spins && !self.sockets.is_empty();
            if is_idle
                && !spins
                && let Err(error) = self.wait()
            {
                tracing::error!(%error, "a worker has ended: what comes by its queues is lost");
                return;
            }
            self.ends.epoch.begin();
            self.look_at_the_clock();
            let mut tasks = 0;
            while tasks < BATCH
                && let Ok(task) = self.ends.tasks.try_recv()
            {
                tasks += 1;
                if let Task::End = task {
                    self.finish();
                    self.ends.epoch.end();
                    return;
                }
                self.perform(task);
            }
            is_idle = !self.receive() && tasks == 0;
            self.flush();
            self.ends.epoch.end();
        }
    }

    /// Works on what is there, and sends it: nothing that has come is lost.
    fn finish(&mut self) {
        let end = Instant::now() + LAST;
        while self.receive() | self.is_busy() && Instant::now() < end {
            self.flush();
        }
        self.count_overruns();
    }

    fn flush(&mut self) {
        for bound in &mut self.sockets {
            bound.socket.flush();
        }
    }

    fn is_busy(&self) -> bool {
        self.sockets.iter().any(|bound| bound.socket.is_busy())
    }

    /// Waits until there is something to do.
    fn wait(&self) -> io::Result<()> {
        let sockets = self.sockets.iter().map(|bound| bound.socket.fd());
        let mut polled: Vec<PollFd<'_>> = std::iter::once(self.ends.bell.as_fd())
            .chain(sockets)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let timeout = if self.is_busy() {
            PollTimeout::from(SOON)
        } else {
            PollTimeout::NONE
        };
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        if polled.first().and_then(PollFd::any) == Some(true) {
            self.ends.bell.read()?;
        }
        Ok(())
    }

    fn look_at_the_clock(&mut self) {
        // It is there on Linux.
        let Ok(time) = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE) else {
            return;
        };
        let is_new = self.lane.set_time(Duration::from(time).as_nanos() as u64);
        if is_new {
            self.count_overruns();
        }
    }

    /// Counts what the kernel had no room for in the sockets.
    fn count_overruns(&mut self) {
        for bound in &mut self.sockets {
            let Ok(overruns) = bound.socket.overruns() else {
                continue;
            };
            let more = overruns.saturating_sub(bound.overruns);
            bound.overruns = overruns;
            self.lane.count(Exit::from(Drop::QueueFull).counter(), more);
        }
    }

    fn perform(&mut self, task: Task) {
        match task {
            Task::Open {
                interface,
                queue,
                answer,
            } => {
                let _ = answer.send(self.open(interface, queue));
            }
            Task::Retain(interfaces) => {
                self.count_overruns();
                self.sockets
                    .retain(|bound| interfaces.contains(&bound.interface));
            }
            Task::Resume {
                interface,
                queue,
                mut frame,
            } => {
                self.ends.waiting.fetch_sub(1, Ordering::Relaxed);
                self.lane.has_slow_path.set(false);
                let decision = self.decide(interface, queue, &mut frame);
                if let Some((counter, out)) = decision {
                    self.send(counter, out, &frame);
                }
            }
            Task::Send(interface, frame) => {
                self.ends.waiting.fetch_sub(1, Ordering::Relaxed);
                // If the interface has gone meanwhile, so has the frame.
                self.transmit_here(interface, &frame);
            }
            Task::End => {}
        }
    }

    fn open(&mut self, interface: u32, queue: u32) -> io::Result<OwnedFd> {
        self.sockets
            .retain(|bound| (bound.interface, bound.queue) != (interface, queue));
        let socket = Socket::open(interface, queue, SIZE)?;
        let descriptor = socket.duplicate()?;
        self.sockets.push(Bound {
            interface,
            queue,
            socket,
            overruns: 0,
        });
        Ok(descriptor)
    }

    /// Works on what has come by the sockets. Says whether anything has.
    fn receive(&mut self) -> bool {
        let mut any = false;
        let mut batch = std::mem::replace(&mut self.batch, Batch::with_capacity(0));
        for at in 0..self.sockets.len() {
            let Bound {
                interface,
                queue,
                ref mut socket,
                ..
            } = self.sockets[at];
            socket.take(&mut batch);
            any |= !batch.is_empty();
            while let Some(mut packet) = batch.pop_back() {
                self.lane.has_slow_path.set(self.common.has_slow_path());
                let decision = self.decide(interface, queue, &mut packet);
                let own = &mut self.sockets[at].socket;
                match decision {
                    Some((counter, out)) if out == interface => {
                        let sent = own.queue_own(packet);
                        self.count_sent(counter, sent);
                    }
                    Some((counter, out)) => {
                        self.send(counter, out, &packet);
                        self.sockets[at].socket.free(packet);
                    }
                    None => own.free(packet),
                }
            }
            self.sockets[at].socket.refill();
        }
        self.batch = batch;
        any
    }

    /// Decides what a frame gets. Of one that is to be sent: its counter, and the interface that it leaves by.
    fn decide(&self, interface: u32, queue: u32, frame: &mut [u8]) -> Option<(usize, u32)> {
        let verdict = process(&mut &mut *frame, &self.lane, interface);
        let counter = verdict.counter();
        match verdict {
            Verdict::Transmit => return Some((counter, interface)),
            Verdict::Redirect(out) => return Some((counter, out)),
            Verdict::Pass(_) => {
                if let Err(error) = self.common.injector.inject(interface, queue, frame) {
                    tracing::debug!(%error, "a frame for the kernel is lost");
                    return self.lost();
                }
            }
            Verdict::Drop(reason) => {
                if reason.is_told()
                    && self.lane.has_slow_path.get()
                    && self.lane.is_within(budget::TOLD)
                {
                    self.hand_over(interface, queue, counter, frame);
                }
            }
            Verdict::Punt(_) => {
                if !self.hand_over(interface, queue, counter, frame) {
                    return self.lost();
                }
            }
        }
        self.lane.count(counter, 1);
        None
    }

    /// Counts a frame for which there was no room.
    fn lost(&self) -> Option<(usize, u32)> {
        self.lane.count(Exit::from(Drop::QueueFull).counter(), 1);
        None
    }

    /// Hands a frame over. Says whether there was room.
    fn hand_over(&self, interface: u32, queue: u32, counter: usize, frame: &[u8]) -> bool {
        let note = Note {
            verdict: counter as u32,
            mtu: self.lane.mtu.get(),
        };
        self.common.hand_over(interface, queue, note, frame)
    }

    /// Sends a frame, and counts it.
    fn send(&mut self, counter: usize, out: u32, frame: &[u8]) {
        let sent = self.transmit(out, frame);
        self.count_sent(counter, sent);
    }

    fn count_sent(&self, counter: usize, sent: bool) {
        let lost = Exit::from(Drop::QueueFull).counter();
        self.lane.count(if sent { counter } else { lost }, 1);
    }

    /// Sends a frame by the first socket of an interface, or has the worker send it that has one. Says whether there was room.
    fn transmit(&mut self, out: u32, frame: &[u8]) -> bool {
        match self.transmit_here(out, frame) {
            Some(sent) => sent,
            None => self.common.transmit(out, frame),
        }
    }

    /// Sends a frame by the first socket of an interface. Says whether there was room; `None` if there is no socket.
    fn transmit_here(&mut self, out: u32, frame: &[u8]) -> Option<bool> {
        let mut sockets = self.sockets.iter_mut();
        let bound = sockets.find(|bound| bound.interface == out)?;
        Some(bound.socket.queue(frame))
    }
}
