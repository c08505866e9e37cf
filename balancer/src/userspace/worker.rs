//! A thread that runs the pipeline on what comes by its sockets.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use balancer_common::abi::{Note, budget};
use balancer_common::pipeline::process;
use balancer_common::verdict::{Drop, Exit, Verdict};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use xdp::slab::Slab as _;

use super::common::Common;
use super::epoch::Epoch;
use super::lane::Lane;
use super::task::{Report, Task};
use crate::datapath::batch::Batch;
use crate::datapath::socket::{Size, Socket};
use nix::sys::eventfd::EventFd;

/// The sockets' sizes. Each is 16 MiB of memory.
const SIZE: Size = Size {
    ring: 2048,
    zero_copy: true,
};

/// How long a worker works on what is there before it ends.
const LAST: Duration = Duration::from_millis(100);

/// How many frames are worked on before others have their turn.
const BATCH: usize = 64;

/// How long to sleep at most while something waits to be sent, in milliseconds.
const SOON: u16 = 1;

/// The same after something has come, until it is known what there was no room for: longer than a [span](budget::SPAN_BITS).
const LATER: u16 = 150;

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
    pub(super) sleeps: Arc<AtomicBool>,
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
    /// How many frames have come by the sockets.
    received: u64,
    /// Whether none has since that was counted for which there was no room.
    is_counted: bool,
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
            received: 0,
            is_counted: true,
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
                    self.flush();
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

    /// Works on what is there, and sends it. What cannot be sent in time lies with the kernel, as in the queue of a device.
    fn finish(&mut self) {
        let end = Instant::now() + LAST;
        while self.receive() | self.is_busy() && Instant::now() < end {
            self.flush();
        }
        self.discard();
        self.count_overruns();
    }

    /// Counts what has come and is not worked on any more.
    fn discard(&mut self) {
        for bound in &mut self.sockets {
            // No more than the ring has: who goes on to send does not keep this going.
            for _ in 0..SIZE.ring as usize / BATCH {
                bound.socket.take(&mut self.batch);
                let count = self.batch.len() as u64;
                self.lane
                    .count(Exit::from(Drop::QueueFull).counter(), count);
                while let Some(packet) = self.batch.pop_back() {
                    bound.socket.free(packet);
                }
            }
        }
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
        } else if self.is_counted {
            PollTimeout::NONE
        } else {
            PollTimeout::from(LATER)
        };
        self.ends.sleeps.store(true, Ordering::SeqCst);
        let is_wanted = self.ends.waiting.load(Ordering::SeqCst) > 0;
        let polled_to = if is_wanted {
            Ok(0)
        } else {
            poll(&mut polled, timeout)
        };
        self.ends.sleeps.store(false, Ordering::SeqCst);
        match polled_to {
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
        self.is_counted = true;
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
                // Not more than the rings have: an interface that stays goes on to receive.
                for _ in 0..SIZE.ring as usize / BATCH {
                    if !self.receive() {
                        break;
                    }
                    self.flush();
                }
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
            Task::Send {
                out,
                counter,
                frame,
            } => {
                self.ends.waiting.fetch_sub(1, Ordering::Relaxed);
                // If the interface has gone meanwhile, so has the frame.
                let sent = self.transmit_here(out, &frame) == Some(true);
                if let Some(counter) = counter {
                    self.count_sent(counter, sent);
                }
            }
            Task::Finish(answer) => {
                self.finish();
                let _ = answer.send(());
            }
            Task::Report(answer) => {
                self.count_overruns();
                let _ = answer.send(self.report());
            }
            Task::End => {}
        }
    }

    fn report(&self) -> Report {
        let mut report = Report {
            received: self.received,
            ..Report::default()
        };
        for bound in &self.sockets {
            report.queues.push((bound.interface, bound.queue));
            report.frames += bound.socket.frames();
        }
        report
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
            self.received += batch.len() as u64;
            self.is_counted &= batch.is_empty();
            while let Some(mut packet) = batch.pop_back() {
                self.lane.has_slow_path.set(self.common.has_slow_path());
                let decision = self.decide(interface, queue, &mut packet);
                let own = &mut self.sockets[at].socket;
                match decision {
                    Some((counter, out)) if out == interface && own.sends() => {
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
                if !self.lane.may_give_back() {
                    return self.lost();
                }
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
        // By its first socket, or by the worker that has one, who counts it then.
        match self.transmit_here(out, frame) {
            Some(sent) => self.count_sent(counter, sent),
            None if self.common.transmit(out, Some(counter), frame) => {}
            None => self.count_sent(counter, false),
        }
    }

    fn count_sent(&self, counter: usize, sent: bool) {
        let lost = Exit::from(Drop::QueueFull).counter();
        self.lane.count(if sent { counter } else { lost }, 1);
    }

    /// Sends a frame by the first socket of an interface. Says whether there was room; `None` if there is no socket.
    fn transmit_here(&mut self, out: u32, frame: &[u8]) -> Option<bool> {
        let mut sockets = self.sockets.iter_mut();
        let bound = sockets.find(|bound| bound.interface == out && bound.socket.sends())?;
        Some(bound.socket.queue(frame))
    }
}
