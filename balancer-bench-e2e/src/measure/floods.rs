//! What clients notice while packets come in that nobody wants: made-up SYNs, and fragments of packets of which no other comes.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use balancer_lab::Host;

use super::{Bench, Case, Value, figure, web_site};
use crate::contender::{Contender, Service, Setup, Task};
use crate::flood::{Flood, Kind};
use crate::interrupt;
use crate::plan;
use crate::results::{Better, Figure};
use crate::wrk;

const BACKENDS: u32 = 3;
/// The connections that are there before it begins.
const CONNECTIONS: u32 = 64;
/// How many begin while it goes on, and how long each may take: as long as three repetitions of a SYN.
const CLIENTS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(8);
/// How long after wrk new connections begin.
const AHEAD: Duration = Duration::from_secs(1);

/// Thousands of packets a second; the last is more than the generator can make.
const RATES: [u32; 3] = [0, 100, 10_000];

const KINDS: [(Kind, &str, &str); 4] = [
    (Kind::Impossible, "impossible", "impossible packets"),
    (Kind::Syns, "syn", "SYNs"),
    (Kind::First, "first-fragment", "first fragments"),
    (Kind::Later, "later-fragment", "later fragments"),
];

pub fn figures() -> Vec<Figure> {
    let mut figures = Vec::new();
    for (_, name, what) in KINDS {
        let rate = format!("thousand {what}/s");
        let mut add = |end: &str, title: &str, unit, better| {
            let name = format!("{name}-flood-{end}");
            figures.push(figure(&name, title, unit, better, Some(&rate)));
        };
        add(
            "kept",
            &format!("wrk over connections kept alive in a flood of {what}"),
            "thousand req/s",
            Better::More,
        );
        add(
            "broken",
            &format!("errors of these connections in a flood of {what}"),
            "errors",
            Better::Less,
        );
        add(
            "new",
            &format!("new connections that are answered in a flood of {what}"),
            "%",
            Better::More,
        );
        add(
            "offered",
            &format!("the flood of {what} as the generator could send it"),
            "thousand packets/s",
            Better::More,
        );
    }
    figures
}

pub fn cases() -> Vec<Case> {
    let contenders = [Contender::Balancerd, Contender::Iptables];
    RATES
        .iter()
        .flat_map(|&rate| contenders.map(|contender| (contender, rate)))
        .collect()
}

pub fn sample(bench: &Bench, (contender, rate): Case) -> anyhow::Result<Vec<Value>> {
    let mut values = Vec::new();
    for (index, (kind, ..)) in KINDS.into_iter().enumerate() {
        let (site, _nginx) = web_site(BACKENDS)?;
        let task = Task {
            backends: BACKENDS,
            service: Service::Web,
        };
        let _setup = Setup::begin(contender, &site, &bench.binaries, task)?;
        bench.cpus.settle()?;
        let task = wrk::Task {
            connections: CONNECTIONS,
            close: false,
            time: Duration::from_secs(if bench.quick { 3 } else { 6 }),
        };
        let wrk = wrk::Running::start(&site, contender, task)?;
        // All its connections are there within that.
        interrupt::sleep(Duration::from_millis(100))?;
        let flood = (rate > 0)
            .then(|| Flood::start(bench, &site, contender.destination(), kind, rate))
            .transpose()?;
        let wrk = wrk.finish()?;
        interrupt::sleep(AHEAD)?;
        let answered = begin(
            &site.client,
            (contender.destination(), plan::WEB_PORT).into(),
        );
        let offered = flood.map_or(Ok(0.0), Flood::end)?;
        let first = index * 4;
        values.extend([
            (first, rate, wrk.rate / 1e3),
            (first + 1, rate, wrk.errors as f64),
            (first + 2, rate, answered as f64 * 100.0 / CLIENTS as f64),
            (first + 3, rate, offered / 1e3),
        ]);
    }
    Ok(values)
}

/// Begins connections, all at once: how many are answered.
fn begin(client: &Host, to: SocketAddr) -> usize {
    let ask = || -> anyhow::Result<()> {
        let mut stream = client.connect(to, None, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.contains(" 200 "), "{answer}");
        Ok(())
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        let answers = clients.into_iter().map(thread::ScopedJoinHandle::join);
        answers
            .filter(|answer| matches!(answer, Ok(Ok(()))))
            .count()
    })
}
