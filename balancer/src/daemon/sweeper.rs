//! The sweeper: removes what was idle for too long, and tells which backends still have connections.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::paths::Paths;
use super::shared::Shared;
use super::tables::{Sweep, Swept, Tables};
use crate::config::Timeouts;
use crate::datapath::kernel::KernelError;

/// A pass takes place at least so often.
const SLOWEST: Duration = Duration::from_secs(5);

/// The part of the time that passes may take: one in so many.
const SHARE: u32 = 20;

/// How often to see whether a pass is wanted early.
const GLANCE: Duration = Duration::from_secs(1);

/// How often ways to backends without connections are given up, in passes.
const RETAIN: u32 = 12;

/// Sweeps until it is dropped.
pub async fn run(tables: Shared<Tables>, paths: Paths) {
    for pass in 1_u32.. {
        let start = Instant::now();
        let replaced = tables.with(|tables| tables.replaced()).await;
        match sweep(&tables).await {
            Ok(swept) => tracing::debug!(?swept, took = ?start.elapsed(), "swept"),
            Err(error) => tracing::error!(%error, "idle connections were not swept"),
        }
        let took = start.elapsed();
        if pass.is_multiple_of(RETAIN) {
            paths.retain().await;
        }
        wait(&tables, took, replaced).await;
    }
}

/// Waits for the next pass. It comes early when packets have replaced connections that were over, more than the
/// `replaced` ones that the last pass may have seen: their lines are not free before it, and a client that returns again
/// and again from one port would find none any more.
async fn wait(tables: &Shared<Tables>, took: Duration, replaced: u64) {
    let timeouts = tables.with(|tables| tables.config.timeouts).await;
    let start = Instant::now();
    let period = period(&timeouts, took);
    let soonest = took * (SHARE - 1);
    while start.elapsed() < period {
        sleep(GLANCE.min(period)).await;
        if start.elapsed() >= soonest && tables.with(|tables| tables.replaced()).await != replaced {
            return;
        }
    }
}

/// A pass, in slices: others want the tables meanwhile.
async fn sweep(tables: &Shared<Tables>) -> Result<Swept, KernelError> {
    let mut sweep = Sweep::default();
    loop {
        let (more, rest) = tables
            .with(move |tables| (tables.look(&mut sweep), sweep))
            .await;
        sweep = rest;
        if !more? {
            return tables.with(move |tables| tables.free(&sweep)).await;
        }
    }
}

/// How long to wait after a pass: a tenth of the shortest timeout, so that none is overrun by much; longer when the
/// tables are so large that it would take up the machine.
fn period(timeouts: &Timeouts, took: Duration) -> Duration {
    let shortest = timeouts
        .tcp_handshake
        .min(timeouts.tcp_established)
        .min(timeouts.tcp_closing)
        .min(timeouts.udp)
        .min(timeouts.udp_stream);
    (shortest / 10).min(SLOWEST).max(took * (SHARE - 1))
}
