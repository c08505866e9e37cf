//! A reload that replaces all backends while packets circulate.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use balancer_common::abi::MAX_BACKENDS;

use super::{Bench, Stage, Value, figure, flows};
use crate::contender::{Contender, Service, Setup, Task};
use crate::ends::Way;
use crate::interrupt;
use crate::plan;
use crate::results::{Better, Figure};

/// How many backends are replaced, by as many others: those of before and of after need ids beside each other.
const BACKENDS: u32 = if MAX_BACKENDS < 20_000 {
    MAX_BACKENDS / 2
} else {
    10_000
};
const FLOWS: u32 = 1024;
const AROUND: Duration = Duration::from_millis(100);
const OPENING: Duration = Duration::from_secs(10);

pub fn figures() -> Vec<Figure> {
    vec![
        figure(
            "reload",
            &format!("A reload that replaces {BACKENDS} backends under load, by balancerctl"),
            "ms",
            Better::Less,
            None,
        ),
        figure(
            "reload-lost",
            "Packets lost during that reload",
            "packets",
            Better::Less,
            None,
        ),
    ]
}

pub fn sample(bench: &Bench) -> anyhow::Result<Vec<Value>> {
    let contender = Contender::Balancerd;
    let task = Task {
        backends: BACKENDS,
        service: Service::Datagrams,
    };
    let Stage {
        mut ends,
        setup,
        site: _site,
    } = Stage::build(bench, contender, task, Way::Round, FLOWS)?;
    let Setup::Balancerd(daemon) = &setup else {
        bail!("not balancerd");
    };
    let flows = flows(contender, FLOWS);
    ends.start(&flows, false)?;
    ends.finish(OPENING)?;
    ends.start(&flows, true)?;
    interrupt::sleep(AROUND)?;
    daemon.configure((1..=BACKENDS).map(|number| plan::backend(BACKENDS + number)))?;
    let start = Instant::now();
    let reload = daemon.reload()?;
    let took = start.elapsed();
    ensure!(
        reload.applied && reload.errors.is_empty(),
        "the reload failed: {:?}",
        reload.errors
    );
    interrupt::sleep(AROUND)?;
    let rate = ends.rate(AROUND)?;
    let lost = ends.drain()?;
    let counts = ends.counts()?;
    let forwarded = counts.client.sent + counts.server.sent;
    let packets = daemon.status()?.packets;
    ensure!(
        packets.forwarded == forwarded && rate.is_finite(),
        "balancerd counts {packets:?}, {forwarded} frames circulated"
    );
    Ok(vec![(0, 0, took.as_secs_f64() * 1e3), (1, 0, lost as f64)])
}
