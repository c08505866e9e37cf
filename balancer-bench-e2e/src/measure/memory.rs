//! Memory that a connection takes.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use anyhow::Context as _;
use aya::maps::MapInfo;
use balancer_common::abi::map;

use super::{Bench, Case, Stage, Value, figure, flows};
use crate::contender::{Contender, Service, Setup, Task};
use crate::ends::Way;
use crate::results::{Better, Figure};

/// How many connections the kernel's tables are filled with.
const COUNT: u32 = 60_000;
const BOUND: std::time::Duration = std::time::Duration::from_secs(10);

pub fn figures() -> Vec<Figure> {
    vec![figure(
        "memory",
        "Memory a connection of IPv4, both entries",
        "bytes",
        Better::Less,
        None,
    )]
}

pub fn cases() -> Vec<Case> {
    vec![(Contender::Balancerd, 0), (Contender::Iptables, 0)]
}

pub fn sample(bench: &Bench, contender: Contender) -> anyhow::Result<Vec<Value>> {
    let task = Task {
        backends: 3,
        service: Service::Datagrams,
    };
    let Stage {
        mut ends,
        setup,
        site,
    } = Stage::build(bench, contender, task, Way::Round, COUNT)?;
    let before = unreclaimable()?;
    ends.start(&flows(contender, COUNT), false)?;
    ends.finish(BOUND)?;
    let after = unreclaimable()?;
    let counts = ends.counts()?;
    let forwarded = counts.client.sent + counts.server.sent;
    setup.check(&site, COUNT.into(), forwarded, counts.handed_over)?;
    let bytes = match &setup {
        // Its tables have their full size from the start.
        Setup::Balancerd(daemon) => {
            let most = daemon.status()?.connections.max;
            tables(&site.lab.pin_path()?)? as f64 / most as f64
        }
        _ => after.saturating_sub(before) as f64 / f64::from(COUNT) + buckets()?,
    };
    Ok(vec![(0, 0, bytes)])
}

/// The bytes of the maps whose size `max_connections` decides. Those of backends, services and counters come on top,
/// however few or many connections there are.
fn tables(pins: &Path) -> anyhow::Result<u64> {
    let mut sum = 0;
    for name in [map::FLOWS_V4, map::INDEX_V4] {
        let map = MapInfo::from_pin(pins.join(name))?.fd()?;
        let info = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
        let text = fs::read_to_string(&info).context(info)?;
        let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        let bytes = line.with_context(|| format!("no size of {name}"))?;
        sum += bytes.trim().parse::<u64>()?;
    }
    Ok(sum)
}

/// What the kernel's allocator has given out for good, in bytes.
fn unreclaimable() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("SUnreclaim:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kilobytes.context("no SUnreclaim")?.trim().parse::<u64>()? * 1024)
}

/// The share that a connection has of conntrack's hash table: a pointer a bucket, for as many connections as there may be.
fn buckets() -> anyhow::Result<f64> {
    let read = |name| -> anyhow::Result<f64> {
        let path = format!("/proc/sys/net/netfilter/{name}");
        Ok(fs::read_to_string(&path).context(path)?.trim().parse()?)
    };
    Ok(8.0 * read("nf_conntrack_buckets")? / read("nf_conntrack_max")?)
}
