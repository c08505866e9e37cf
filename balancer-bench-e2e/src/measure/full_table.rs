//! What those notice who are in a table of connections that is full, while others want in.

use std::time::Duration;

use anyhow::ensure;

use super::{Bench, Case, Value, figure, web_site};
use crate::contender::{Contender, Service};
use crate::daemon::{Daemon, many_ports};
use crate::flood::{Flood, Kind};
use crate::interrupt;
use crate::plan;
use crate::results::{Better, Figure};
use crate::wrk;

/// Connections that ask all the time, and idle ones beside them: all that the table takes.
const BUSY: u32 = 1000;
const IDLE: u32 = 1000;
/// With the one that wrk opens and closes before, to see whether somebody is there.
const ALL: u32 = BUSY + IDLE + 1;
/// How long opening them may take.
const OPENING: Duration = Duration::from_secs(2);
/// Thousands of SYNs a second.
const RATES: [u32; 2] = [0, 100];

pub fn figures() -> Vec<Figure> {
    let rate = Some("thousand SYNs/s");
    vec![
        figure(
            "full-table-kept",
            &format!("wrk over {BUSY} connections kept alive, the table of {ALL} full"),
            "thousand req/s",
            Better::More,
            rate,
        ),
        figure(
            "full-table-broken",
            "errors of these connections",
            "errors",
            Better::Less,
            rate,
        ),
        figure(
            "full-table-refused",
            "new connections that are refused meanwhile",
            "thousand/s",
            Better::More,
            rate,
        ),
    ]
}

pub fn cases() -> Vec<Case> {
    RATES.map(|rate| (Contender::Balancerd, rate)).to_vec()
}

pub fn sample(bench: &Bench, rate: u32) -> anyhow::Result<Vec<Value>> {
    let (site, _nginx) = web_site(1)?;
    let lines = many_ports(&site)? + &format!("\nmax_connections = {ALL}");
    let backends = [plan::backend(1)].into_iter();
    let daemon = Daemon::start(&site, &bench.binaries, &lines, Service::Web, backends)?;
    bench.cpus.settle()?;
    let to = (plan::SERVICE, plan::WEB_PORT).into();
    let _idle: Vec<_> = (0..IDLE)
        .map(|_| site.client.connect(to, None, OPENING))
        .collect::<Result<_, _>>()?;
    let time = Duration::from_secs(if bench.quick { 4 } else { 10 });
    let task = wrk::Task {
        connections: BUSY,
        close: false,
        time,
    };
    let wrk = wrk::Running::start(&site, Contender::Balancerd, task)?;
    // All its connections are there within that.
    interrupt::sleep(Duration::from_millis(500))?;
    let connections = daemon.status()?.connections;
    ensure!(connections.current == u64::from(ALL), "{connections:?}");
    let flood = (rate > 0)
        .then(|| Flood::start(bench, &site, plan::SERVICE, Kind::Syns, rate))
        .transpose()?;
    let wrk = wrk.finish()?;
    let offered = flood.map_or(Ok(0.0), Flood::end)?;
    let refused = daemon.refused()? as f64 / time.as_secs_f64();
    ensure!(
        refused <= offered * 1.1,
        "{refused} of {offered} were refused"
    );
    Ok(vec![
        (0, rate, wrk.rate / 1e3),
        (1, rate, wrk.errors as f64),
        (2, rate, refused / 1e3),
    ])
}
