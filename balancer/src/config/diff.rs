//! What changes from one configuration to the next.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use super::duration::DurationText;
use super::model::{Backend, Config, PortRange, Service, Share};

/// What changes from one configuration to the next. Its `Display` is one line for each change.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Difference {
    /// Keys that changed and need a restart, by their full name.
    pub restart_only: Vec<&'static str>,
    /// Timeouts that changed, by their full name.
    pub timeouts: Vec<Change<&'static str, Duration>>,
    /// The ports for source NAT, if they changed.
    pub source_ports: Option<(PortRange, PortRange)>,
    /// Names of services that are gone, in the old order.
    pub services_removed: Vec<String>,
    /// Names of new services, in the new order.
    pub services_added: Vec<String>,
    /// Services that stay, and are different, in the new order.
    pub services_changed: Vec<ServiceChange>,
}

/// A value that changed.
#[derive(Clone, PartialEq, Debug)]
pub struct Change<K, V> {
    /// The key.
    pub key: K,
    /// The old value.
    pub old: V,
    /// The new value.
    pub new: V,
}

/// What changes in a service. Services are known by their name.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ServiceChange {
    /// The service.
    pub name: String,
    /// Keys of the service itself, with their values as text.
    pub keys: Vec<Change<&'static str, String>>,
    /// What changes among its backends.
    pub backends: Vec<BackendChange>,
    /// Whether the backends that stay come in another order, which `nth` follows.
    pub reordered: bool,
}

/// What changes in a backend. Backends are known by their address and port.
#[derive(Clone, PartialEq, Debug)]
pub enum BackendChange {
    /// It is gone.
    Removed(Backend),
    /// It is new.
    Added(Backend),
    /// It has another share.
    Share {
        /// The backend, as it will be.
        backend: Backend,
        /// The share it had.
        old: Share,
    },
}

/// A key of the file and whether it differs.
type Differs = (&'static str, fn(&Config, &Config) -> bool);

/// The keys a reload cannot change. A test holds them against the catalog.
const RESTART_ONLY: [Differs; 12] = [
    ("daemon.control_socket", |old, new| {
        old.daemon.control_socket != new.daemon.control_socket
    }),
    ("daemon.pin_path", |old, new| {
        old.daemon.pin_path != new.daemon.pin_path
    }),
    ("daemon.on_exit", |old, new| {
        old.daemon.on_exit != new.daemon.on_exit
    }),
    ("datapath.interfaces", |old, new| {
        sorted(&old.datapath.interfaces) != sorted(&new.datapath.interfaces)
    }),
    ("datapath.engine", |old, new| {
        old.datapath.engine != new.datapath.engine
    }),
    ("datapath.worker_cpus", |old, new| {
        old.datapath.worker_cpus != new.datapath.worker_cpus
    }),
    ("datapath.busy_poll", |old, new| {
        old.datapath.busy_poll != new.datapath.busy_poll
    }),
    ("datapath.on_daemon_loss", |old, new| {
        old.datapath.on_daemon_loss != new.datapath.on_daemon_loss
    }),
    ("datapath.xdp_mode", |old, new| {
        old.datapath.xdp_mode != new.datapath.xdp_mode
    }),
    ("datapath.max_connections", |old, new| {
        old.datapath.max_connections != new.datapath.max_connections
    }),
    ("datapath.max_half_open", |old, new| {
        old.datapath.max_half_open != new.datapath.max_half_open
    }),
    ("datapath.flow_lookup", |old, new| {
        old.datapath.flow_lookup != new.datapath.flow_lookup
    }),
];

fn sorted(names: &[String]) -> Vec<&String> {
    let mut names: Vec<_> = names.iter().collect();
    names.sort();
    names
}

/// What changes from `old` to `new`. The order of services and of interfaces means nothing.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Difference {
    let timeouts = [
        (
            "timeouts.tcp_handshake",
            old.timeouts.tcp_handshake,
            new.timeouts.tcp_handshake,
        ),
        (
            "timeouts.tcp_established",
            old.timeouts.tcp_established,
            new.timeouts.tcp_established,
        ),
        (
            "timeouts.tcp_closing",
            old.timeouts.tcp_closing,
            new.timeouts.tcp_closing,
        ),
        ("timeouts.udp", old.timeouts.udp, new.timeouts.udp),
        (
            "timeouts.udp_stream",
            old.timeouts.udp_stream,
            new.timeouts.udp_stream,
        ),
        (
            "timeouts.fragment",
            old.timeouts.fragment,
            new.timeouts.fragment,
        ),
    ];
    let ports = (old.datapath.source_ports, new.datapath.source_ports);
    let before = positions(&old.services, |service| service.name.as_str());
    let after = positions(&new.services, |service| service.name.as_str());
    let mut difference = Difference {
        restart_only: RESTART_ONLY
            .iter()
            .filter(|(_, differs)| differs(old, new))
            .map(|(key, _)| *key)
            .collect(),
        timeouts: timeouts
            .into_iter()
            .filter(|(_, old, new)| old != new)
            .map(|(key, old, new)| Change { key, old, new })
            .collect(),
        source_ports: (ports.0 != ports.1).then_some(ports),
        services_removed: names(
            old.services
                .iter()
                .filter(|service| !after.contains_key(service.name.as_str())),
        ),
        services_added: names(
            new.services
                .iter()
                .filter(|service| !before.contains_key(service.name.as_str())),
        ),
        services_changed: Vec::new(),
    };
    for service in &new.services {
        if let Some(index) = before.get(service.name.as_str()) {
            let change = service_change(&old.services[*index], service);
            if !(change.keys.is_empty() && change.backends.is_empty() && !change.reordered) {
                difference.services_changed.push(change);
            }
        }
    }
    difference
}

/// Where each item stands, by its identity.
fn positions<'i, T, K: Eq + Hash>(
    items: &'i [T],
    identity: impl Fn(&'i T) -> K,
) -> HashMap<K, usize> {
    items
        .iter()
        .enumerate()
        .map(|(index, item)| (identity(item), index))
        .collect()
}

fn names<'s>(services: impl Iterator<Item = &'s Service>) -> Vec<String> {
    services.map(|service| service.name.clone()).collect()
}

fn service_change(old: &Service, new: &Service) -> ServiceChange {
    let interface = |service: &Service| {
        service
            .interface
            .clone()
            .unwrap_or_else(|| "not set".to_owned())
    };
    let keys = [
        ("listen", old.listen.to_string(), new.listen.to_string()),
        (
            "protocol",
            old.protocol.to_string(),
            new.protocol.to_string(),
        ),
        ("interface", interface(old), interface(new)),
        (
            "scheduler",
            old.scheduler.to_string(),
            new.scheduler.to_string(),
        ),
        (
            "source_nat",
            old.source_nat.to_string(),
            new.source_nat.to_string(),
        ),
    ];
    let keys = keys
        .into_iter()
        .filter(|(_, old, new)| old != new)
        .map(|(key, old, new)| Change { key, old, new });
    let identity = |backend: &Backend| (backend.address, backend.port);
    let before = positions(&old.backends, identity);
    let after = positions(&new.backends, identity);
    let removed = old
        .backends
        .iter()
        .filter(|backend| !after.contains_key(&identity(backend)));
    let mut backends: Vec<_> = removed
        .map(|backend| BackendChange::Removed(*backend))
        .collect();
    let mut reordered = false;
    let mut furthest = 0;
    for backend in &new.backends {
        match before.get(&identity(backend)) {
            None => backends.push(BackendChange::Added(*backend)),
            Some(&index) => {
                reordered |= index < furthest;
                furthest = furthest.max(index);
                let share = old.backends[index].share;
                if share != backend.share {
                    backends.push(BackendChange::Share {
                        backend: *backend,
                        old: share,
                    });
                }
            }
        }
    }
    ServiceChange {
        name: new.name.clone(),
        keys: keys.collect(),
        backends,
        reordered,
    }
}

impl Difference {
    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for key in &self.restart_only {
            writeln!(f, "! {key}: needs a restart")?;
        }
        for Change { key, old, new } in &self.timeouts {
            writeln!(
                f,
                "~ {key}: {} -> {}",
                DurationText(*old),
                DurationText(*new)
            )?;
        }
        if let Some((old, new)) = &self.source_ports {
            writeln!(f, "~ datapath.source_ports: {old} -> {new}")?;
        }
        for name in &self.services_removed {
            writeln!(f, "- service {name}")?;
        }
        for name in &self.services_added {
            writeln!(f, "+ service {name}")?;
        }
        for service in &self.services_changed {
            service.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for ServiceChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        for Change { key, old, new } in &self.keys {
            writeln!(f, "~ service {name}: {key} {old} -> {new}")?;
        }
        for change in &self.backends {
            match change {
                BackendChange::Removed(backend) => {
                    writeln!(f, "~ service {name}: - backend {backend}")?;
                }
                BackendChange::Added(backend) => {
                    writeln!(f, "~ service {name}: + backend {backend} {}", backend.share)?;
                }
                BackendChange::Share { backend, old } => {
                    writeln!(
                        f,
                        "~ service {name}: ~ backend {backend} {old} -> {}",
                        backend.share
                    )?;
                }
            }
        }
        if self.reordered {
            writeln!(f, "~ service {name}: backends in another order")?;
        }
        Ok(())
    }
}
