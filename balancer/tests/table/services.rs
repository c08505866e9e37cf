//! Which service a packet is for, and which backend it gets.

use balancer_common::verdict::{Drop, Pass};

use super::{
    BOX, CLIENT, CLIENT6, DNS, DNS_AT, NAMES, ONE, THREE, TWO, WEB, WEB_AT, WEB6, WEB6_AT,
};
use crate::support::frame::{tcp, udp};
use crate::support::vector::{Vector, dropped, passed, to_backend, to_client};
use crate::support::{BACKEND_SIDE, CLIENT_SIDE, OTHER_SIDE};

const EXACT_AND_ANY: &str = r#"
[[service]]
name = "any"
listen = "*:80"
backend = [{ address = "10.0.0.3:8080" }]
[[service]]
name = "exact"
listen = "192.0.2.10:80"
backend = [{ address = "10.0.0.4:8080" }]
"#;

const RANGE: &str = r#"
[[service]]
name = "range"
listen = "192.0.2.10:8000-8003"
source_nat = "none"
backend = [{ address = "10.0.0.3" }]
"#;

const RANGE_TO_ONE: &str = r#"
[[service]]
name = "range"
listen = "192.0.2.10:8000-8003"
source_nat = "none"
backend = [{ address = "10.0.0.3:8080" }]
"#;

const BY_INTERFACE: &str = r#"
[[service]]
name = "outside"
listen = "192.0.2.10:80"
interface = "eth0"
backend = [{ address = "10.0.0.3:8080" }]
"#;

/// The four kinds of listeners of one port, the last to be searched first.
const FOUR_KINDS: &str = r#"
[[service]]
name = "any"
listen = "*:80"
source_nat = "none"
backend = [{ address = "10.0.0.3:8080" }]
[[service]]
name = "any-eth0"
listen = "*:80"
source_nat = "none"
interface = "eth0"
backend = [{ address = "10.0.0.4:8080" }]
[[service]]
name = "exact"
listen = "192.0.2.10:80"
source_nat = "none"
backend = [{ address = "10.0.0.5:8080" }]
[[service]]
name = "exact-eth0"
listen = "192.0.2.10:80"
source_nat = "none"
interface = "eth0"
backend = [{ address = "10.0.0.6:8080" }]
"#;

const WEIGHTS: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
scheduler = "nth"
backend = [
  { address = "10.0.0.3:8080", weight = 5 },
  { address = "10.0.0.4:8080", weight = 3 },
  { address = "10.0.0.5:8080", weight = 1 },
]
"#;

const NOT_THE_FIRST: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
scheduler = "nth"
backend = [
  { address = "10.0.0.3:8080", weight = 0 },
  { address = "10.0.0.4:8080" },
  { address = "10.0.0.5:8080" },
]
"#;

const SURE_CHANCE: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
scheduler = "random"
backend = [
  { address = "10.0.0.3:8080", weight = 0 },
  { address = "10.0.0.4:8080", weight = 7 },
]
"#;

const TWO_SERVICES: &str = r#"
[[service]]
name = "first"
listen = "192.0.2.10:80"
backend = [{ address = "10.0.0.3:8080" }, { address = "10.0.0.4:8080" }]
[[service]]
name = "second"
listen = "192.0.2.11:80"
backend = [{ address = "10.0.0.5:8080" }, { address = "10.0.0.6:8080" }]
"#;

const TCP_AND_UDP: &str = r#"
[[service]]
name = "tcp"
listen = "192.0.2.10:53"
protocol = "tcp"
backend = [{ address = "10.0.0.6:5353" }]
[[service]]
name = "udp"
listen = "192.0.2.10:53"
protocol = "udp"
backend = [{ address = "10.0.0.7:5353" }]
"#;

const ANY_V4: &str = r#"
[[service]]
name = "any"
listen = "*:80"
backend = [{ address = "10.0.0.3:8080" }]
"#;

const ANY_BOTH: &str = r#"
[[service]]
name = "any"
listen = "*:80"
backend = [{ address = "10.0.0.3:8080" }]
[[service]]
name = "any6"
listen = "*:80"
backend = [{ address = "[2001:db8:1::3]:8080" }]
"#;

pub fn table() -> Vec<Vector> {
    let mut vectors = addresses();
    vectors.extend(ports());
    vectors.extend(interfaces());
    vectors.extend(schedules());
    vectors.extend(reloads());
    vectors
}

fn addresses() -> Vec<Vector> {
    vec![
        Vector::new(
            "a service with the very address goes before one with any",
            EXACT_AND_ANY,
        )
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, TWO))
        .client(tcp("S", CLIENT, "192.0.2.99:80"), to_backend(BOX, ONE))
        .counts(0, 1, [1, 40], [0, 0])
        .counts(1, 1, [1, 40], [0, 0])
        .leaves(4, 2),
        Vector::new(
            "a service with any address answers from the one that was asked",
            ANY_V4,
        )
        .client(tcp("S", CLIENT, "192.0.2.99:80"), to_backend(BOX, ONE))
        .backend(tcp("SA", ONE, BOX), to_client("192.0.2.99:80", CLIENT))
        .counts(0, 1, [1, 40], [1, 40])
        .leaves(2, 1),
        Vector::new(
            "a service with any address takes only the family of its backends",
            ANY_V4,
        )
        .client(tcp("S", CLIENT6, WEB6_AT), passed(Pass::NoService)),
        Vector::new("any address can be served in both families", ANY_BOTH)
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(
                tcp("S", CLIENT6, WEB6_AT),
                to_backend("[2001:db8:1::1]:4000", "[2001:db8:1::3]:8080"),
            )
            .counts(0, 1, [1, 40], [0, 0])
            .counts(1, 1, [1, 60], [0, 0])
            .leaves(4, 2),
    ]
}

fn ports() -> Vec<Vector> {
    vec![
        Vector::new(
            "a range of ports, with the port that the packet came to",
            RANGE,
        )
        .client(
            tcp("S", CLIENT, "192.0.2.10:8000"),
            to_backend(CLIENT, "10.0.0.3:8000"),
        )
        .client(
            tcp("S", CLIENT, "192.0.2.10:8003"),
            to_backend(CLIENT, "10.0.0.3:8003"),
        )
        .backend(
            tcp("SA", "10.0.0.3:8003", CLIENT),
            to_client("192.0.2.10:8003", CLIENT),
        )
        .counts(0, 2, [2, 80], [1, 40])
        .leaves(4, 2),
        Vector::new(
            "a range of ports, all to the one port of the backend",
            RANGE_TO_ONE,
        )
        .client(tcp("S", CLIENT, "192.0.2.10:8001"), to_backend(CLIENT, ONE))
        .backend(tcp("SA", ONE, CLIENT), to_client("192.0.2.10:8001", CLIENT))
        .counts(0, 1, [1, 40], [1, 40])
        .leaves(2, 1),
        Vector::new("a range of ports begins and ends where it says", RANGE)
            .client(tcp("S", CLIENT, "192.0.2.10:7999"), passed(Pass::NoService))
            .client(tcp("S", CLIENT, "192.0.2.10:8004"), passed(Pass::NoService)),
        Vector::new("TCP and UDP of one port are two services", TCP_AND_UDP)
            .client(tcp("S", CLIENT, DNS_AT), to_backend(BOX, NAMES))
            .client(udp(CLIENT, DNS_AT), to_backend(BOX, "10.0.0.7:5353"))
            .counts(0, 1, [1, 40], [0, 0])
            .counts(1, 1, [1, 28], [0, 0])
            .leaves(4, 2),
        Vector::new("a service takes its own protocol only", DNS)
            .client(tcp("S", CLIENT, DNS_AT), passed(Pass::NoService)),
        Vector::new("another port or another address is no service", WEB)
            .client(tcp("S", CLIENT, "192.0.2.10:81"), passed(Pass::NoService))
            .client(tcp("S", CLIENT, "192.0.2.11:80"), passed(Pass::NoService))
            .client(udp(CLIENT, WEB_AT), passed(Pass::NoService))
            .backend(tcp("SA", ONE, BOX), passed(Pass::NoService)),
        Vector::new(
            "another port or another address is no service over IPv6",
            WEB6,
        )
        .client(
            tcp("S", CLIENT6, "[2001:db8::10]:81"),
            passed(Pass::NoService),
        )
        .client(
            tcp("A", CLIENT6, "[2001:db8::11]:80"),
            passed(Pass::NoService),
        ),
        Vector::new("without services all is left to the kernel", "")
            .client(tcp("S", CLIENT, WEB_AT), passed(Pass::NoService))
            .client(udp(CLIENT6, WEB6_AT), passed(Pass::NoService)),
    ]
}

fn interfaces() -> Vec<Vector> {
    vec![
        Vector::new(
            "a service of one interface takes only what comes in there",
            BY_INTERFACE,
        )
        .frame(
            BACKEND_SIDE,
            tcp("S", CLIENT, WEB_AT),
            passed(Pass::NoService),
        )
        .frame(CLIENT_SIDE, tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .counts(0, 1, [1, 40], [0, 0])
        .leaves(2, 1),
        Vector::new(
            "a connection that one interface opened goes on by another",
            BY_INTERFACE,
        )
        .frame(CLIENT_SIDE, tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .backend(tcp("SA", ONE, BOX), to_client(WEB_AT, CLIENT))
        .frame(OTHER_SIDE, tcp("A", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .counts(0, 1, [2, 80], [1, 40])
        .leaves(2, 0),
        Vector::new(
            "the address counts more than the interface, and each more than any",
            FOUR_KINDS,
        )
        .client(
            tcp("S", CLIENT, WEB_AT),
            to_backend(CLIENT, "10.0.0.6:8080"),
        )
        .client(tcp("S", CLIENT, "192.0.2.99:80"), to_backend(CLIENT, TWO))
        .frame(
            OTHER_SIDE,
            tcp("S", "198.51.100.8:1", WEB_AT),
            to_backend("198.51.100.8:1", THREE),
        )
        .frame(
            OTHER_SIDE,
            tcp("S", CLIENT, "192.0.2.98:80"),
            to_backend(CLIENT, ONE),
        )
        .counts(0, 1, [1, 40], [0, 0])
        .counts(1, 1, [1, 40], [0, 0])
        .counts(2, 1, [1, 40], [0, 0])
        .counts(3, 1, [1, 40], [0, 0])
        .leaves(8, 4),
    ]
}

/// A SYN for each of these backends, which it gets.
fn rotation(mut vector: Vector, backends: &[&str]) -> Vector {
    for (port, backend) in (4001..).zip(backends) {
        vector = vector.client(
            tcp("S", &format!("198.51.100.7:{port}"), WEB_AT),
            to_backend(&format!("10.0.0.1:{port}"), backend),
        );
    }
    vector
}

fn schedules() -> Vec<Vector> {
    vec![
        rotation(
            Vector::new("nth goes round", WEB),
            &[ONE, TWO, THREE, ONE, TWO, THREE, ONE],
        )
        .counts(0, 3, [3, 120], [0, 0])
        .counts(1, 2, [2, 80], [0, 0])
        .counts(2, 2, [2, 80], [0, 0])
        .leaves(14, 7),
        rotation(
            Vector::new(
                "nth with weights 5, 3 and 1 gives each its share, spread evenly",
                WEIGHTS,
            ),
            &[ONE, TWO, ONE, ONE, TWO, THREE, ONE, TWO, ONE, ONE, TWO],
        )
        .counts(0, 6, [6, 240], [0, 0])
        .counts(1, 4, [4, 160], [0, 0])
        .counts(2, 1, [1, 40], [0, 0])
        .leaves(22, 11),
        rotation(
            Vector::new("nth leaves out a backend with weight 0", NOT_THE_FIRST),
            &[TWO, THREE, TWO],
        )
        .counts(1, 2, [2, 80], [0, 0])
        .counts(2, 1, [1, 40], [0, 0])
        .leaves(6, 3),
        rotation(
            Vector::new(
                "random gives nothing to a backend with weight 0",
                SURE_CHANCE,
            ),
            &[TWO, TWO, TWO, TWO, TWO],
        )
        .counts(1, 5, [5, 200], [0, 0])
        .leaves(10, 5),
        Vector::new("two services do not share their turns", TWO_SERVICES)
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(tcp("S", CLIENT, "192.0.2.11:80"), to_backend(BOX, THREE))
            .client(tcp("S", "198.51.100.8:4000", WEB_AT), to_backend(BOX, TWO))
            .client(
                tcp("S", "198.51.100.8:4000", "192.0.2.11:80"),
                to_backend(BOX, "10.0.0.6:8080"),
            )
            .counts(0, 1, [1, 40], [0, 0])
            .counts(1, 1, [1, 40], [0, 0])
            .counts(2, 1, [1, 40], [0, 0])
            .counts(3, 1, [1, 40], [0, 0])
            .leaves(8, 4),
        Vector::new("packets that open nothing do not count as a turn", WEB)
            .client(tcp("A", CLIENT, WEB_AT), dropped(Drop::NoConnection))
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(tcp("S", "198.51.100.8:4000", WEB_AT), to_backend(BOX, TWO))
            .counts(0, 1, [2, 80], [0, 0])
            .counts(1, 1, [1, 40], [0, 0])
            .leaves(4, 2),
    ]
}

/// The web service with another backend.
const OTHER_WEB: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
backend = [{ address = "10.0.0.9:8080" }]
"#;

fn reloads() -> Vec<Vector> {
    vec![
        Vector::new(
            "a known connection keeps its backend when the service loses it",
            WEB,
        )
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .reload(OTHER_WEB)
        .backend(tcp("SA", ONE, BOX), to_client(WEB_AT, CLIENT))
        .client(tcp("A", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .client(
            tcp("S", "198.51.100.8:4000", WEB_AT),
            to_backend(BOX, "10.0.0.9:8080"),
        )
        .counts(0, 1, [2, 80], [1, 40])
        .counts(3, 1, [1, 40], [0, 0])
        .leaves(4, 1),
        Vector::new("a known connection goes on when its service is gone", WEB)
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .backend(tcp("SA", ONE, BOX), to_client(WEB_AT, CLIENT))
            .reload("")
            .client(tcp("A", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(
                tcp("S", "198.51.100.8:4000", WEB_AT),
                passed(Pass::NoService),
            )
            .counts(0, 1, [2, 80], [1, 40])
            .leaves(2, 0),
        Vector::new(
            "nth goes on where it was after a reload that changes nothing",
            WEB,
        )
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .reload(WEB)
        .client(tcp("S", "198.51.100.8:4000", WEB_AT), to_backend(BOX, TWO))
        .counts(0, 1, [1, 40], [0, 0])
        .counts(1, 1, [1, 40], [0, 0])
        .leaves(4, 2),
    ]
}
