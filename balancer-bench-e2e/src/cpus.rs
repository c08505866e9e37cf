//! The two CPUs that everything runs on, and whether they are idle.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::interrupt;

/// How long is looked at once.
const GLANCE: Duration = Duration::from_millis(100);
/// What share of the two CPUs' time may be used by others, in per cent.
const USED: u64 = 5;
/// How long quiet is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The two CPUs.
#[derive(Clone, Copy, Debug)]
pub struct Cpus {
    /// Packets circulate on this one.
    pub packets: usize,
    /// What measures runs on this one, while they do.
    pub watch: usize,
}

impl Cpus {
    /// The first two that this process may use. It keeps to them from now on, and so does what it starts.
    pub fn take() -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let mut numbers =
            (0..CpuSet::count()).filter(|&number| allowed.is_set(number).unwrap_or(false));
        let (Some(packets), Some(watch)) = (numbers.next(), numbers.next()) else {
            bail!("two CPUs are needed");
        };
        keep_to(&[packets, watch])?;
        Ok(Self { packets, watch })
    }

    /// Waits until nearly nothing runs on them: false when it never came to that.
    pub fn settle(self) -> anyhow::Result<bool> {
        let end = Instant::now() + PATIENCE;
        loop {
            let before = self.times()?;
            interrupt::sleep(GLANCE)?;
            let after = self.times()?;
            let (used, all) = (after.0 - before.0, after.1 - before.1);
            if used * 100 <= all * USED {
                return Ok(true);
            }
            if Instant::now() > end {
                return Ok(false);
            }
        }
    }

    /// The time that both have worked, and all time, in ticks.
    fn times(self) -> anyhow::Result<(u64, u64)> {
        let text = fs::read_to_string("/proc/stat").context("/proc/stat")?;
        let mut sum = (0, 0);
        for number in [self.packets, self.watch] {
            let name = format!("cpu{number} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&name));
            let line = line.with_context(|| format!("/proc/stat has no {name}"))?;
            // user nice system idle iowait irq softirq steal
            let fields: Vec<u64> = line
                .split_whitespace()
                .flat_map(str::parse)
                .take(8)
                .collect();
            let all: u64 = fields.iter().sum();
            let idle: u64 = fields.iter().skip(3).take(2).sum();
            sum.0 += all - idle;
            sum.1 += all;
        }
        Ok(sum)
    }
}

/// Keeps the calling thread to some CPUs.
pub fn keep_to(cpus: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).context("keeping to a CPU")
}
