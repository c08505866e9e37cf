//! Counts the frames that come.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::maps::{MapData, PerCpuArray};
use aya::programs::XdpMode;

use crate::Error;
use crate::interface::Interface;
use crate::plan::Tally;
use crate::program::{self, One};
use crate::report::{Received, per_second};

const PROGRAM: &str = "receive";
/// How often the counters are read.
const POLL: Duration = Duration::from_millis(10);

/// Counts the frames of TCP and UDP that come in by an interface, and drops them: they come no further.
///
/// Dropped, it leaves the interface as it was.
pub struct Receiver {
    tally: PerCpuArray<MapData, Tally>,
    /// Holds the program's link.
    _ebpf: Ebpf,
}

impl Receiver {
    /// Counts from now on; with `port`, only what goes to that port, and the rest passes.
    ///
    /// # Errors
    /// The kernel refuses the program, or the interface has another one.
    pub fn attach(interface: &Interface, port: Option<u16>) -> Result<Self, Error> {
        let mut ebpf = program::load(PROGRAM)?;
        let mut wanted: One<u32> = program::map(&mut ebpf, "PORT")?;
        wanted.set(0, u32::from(port.unwrap_or(0)), 0)?;
        let tally = program::map(&mut ebpf, "TALLY")?;
        program::program(&mut ebpf, PROGRAM)?
            .attach_to_if_index(interface.index, XdpMode::default())?;
        Ok(Self { tally, _ebpf: ebpf })
    }

    /// What has come so far.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn tally(&self) -> Result<Tally, Error> {
        let mut sum = Tally::default();
        for tally in self.tally.get(&0, 0)?.iter() {
            sum.packets += tally.packets;
            sum.bytes += tally.bytes;
        }
        Ok(sum)
    }

    /// Waits until `time` is over, `count` frames have come, or `stop` is true.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn receive(
        &self,
        time: Duration,
        count: Option<u64>,
        stop: &AtomicBool,
    ) -> Result<Received, Error> {
        let start = Instant::now();
        let mut first = None;
        let mut last = start;
        let mut before = self.tally()?;
        loop {
            let tally = self.tally()?;
            if tally.packets > 0 && first.is_none() {
                first = Some(Instant::now());
            }
            if tally != before {
                last = Instant::now();
                before = tally;
            }
            let is_enough = count.is_some_and(|count| tally.packets >= count);
            let left = time.saturating_sub(start.elapsed());
            if is_enough || left.is_zero() || stop.load(Ordering::Relaxed) {
                let time = first.map_or(Duration::ZERO, |first| {
                    last.saturating_duration_since(first)
                });
                return Ok(Received {
                    received: tally.packets,
                    bytes: tally.bytes,
                    seconds: time.as_secs_f64(),
                    pps: per_second(tally.packets, time),
                });
            }
            thread::sleep(POLL.min(left));
        }
    }
}
