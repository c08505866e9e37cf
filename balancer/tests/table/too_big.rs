//! Packets that are longer than the next link takes.

use balancer_common::verdict::{Drop, Punt};

use super::{
    BOX, BOX6, CLIENT, CLIENT6, DNS, DNS_AT, DNS6, DNS6_AT, NAMES, NAMES6, ONE, WEB, WEB_AT,
};
use crate::support::frame::{tcp, udp};
use crate::support::vector::{Vector, dropped, punted, to_backend, to_client};

pub fn table() -> Vec<Vector> {
    let question = |length: usize| udp(CLIENT, DNS_AT).payload(&vec![7; length - 28]);
    let question6 = |length: usize| udp(CLIENT6, DNS6_AT).payload(&vec![7; length - 48]);
    vec![
        Vector::new("an IPv4 packet that is just short enough", DNS)
            .mtu(1300)
            .client(question(1300), to_backend(BOX, NAMES))
            .counts(0, 1, [1, 1300], [0, 0])
            .leaves(2, 1),
        Vector::new("an IPv4 packet that is too long and must not be cut", DNS)
            .mtu(1300)
            .slow_path()
            .client(question(1301), dropped(Drop::TooBig))
            .counts(0, 1, [0, 0], [0, 0])
            .leaves(2, 1),
        Vector::new("an IPv4 packet that is too long and may be cut", DNS)
            .mtu(1300)
            .slow_path()
            .client(question(1301).fragment(0), punted(Punt::TooBig))
            .counts(0, 1, [0, 0], [0, 0])
            .leaves(2, 1),
        Vector::new("an IPv4 packet that is too long when nobody cuts", DNS)
            .mtu(1300)
            .client(question(1301).fragment(0), dropped(Drop::TooBig))
            .counts(0, 1, [0, 0], [0, 0])
            .leaves(2, 1),
        Vector::new("an IPv6 packet that is too long", DNS6)
            .mtu(1300)
            .slow_path()
            .client(question6(1300), to_backend(BOX6, NAMES6))
            .client(question6(1301), dropped(Drop::TooBig))
            .counts(0, 1, [1, 1300], [0, 0])
            .leaves(2, 1),
        Vector::new("an answer that is too long", WEB)
            .mtu(1300)
            .slow_path()
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .backend(tcp("SA", ONE, BOX), to_client(WEB_AT, CLIENT))
            .backend(
                tcp("A", ONE, BOX).payload(&[7; 1261]),
                dropped(Drop::TooBig),
            )
            .counts(0, 1, [1, 40], [1, 40])
            .leaves(2, 1),
        Vector::new(
            "a first fragment that is too long, and comes again in pieces",
            DNS,
        )
        .mtu(1300)
        .slow_path()
        .client(
            udp(CLIENT, DNS_AT).payload(&[7; 3000]).cut(0, 1480),
            punted(Punt::TooBig),
        )
        .client(
            udp(CLIENT, DNS_AT).payload(&[7; 3000]).cut(0, 1280),
            to_backend(BOX, NAMES),
        )
        .client(
            udp(CLIENT, DNS_AT).payload(&[7; 3000]).cut(1280, 200),
            to_backend(BOX, NAMES),
        )
        .counts(0, 1, [2, 1300 + 220], [0, 0])
        .leaves(2, 1),
        Vector::new("a fragment that is too long", DNS)
            .mtu(1300)
            .slow_path()
            .client(
                udp(CLIENT, DNS_AT).payload(&[7; 3000]).cut(0, 1280),
                to_backend(BOX, NAMES),
            )
            .client(
                udp(CLIENT, DNS_AT).payload(&[7; 3000]).cut(1280, 1480),
                punted(Punt::TooBig),
            )
            .counts(0, 1, [1, 1300], [0, 0])
            .leaves(2, 1),
    ]
}
