//! The sweeper: removes what was idle for too long, and tells which backends still have connections.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::paths::Paths;
use super::shared::Shared;
use super::tables::Tables;
use crate::config::Timeouts;

/// A pass takes place at least so often.
const SLOWEST: Duration = Duration::from_secs(5);

/// The part of the time that passes may take: one in so many.
const SHARE: u32 = 20;

/// How often ways to backends without connections are given up, in passes.
const RETAIN: u32 = 12;

/// Sweeps until it is dropped.
pub async fn run(tables: Shared<Tables>, paths: Paths) {
    for pass in 1_u32.. {
        let (swept, took, timeouts) = tables
            .with(|tables| {
                let start = Instant::now();
                (tables.sweep(), start.elapsed(), tables.config.timeouts)
            })
            .await;
        match swept {
            Ok(swept) => tracing::debug!(?swept, ?took, "swept"),
            Err(error) => tracing::error!(%error, "idle connections were not swept"),
        }
        if pass.is_multiple_of(RETAIN) {
            match tables.with(|tables| tables.targets()).await {
                Ok(targets) => paths.retain(targets).await,
                Err(error) => tracing::error!(%error, "connections cannot be counted"),
            }
        }
        sleep(period(&timeouts, took)).await;
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
