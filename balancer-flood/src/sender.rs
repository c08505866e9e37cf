//! Sends a scenario's frames.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::programs::{ProgramError, TestRun as _, TestRunAttrs, TestRunOptions};

use crate::Error;
use crate::frame::Frames;
use crate::interface::{Counters, Interface};
use crate::pace::{Next, Pace};
use crate::plan::{Plan, Progress};
use crate::program::{self, One};
use crate::report::{Ended, Sent, per_second};
use crate::scenario::{Family, Mode, Protocol, Scenario};

/// How many frames the kernel makes before it sends them: a quarter of a veth's ring.
const BATCH: u32 = 64;
/// How long an interface may take to count what it was given.
const SETTLE: Duration = Duration::from_secs(1);
/// How soon a signal is seen while nothing is to be sent.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// Sends a scenario's frames out of an interface.
pub struct Sender {
    ebpf: Ebpf,
    program: &'static str,
    progress: One<Progress>,
    frames: Frames,
    scenario: Scenario,
    interface: Interface,
}

impl Sender {
    /// Prepares all that is needed; nothing is sent yet.
    ///
    /// # Errors
    /// The interface has no Ethernet address and the scenario neither, or the kernel refuses the program.
    pub fn new(interface: &Interface, scenario: &Scenario) -> Result<Self, Error> {
        let mac = scenario
            .source_mac
            .or(interface.mac)
            .ok_or_else(|| Error::NoMac(interface.name.clone()))?;
        let frames = Frames::new(scenario, mac, interface.index);
        let program = match (scenario.family, scenario.protocol) {
            (Family::V4, Protocol::Tcp) => "send_v4_tcp",
            (Family::V4, Protocol::Udp) => "send_v4_udp",
            (Family::V6, Protocol::Tcp) => "send_v6_tcp",
            (Family::V6, Protocol::Udp) => "send_v6_udp",
        };
        let mut ebpf = program::load(program)?;
        let mut plan: One<Plan> = program::map(&mut ebpf, "PLAN")?;
        plan.set(0, frames.plan(), 0)?;
        let progress = program::map(&mut ebpf, "PROGRESS")?;
        Ok(Self {
            ebpf,
            program,
            progress,
            frames,
            scenario: scenario.clone(),
            interface: interface.clone(),
        })
    }

    /// Sends until a bound is reached or `stop` is true.
    ///
    /// # Errors
    /// The kernel refuses, or the interface has sent nothing.
    pub fn send(&mut self, stop: &AtomicBool) -> Result<Sent, Error> {
        let before = self.interface.counters()?;
        self.progress.set(0, Progress::default(), 0)?;
        let pace = Pace {
            rate: self.scenario.rate,
        };
        let start = Instant::now();
        let mut sent = 0;
        let ended = loop {
            let elapsed = start.elapsed();
            let left = match self.left(sent, elapsed) {
                _ if stop.load(Ordering::Relaxed) => break Ended::Signal,
                Ok(left) => left,
                Err(ended) => break ended,
            };
            match pace.next(elapsed, sent, left) {
                Next::Send(frames) => {
                    self.run(frames)?;
                    sent = self.progress.get(&0, 0)?.sent;
                }
                Next::Wait(wait) => {
                    let end = self.scenario.duration.unwrap_or(Duration::MAX);
                    thread::sleep(wait.min(LONGEST_WAIT).min(end.saturating_sub(elapsed)));
                }
            }
        };
        let time = start.elapsed();
        let after = self.settled(before, sent)?;
        if sent > 0 && after == before {
            return Err(Error::NotSent(self.interface.name.clone(), sent));
        }
        Ok(Sent {
            name: self.scenario.name.clone(),
            sent,
            dropped: after.dropped.saturating_sub(before.dropped),
            seconds: time.as_secs_f64(),
            pps: per_second(sent, time),
            ended,
        })
    }

    /// How many frames may still be sent, at least one; or why none.
    fn left(&self, sent: u64, elapsed: Duration) -> Result<u64, Ended> {
        let count = self.scenario.count.map_or(u64::MAX, std::num::NonZero::get);
        let flows = match self.scenario.mode {
            Mode::New => u64::from(self.scenario.flows),
            Mode::Established => u64::MAX,
        };
        if sent >= count {
            Err(Ended::Count)
        } else if sent >= flows {
            Err(Ended::Flows)
        } else if self.scenario.duration.is_some_and(|end| elapsed >= end) {
            Err(Ended::Duration)
        } else {
            Ok(count.min(flows) - sent)
        }
    }

    /// Has the kernel send so many frames. A signal may make them fewer.
    fn run(&mut self, frames: u32) -> Result<(), Error> {
        let options = TestRunOptions {
            data_in: Some(self.frames.first()),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        };
        match program::program(&mut self.ebpf, self.program)?.test_run(options) {
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::Interrupted =>
            {
                Ok(())
            }
            result => Ok(result.map(drop)?),
        }
    }

    /// The interface's counters, once they account for all that was sent, or when that takes too long. A veth counts a
    /// frame when its peer takes it.
    fn settled(&self, before: Counters, sent: u64) -> Result<Counters, Error> {
        let end = Instant::now() + SETTLE;
        loop {
            let now = self.interface.counters()?;
            let accounted = (now.sent + now.dropped).saturating_sub(before.sent + before.dropped);
            if accounted >= sent || Instant::now() >= end {
                return Ok(now);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}
