//! Memory that a connection takes.

use std::fs;

use anyhow::{Context as _, ensure};

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
        "Memory a connection, both entries, all tables of IPv4",
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
            tables(daemon.process.pid())? as f64 / most as f64
        }
        _ => after.saturating_sub(before) as f64 / f64::from(COUNT) + buckets()?,
    };
    Ok(vec![(0, 0, bytes)])
}

/// The bytes of all maps that a process holds, but those for IPv6 only.
fn tables(pid: u32) -> anyhow::Result<u64> {
    let mut held = Vec::new();
    let directory = format!("/proc/{pid}/fdinfo");
    for entry in fs::read_dir(&directory).context(directory)? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<u64>().ok())
        };
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            held.push((id, bytes));
        }
    }
    held.sort_unstable();
    held.dedup();
    let mut sum = 0;
    for map in aya::maps::loaded_maps() {
        let map = map?;
        let bytes = held.iter().find(|(id, _)| *id == u64::from(map.id()));
        if let Some((_, bytes)) = bytes
            && !map.name_as_str().unwrap_or_default().contains("V6")
        {
            sum += bytes;
        }
    }
    ensure!(sum > 0, "process {pid} holds no maps");
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
