//! Any text as a configuration: what is wrong is said; what is not can be compiled, and packets find its services.

use std::path::Path;
use std::{fs, str};

use balancer::config::{self, Config, FlowLookup, Rendering, Share};
use balancer::datapath::compile::{ServiceIds, compile, protocol_number, words};
use balancer::datapath::kernel::Sizes;
use balancer::datapath::memory::{InMemory, Memory};
use balancer_common::family::{V4, V6};
use balancer_common::image::{choose, find, service};
use balancer_common::ports::Ports as _;
use balancer_common::tables::Tables;
use balancer_common::tuple::{PortsProtocol, Tuple};

use crate::support::SERVICES;

/// More than this are not compiled.
const MOST_LISTENERS: usize = 20_000;

/// No flow is entered.
const SIZES: Sizes = Sizes {
    connections: 1,
    half_open: 1,
    lookup: FlowLookup::Table,
};

/// For services on any address.
const ANY: &str = "203.0.113.250";
const ANY6: &str = "2001:db8:fa::250";

/// The examples, and those with errors.
pub fn seeds() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["../configs", "../balancer/tests/config_errors"].map(|it| root.join(it));
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut seeds = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        // A file of cases has what they all begin with before the first.
        let mut parts = text.split("### ");
        let beginning = parts.next().unwrap();
        let before = seeds.len();
        for part in parts {
            let (_, lines) = part.split_once('\n').unwrap();
            seeds.push(format!("{beginning}{lines}").into_bytes());
        }
        if seeds.len() == before {
            seeds.push(beginning.as_bytes().to_vec());
        }
    }
    let datapath = "[datapath]\ninterfaces = [\"eth0\", \"eth1\"]\n";
    seeds.push(format!("{datapath}{SERVICES}").into_bytes());
    // As many ports as are compiled here.
    let wide = SERVICES.replace("8000-8003", "10000-29000");
    seeds.push(format!("{datapath}{wide}").into_bytes());
    seeds
}

/// What `balancerd --check` does with the text, and what the daemon does with the config.
pub fn check(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    match config::parse("lb.toml", text) {
        Ok(config) => check_config(&config),
        Err(errors) => {
            assert!(
                errors.len() > 0,
                "it is wrong, and nothing is wrong with it"
            );
            for error in &errors {
                assert!(!error.message().is_empty());
                assert!(!error.one_line().contains('\n'), "{}", error.one_line());
            }
            for rendering in [Rendering::Plain, Rendering::Colour] {
                assert!(!errors.render(rendering).is_empty());
            }
        }
    }
}

fn check_config(config: &Config) {
    let difference = config::diff(config, config);
    assert_eq!(difference, config::Difference::default());
    // Each port of a range is a listener, of which there may be a million.
    let services = config.services.iter();
    let listeners = services.map(|service| service.listen.ports.count());
    if listeners.sum::<usize>() > MOST_LISTENERS {
        return;
    }
    let mut backends = 0..;
    let numbers = config.services.iter().zip(0..);
    let ids = numbers.map(|(service, number)| ServiceIds {
        service: number,
        backends: backends.by_ref().take(service.backends.len()).collect(),
    });
    let ids: Vec<ServiceIds> = ids.collect();
    let source_ports = config.datapath.source_ports;
    let image = compile(1, &config.services, &ids, source_ports, |name| {
        Some(index(config, name))
    });
    let memory = Memory::new(image, 0, SIZES).unwrap();
    for number in 0..config.services.len() {
        if config.services[number].backends[0].address.is_ipv4() {
            check_service::<V4>(&memory, config, &ids, number);
        } else {
            check_service::<V6>(&memory, config, &ids, number);
        }
    }
}

/// The index of an interface.
fn index(config: &Config, name: &str) -> u32 {
    let position = config.datapath.interfaces.iter().position(|it| it == name);
    position.expect("an interface of the datapath") as u32 + 1
}

/// Packets for a service come to it, and go to its backends that have a share.
fn check_service<F: InMemory>(memory: &Memory, config: &Config, ids: &[ServiceIds], number: usize) {
    let it = &config.services[number];
    let any = if F::VERSION == 4 { ANY } else { ANY6 };
    let address = it.listen.address.unwrap_or_else(|| any.parse().unwrap());
    let interface = it.interface.as_ref().map_or(1, |name| index(config, name));
    let image = Tables::<F>::image(memory).unwrap();
    for port in [it.listen.ports.first, it.listen.ports.last] {
        let address = F::unmapped(words(address));
        let tuple = Tuple::<F> {
            addresses: F::pair(address, address),
            ports: PortsProtocol::new(1, port, protocol_number(it.protocol)),
        };
        let found = find(&image, &tuple, interface, memory.kinds(tuple.ports));
        let found = found.expect("a listener") as usize;
        if it.listen.address.is_some() && it.interface.is_some() {
            assert_eq!(found, number, "nothing goes before it");
        }
        let other = &config.services[found];
        assert!(other.protocol == it.protocol && other.listen.ports.contains(port));
        let record = service(&image, found as u32).unwrap();
        assert_eq!(record.id, ids[found].service);
    }
    let record = service(&image, number as u32).unwrap();
    let takes = |share: Share| share != Share::Weight(0) && share != Share::Probability(0.0);
    let takes: Vec<u32> = it
        .backends
        .iter()
        .zip(&ids[number].backends)
        .filter(|(backend, _)| takes(backend.share))
        .map(|(_, id)| *id)
        .collect();
    for draw in 0..2 * u64::from(record.schedule_length.clamp(1, 100)) {
        let random = || Tables::<F>::random(memory);
        match choose(&image, &record, || draw, random) {
            Some(backend) => assert!(takes.contains(&backend.id), "one without a share"),
            None => assert!(takes.is_empty()),
        }
    }
}
