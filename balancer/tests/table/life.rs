//! Connections from their first packet to their last.

use balancer_common::verdict::{Drop, Pass};

use super::{
    BOX, BOX6, CLIENT, CLIENT6, DNS, DNS_AT, DNS6, DNS6_AT, NAMES, NAMES6, ONE, ONE6, THREE, TWO,
    TWO6, WEB, WEB_AT, WEB6, WEB6_AT,
};
use crate::support::frame::{tcp, udp};
use crate::support::vector::{Vector, dropped, passed, to_backend, to_client};

/// A connection to the first web server, established: two packets of 40 bytes from the client, one to it.
fn established(name: &'static str) -> Vector {
    Vector::new(name, WEB)
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .backend(tcp("SA", ONE, BOX), to_client(WEB_AT, CLIENT))
        .client(tcp("A", CLIENT, WEB_AT), to_backend(BOX, ONE))
}

pub fn table() -> Vec<Vector> {
    let mut vectors = tcp_lives();
    vectors.extend(tcp_opens());
    vectors.extend(tcp_ends());
    vectors.extend(halves());
    vectors.extend(udp_lives());
    vectors
}

fn tcp_lives() -> Vec<Vector> {
    vec![
        established("TCP lives: SYN, SYN-ACK, ACK, data both ways, FIN both ways, last ACK")
            .client(
                tcp("PA", CLIENT, WEB_AT).payload(b"GET / HTTP/1.1\r\n"),
                to_backend(BOX, ONE),
            )
            .backend(tcp("A", ONE, BOX), to_client(WEB_AT, CLIENT))
            .backend(
                tcp("PA", ONE, BOX).payload(b"HTTP/1.1 200 OK\r\n"),
                to_client(WEB_AT, CLIENT),
            )
            .client(tcp("A", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(tcp("FA", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .backend(tcp("FA", ONE, BOX), to_client(WEB_AT, CLIENT))
            .client(tcp("A", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .counts(0, 1, [6, 256], [4, 177])
            .leaves(2, 0),
        Vector::new("TCP lives over IPv6", WEB6)
            .client(tcp("S", CLIENT6, WEB6_AT), to_backend(BOX6, ONE6))
            .backend(tcp("SA", ONE6, BOX6), to_client(WEB6_AT, CLIENT6))
            .client(tcp("A", CLIENT6, WEB6_AT), to_backend(BOX6, ONE6))
            .client(
                tcp("PA", CLIENT6, WEB6_AT).payload(b"GET /"),
                to_backend(BOX6, ONE6),
            )
            .backend(
                tcp("PA", ONE6, BOX6).payload(b"odd"),
                to_client(WEB6_AT, CLIENT6),
            )
            .client(tcp("FA", CLIENT6, WEB6_AT), to_backend(BOX6, ONE6))
            .backend(tcp("FA", ONE6, BOX6), to_client(WEB6_AT, CLIENT6))
            .client(tcp("A", CLIENT6, WEB6_AT), to_backend(BOX6, ONE6))
            .counts(0, 1, [5, 305], [3, 183])
            .leaves(2, 0),
        Vector::new("a retransmitted SYN keeps its backend", WEB)
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .counts(0, 1, [3, 120], [0, 0])
            .leaves(2, 1),
        established("a SYN inside a connection goes to its backend, which answers it")
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .backend(tcp("A", ONE, BOX), to_client(WEB_AT, CLIENT))
            .counts(0, 1, [3, 120], [2, 80])
            .leaves(2, 0),
        Vector::new("an ACK before the SYN-ACK establishes nothing", WEB)
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(tcp("A", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .counts(0, 1, [2, 80], [0, 0])
            .leaves(2, 1),
        Vector::new("a RST of the client to a SYN-ACK establishes nothing", WEB)
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .backend(tcp("SA", ONE, BOX), to_client(WEB_AT, CLIENT))
            .client(tcp("R", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(tcp("RA", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .counts(0, 1, [3, 120], [1, 40])
            .leaves(2, 1),
        Vector::new(
            "a refused connection is over, and the same SYN again goes to the next backend",
            WEB,
        )
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .backend(tcp("RA", ONE, BOX), to_client(WEB_AT, CLIENT))
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, TWO))
        .counts(0, 1, [1, 40], [1, 40])
        .counts(1, 1, [1, 40], [0, 0])
        .leaves(2, 2),
    ]
}

fn tcp_opens() -> Vec<Vector> {
    vec![
        Vector::new(
            "a SYN with data, as of TCP Fast Open, opens and carries it",
            WEB,
        )
        .client(
            tcp("S", CLIENT, WEB_AT).payload(b"early"),
            to_backend(BOX, ONE),
        )
        .counts(0, 1, [1, 45], [0, 0])
        .leaves(2, 1),
        Vector::new(
            "a SYN that asks for ECN opens, and so do those with PSH and URG",
            WEB,
        )
        .client(tcp("SEC", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .client(
            tcp("SPU", "198.51.100.7:4001", WEB_AT),
            to_backend("10.0.0.1:4001", TWO),
        )
        .counts(0, 1, [1, 40], [0, 0])
        .counts(1, 1, [1, 40], [0, 0])
        .leaves(4, 2),
        Vector::new("connections keep their backends beside each other", WEB)
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(
                tcp("S", "198.51.100.7:4001", WEB_AT),
                to_backend("10.0.0.1:4001", TWO),
            )
            .client(
                tcp("S", "198.51.100.8:4002", WEB_AT),
                to_backend("10.0.0.1:4002", THREE),
            )
            .backend(
                tcp("SA", TWO, "10.0.0.1:4001"),
                to_client(WEB_AT, "198.51.100.7:4001"),
            )
            .client(
                tcp("A", "198.51.100.7:4001", WEB_AT),
                to_backend("10.0.0.1:4001", TWO),
            )
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .counts(0, 1, [2, 80], [0, 0])
            .counts(1, 1, [2, 80], [1, 40])
            .counts(2, 1, [1, 40], [0, 0])
            .leaves(6, 2),
        Vector::new(
            "clients with one source port share it, each with another backend",
            WEB,
        )
        .client(tcp("S", "198.51.100.7:4000", WEB_AT), to_backend(BOX, ONE))
        .client(tcp("S", "198.51.100.8:4000", WEB_AT), to_backend(BOX, TWO))
        .backend(tcp("SA", TWO, BOX), to_client(WEB_AT, "198.51.100.8:4000"))
        .backend(tcp("SA", ONE, BOX), to_client(WEB_AT, "198.51.100.7:4000"))
        .counts(0, 1, [1, 40], [1, 40])
        .counts(1, 1, [1, 40], [1, 40])
        .leaves(4, 2),
    ]
}

fn tcp_ends() -> Vec<Vector> {
    vec![
        established("a SYN reopens what both have closed, with the next backend")
            .client(tcp("FA", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .backend(tcp("FA", ONE, BOX), to_client(WEB_AT, CLIENT))
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, TWO))
            .backend(tcp("SA", TWO, BOX), to_client(WEB_AT, CLIENT))
            .counts(0, 1, [3, 120], [2, 80])
            .counts(1, 1, [1, 40], [1, 40])
            .leaves(2, 1),
        Vector::new("a SYN reopens what both have closed over IPv6", WEB6)
            .client(tcp("S", CLIENT6, WEB6_AT), to_backend(BOX6, ONE6))
            .backend(tcp("SA", ONE6, BOX6), to_client(WEB6_AT, CLIENT6))
            .client(tcp("A", CLIENT6, WEB6_AT), to_backend(BOX6, ONE6))
            .backend(tcp("FA", ONE6, BOX6), to_client(WEB6_AT, CLIENT6))
            .client(tcp("FA", CLIENT6, WEB6_AT), to_backend(BOX6, ONE6))
            .client(tcp("S", CLIENT6, WEB6_AT), to_backend(BOX6, TWO6))
            .counts(0, 1, [3, 180], [2, 120])
            .counts(1, 1, [1, 60], [0, 0])
            .leaves(2, 1),
        established("a SYN reopens what the backend has reset")
            .backend(tcp("R", ONE, BOX), to_client(WEB_AT, CLIENT))
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, TWO))
            .counts(0, 1, [2, 80], [2, 80])
            .counts(1, 1, [1, 40], [0, 0])
            .leaves(2, 1),
        established("a SYN reopens what the client has reset")
            .client(tcp("RA", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, TWO))
            .counts(0, 1, [3, 120], [1, 40])
            .counts(1, 1, [1, 40], [0, 0])
            .leaves(2, 1),
        established(
            "what one side has closed is not over: data goes on, and a SYN reopens nothing",
        )
        .client(tcp("FA", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .backend(
            tcp("PA", ONE, BOX).payload(b"more"),
            to_client(WEB_AT, CLIENT),
        )
        .client(tcp("A", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .counts(0, 1, [5, 200], [2, 84])
        .leaves(2, 0),
        established("only a plain SYN reopens: other packets of what is over still find their way")
            .client(tcp("FA", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .backend(tcp("FA", ONE, BOX), to_client(WEB_AT, CLIENT))
            .client(tcp("SA", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(tcp("SF", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .backend(tcp("S", ONE, BOX), to_client(WEB_AT, CLIENT))
            .client(tcp("A", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .backend(tcp("FA", ONE, BOX), to_client(WEB_AT, CLIENT))
            .counts(0, 1, [6, 240], [4, 160])
            .leaves(2, 0),
    ]
}

fn halves() -> Vec<Vector> {
    vec![
        established("a SYN reopens a connection of which the reply is gone")
            .forget(ONE, BOX)
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, TWO))
            .backend(tcp("SA", TWO, BOX), to_client(WEB_AT, CLIENT))
            .counts(0, 1, [2, 80], [1, 40])
            .counts(1, 1, [1, 40], [1, 40])
            .leaves(2, 1),
        Vector::new(
            "a half-open connection left behind is taken over by the next one of its tuple",
            WEB,
        )
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .forget(ONE, BOX)
        .forget(CLIENT, WEB_AT)
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, TWO))
        .backend(tcp("SA", TWO, BOX), to_client(WEB_AT, CLIENT))
        .client(tcp("A", CLIENT, WEB_AT), to_backend(BOX, TWO))
        .counts(0, 1, [1, 40], [0, 0])
        .counts(1, 1, [2, 80], [1, 40])
        .leaves(2, 0),
        established("without the original flow there is no connection for the backend either")
            .forget(CLIENT, WEB_AT)
            .client(tcp("A", CLIENT, WEB_AT), dropped(Drop::NoConnection))
            .backend(tcp("A", ONE, BOX), passed(Pass::NoService))
            .counts(0, 1, [2, 80], [1, 40])
            .leaves(1, 0),
    ]
}

fn udp_lives() -> Vec<Vector> {
    vec![
        Vector::new("UDP both ways: half-open until the first answer", DNS)
            .client(
                udp(CLIENT, DNS_AT).payload(b"query"),
                to_backend(BOX, NAMES),
            )
            .backend(
                udp(NAMES, BOX).payload(b"answer"),
                to_client(DNS_AT, CLIENT),
            )
            .client(udp(CLIENT, DNS_AT).payload(b"next"), to_backend(BOX, NAMES))
            .backend(udp(NAMES, BOX).payload(b""), to_client(DNS_AT, CLIENT))
            .counts(0, 1, [2, 65], [2, 62])
            .leaves(2, 0),
        Vector::new("UDP both ways over IPv6", DNS6)
            .client(
                udp(CLIENT6, DNS6_AT).payload(b"odd"),
                to_backend(BOX6, NAMES6),
            )
            .backend(
                udp(NAMES6, BOX6).payload(b"answer"),
                to_client(DNS6_AT, CLIENT6),
            )
            .counts(0, 1, [1, 51], [1, 54])
            .leaves(2, 0),
        Vector::new(
            "UDP without an answer stays half-open and with its backend",
            DNS,
        )
        .client(udp(CLIENT, DNS_AT), to_backend(BOX, NAMES))
        .client(udp(CLIENT, DNS_AT), to_backend(BOX, NAMES))
        .client(
            udp("198.51.100.7:4001", DNS_AT),
            to_backend("10.0.0.1:4001", "10.0.0.7:5353"),
        )
        .client(udp(CLIENT, DNS_AT), to_backend(BOX, NAMES))
        .counts(0, 1, [3, 84], [0, 0])
        .counts(1, 1, [1, 28], [0, 0])
        .leaves(4, 2),
    ]
}
