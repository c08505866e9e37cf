//! wrk, which asks a web server as often as it can.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use balancer_lab::Process;

use crate::contender::Contender;
use crate::interrupt;
use crate::plan;
use crate::site::Site;

/// How much longer than its time it may take.
const GRACE: Duration = Duration::from_secs(10);

/// What it is to do.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// How many connections it has at a time.
    pub connections: u32,
    /// Whether each request has a connection of its own.
    pub close: bool,
    /// For how long.
    pub time: Duration,
}

/// It, at work at the client.
pub struct Running {
    process: Process,
    end: Instant,
}

/// What it tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wrk {
    /// Requests answered.
    pub requests: u64,
    /// Requests a second.
    pub rate: f64,
    /// Latency in milliseconds: the median.
    pub p50: f64,
    /// The same: 99 % are not above it.
    pub p99: f64,
    /// Connections that were not made, ended early, or were silent for too long.
    pub errors: u64,
}

impl Running {
    /// Starts it, on one thread.
    pub fn start(site: &Site, contender: Contender, task: Task) -> anyhow::Result<Self> {
        let mut command = site.client.command("wrk")?;
        command
            .arg("--latency")
            .args(["--threads", "1"])
            .args(["--connections", &task.connections.to_string()])
            .args(["--duration", &format!("{}s", task.time.as_secs())]);
        if task.close {
            command.args(["--header", "Connection: close"]);
        }
        command.arg(format!(
            "http://{}:{}/",
            contender.destination(),
            plan::WEB_PORT
        ));
        Ok(Self {
            process: site.client.spawn_command(command)?,
            end: Instant::now() + task.time + GRACE,
        })
    }

    /// Waits for its end. Fails when an answer was another than it should be.
    pub fn finish(self) -> anyhow::Result<Wrk> {
        let status = loop {
            if let Some(status) = self.process.status()? {
                break status;
            }
            ensure!(Instant::now() < self.end, "wrk does not end");
            interrupt::sleep(Duration::from_millis(20))?;
        };
        let output = self.process.stdout();
        ensure!(
            status.success(),
            "wrk: {status}\n{output}{}",
            self.process.stderr()
        );
        ensure!(!output.contains("Non-2xx"), "wrk was refused:\n{output}");
        parse(&output).with_context(|| format!("wrk wrote\n{output}"))
    }
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
    // Of all kinds of them.
    let errors = after("Socket errors:").map_or(Some(0), |text| {
        let counts = text
            .split(", ")
            .map(|part| part.rsplit(' ').next()?.parse::<u64>().ok());
        counts.sum::<Option<u64>>()
    });
    Some(Wrk {
        requests: requests.0.trim().parse().ok()?,
        rate: after("Requests/sec:")?.parse().ok()?,
        p50: milliseconds(after("50%")?)?,
        p99: milliseconds(after("99%")?)?,
        errors: errors?,
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
            errors: 0,
        };
        assert_eq!(parse(output), Some(expected));
        let errors = "  Socket errors: connect 1, read 20, write 0, timeout 300\nRequests/sec:";
        let output = output.replace("Requests/sec:", errors);
        assert_eq!(parse(&output).unwrap().errors, 321);
        assert_eq!(milliseconds("1.50s"), Some(1500.0));
        assert_eq!(parse("unable to connect"), None);
    }
}
