//! wrk against nginx, connections closed each time and kept alive.

use std::time::Duration;

use anyhow::ensure;

use super::{Bench, Value, figure, web_site};
use crate::contender::{Contender, Service, Setup, Task};
use crate::results::{Better, Figure};
use crate::wrk;

const BACKENDS: u32 = 3;
const CONNECTIONS: u32 = 64;

pub fn figures() -> Vec<Figure> {
    let mut figures = Vec::new();
    for (name, how, unit) in [
        ("closing", "closed each time", "thousand conn/s"),
        ("keep-alive", "kept alive", "thousand req/s"),
    ] {
        let title = |what| format!("wrk and nginx, connections {how}: {what}");
        figures.extend([
            figure(
                &format!("web-{name}"),
                &title("requests"),
                unit,
                Better::More,
                None,
            ),
            figure(
                &format!("web-{name}-p50"),
                &title("latency, median"),
                "ms",
                Better::Less,
                None,
            ),
            figure(
                &format!("web-{name}-p99"),
                &title("latency, 99 %"),
                "ms",
                Better::Less,
                None,
            ),
        ]);
    }
    figures
}

pub fn sample(bench: &Bench, contender: Contender) -> anyhow::Result<Vec<Value>> {
    let (site, _nginx) = web_site(BACKENDS)?;
    let task = Task {
        backends: BACKENDS,
        service: Service::Web,
    };
    let setup = Setup::begin(contender, &site, &bench.binaries, task)?;
    bench.cpus.settle()?;
    let mut values = Vec::new();
    for (index, close) in [true, false].into_iter().enumerate() {
        let task = wrk::Task {
            connections: CONNECTIONS,
            close,
            time: Duration::from_secs(if bench.quick { 2 } else { 5 }),
        };
        let wrk = wrk::Running::start(&site, contender, task)?.finish()?;
        ensure!(wrk.errors == 0, "{contender}: wrk had errors: {wrk:?}");
        let before = index * 3;
        values.extend([
            (before, 0, wrk.rate / 1e3),
            (before + 1, 0, wrk.p50),
            (before + 2, 0, wrk.p99),
        ]);
        if close {
            setup.check_opened(&site, wrk.requests)?;
        }
    }
    Ok(values)
}
