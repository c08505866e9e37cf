//! New connections: every frame opens one.

use std::time::Duration;

use anyhow::ensure;

use super::{Bench, Case, Stage, Value, figure, flows};
use crate::contender::{Contender, Service, Task};
use crate::ends::Way;
use crate::results::{Better, Figure};

/// How many backends share them.
const BACKENDS: [u32; 4] = [3, 10, 100, 1000];
/// Rules for so many take iptables minutes; balancerd alone has them.
const OURS: u32 = 10_000;
/// How many are opened: each has a source port of its own, so nobody has to search for a free one, and they fit into every table.
const COUNT: u32 = 60_000;
/// How long that may take.
const BOUND: Duration = Duration::from_secs(10);

pub fn figures() -> Vec<Figure> {
    vec![figure(
        "connections",
        "New connections, on one CPU, far ends included",
        "thousand/s",
        Better::More,
        Some("backends"),
    )]
}

pub fn cases() -> Vec<Case> {
    let balancing = || Contender::ALL.into_iter().filter(|who| who.balances());
    let mut cases: Vec<_> = BACKENDS
        .into_iter()
        .flat_map(|backends| balancing().map(move |contender| (contender, backends)))
        .collect();
    cases.push((Contender::Balancerd, OURS));
    cases
}

pub fn sample(bench: &Bench, (contender, backends): Case) -> anyhow::Result<Vec<Value>> {
    let task = Task {
        backends,
        service: Service::Datagrams,
    };
    let Stage {
        mut ends,
        setup,
        site,
    } = Stage::build(bench, contender, task, Way::One, COUNT)?;
    bench.cpus.settle()?;
    ends.start(&flows(contender, COUNT), false)?;
    let time = ends.finish(BOUND)?;
    let counts = ends.counts()?;
    let sent = counts.client.sent;
    ensure!(
        sent == u64::from(COUNT),
        "{sent} of {COUNT} connections were opened in {BOUND:?}"
    );
    ensure_balanced(&ends, backends)?;
    setup.check(&site, sent, sent, counts.handed_over)?;
    Ok(vec![(0, backends, 1e6 / time)])
}

/// Each backend got the same, and all of them together everything.
fn ensure_balanced(ends: &crate::ends::Ends, backends: u32) -> anyhow::Result<()> {
    let mut sum = 0;
    for number in 1..=backends {
        let arrived = ends.arrived(number)?;
        let share = u64::from(COUNT / backends);
        ensure!(
            (share..=share + 1).contains(&arrived),
            "backend {number} of {backends} got {arrived} connections, {share} are its share"
        );
        sum += arrived;
    }
    ensure!(sum == u64::from(COUNT), "{sum} of {COUNT} arrived");
    Ok(())
}
