//! Waiting for a drained backend's last connection.

use std::io::IsTerminal as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::control::document::{BackendState, Change, ServicesDocument};
use crate::control::{Client, Request};

/// How often the daemon is asked.
const INTERVAL: Duration = Duration::from_millis(250);

/// Waits until the backend in `change` has no connections; returns it as it is then.
///
/// # Errors
/// When `timeout` passes first, when someone takes the drain back, and when the daemon goes away.
pub fn wait(
    client: &mut Client,
    mut change: Change,
    timeout: Option<Duration>,
) -> anyhow::Result<Change> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let progress = progress(change.connections_active);
    loop {
        progress.set_message(change.connections_active.to_string());
        progress.set_position(
            progress
                .length()
                .unwrap_or(0)
                .saturating_sub(change.connections_active),
        );
        if change.connections_active == 0 {
            return Ok(change);
        }
        let left = deadline.map_or(INTERVAL, |deadline| {
            deadline.saturating_duration_since(Instant::now())
        });
        if left.is_zero() {
            let Change {
                service,
                backend,
                connections_active,
                ..
            } = change;
            bail!(
                "{service} {backend} is drained, but {connections_active} connections have not ended in time"
            );
        }
        thread::sleep(left.min(INTERVAL));
        let services: ServicesDocument = client.call(&Request::Services {})?.document()?;
        look(&services, &mut change)?;
    }
}

/// Brings `change` up to date. A backend that is no longer there has no connections.
fn look(services: &ServicesDocument, change: &mut Change) -> anyhow::Result<()> {
    let backend = services
        .services
        .iter()
        .filter(|service| service.name == change.service)
        .flat_map(|service| &service.backends)
        .find(|backend| backend.address == change.backend);
    let Some(backend) = backend else {
        change.state = BackendState::Removed;
        change.connections_active = 0;
        return Ok(());
    };
    ensure!(
        backend.state != BackendState::Up,
        "{} {} is not drained any more: it gets new connections again",
        change.service,
        change.backend
    );
    change.state = backend.state;
    change.weight = backend.weight;
    change.connections_active = backend.connections_active;
    Ok(())
}

/// On a terminal, a bar on standard error, cleared when it is dropped; else nothing.
fn progress(connections: u64) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(connections), target);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {msg} connections left, {elapsed}")
    {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::samples;

    fn looked(edit: impl FnOnce(&mut ServicesDocument)) -> anyhow::Result<Change> {
        let mut services = samples::services();
        services.services[0].backends[0].state = BackendState::Drained;
        services.services[0].backends[0].connections_active = 2;
        edit(&mut services);
        let mut change = samples::change().changed;
        look(&services, &mut change).map(|()| change)
    }

    #[test]
    fn a_drained_backend_tells_its_connections() {
        assert_eq!(looked(|_| {}).unwrap().connections_active, 2);
    }

    #[test]
    fn of_two_services_with_the_backend_the_right_one_counts() {
        let change = looked(|services| {
            let mut other = services.services[0].clone();
            other.name = "other".into();
            other.backends[0].connections_active = 99;
            services.services.insert(0, other);
        });
        assert_eq!(change.unwrap().connections_active, 2);
    }

    #[test]
    fn a_backend_that_is_gone_has_none() {
        let change = looked(|services| services.services.clear()).unwrap();
        assert_eq!(
            (change.connections_active, change.state),
            (0, BackendState::Removed)
        );
    }

    #[test]
    fn a_drain_that_was_taken_back_ends_the_wait() {
        let result = looked(|services| services.services[0].backends[0].state = BackendState::Up);
        assert!(
            result
                .unwrap_err()
                .to_string()
                .contains("not drained any more")
        );
    }
}
