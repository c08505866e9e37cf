//! From a config to an image.

use std::net::IpAddr;

use balancer_common::image::{
    self, Backend, COLUMNS, Cell, Header, ListenerKey, PROBES, SLOTS, Scheduler, SourceNat,
};
use balancer_common::ports::{Kinds, PORT_WORDS};
use balancer_common::wire::protocol;

use super::schedule;
use crate::config;

/// What a service and its backends are called across generations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceIds {
    /// The service's.
    pub service: u32,
    /// Its backends', in the order of the config.
    pub backends: Vec<u32>,
}

/// An image, and the ports of its listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The cells.
    pub cells: Vec<Cell>,
    /// The words of the [table of ports](balancer_common::ports).
    pub ports: Vec<u64>,
}

/// An address as 16 bytes in two words, IPv4 as IPv4-mapped: how records hold it.
#[must_use]
pub fn words(address: IpAddr) -> [u64; 2] {
    let bytes = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let number = u128::from_ne_bytes(bytes);
    if cfg!(target_endian = "little") {
        [number as u64, (number >> 64) as u64]
    } else {
        [(number >> 64) as u64, number as u64]
    }
}

/// The inverse of [`words`].
#[must_use]
pub fn address(words: [u64; 2]) -> IpAddr {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
    bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
    std::net::Ipv6Addr::from(bytes).to_canonical()
}

/// The image of `services`: `ids` are theirs, in the same order; `interface_index` tells an interface's index, and
/// services on interfaces that it does not know are left out.
#[must_use]
pub fn compile(
    generation: u32,
    services: &[config::Service],
    ids: &[ServiceIds],
    source_ports: config::PortRange,
    interface_index: impl Fn(&str) -> Option<u32>,
) -> Image {
    let mut ports = vec![0; PORT_WORDS as usize];
    let mut listeners = Vec::new();
    for (index, service) in services.iter().enumerate() {
        let interface = match &service.interface {
            Some(name) => match interface_index(name) {
                Some(index) => index,
                None => continue,
            },
            None => 0,
        };
        let family = service
            .backends
            .first()
            .map_or(4, |backend| if backend.address.is_ipv4() { 4 } else { 6 });
        let ip_protocol = protocol_number(service.protocol);
        let address = service.listen.address.map_or([0, 0], words);
        let kinds = Kinds::of(
            ip_protocol,
            service.listen.address.is_none(),
            interface != 0,
        );
        for port in service.listen.ports.first..=service.listen.ports.last {
            kinds.add(&mut ports, port);
            listeners.push((
                ListenerKey::new(address, port, ip_protocol, family, interface),
                index as u32,
            ));
        }
    }
    let (listener_cells, listener_mask) = hash_table(&listeners);
    let listeners_at = 1;
    let services_at = listeners_at + listener_cells.len() as u32;

    let header = Header {
        generation,
        listeners: listeners_at,
        listener_mask,
        services: services_at,
        service_count: services.len() as u32,
    };
    let mut cells = vec![header.write()];
    cells.extend(listener_cells);
    cells.resize(cells.len() + services.len(), Cell::default());
    for (index, (service, ids)) in services.iter().zip(ids).enumerate() {
        let backends = cells.len() as u32;
        append_backends(&mut cells, service, ids);
        let schedule = cells.len() as u32;
        let schedule_length = append_schedule(&mut cells, service);
        let source = match service.source_nat {
            config::SourceNat::Address(address) => words(address),
            _ => [0, 0],
        };
        cells[services_at as usize + index] = image::Service {
            id: ids.service,
            scheduler: match service.scheduler {
                config::Scheduler::Nth => Scheduler::Nth,
                config::Scheduler::Random => Scheduler::Random,
            },
            source_nat: match service.source_nat {
                config::SourceNat::None => SourceNat::None,
                config::SourceNat::Masquerade => SourceNat::Masquerade,
                config::SourceNat::Address(_) => SourceNat::Address,
            },
            backends,
            backend_count: service.backends.len() as u32,
            schedule,
            schedule_length,
            first_port: source_ports.first,
            last_port: source_ports.last,
            source,
        }
        .write();
    }
    Image { cells, ports }
}

/// The number of a protocol in packets.
#[must_use]
pub fn protocol_number(protocol: config::Protocol) -> u8 {
    match protocol {
        config::Protocol::Tcp => protocol::TCP,
        config::Protocol::Udp => protocol::UDP,
    }
}

/// Listeners in cells, two in each, none further than [`PROBES`] cells from its home; and the mask of homes.
fn hash_table(listeners: &[(ListenerKey, u32)]) -> (Vec<Cell>, u32) {
    let mut homes = (listeners.len() as u32).next_power_of_two();
    loop {
        if let Some(cells) = fill(listeners, homes) {
            return (cells, homes - 1);
        }
        homes *= 2;
    }
}

fn fill(listeners: &[(ListenerKey, u32)], homes: u32) -> Option<Vec<Cell>> {
    let mut cells = vec![Cell::default(); (homes + PROBES - 1) as usize];
    for (key, service) in listeners {
        let home = (key.hash() & (homes - 1)) as usize;
        let (cell, half) = (home..home + PROBES as usize)
            .flat_map(|cell| [(cell, 0), (cell, 1)])
            .find(|&(cell, half)| ListenerKey::is_free(&cells[cell], half))?;
        key.write(*service, &mut cells[cell], half);
    }
    Some(cells)
}

fn append_backends(cells: &mut Vec<Cell>, service: &config::Service, ids: &ServiceIds) {
    let pairs: Vec<_> = service.backends.iter().zip(&ids.backends).collect();
    cells.extend(pairs.chunks(2).map(|pair| {
        let mut cell = Cell::default();
        for (half, (backend, id)) in pair.iter().enumerate() {
            Backend {
                id: **id,
                port: backend.port.unwrap_or(0),
                address: words(backend.address),
            }
            .write(&mut cell, half);
        }
        cell
    }));
}

fn append_schedule(cells: &mut Vec<Cell>, service: &config::Service) -> u32 {
    match service.scheduler {
        config::Scheduler::Nth => {
            let weights: Vec<u16> = service
                .backends
                .iter()
                .map(|backend| match backend.share {
                    config::Share::Weight(weight) => weight,
                    config::Share::Probability(_) => 0,
                })
                .collect();
            let order = schedule::nth(&weights);
            cells.extend(order.chunks(SLOTS as usize).map(|slots| {
                let mut cell = Cell::default();
                for (slot, &backend) in slots.iter().enumerate() {
                    image::write_slot(&mut cell, slot as u32, backend);
                }
                cell
            }));
            order.len() as u32
        }
        config::Scheduler::Random => {
            let shares: Vec<f64> = service
                .backends
                .iter()
                .map(|backend| match backend.share {
                    config::Share::Weight(weight) => f64::from(weight),
                    config::Share::Probability(probability) => probability,
                })
                .collect();
            let columns = schedule::random(&shares);
            cells.extend(columns.chunks(COLUMNS as usize).map(|columns| {
                let mut cell = Cell::default();
                for (index, column) in columns.iter().enumerate() {
                    column.write(&mut cell, index as u32);
                }
                cell
            }));
            columns.len() as u32
        }
    }
}
