//! ICMP errors about connections.

use balancer_common::verdict::{Drop, Pass};
use balancer_common::wire::protocol;

use super::{
    BOX, BOX6, CLIENT, CLIENT6, DNS, DNS_AT, DNS6, DNS6_AT, NAMES, NAMES6, ONE, ONE6, WEB, WEB_AT,
    WEB6, WEB6_AT,
};
use crate::support::frame::{Frame, error, tcp, udp};
use crate::support::vector::{Vector, dropped, passed, to_backend, to_client};

/// Type and code.
const PORT_UNREACHABLE: [u8; 2] = [3, 3];
const FRAGMENTATION_NEEDED: [u8; 2] = [3, 4];
const TIME_EXCEEDED: [u8; 2] = [11, 0];
const PARAMETER_PROBLEM: [u8; 2] = [12, 0];
const PORT_UNREACHABLE6: [u8; 2] = [1, 4];
const PACKET_TOO_BIG: [u8; 2] = [2, 0];
const TIME_EXCEEDED6: [u8; 2] = [3, 0];

/// Routers on the way, as the ends of an error.
const ROUTER: &str = "203.0.113.1:0";
const ROUTER6: &str = "[2001:db8:ffff::1]:0";

/// More than any packet here has.
const WHOLE: usize = 2000;
/// A header without options and eight bytes, the least that an error quotes.
const LEAST: usize = 28;
const LEAST6: usize = 48;

pub fn table() -> Vec<Vector> {
    let mut vectors = from_the_backend();
    vectors.extend(from_the_client());
    vectors.extend(over_ipv6());
    vectors.extend(left_alone());
    vectors
}

fn opened(name: &'static str) -> Vector {
    Vector::new(name, WEB)
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .counts(0, 1, [1, 40], [0, 0])
        .leaves(2, 1)
}

fn opened6(name: &'static str) -> Vector {
    Vector::new(name, WEB6)
        .client(tcp("S", CLIENT6, WEB6_AT), to_backend(BOX6, ONE6))
        .counts(0, 1, [1, 60], [0, 0])
        .leaves(2, 1)
}

/// An error from the backends' side about a packet of the client, which the backends see as `inside`.
fn inward(kind: [u8; 2], source: &str, inside: &Frame, length: usize) -> Frame {
    error(kind, source, "10.0.0.1:0", inside, length)
}

fn from_the_backend() -> Vec<Vector> {
    let asked = |source, destination| udp(source, destination).payload(b"who?").ttl(63);
    let options = [7, 4, 4, 0];
    let segment = |source, destination| {
        tcp("A", source, destination)
            .tcp_options(&[1, 1, 1, 0])
            .payload(b"a long request")
            .ttl(63)
    };
    vec![
        Vector::new(
            "nobody listens: a UDP client is told as by the service",
            DNS,
        )
        .client(udp(CLIENT, DNS_AT), to_backend(BOX, NAMES))
        .backend(
            inward(PORT_UNREACHABLE, NAMES, &asked(BOX, NAMES), WHOLE),
            to_client(DNS_AT, CLIENT).quoting(&asked(CLIENT, DNS_AT), WHOLE),
        )
        .counts(0, 1, [1, 28], [0, 0])
        .leaves(2, 1),
        opened("a router asks for fragmentation, and quotes eight bytes").backend(
            inward(FRAGMENTATION_NEEDED, ROUTER, &segment(BOX, ONE), LEAST),
            to_client(WEB_AT, CLIENT).quoting(&segment(CLIENT, WEB_AT), LEAST),
        ),
        opened("a whole segment is quoted, with its checksum").backend(
            inward(TIME_EXCEEDED, ROUTER, &segment(BOX, ONE), WHOLE),
            to_client(WEB_AT, CLIENT).quoting(&segment(CLIENT, WEB_AT), WHOLE),
        ),
        opened("the quote ends behind the checksum").backend(
            inward(TIME_EXCEEDED, ROUTER, &segment(BOX, ONE), 38),
            to_client(WEB_AT, CLIENT).quoting(&segment(CLIENT, WEB_AT), 38),
        ),
        opened("the quote ends before the checksum").backend(
            inward(TIME_EXCEEDED, ROUTER, &segment(BOX, ONE), 36),
            to_client(WEB_AT, CLIENT).quoting(&segment(CLIENT, WEB_AT), 36),
        ),
        opened("the quote ends before the checksum, and padding follows").backend(
            inward(TIME_EXCEEDED, ROUTER, &segment(BOX, ONE), 36).changed(|it| it.extend([7; 9])),
            to_client(WEB_AT, CLIENT).quoting(&segment(CLIENT, WEB_AT), 36),
        ),
        opened("the quoted packet has options").backend(
            inward(
                PARAMETER_PROBLEM,
                ROUTER,
                &segment(BOX, ONE).options(&options),
                WHOLE,
            ),
            to_client(WEB_AT, CLIENT).quoting(&segment(CLIENT, WEB_AT).options(&options), WHOLE),
        ),
        opened("the error itself has options and a VLAN tag").backend(
            inward(TIME_EXCEEDED, ROUTER, &segment(BOX, ONE), WHOLE)
                .options(&options)
                .tag(0x8100, 5),
            to_client(WEB_AT, CLIENT).quoting(&segment(CLIENT, WEB_AT), WHOLE),
        ),
        Vector::new("the quoted datagram has no checksum", DNS)
            .client(udp(CLIENT, DNS_AT), to_backend(BOX, NAMES))
            .backend(
                inward(
                    PORT_UNREACHABLE,
                    NAMES,
                    &asked(BOX, NAMES).without_checksum(),
                    WHOLE,
                ),
                to_client(DNS_AT, CLIENT).quoting(&asked(CLIENT, DNS_AT).without_checksum(), WHOLE),
            )
            .counts(0, 1, [1, 28], [0, 0])
            .leaves(2, 1),
        opened("a wrong checksum stays wrong by as much").backend(
            inward(TIME_EXCEEDED, ROUTER, &segment(BOX, ONE), WHOLE).checksum_off_by(7),
            to_client(WEB_AT, CLIENT).quoting(&segment(CLIENT, WEB_AT), WHOLE),
        ),
        opened("a first fragment is quoted").backend(
            inward(
                TIME_EXCEEDED,
                ROUTER,
                &segment(BOX, ONE).fragment(0x2000),
                WHOLE,
            ),
            to_client(WEB_AT, CLIENT).quoting(&segment(CLIENT, WEB_AT).fragment(0x2000), WHOLE),
        ),
        opened("its time to live ends here").backend(
            inward(TIME_EXCEEDED, ROUTER, &segment(BOX, ONE), WHOLE).ttl(1),
            dropped(Drop::TtlExceeded),
        ),
    ]
}

fn from_the_client() -> Vec<Vector> {
    let answer = |source, destination| tcp("SA", source, destination).ttl(63);
    vec![
        Vector::new(
            "a router before the client asks the backend for fragmentation",
            WEB,
        )
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .backend(tcp("SA", ONE, BOX), to_client(WEB_AT, CLIENT))
        .client(
            error(
                FRAGMENTATION_NEEDED,
                ROUTER,
                "192.0.2.10:0",
                &answer(WEB_AT, CLIENT),
                LEAST,
            ),
            to_backend(BOX, ONE).quoting(&answer(ONE, BOX), LEAST),
        )
        .counts(0, 1, [1, 40], [1, 40])
        .leaves(2, 1),
        opened("a client's error takes a connection neither down nor further").client(
            error(
                PORT_UNREACHABLE,
                CLIENT,
                "192.0.2.10:0",
                &answer(WEB_AT, CLIENT),
                WHOLE,
            ),
            to_backend(BOX, ONE).quoting(&answer(ONE, BOX), WHOLE),
        ),
    ]
}

fn over_ipv6() -> Vec<Vector> {
    let segment = |source, destination| tcp("A", source, destination).payload(b"more").ttl(63);
    let asked = |source, destination| udp(source, destination).payload(b"who?").ttl(63);
    let options = [0; 8];
    let inward = |kind, source: &str, inside: &Frame, length| {
        error(kind, source, "[2001:db8:1::1]:0", inside, length)
    };
    vec![
        opened6("a router tells that a packet is too big").backend(
            inward(PACKET_TOO_BIG, ROUTER6, &segment(BOX6, ONE6), WHOLE),
            to_client(WEB6_AT, CLIENT6).quoting(&segment(CLIENT6, WEB6_AT), WHOLE),
        ),
        opened6("eight bytes are quoted over IPv6").backend(
            inward(TIME_EXCEEDED6, ROUTER6, &segment(BOX6, ONE6), LEAST6),
            to_client(WEB6_AT, CLIENT6).quoting(&segment(CLIENT6, WEB6_AT), LEAST6),
        ),
        opened6("extension headers before the error and before what it quotes").backend(
            inward(
                TIME_EXCEEDED6,
                ROUTER6,
                &segment(BOX6, ONE6).extension(protocol::DESTINATION, &options),
                WHOLE,
            )
            .extension(protocol::HOP_BY_HOP, &options),
            to_client(WEB6_AT, CLIENT6).quoting(
                &segment(CLIENT6, WEB6_AT).extension(protocol::DESTINATION, &options),
                WHOLE,
            ),
        ),
        Vector::new("nobody listens over IPv6", DNS6)
            .client(udp(CLIENT6, DNS6_AT), to_backend(BOX6, NAMES6))
            .backend(
                inward(PORT_UNREACHABLE6, NAMES6, &asked(BOX6, NAMES6), WHOLE),
                to_client(DNS6_AT, CLIENT6).quoting(&asked(CLIENT6, DNS6_AT), WHOLE),
            )
            .counts(0, 1, [1, 48], [0, 0])
            .leaves(2, 1),
        Vector::new(
            "a router before the client tells the backend over IPv6",
            WEB6,
        )
        .client(tcp("S", CLIENT6, WEB6_AT), to_backend(BOX6, ONE6))
        .backend(tcp("SA", ONE6, BOX6), to_client(WEB6_AT, CLIENT6))
        .client(
            error(
                PACKET_TOO_BIG,
                ROUTER6,
                "[2001:db8::10]:0",
                &segment(WEB6_AT, CLIENT6),
                WHOLE,
            ),
            to_backend(BOX6, ONE6).quoting(&segment(ONE6, BOX6), WHOLE),
        )
        .counts(0, 1, [1, 60], [1, 60])
        .leaves(2, 1),
        opened6("its hop limit ends here").backend(
            inward(TIME_EXCEEDED6, ROUTER6, &segment(BOX6, ONE6), WHOLE).ttl(1),
            dropped(Drop::TtlExceeded),
        ),
    ]
}

fn left_alone() -> Vec<Vector> {
    let segment = tcp("A", BOX, ONE).ttl(63);
    let strange = tcp("A", "10.0.0.1:4001", ONE).ttl(63);
    let left = |name, frame| opened(name).backend(frame, passed(Pass::OtherProtocol));
    vec![
        left(
            "an error about a connection that nobody knows",
            inward(TIME_EXCEEDED, ROUTER, &strange, WHOLE),
        ),
        left(
            "an error to another than who sent what it quotes",
            error(TIME_EXCEEDED, ROUTER, "10.0.0.9:0", &segment, WHOLE),
        ),
        left(
            "an error that quotes seven bytes",
            inward(TIME_EXCEEDED, ROUTER, &segment, LEAST - 1),
        ),
        left(
            "an error that quotes no whole header",
            inward(TIME_EXCEEDED, ROUTER, &segment, 19),
        ),
        left(
            "an error about a fragment that is not the first",
            inward(
                TIME_EXCEEDED,
                ROUTER,
                &segment.clone().fragment(0x2001),
                WHOLE,
            ),
        ),
        left(
            "an error about a header of four words",
            inward(
                TIME_EXCEEDED,
                ROUTER,
                &segment.clone().changed(|frame| frame[14] = 0x44),
                WHOLE,
            ),
        ),
        left(
            "an error that quotes the other version",
            inward(
                TIME_EXCEEDED,
                ROUTER,
                &segment.clone().changed(|frame| frame[14] = 0x65),
                WHOLE,
            ),
        ),
        left(
            "an error about an error",
            inward(
                TIME_EXCEEDED,
                ROUTER,
                &error(TIME_EXCEEDED, "10.0.0.1:0", "10.0.0.3:0", &segment, WHOLE),
                WHOLE,
            ),
        ),
        left(
            "a redirect is none",
            inward([5, 1], ROUTER, &segment, WHOLE),
        ),
        left(
            "a source quench is ignored by the kernel",
            inward([4, 0], ROUTER, &segment, WHOLE),
        ),
    ]
}
