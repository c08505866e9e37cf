//! From the start of the process until it is ready, with all defaults.

use super::{Bench, Value, figure};
use crate::contender::Service;
use crate::daemon::Daemon;
use crate::plan;
use crate::results::{Better, Figure};
use crate::site::Site;

pub fn figures() -> Vec<Figure> {
    vec![figure(
        "start",
        "From the start of balancerd until it is ready, with defaults",
        "ms",
        Better::Less,
        None,
    )]
}

pub fn sample(bench: &Bench) -> anyhow::Result<Vec<Value>> {
    let site = Site::build()?;
    bench.cpus.settle()?;
    let backends = (1..=3).map(plan::backend);
    let daemon = Daemon::start(&site, &bench.binaries, "", Service::Web, backends)?;
    // Ready is what answers.
    daemon.status()?;
    Ok(vec![(0, 0, daemon.until_ready.as_secs_f64() * 1e3)])
}
