//! Closed loop: the same frames go to the server and back for ever, translated both ways, without a generator.

use std::time::Duration;

use super::{Bench, Stage, Value, figure, flows};
use crate::contender::{Contender, Service, Task};
use crate::ends::Way;
use crate::results::{Better, Figure};

/// How many flows take turns. Ascending: those of the last number are known in the next.
pub const FLOWS: [u32; 3] = [1, 1024, 32_768];
/// Backends, as in the usual example.
const BACKENDS: u32 = 3;
/// How long opening all flows may take.
const OPENING: Duration = Duration::from_secs(20);
/// Caches and counters settle.
const WARM_UP: Duration = Duration::from_millis(150);

pub fn figures() -> Vec<Figure> {
    vec![
        figure(
            "rounds",
            "A round trip through the box, both directions",
            "ns",
            Better::Less,
            Some("flows"),
        ),
        figure(
            "two-way",
            "Packets both ways through the box, on one CPU, far ends included",
            "Mpps",
            Better::More,
            Some("flows"),
        ),
    ]
}

pub fn sample(bench: &Bench, contender: Contender) -> anyhow::Result<Vec<Value>> {
    let times = measure(bench, contender, Way::Round)?;
    // A round is two packets.
    let values = |(at, time)| [(0, at, time), (1, at, 2e3 / time)];
    Ok(times.into_iter().flat_map(values).collect())
}

/// Nanoseconds a frame at each number of flows.
pub fn measure(bench: &Bench, contender: Contender, way: Way) -> anyhow::Result<Vec<(u32, f64)>> {
    let task = Task {
        backends: BACKENDS,
        service: Service::Datagrams,
    };
    let most = FLOWS[FLOWS.len() - 1];
    let Stage {
        mut ends,
        setup,
        site,
    } = Stage::build(bench, contender, task, way, most)?;
    let time = Duration::from_millis(if bench.quick { 300 } else { 1000 });
    let mut order = fastrand::Rng::with_seed(1);
    let mut values = Vec::new();
    for at in FLOWS {
        let mut flows = flows(contender, at);
        // Entered in one order, measured in another: else they lie in memory as they come.
        ends.start(&flows, false)?;
        ends.finish(OPENING)?;
        order.shuffle(&mut flows);
        ends.start(&flows, true)?;
        crate::interrupt::sleep(WARM_UP)?;
        values.push((at, ends.rate(time)?));
        ends.stop()?;
    }
    let counts = ends.counts()?;
    let mut forwarded = counts.client.sent;
    if way == Way::Round {
        forwarded += counts.server.sent;
    }
    setup.check(&site, most.into(), forwarded, counts.handed_over)?;
    Ok(values)
}
