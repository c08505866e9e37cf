//! What the tables hold, as documents.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use balancer_common::abi::Identity;
use balancer_common::family::Family;
use balancer_common::table::flow::Flow;
use balancer_common::table::state::Phase;
use balancer_common::table::tick::Tick;
use balancer_common::tuple::Tuple;
use balancer_common::verdict::{Drop, Pass, Punt, Verdict};
use balancer_common::wire::protocol;

use super::tables::Tables;
use crate::config::{self, Share};
use crate::control::document::{
    Backend, BackendState, Connection, ConnectionCounts, ConnectionState, ConnectionsDocument,
    DropsDocument, PacketCounts, Refused, Service, ServicesDocument, SlowPathCounts, Table,
    Traffic, Version,
};
use crate::datapath::compile::address;
use crate::datapath::flows::{self, now};
use crate::datapath::kernel::KernelError;

/// Which connections are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this service.
    pub service: Option<String>,
    /// On this backend.
    pub backend: Option<String>,
}

impl Filter {
    fn matches(&self, service: &str, backend: &str) -> bool {
        self.service.as_ref().is_none_or(|wanted| wanted == service)
            && self.backend.as_ref().is_none_or(|wanted| wanted == backend)
    }
}

/// What stands for the settings of a service that is not in the configuration any more.
const REMOVED: &str = "removed";

impl Tables {
    /// The services, with the counters of their backends. Behind those of the configuration come those that were in it,
    /// as long as they have connections.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn services(&self) -> Result<ServicesDocument, KernelError> {
        let active = self.active();
        let mut gone = self.removed(&active);
        let mut services = Vec::with_capacity(self.service_ids.len());
        for (service, ids) in self.config.services.iter().zip(&self.service_ids) {
            let mut backends = Vec::with_capacity(ids.backends.len());
            for (backend, &id) in service.backends.iter().zip(&ids.backends) {
                let state = self.state(service, backend, id)?;
                let share = self.overrides.share(service, backend);
                backends.push(self.backend(id, backend.to_string(), state, share, &active)?);
            }
            let gone = gone.remove(&service.name).unwrap_or_default();
            backends.extend(self.gone(&gone, &active)?);
            let refused = self.kernel.service_stats(ids.service)?;
            services.push(Service {
                name: service.name.clone(),
                protocol: service.protocol.to_string(),
                listen: service.listen.to_string(),
                scheduler: service.scheduler.to_string(),
                source_nat: service.source_nat.to_string(),
                backends,
                refused: Refused {
                    no_backend: refused.no_backend,
                    ports_exhausted: refused.ports_exhausted,
                    table_full: refused.table_full,
                    ..Refused::default()
                },
            });
        }
        let mut gone: Vec<_> = gone.into_iter().collect();
        gone.sort_unstable();
        for (name, ids) in gone {
            let protocol = ids.first().and_then(|&id| self.ids.backend(id));
            services.push(Service {
                name,
                protocol: protocol.map(protocol_name).unwrap_or_default(),
                listen: REMOVED.to_owned(),
                scheduler: REMOVED.to_owned(),
                source_nat: REMOVED.to_owned(),
                backends: self.gone(&ids, &active)?,
                refused: Refused::default(),
            });
        }
        Ok(ServicesDocument {
            version: Version,
            services,
        })
    }

    /// Backends that are not in the configuration any more.
    fn gone(&self, ids: &[u32], active: &HashMap<u32, u64>) -> Result<Vec<Backend>, KernelError> {
        let backend = |&id: &u32| {
            let name = self.ids.backend(id).map(backend_name).unwrap_or_default();
            self.backend(id, name, BackendState::Removed, Share::Weight(0), active)
        };
        ids.iter().map(backend).collect()
    }

    /// Backends that are not in the configuration and have connections, by their service.
    fn removed(&self, active: &HashMap<u32, u64>) -> HashMap<String, Vec<u32>> {
        let mut removed: HashMap<String, Vec<u32>> = HashMap::new();
        let all = self.service_ids.iter().flat_map(|ids| &ids.backends);
        let configured: HashSet<u32> = all.copied().collect();
        for &id in active.keys() {
            if !configured.contains(&id)
                && let Some(identity) = self.ids.backend(id)
            {
                removed.entry(service_name(identity)).or_default().push(id);
            }
        }
        for ids in removed.values_mut() {
            ids.sort_unstable();
        }
        removed
    }

    /// The state of a backend of the configuration.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn state(
        &self,
        service: &config::Service,
        backend: &config::Backend,
        id: u32,
    ) -> Result<BackendState, KernelError> {
        Ok(if self.overrides.is_drained(service, backend) {
            BackendState::Drained
        } else if self.is_resolved(id)? {
            BackendState::Up
        } else {
            BackendState::Unresolved
        })
    }

    fn backend(
        &self,
        id: u32,
        address: String,
        state: BackendState,
        share: Share,
        active: &HashMap<u32, u64>,
    ) -> Result<Backend, KernelError> {
        let counters = self.kernel.backend_stats(id)?;
        Ok(Backend {
            address,
            state,
            weight: weight(share),
            probability: match share {
                Share::Weight(_) => None,
                Share::Probability(probability) => Some(probability),
            },
            connections_active: active.get(&id).copied().unwrap_or(0),
            connections_total: counters.connections,
            forward: Traffic {
                packets: counters.forward_packets,
                bytes: counters.forward_bytes,
            },
            reply: Traffic {
                packets: counters.reply_packets,
                bytes: counters.reply_bytes,
            },
        })
    }

    /// The connections that a filter lets through, `limit` at most; 0: all.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn connections(
        &self,
        filter: &Filter,
        limit: u64,
    ) -> Result<ConnectionsDocument, KernelError> {
        let now = now()?;
        let mut list = List {
            tables: self,
            filter,
            limit: if limit == 0 { u64::MAX } else { limit },
            now,
            total: 0,
            connections: Vec::new(),
        };
        list.add(self.kernel.v4.connections());
        list.add(self.kernel.v6.connections());
        Ok(ConnectionsDocument {
            version: Version,
            truncated: list.total > list.connections.len() as u64,
            total: list.total,
            connections: list.connections,
        })
    }

    /// Forgets the connections of a service, or all. Says how many.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn flush(&mut self, service: Option<&str>) -> Result<u64, KernelError> {
        let Some(service) = service else {
            return self.flush_backends(|_| true);
        };
        let of_service: HashSet<u32> = self
            .ids
            .backends()
            .filter(|(_, identity)| service_name(identity) == service)
            .map(|(id, _)| id)
            .collect();
        self.flush_backends(|backend| of_service.contains(&backend))
    }

    /// Dropped packets, by reason.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn drops(&self) -> Result<DropsDocument, KernelError> {
        Ok(DropsDocument {
            version: Version,
            drops: self.counters(Drop::ALL)?,
        })
    }

    fn counters(&self, reasons: &[Drop]) -> Result<BTreeMap<String, u64>, KernelError> {
        let stats = self.kernel.stats()?;
        let counter = |&reason: &Drop| {
            let count = stats.verdicts[Verdict::Drop(reason).counter()];
            (reason.name().to_owned(), count)
        };
        Ok(reasons.iter().map(counter).collect())
    }

    /// What was refused or lost because something was full or missing.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn pressure(&self) -> Result<BTreeMap<String, u64>, KernelError> {
        self.counters(&[
            Drop::NoBackend,
            Drop::TableFull,
            Drop::HalfOpenFull,
            Drop::PortsExhausted,
            Drop::TupleInUse,
            Drop::NoNextHop,
            Drop::Contended,
            Drop::QueueFull,
        ])
    }

    /// What was handed to the daemon.
    #[must_use]
    pub fn slow_path_counts(&self) -> SlowPathCounts {
        let Some(slow_path) = &self.slow_path else {
            return SlowPathCounts::default();
        };
        let counters = &slow_path.counters;
        let dropped = Drop::ALL.iter().zip(&counters.dropped);
        let dropped = dropped.map(|(reason, counter)| (reason.name().to_owned(), counter.get()));
        let held = Punt::ALL.iter().zip(&counters.punted);
        let held = held.map(|(reason, counter)| (reason.name().to_owned(), counter.get()));
        SlowPathCounts {
            dropped: dropped.filter(|&(_, count)| count > 0).collect(),
            told: counters.told.get(),
            limited: counters.limited.get(),
            untold: counters.untold.get(),
            unsent: counters.unsent.get(),
            held: held.filter(|&(_, count)| count > 0).collect(),
            resumed: counters.resumed.get(),
            expired: counters.expired.get(),
            overflowed: counters.overflowed.get(),
            failed: counters.failed.get(),
        }
    }

    /// Packets by what became of them.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn packets(&self) -> Result<PacketCounts, KernelError> {
        let stats = self.kernel.stats()?;
        let count = |verdict: Verdict| stats.verdicts[verdict.counter()];
        let sum = |verdicts: &mut dyn Iterator<Item = Verdict>| verdicts.map(count).sum();
        Ok(PacketCounts {
            received: stats.received(),
            forwarded: count(Verdict::Transmit) + count(Verdict::Redirect(0)),
            passed: sum(&mut Pass::ALL.iter().map(|&reason| Verdict::Pass(reason))),
            dropped: sum(&mut Drop::ALL.iter().map(|&reason| Verdict::Drop(reason))),
            held: sum(&mut Punt::ALL.iter().map(|&reason| Verdict::Punt(reason))),
        })
    }

    /// How many connections there are, and how full the tables.
    #[must_use]
    pub fn fill(&self) -> (ConnectionCounts, Vec<Table>) {
        let datapath = &self.config.datapath;
        let (v4, v6) = (&self.kernel.v4, &self.kernel.v6);
        let table = |name: &str, used, max: u32| Table {
            name: name.to_owned(),
            used,
            max: max.into(),
        };
        let tables = vec![
            table("connections_v4", v4.count(), datapath.max_connections),
            table("connections_v6", v6.count(), datapath.max_connections),
            table("half_open_v4", v4.count_half_open(), datapath.max_half_open),
            table("half_open_v6", v6.count_half_open(), datapath.max_half_open),
        ];
        let counts = ConnectionCounts {
            current: v4.count() + v6.count(),
            max: datapath.max_connections.into(),
            half_open: v4.count_half_open() + v6.count_half_open(),
            half_open_max: datapath.max_half_open.into(),
        };
        (counts, tables)
    }
}

/// A weight; of a probability the next per cent.
#[must_use]
#[expect(
    clippy::cast_sign_loss,
    reason = "the configuration has seen to it that probabilities are between 0 and 1"
)]
pub fn weight(share: Share) -> u16 {
    match share {
        Share::Weight(weight) => weight,
        Share::Probability(probability) => (probability * 100.0).round() as u16,
    }
}

/// A list of connections being made.
struct List<'a> {
    tables: &'a Tables,
    filter: &'a Filter,
    limit: u64,
    now: Tick,
    total: u64,
    connections: Vec<Connection>,
}

impl List<'_> {
    fn add<'a, F: Family>(&mut self, found: impl Iterator<Item = flows::Connection<'a, F>>) {
        for connection in found {
            let identity = self.tables.ids.backend(connection.original.backend());
            let service = identity.map(service_name).unwrap_or_default();
            let backend = identity.map(backend_name).unwrap_or_default();
            if !self.filter.matches(&service, &backend) {
                continue;
            }
            self.total += 1;
            if (self.connections.len() as u64) < self.limit {
                self.connections
                    .push(document(&connection, service, backend, self.now));
            }
        }
    }
}

fn document<F: Family>(
    connection: &flows::Connection<'_, F>,
    service: String,
    backend: String,
    now: Tick,
) -> Connection {
    let tuple = &connection.original.tuple();
    let new = &connection.original.new_tuple();
    let traffic = |flow: &Flow<F>| {
        let (packets, bytes) = flow.counts();
        Traffic { packets, bytes }
    };
    let seconds = |earlier: Tick| Duration::from_millis(now.milliseconds_since(earlier)).as_secs();
    let is_tcp = tuple.ports.protocol() == protocol::TCP;
    Connection {
        service,
        backend,
        protocol: if is_tcp { "tcp" } else { "udp" }.to_owned(),
        client: source(tuple),
        virtual_address: destination(tuple),
        source: source(new),
        destination: destination(new),
        state: match (is_tcp, connection.phase()) {
            (true, Phase::HalfOpen) => ConnectionState::Handshake,
            (true, Phase::Established) => ConnectionState::Established,
            (true, Phase::Closing | Phase::Refused) => ConnectionState::Closing,
            (false, Phase::HalfOpen) => ConnectionState::OneWay,
            (false, _) => ConnectionState::Stream,
        },
        age_seconds: seconds(connection.original.created()),
        idle_seconds: seconds(connection.last_seen(now)),
        forward: traffic(connection.original),
        reply: connection.reply.map(traffic).unwrap_or_default(),
    }
}

fn source<F: Family>(tuple: &Tuple<F>) -> SocketAddr {
    let words = F::mapped(F::source(tuple.addresses));
    SocketAddr::new(address(words), tuple.ports.source())
}

fn destination<F: Family>(tuple: &Tuple<F>) -> SocketAddr {
    let words = F::mapped(F::destination(tuple.addresses));
    SocketAddr::new(address(words), tuple.ports.destination())
}

/// The service that an identity names.
#[must_use]
pub fn service_name(identity: &Identity) -> String {
    let name: Vec<u8> = identity
        .service
        .iter()
        .copied()
        .take_while(|&byte| byte != 0)
        .collect();
    String::from_utf8_lossy(&name).into_owned()
}

/// The name of an identity's protocol.
fn protocol_name(identity: &Identity) -> String {
    let is_tcp = identity.protocol == protocol::TCP;
    if is_tcp { "tcp" } else { "udp" }.to_owned()
}

/// The backend that an identity names, as the configuration shows it.
fn backend_name(identity: &Identity) -> String {
    let address = IpAddr::from(identity.address).to_canonical();
    let backend = config::Backend {
        address,
        port: (identity.port != 0).then_some(identity.port),
        share: Share::Weight(0),
    };
    backend.to_string()
}
