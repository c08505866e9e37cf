//! The workers of engine `userspace`: how they are, and that they are begun again when they have died.

use std::time::Duration;

use tokio::time::sleep;

use super::shared::Shared;
use super::tables::Tables;
use crate::control::document::{self, Engine, FrameCounts};
use crate::userspace::{Report, State};

/// How often it looks.
const GLANCE: Duration = Duration::from_secs(1);

/// Looks until it is dropped.
pub async fn run(tables: Shared<Tables>) {
    loop {
        sleep(GLANCE).await;
        if let Err(error) = tables.with(Tables::tend).await {
            tracing::error!(%error, "a worker that has died was not begun again");
        }
    }
}

impl Tables {
    /// What moves the packets.
    #[must_use]
    pub fn engine(&self) -> Engine {
        match self.workers {
            Some(_) => Engine::Userspace,
            None => Engine::Kernel,
        }
    }

    /// How the workers are.
    #[must_use]
    pub fn worker_states(&self) -> document::Workers {
        let Some(workers) = &self.workers else {
            return document::Workers::default();
        };
        let name = |index: u32| {
            let known = self.attached.iter().find(|(_, its)| **its == index);
            known.map_or_else(|| index.to_string(), |(name, _)| name.clone())
        };
        let worker = |state: State| {
            let answers = state.report.is_some();
            let Report {
                queues,
                frames,
                received,
            } = state.report.unwrap_or_default();
            let queues = queues.iter();
            document::Worker {
                name: state.name,
                cpu: state.cpu.map(|cpu| cpu as u64),
                answers,
                queues: queues
                    .map(|&(interface, queue)| format!("{}:{queue}", name(interface)))
                    .collect(),
                received,
                frames: FrameCounts {
                    total: frames.total,
                    free: frames.free,
                    receiving: frames.receiving,
                    sending: frames.sending,
                    missing: frames.missing(),
                },
            }
        };
        document::Workers {
            threads: workers.states().into_iter().map(worker).collect(),
            begun_again: workers.begun_again(),
        }
    }
}
