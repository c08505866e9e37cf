//! New connections that are refused, and leave nothing behind.

use balancer_common::abi::{MAX_BACKENDS, ServiceStats};
use balancer_common::hop::Hop;
use balancer_common::verdict::{Drop, Punt};

use super::{
    BOX, BOX6, CLIENT, CLIENT6, DNS, DNS_AT, HALF_OPEN, NAMES, ONE, ONE6, THREE, TWO, WEB, WEB_AT,
    WEB6, WEB6_AT,
};
use crate::support::frame::{tcp, udp};
use crate::support::vector::{Vector, dropped, punted, to_backend, to_client};
use crate::support::{BACKEND_MAC, BACKEND_SIDE, BOX_MAC};

/// Clients of which a row of the screen is to know nothing before: each takes part in one vector.
const FLOOD: [&str; 7] = [
    "198.51.100.20:4000",
    "198.51.100.21:4000",
    "198.51.100.22:4001",
    "198.51.100.23:4000",
    "198.51.100.24:4000",
    "198.51.100.25:4000",
    "198.51.100.26:4000",
];
const FLOOD6: &str = "[2001:db8::20]:4000";

const WEIGHT_ZERO: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
backend = [{ address = "10.0.0.3:8080", weight = 0 }]
"#;

const TWO_OF_ONE_BACKEND: &str = r#"
[[service]]
name = "first"
listen = "192.0.2.10:80"
source_nat = "none"
backend = [{ address = "10.0.0.3:8080" }]
[[service]]
name = "second"
listen = "192.0.2.11:80"
source_nat = "none"
backend = [{ address = "10.0.0.3:8080" }]
"#;

const ONE_BACKEND: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
backend = [{ address = "10.0.0.3:8080" }]
"#;

const SECOND: &str = "198.51.100.8:4000";

fn full(refusals: u64) -> ServiceStats {
    ServiceStats {
        table_full: refusals,
        ..ServiceStats::default()
    }
}

fn exhausted(refusals: u64) -> ServiceStats {
    ServiceStats {
        ports_exhausted: refusals,
        ..ServiceStats::default()
    }
}

fn no_backend(refusals: u64) -> ServiceStats {
    ServiceStats {
        no_backend: refusals,
        ..ServiceStats::default()
    }
}

pub fn table() -> Vec<Vector> {
    let mut vectors = no_room();
    vectors.extend(no_way());
    vectors
}

fn no_room() -> Vec<Vector> {
    vec![
        Vector::new("a full table refuses, and what it knows goes on", WEB)
            .free_connections(1)
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(tcp("S", SECOND, WEB_AT), dropped(Drop::TableFull))
            .backend(tcp("SA", ONE, BOX), to_client(WEB_AT, CLIENT))
            .client(tcp("A", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .counts(0, 1, [2, 80], [1, 40])
            .refused(0, full(1))
            .leaves(2, 0),
        Vector::new("a full table refuses over IPv6", WEB6)
            .free_connections(1)
            .client(tcp("S", CLIENT6, WEB6_AT), to_backend(BOX6, ONE6))
            .client(
                tcp("S", "[2001:db8::8]:4000", WEB6_AT),
                dropped(Drop::TableFull),
            )
            .counts(0, 1, [1, 60], [0, 0])
            .refused(0, full(1))
            .leaves(2, 1),
        Vector::new(
            "a connection that is over makes room in a full table for the next of its tuple",
            WEB,
        )
        .free_connections(1)
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .backend(tcp("SA", ONE, BOX), to_client(WEB_AT, CLIENT))
        .client(tcp("A", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .client(tcp("R", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, TWO))
        .counts(0, 1, [3, 120], [1, 40])
        .counts(1, 1, [1, 40], [0, 0])
        .leaves(2, 1),
        Vector::new(
            "the bound on half-open connections refuses, until one is established",
            WEB,
        )
        .free_half_open(1)
        .client(tcp("S", FLOOD[0], WEB_AT), dropped(Drop::FirstPacket))
        .client(tcp("S", FLOOD[0], WEB_AT), to_backend(BOX, ONE))
        .client(tcp("S", FLOOD[1], WEB_AT), dropped(Drop::FirstPacket))
        .client(tcp("S", FLOOD[1], WEB_AT), dropped(Drop::HalfOpenFull))
        .client(tcp("S", FLOOD[0], WEB_AT), to_backend(BOX, ONE))
        .backend(tcp("SA", ONE, BOX), to_client(WEB_AT, FLOOD[0]))
        .client(tcp("A", FLOOD[0], WEB_AT), to_backend(BOX, ONE))
        .client(tcp("S", FLOOD[1], WEB_AT), to_backend(BOX, THREE))
        .counts(0, 1, [3, 120], [1, 40])
        .counts(2, 1, [1, 40], [0, 0])
        .refused(0, full(1))
        .leaves(4, 1),
        Vector::new(
            "the bound on half-open connections holds for UDP, until one is answered",
            DNS,
        )
        .free_half_open(1)
        .client(udp(FLOOD[0], DNS_AT), dropped(Drop::FirstPacket))
        .client(udp(FLOOD[0], DNS_AT), to_backend(BOX, NAMES))
        .client(udp(FLOOD[2], DNS_AT), dropped(Drop::FirstPacket))
        .client(udp(FLOOD[2], DNS_AT), dropped(Drop::HalfOpenFull))
        .backend(udp(NAMES, BOX), to_client(DNS_AT, FLOOD[0]))
        .client(udp(FLOOD[2], DNS_AT), to_backend("10.0.0.1:4001", NAMES))
        .counts(0, 2, [2, 56], [1, 28])
        .refused(0, full(1))
        .leaves(4, 1),
        Vector::new("the bound on half-open connections holds over IPv6", WEB6)
            .free_half_open(0)
            .client(tcp("S", FLOOD6, WEB6_AT), dropped(Drop::FirstPacket))
            .client(tcp("S", FLOOD6, WEB6_AT), dropped(Drop::HalfOpenFull))
            .refused(0, full(1)),
        Vector::new(
            "of many half-open connections no more than half come at once",
            WEB,
        )
        .free_half_open(HALF_OPEN / 2)
        .client(tcp("S", FLOOD[3], WEB_AT), to_backend(BOX, ONE))
        .client(tcp("S", FLOOD[4], WEB_AT), dropped(Drop::FirstPacket))
        .counts(0, 1, [1, 40], [0, 0])
        .leaves(2, 1),
        Vector::new("what comes again is a SYN of the same number", WEB)
            .free_half_open(2)
            .client(tcp("S", FLOOD[5], WEB_AT), dropped(Drop::FirstPacket))
            .client(
                tcp("S", FLOOD[5], WEB_AT).numbers(1, 0),
                dropped(Drop::FirstPacket),
            )
            .client(tcp("A", FLOOD[5], WEB_AT), dropped(Drop::NoConnection))
            .client(tcp("S", FLOOD[5], WEB_AT), to_backend(BOX, ONE))
            .counts(0, 1, [1, 40], [0, 0])
            .leaves(2, 1),
        Vector::new("what goes no further in any case is not noted", WEB)
            .free_half_open(2)
            .client(
                tcp("S", FLOOD[6], WEB_AT).ttl(1),
                dropped(Drop::TtlExceeded),
            )
            .client(tcp("S", FLOOD[6], WEB_AT), dropped(Drop::FirstPacket))
            .client(tcp("S", FLOOD[6], WEB_AT), to_backend(BOX, ONE))
            .counts(0, 1, [1, 40], [0, 0])
            .leaves(2, 1),
    ]
}

fn no_way() -> Vec<Vector> {
    vec![
        Vector::new("no backend takes connections", WEIGHT_ZERO)
            .client(tcp("S", CLIENT, WEB_AT), dropped(Drop::NoBackend))
            .client(tcp("S", CLIENT, WEB_AT), dropped(Drop::NoBackend))
            .refused(0, no_backend(2)),
        Vector::new("the way to the backend is not known yet", WEB)
            .hop(Hop::default())
            .client(tcp("S", CLIENT, WEB_AT), dropped(Drop::NoNextHop))
            .ways(Hop::new(BACKEND_SIDE, BACKEND_MAC, BOX_MAC), None)
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, TWO))
            .counts(1, 1, [1, 40], [0, 0])
            .leaves(2, 1),
        Vector::new(
            "the way to the backend is not known yet, and somebody waits",
            WEB,
        )
        .hop(Hop::default())
        .slow_path()
        .client(tcp("S", CLIENT, WEB_AT), punted(Punt::NextHop))
        .ways(Hop::new(BACKEND_SIDE, BACKEND_MAC, BOX_MAC), None)
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, TWO))
        .counts(1, 1, [1, 40], [0, 0])
        .leaves(2, 1),
        Vector::new("all source ports to the backend are in use", ONE_BACKEND)
            .source_ports("source_ports = \"4000-4000\"")
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(tcp("S", SECOND, WEB_AT), dropped(Drop::PortsExhausted))
            .client(
                tcp("S", "198.51.100.7:4001", WEB_AT),
                dropped(Drop::PortsExhausted),
            )
            .counts(0, 1, [1, 40], [0, 0])
            .refused(0, exhausted(2))
            .leaves(2, 1),
        Vector::new(
            "all source ports are in use, and somebody looks for another",
            ONE_BACKEND,
        )
        .source_ports("source_ports = \"4000-4000\"")
        .slow_path()
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .client(tcp("S", SECOND, WEB_AT), punted(Punt::Ports))
        .counts(0, 1, [1, 40], [0, 0])
        .leaves(2, 1),
        Vector::new("a port that one backend has in use is free to another", WEB)
            .source_ports("source_ports = \"4000-4000\"")
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(tcp("S", SECOND, WEB_AT), to_backend(BOX, TWO))
            .counts(0, 1, [1, 40], [0, 0])
            .counts(1, 1, [1, 40], [0, 0])
            .leaves(4, 2),
        Vector::new(
            "without source NAT two services cannot give one client's port to one backend",
            TWO_OF_ONE_BACKEND,
        )
        .client(tcp("S", CLIENT, WEB_AT), to_backend(CLIENT, ONE))
        .client(tcp("S", CLIENT, "192.0.2.11:80"), dropped(Drop::TupleInUse))
        .backend(tcp("SA", ONE, CLIENT), to_client(WEB_AT, CLIENT))
        .counts(0, 1, [1, 40], [1, 40])
        .leaves(2, 1),
        Vector::new("TCP that no connection knows and that opens none", WEB)
            .client(tcp("A", CLIENT, WEB_AT), dropped(Drop::NoConnection))
            .client(tcp("SA", CLIENT, WEB_AT), dropped(Drop::NoConnection))
            .client(tcp("SF", CLIENT, WEB_AT), dropped(Drop::NoConnection))
            .client(tcp("SR", CLIENT, WEB_AT), dropped(Drop::NoConnection))
            .client(tcp("R", CLIENT, WEB_AT), dropped(Drop::NoConnection))
            .client(tcp("FA", CLIENT, WEB_AT), dropped(Drop::NoConnection))
            .client(tcp("", CLIENT, WEB_AT), dropped(Drop::NoConnection)),
        Vector::new("an image that names a backend which no table has", WEB)
            .first_backend(MAX_BACKENDS)
            .client(tcp("S", CLIENT, WEB_AT), dropped(Drop::NotReady)),
    ]
}
