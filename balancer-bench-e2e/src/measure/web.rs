//! wrk against nginx, connections closed each time and kept alive.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use balancer_lab::{Nginx, WebConfig};

use super::{Bench, Value, figure};
use crate::contender::{Contender, Service, Setup, Task};
use crate::plan;
use crate::results::{Better, Figure};
use crate::site::Site;

const BACKENDS: u32 = 3;
const CONNECTIONS: u32 = 64;
/// How much longer than its time wrk may take.
const GRACE: Duration = Duration::from_secs(10);

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
    let site = Site::build()?;
    for number in 1..=BACKENDS {
        site.server
            .address("lo", &format!("{}/32", plan::backend(number)))?;
    }
    let web = WebConfig {
        log: false,
        ..WebConfig::default()
    };
    let _nginx = Nginx::start(&site.server, &web)?;
    let task = Task {
        backends: BACKENDS,
        service: Service::Web,
    };
    let setup = Setup::begin(contender, &site, &bench.binaries, task)?;
    bench.cpus.settle()?;
    let mut values = Vec::new();
    for (index, close) in [true, false].into_iter().enumerate() {
        let wrk = wrk(bench, &site, contender, close)?;
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

/// What wrk tells.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Wrk {
    /// Requests answered.
    requests: u64,
    /// Requests a second.
    rate: f64,
    /// Latency in milliseconds: the median.
    p50: f64,
    /// The same: 99 % are not above it.
    p99: f64,
}

fn wrk(bench: &Bench, site: &Site, contender: Contender, close: bool) -> anyhow::Result<Wrk> {
    let time = Duration::from_secs(if bench.quick { 2 } else { 5 });
    let mut command = site.client.command("wrk")?;
    command
        .arg("--latency")
        .args(["--threads", "1"])
        .args(["--connections", &CONNECTIONS.to_string()])
        .args(["--duration", &format!("{}s", time.as_secs())]);
    if close {
        command.args(["--header", "Connection: close"]);
    }
    command.arg(format!(
        "http://{}:{}/",
        contender.destination(),
        plan::WEB_PORT
    ));
    let process = site.client.spawn_command(command)?;
    let end = std::time::Instant::now() + time + GRACE;
    let status = loop {
        if let Some(status) = process.status()? {
            break status;
        }
        ensure!(std::time::Instant::now() < end, "wrk does not end");
        crate::interrupt::sleep(Duration::from_millis(20))?;
    };
    let output = process.stdout();
    ensure!(
        status.success(),
        "wrk: {status}\n{output}{}",
        process.stderr()
    );
    ensure!(
        !output.contains("Socket errors") && !output.contains("Non-2xx"),
        "{contender}: wrk had errors:\n{output}"
    );
    parse(&output).with_context(|| format!("wrk wrote\n{output}"))
}

/// Reads what wrk writes.
fn parse(output: &str) -> Option<Wrk> {
    let after = |start: &str| {
        output
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(start))
            .map(str::trim)
    };
    let requests = output
        .lines()
        .find_map(|line| line.split_once(" requests in "))?;
    Some(Wrk {
        requests: requests.0.trim().parse().ok()?,
        rate: after("Requests/sec:")?.parse().ok()?,
        p50: milliseconds(after("50%")?)?,
        p99: milliseconds(after("99%")?)?,
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    let (number, factor) = if let Some(number) = text.strip_suffix("us") {
        (number, 1e-3)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1.0)
    } else {
        (text.strip_suffix('s')?, 1e3)
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read() {
        let output = "Running 2s test @ http://192.0.2.10:80/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   412.11us  170.32us   5.12ms   93.11%
    Req/Sec   155.02k     3.10k  160.00k    75.00%
  Latency Distribution
     50%  398.00us
     75%  451.00us
     90%  502.00us
     99%    1.02ms
  308512 requests in 2.00s, 50.01MB read
Requests/sec: 154256.12
Transfer/sec:     25.01MB
";
        let expected = Wrk {
            requests: 308_512,
            rate: 154_256.12,
            p50: 0.398,
            p99: 1.02,
        };
        assert_eq!(parse(output), Some(expected));
        assert_eq!(milliseconds("1.50s"), Some(1500.0));
        assert_eq!(parse("unable to connect"), None);
    }
}
