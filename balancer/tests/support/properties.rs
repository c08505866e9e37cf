//! What holds of many frames, whatever chance says: for any engine.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::CLIENT_SIDE;
use super::engines::{Engines, Setting};
use super::frame::{octets, tcp, transport_checksum};

/// Gives a frame to an engine, and the frame as it left it.
pub type Run = fn(&mut Engines, u32, &[u8]) -> Vec<u8>;

/// Source and destination of a TCP or UDP frame, read by another parser than ours; its checksums must be right.
pub fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (source, destination): (IpAddr, IpAddr) = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(
                header.header_checksum,
                header.calc_header_checksum(),
                "IPv4 checksum"
            );
            (header.source.into(), header.destination.into())
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            (header.source.into(), header.destination.into())
        }
        NetSlice::Arp(_) => panic!("ARP"),
    };
    let (segment, protocol, ports) = match packet.transport.as_ref().unwrap() {
        TransportSlice::Tcp(tcp) => (
            tcp.slice(),
            6_u8,
            [tcp.source_port(), tcp.destination_port()],
        ),
        TransportSlice::Udp(udp) => (udp.slice(), 17, [udp.source_port(), udp.destination_port()]),
        _ => panic!("neither TCP nor UDP"),
    };
    let addresses = [octets(source), octets(destination)].concat();
    let wrong = transport_checksum(&addresses, protocol, segment);
    assert_eq!(wrong, 0, "transport checksum");
    (
        SocketAddr::new(source, ports[0]),
        SocketAddr::new(destination, ports[1]),
    )
}

/// Clients that all use one source port: none may get the tuple of another.
pub fn no_tuple_is_given_twice(engines: &mut Engines, run: Run) {
    engines.about = String::from("no tuple is given twice");
    engines.set_up(&Setting {
        services: r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
scheduler = "random"
backend = [{ address = "10.0.0.3:8080" }, { address = "10.0.0.4:8080" }, { address = "10.0.0.5:8080" }]
"#
        .to_owned(),
        ..Setting::default()
    });
    let mut seen = HashSet::new();
    let mut kept = 0;
    for client in 1..=200 {
        let syn = tcp("S", &format!("198.51.100.{client}:4000"), "192.0.2.10:80");
        let (source, destination) = ends(&run(engines, CLIENT_SIDE, &syn.build()));
        assert!(
            seen.insert((source, destination)),
            "{source} to {destination} twice"
        );
        assert!((1024..=32767).contains(&source.port()), "{source}");
        kept += usize::from(source.port() == 4000);
    }
    let backends: HashSet<_> = seen.iter().map(|(_, backend)| backend).collect();
    assert_eq!(backends.len(), 3);
    assert_eq!(kept, 3, "one client for each backend keeps its port");
}

/// A range of source ports, of which each is tried, is used to its last one.
pub fn every_port_is_found(engines: &mut Engines, run: Run) {
    const PORTS: usize = 60;
    engines.about = String::from("every port is found");
    engines.set_up(&Setting {
        services: r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
backend = [{ address = "10.0.0.3:8080" }]
"#
        .to_owned(),
        datapath: "source_ports = \"3000-3059\"",
        ..Setting::default()
    });
    let mut seen = HashSet::new();
    for client in 1..=PORTS {
        let syn = tcp("S", &format!("198.51.100.{client}:4000"), "192.0.2.10:80").build();
        let output = run(engines, CLIENT_SIDE, &syn);
        assert_ne!(output, syn, "client {client} of {PORTS} found no port");
        seen.insert(ends(&output).0);
    }
    assert_eq!(seen.len(), PORTS);
    let late = tcp("S", "198.51.100.99:4000", "192.0.2.10:80").build();
    assert_eq!(run(engines, CLIENT_SIDE, &late), late, "there are no more");
}

/// Each backend gets its share, within what chance allows.
pub fn random_gives_each_its_share(engines: &mut Engines, run: Run) {
    const CONNECTIONS: u32 = 1000;
    engines.about = String::from("random gives each its share");
    engines.set_up(&Setting {
        services: r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
scheduler = "random"
source_nat = "none"
  [[service.backend]]
  address = "10.0.0.3:8080"
  probability = 0.5
  [[service.backend]]
  address = "10.0.0.4:8080"
  probability = 0.3
  [[service.backend]]
  address = "10.0.0.5:8080"
  probability = 0.2
"#
        .to_owned(),
        ..Setting::default()
    });
    let mut given: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    for client in 0..CONNECTIONS {
        let source = format!("198.51.100.{}:{}", 1 + client % 200, 2000 + client / 200);
        let syn = tcp("S", &source, "192.0.2.10:80");
        let (_, destination) = ends(&run(engines, CLIENT_SIDE, &syn.build()));
        *given.entry(destination).or_default() += 1;
    }
    let given: Vec<f64> = given.into_values().map(f64::from).collect();
    for (given, share) in given.iter().zip([0.5, 0.3, 0.2]) {
        let expected = f64::from(CONNECTIONS) * share;
        // Six standard deviations: chance is further off once in 500 million runs.
        let bound = 6.0 * (expected * (1.0 - share)).sqrt();
        assert!((given - expected).abs() < bound, "{given}, not {expected}");
    }
}
