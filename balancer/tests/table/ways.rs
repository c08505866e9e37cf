//! By which interface, and to whom.

use balancer_common::hop::Hop;
use balancer_common::verdict::{Drop, Verdict};

use super::{BOX, CLIENT, CLIENT6, DNS, DNS_AT, NAMES, ONE, TWO, WEB, WEB_AT, WEB6, WEB6_AT};
use crate::support::frame::{tcp, udp};
use crate::support::vector::{Vector, dropped, to_backend, to_client};
use crate::support::{
    BACKEND_MAC, BACKEND_SIDE, BOX_MAC, CLIENT_MAC, CLIENT_SIDE, OTHER_BOX_MAC, OTHER_SIDE, ROUTED,
    ROUTED6, ROUTER_MAC,
};

const BY_THE_ROUTER: Verdict = Verdict::Redirect(OTHER_SIDE);
const TO_THE_ROUTER: [[u8; 6]; 2] = [ROUTER_MAC, OTHER_BOX_MAC];

fn router() -> Hop {
    Hop::new(OTHER_SIDE, ROUTER_MAC, OTHER_BOX_MAC)
}

pub fn table() -> Vec<Vector> {
    let mut vectors = one_arm();
    vectors.extend(routes());
    vectors.extend(changes());
    vectors
}

fn one_arm() -> Vec<Vector> {
    let one_arm = Hop::new(CLIENT_SIDE, BACKEND_MAC, BOX_MAC);
    let back = [CLIENT_MAC, BOX_MAC];
    vec![
        Vector::new(
            "with one arm a frame leaves by the interface that it came in by",
            WEB,
        )
        .hop(one_arm)
        .client(
            tcp("S", CLIENT, WEB_AT),
            to_backend(BOX, ONE).by(Verdict::Transmit, [BACKEND_MAC, BOX_MAC]),
        )
        .frame(
            CLIENT_SIDE,
            tcp("SA", ONE, BOX).macs(BOX_MAC, BACKEND_MAC),
            to_client(WEB_AT, CLIENT).by(Verdict::Transmit, back),
        )
        .client(
            tcp("A", CLIENT, WEB_AT),
            to_backend(BOX, ONE).by(Verdict::Transmit, [BACKEND_MAC, BOX_MAC]),
        )
        .counts(0, 1, [2, 80], [1, 40])
        .leaves(2, 0),
        Vector::new("with one arm over IPv6", WEB6)
            .hop(one_arm)
            .client(
                tcp("S", CLIENT6, WEB6_AT),
                to_backend("[2001:db8:1::1]:4000", "[2001:db8:1::3]:8080")
                    .by(Verdict::Transmit, [BACKEND_MAC, BOX_MAC]),
            )
            .frame(
                CLIENT_SIDE,
                tcp("SA", "[2001:db8:1::3]:8080", "[2001:db8:1::1]:4000")
                    .macs(BOX_MAC, BACKEND_MAC),
                to_client(WEB6_AT, CLIENT6).by(Verdict::Transmit, back),
            )
            .counts(0, 1, [1, 60], [1, 60])
            .leaves(2, 1),
        Vector::new(
            "a client on the backends' side is served there, and others by their own",
            DNS,
        )
        .frame(
            BACKEND_SIDE,
            udp("10.0.0.99:4000", DNS_AT),
            to_backend(BOX, NAMES).by(Verdict::Transmit, [BACKEND_MAC, BOX_MAC]),
        )
        .backend(
            udp(NAMES, BOX),
            to_client(DNS_AT, "10.0.0.99:4000").by(Verdict::Transmit, back),
        )
        .client(udp(CLIENT, DNS_AT), to_backend(BOX, "10.0.0.7:5353"))
        .counts(0, 1, [1, 28], [1, 28])
        .counts(1, 1, [1, 28], [0, 0])
        .leaves(4, 1),
        Vector::new(
            "an answer that comes in where the client is leaves there",
            WEB,
        )
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .frame(
            CLIENT_SIDE,
            tcp("SA", ONE, BOX).macs(BOX_MAC, BACKEND_MAC),
            to_client(WEB_AT, CLIENT).by(Verdict::Transmit, back),
        )
        .counts(0, 1, [1, 40], [1, 40])
        .leaves(2, 1),
    ]
}

fn routes() -> Vec<Vector> {
    vec![
        Vector::new("an answer goes the way that the kernel routes it", WEB)
            .route(router())
            .client(tcp("S", ROUTED, WEB_AT), to_backend(BOX, ONE))
            .backend(
                tcp("SA", ONE, BOX),
                to_client(WEB_AT, ROUTED).by(BY_THE_ROUTER, TO_THE_ROUTER),
            )
            .counts(0, 1, [1, 40], [1, 40])
            .leaves(2, 1),
        Vector::new(
            "an answer goes the way that the kernel routes it over IPv6",
            WEB6,
        )
        .route(router())
        .client(
            tcp("S", ROUTED6, WEB6_AT),
            to_backend("[2001:db8:1::1]:4000", "[2001:db8:1::3]:8080"),
        )
        .backend(
            tcp("SA", "[2001:db8:1::3]:8080", "[2001:db8:1::1]:4000"),
            to_client(WEB6_AT, ROUTED6).by(BY_THE_ROUTER, TO_THE_ROUTER),
        )
        .counts(0, 1, [1, 60], [1, 60])
        .leaves(2, 1),
        Vector::new(
            "an answer without a route goes the way the question came",
            WEB,
        )
        .frame(
            OTHER_SIDE,
            tcp("S", CLIENT, WEB_AT).macs(OTHER_BOX_MAC, ROUTER_MAC),
            to_backend(BOX, ONE),
        )
        .backend(
            tcp("SA", ONE, BOX),
            to_client(WEB_AT, CLIENT).by(BY_THE_ROUTER, TO_THE_ROUTER),
        )
        .counts(0, 1, [1, 40], [1, 40])
        .leaves(2, 1),
        Vector::new(
            "a VLAN tag: the answer goes back the way the SYN came, not by the route",
            WEB,
        )
        .route(router())
        .client(
            tcp("S", ROUTED, WEB_AT).tag(0x8100, 5),
            to_backend(BOX, ONE),
        )
        .backend(
            tcp("SA", ONE, BOX).tag(0x8100, 5),
            to_client(WEB_AT, ROUTED),
        )
        .client(
            tcp("A", ROUTED, WEB_AT).tag(0x8100, 5),
            to_backend(BOX, ONE),
        )
        .counts(0, 1, [2, 80], [1, 40])
        .leaves(2, 0),
        Vector::new(
            "two VLAN tags over IPv6: the answer goes back the way the SYN came",
            WEB6,
        )
        .route(router())
        .client(
            tcp("S", ROUTED6, WEB6_AT).tag(0x88a8, 7).tag(0x8100, 5),
            to_backend("[2001:db8:1::1]:4000", "[2001:db8:1::3]:8080"),
        )
        .backend(
            tcp("SA", "[2001:db8:1::3]:8080", "[2001:db8:1::1]:4000")
                .tag(0x88a8, 7)
                .tag(0x8100, 5),
            to_client(WEB6_AT, ROUTED6),
        )
        .counts(0, 1, [1, 60], [1, 60])
        .leaves(2, 1),
    ]
}

fn changes() -> Vec<Vector> {
    let moved = Hop::new(OTHER_SIDE, ROUTER_MAC, OTHER_BOX_MAC);
    let before = Hop::new(BACKEND_SIDE, BACKEND_MAC, BOX_MAC);
    vec![
        Vector::new(
            "known connections follow when a backend's way has changed",
            WEB,
        )
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .ways(moved, None)
        .client(
            tcp("S", CLIENT, WEB_AT),
            to_backend(BOX, ONE).by(BY_THE_ROUTER, TO_THE_ROUTER),
        )
        .client(
            tcp("S", "198.51.100.8:4000", WEB_AT),
            to_backend(BOX, TWO).by(BY_THE_ROUTER, TO_THE_ROUTER),
        )
        .counts(0, 1, [2, 80], [0, 0])
        .counts(1, 1, [1, 40], [0, 0])
        .leaves(4, 2),
        Vector::new(
            "a known connection waits while there is no way to its backend",
            WEB,
        )
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .ways(Hop::default(), None)
        .client(tcp("S", CLIENT, WEB_AT), dropped(Drop::NoNextHop))
        .ways(moved, None)
        .client(
            tcp("S", CLIENT, WEB_AT),
            to_backend(BOX, ONE).by(BY_THE_ROUTER, TO_THE_ROUTER),
        )
        .counts(0, 1, [2, 80], [0, 0])
        .leaves(2, 1),
        Vector::new(
            "the way of an answer is asked for once, and again after a change",
            WEB,
        )
        .route(router())
        .client(tcp("S", ROUTED, WEB_AT), to_backend(BOX, ONE))
        .backend(
            tcp("SA", ONE, BOX),
            to_client(WEB_AT, ROUTED).by(BY_THE_ROUTER, TO_THE_ROUTER),
        )
        .ways(before, Some(router()))
        .backend(
            tcp("SA", ONE, BOX),
            to_client(WEB_AT, ROUTED).by(BY_THE_ROUTER, TO_THE_ROUTER),
        )
        .counts(0, 1, [1, 40], [2, 80])
        .leaves(2, 1),
    ]
}
