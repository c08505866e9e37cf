//! Fragments follow the first of their datagram, in order.

use balancer_common::verdict::{Drop, Pass, Punt};
use balancer_common::wire::protocol;

use super::{
    BOX, BOX6, CLIENT, CLIENT6, DNS, DNS_AT, DNS6, DNS6_AT, NAMES, NAMES6, ONE, WEB, WEB_AT,
};
use crate::support::frame::{Frame, other, tcp, udp};
use crate::support::vector::{Expected, Vector, dropped, passed, punted, to_backend, to_client};

/// A datagram of 3,008 bytes behind the network header, in three fragments.
const PAYLOAD: usize = 3000;
const FIRST: (usize, usize) = (0, 1480);
const SECOND: (usize, usize) = (1480, 1480);
const LAST: (usize, usize) = (2960, 1480);
/// The lengths of the three from the network header on.
const V4_LENGTHS: u64 = 3008 + 3 * 20;
const V6_LENGTHS: u64 = 3008 + 3 * 48;

fn large(source: &str, destination: &str) -> Frame {
    let payload: Vec<u8> = (0..PAYLOAD).map(|byte| (byte % 251) as u8).collect();
    udp(source, destination).payload(&payload)
}

fn part(frame: &Frame, (start, length): (usize, usize)) -> Frame {
    frame.clone().cut(start, length)
}

fn question(at: (usize, usize)) -> Frame {
    part(&large(CLIENT, DNS_AT), at)
}

fn question6(at: (usize, usize)) -> Frame {
    part(&large(CLIENT6, DNS6_AT), at)
}

fn forwarded() -> Expected {
    to_backend(BOX, NAMES)
}

fn forwarded6() -> Expected {
    to_backend(BOX6, NAMES6)
}

pub fn table() -> Vec<Vector> {
    [in_order(), out_of_order(), malformed(), of_others()]
        .into_iter()
        .flatten()
        .collect()
}

fn in_order() -> Vec<Vector> {
    let answer = large(NAMES, BOX);
    let answer6 = large(NAMES6, BOX6);
    let segment = tcp("PA", CLIENT, WEB_AT).payload(&[7; 2000]);
    vec![
        Vector::new("the fragments of an IPv4 datagram, and of its answer", DNS)
            .client(question(FIRST), forwarded())
            .client(question(SECOND), forwarded())
            .client(question(LAST), forwarded())
            .backend(part(&answer, FIRST), to_client(DNS_AT, CLIENT))
            .backend(part(&answer, SECOND), to_client(DNS_AT, CLIENT))
            .backend(part(&answer, LAST), to_client(DNS_AT, CLIENT))
            .counts(0, 1, [3, V4_LENGTHS], [3, V4_LENGTHS])
            .leaves(2, 0),
        Vector::new("the fragments of an IPv6 datagram, and of its answer", DNS6)
            .client(question6(FIRST), forwarded6())
            .client(question6(SECOND), forwarded6())
            .client(question6(LAST), forwarded6())
            .backend(part(&answer6, FIRST), to_client(DNS6_AT, CLIENT6))
            .backend(part(&answer6, SECOND), to_client(DNS6_AT, CLIENT6))
            .backend(part(&answer6, LAST), to_client(DNS6_AT, CLIENT6))
            .counts(0, 1, [3, V6_LENGTHS], [3, V6_LENGTHS])
            .leaves(2, 0),
        Vector::new("the fragments of a TCP segment", WEB)
            .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
            .client(part(&segment, (0, 1024)), to_backend(BOX, ONE))
            .client(part(&segment, (1024, 1024)), to_backend(BOX, ONE))
            .counts(0, 1, [3, 40 + 2020 + 2 * 20], [0, 0])
            .leaves(2, 1),
        Vector::new(
            "fragments with IPv4 options, and without a checksum of UDP",
            DNS,
        )
        .client(
            question(FIRST).options(&[148, 4, 0, 0]).without_checksum(),
            forwarded(),
        )
        .client(question(SECOND), forwarded())
        .client(question(LAST).options(&[1, 1, 1, 0]), forwarded())
        .counts(0, 1, [3, V4_LENGTHS + 8], [0, 0])
        .leaves(2, 1),
        Vector::new("fragments with a wrong checksum of UDP keep it wrong", DNS)
            .client(question(FIRST).checksum_off_by(0x77), forwarded())
            .client(question(SECOND), forwarded())
            .counts(0, 1, [2, 2 * 1500], [0, 0])
            .leaves(2, 1),
        Vector::new("IPv6 fragments behind other extension headers", DNS6)
            .client(
                question6(FIRST).extension(protocol::HOP_BY_HOP, &[0, 0, 1, 4, 0, 0, 0, 0]),
                forwarded6(),
            )
            .client(
                question6(SECOND).extension(protocol::HOP_BY_HOP, &[0, 0, 1, 4, 0, 0, 0, 0]),
                forwarded6(),
            )
            .counts(0, 1, [2, 2 * (1480 + 56)], [0, 0])
            .leaves(2, 1),
        Vector::new("fragments of VLAN-tagged frames", DNS)
            .client(question(FIRST).tag(0x8100, 7), forwarded())
            .client(question(SECOND).tag(0x8100, 7), forwarded())
            .counts(0, 1, [2, 2 * 1500], [0, 0])
            .leaves(2, 1),
        Vector::new(
            "the same identification again, when the datagram before it is complete",
            DNS,
        )
        .client(part(&large(CLIENT, DNS_AT), (0, 1600)), forwarded())
        .client(part(&large(CLIENT, DNS_AT), (1600, 1600)), forwarded())
        .client(question(FIRST), forwarded())
        .client(question(SECOND), forwarded())
        .counts(0, 1, [4, 3008 + 2 * 20 + 2 * 1500], [0, 0])
        .leaves(2, 1),
        Vector::new("a fragment of an IPv4 datagram runs out of hops", DNS)
            .client(question(FIRST), forwarded())
            .client(question(SECOND).ttl(1), dropped(Drop::TtlExceeded))
            .client(question(SECOND), forwarded())
            .counts(0, 1, [2, 2 * 1500], [0, 0])
            .leaves(2, 1),
    ]
}

fn out_of_order() -> Vec<Vector> {
    vec![
        Vector::new(
            "a fragment before the first is the kernel's when nobody waits",
            DNS,
        )
        .client(question(SECOND), passed(Pass::Fragment))
        .client(question(FIRST), forwarded())
        .counts(0, 1, [1, 1500], [0, 0])
        .leaves(2, 1),
        Vector::new("a fragment before the first waits, over IPv4", DNS)
            .slow_path()
            .client(question(SECOND), punted(Punt::Fragment))
            .client(question(FIRST), forwarded())
            .client(question(SECOND), forwarded())
            .client(question(LAST), forwarded())
            .counts(0, 1, [3, V4_LENGTHS], [0, 0])
            .leaves(2, 1),
        Vector::new("too many fragments wait for another, over IPv4", DNS)
            .full_slow_path()
            .client(question(SECOND), dropped(Drop::FragmentOrphan))
            .client(question(FIRST), forwarded())
            .client(question(LAST), dropped(Drop::FragmentOrphan))
            .client(question(SECOND), forwarded())
            .client(question(LAST), forwarded())
            .counts(0, 1, [3, V4_LENGTHS], [0, 0])
            .leaves(2, 1),
        Vector::new("a fragment before the first waits, over IPv6", DNS6)
            .slow_path()
            .client(question6(LAST), punted(Punt::Fragment))
            .client(question6(FIRST), forwarded6())
            .client(question6(LAST), punted(Punt::Fragment))
            .client(question6(SECOND), forwarded6())
            .client(question6(LAST), forwarded6())
            .counts(0, 1, [3, V6_LENGTHS], [0, 0])
            .leaves(2, 1),
        Vector::new(
            "a fragment comes to a CPU whose clock is behind that of the first one's",
            DNS,
        )
        .client(question(FIRST), forwarded())
        .behind(4)
        .client(question(SECOND), forwarded())
        .client(question(FIRST), dropped(Drop::FragmentOverlap))
        .client(question(LAST), forwarded())
        .counts(0, 1, [3, V4_LENGTHS], [0, 0])
        .leaves(2, 1),
        Vector::new("a fragment behind the last one is of another datagram", DNS)
            .slow_path()
            .client(question(FIRST), forwarded())
            .client(part(&large(CLIENT, DNS_AT), (1480, 3000)), forwarded())
            .client(
                udp(CLIENT, DNS_AT).payload(&[7; 4000]).cut(3008, 800),
                punted(Punt::Fragment),
            )
            .client(question(FIRST), forwarded())
            .counts(0, 1, [3, 1500 + 1548 + 1500], [0, 0])
            .leaves(2, 1),
        Vector::new("a fragment behind a gap is dropped when nobody waits", DNS)
            .client(question(FIRST), forwarded())
            .client(question(LAST), dropped(Drop::FragmentOrphan))
            .client(question(SECOND), forwarded())
            .client(question(LAST), forwarded())
            .counts(0, 1, [3, V4_LENGTHS], [0, 0])
            .leaves(2, 1),
        Vector::new("fragments that overlap what went on, over IPv4", DNS)
            .client(question(FIRST), forwarded())
            .client(question(FIRST), dropped(Drop::FragmentOverlap))
            .client(question((1472, 8)), dropped(Drop::FragmentOverlap))
            .client(question((8, 1480)), dropped(Drop::FragmentOverlap))
            .client(question(SECOND), forwarded())
            .client(question(SECOND), dropped(Drop::FragmentOverlap))
            .client(question(LAST), forwarded())
            .client(question(LAST), dropped(Drop::FragmentOverlap))
            .counts(0, 1, [3, V4_LENGTHS], [0, 0])
            .leaves(2, 1),
        Vector::new("fragments that overlap what went on, over IPv6", DNS6)
            .client(question6(FIRST), forwarded6())
            .client(question6((1472, 8)), dropped(Drop::FragmentOverlap))
            .client(question6(FIRST), dropped(Drop::FragmentOverlap))
            .client(question6(SECOND), forwarded6())
            .counts(0, 1, [2, 2 * 1528], [0, 0])
            .leaves(2, 1),
        Vector::new("a fragment that would overwrite the ports", WEB)
            .client(
                tcp("S", CLIENT, WEB_AT).payload(&[7; 100]).cut(0, 24),
                to_backend(BOX, ONE),
            )
            .client(
                tcp("S", CLIENT, WEB_AT).payload(&[7; 100]).cut(8, 24),
                dropped(Drop::FragmentOverlap),
            )
            .counts(0, 1, [1, 44], [0, 0])
            .leaves(2, 1),
    ]
}

fn malformed() -> Vec<Vector> {
    vec![
        Vector::new("a first IPv4 fragment too short for the TCP header", WEB).client(
            tcp("S", CLIENT, WEB_AT).cut(0, 16),
            dropped(Drop::TinyFragment),
        ),
        Vector::new("the fragment behind a first one that was dropped", WEB)
            .client(
                tcp("S", CLIENT, WEB_AT).cut(0, 16),
                dropped(Drop::TinyFragment),
            )
            .client(
                tcp("S", CLIENT, WEB_AT).cut(16, 16),
                dropped(Drop::FragmentOrphan),
            ),
        Vector::new("a first IPv6 fragment without all extension headers", DNS6).client(
            large(CLIENT6, DNS6_AT)
                .cut(0, 8)
                // The fragment header is followed by options longer than the fragment.
                .changed(|frame| {
                    frame[14 + 40] = protocol::DESTINATION;
                    frame[14 + 49] = 40;
                }),
            dropped(Drop::TinyFragment),
        ),
        Vector::new(
            "an IPv4 fragment with more behind it whose length is no multiple of 8",
            DNS,
        )
        .client(question((0, 1476)), dropped(Drop::BadFragment)),
        Vector::new(
            "an IPv6 fragment with more behind it whose length is no multiple of 8",
            DNS6,
        )
        .client(question6((0, 1476)), dropped(Drop::BadFragment)),
        Vector::new("an IPv4 fragment that ends beyond 65,535 bytes", DNS).client(
            udp(CLIENT, DNS_AT).payload(&[7; 100]).fragment(0x1fff),
            dropped(Drop::BadFragment),
        ),
        Vector::new("an IPv6 fragment that ends beyond 65,535 bytes", DNS6).client(
            udp(CLIENT6, DNS6_AT)
                .payload(&[7; 100])
                .extension(protocol::FRAGMENT, &[0, 0, 0xff, 0xf8, 1, 2, 3, 4]),
            dropped(Drop::BadFragment),
        ),
        Vector::new("an IPv4 fragment without data", DNS).client(
            other(protocol::UDP, CLIENT, DNS_AT).fragment(0x2001),
            dropped(Drop::BadFragment),
        ),
        Vector::new("a first fragment from port 0", DNS).client(
            part(&large("198.51.100.7:0", DNS_AT), FIRST),
            dropped(Drop::PortZero),
        ),
        Vector::new(
            "the fragment of a TCP segment that no connection knows",
            WEB,
        )
        .client(
            tcp("A", CLIENT, WEB_AT).payload(&[7; 100]).cut(0, 64),
            dropped(Drop::NoConnection),
        )
        .client(
            tcp("A", CLIENT, WEB_AT).payload(&[7; 100]).cut(64, 64),
            dropped(Drop::FragmentOrphan),
        ),
        Vector::new("the fragment of a connection that is gone", WEB)
            .client(
                tcp("S", CLIENT, WEB_AT).payload(&[7; 100]).cut(0, 64),
                to_backend(BOX, ONE),
            )
            .forget(CLIENT, WEB_AT)
            .client(
                tcp("S", CLIENT, WEB_AT).payload(&[7; 100]).cut(64, 64),
                dropped(Drop::FragmentOrphan),
            )
            .counts(0, 1, [1, 84], [0, 0])
            .leaves(1, 0),
    ]
}

/// What is the kernel's stays the kernel's, in any order.
fn of_others() -> Vec<Vector> {
    let elsewhere = large(CLIENT, "192.0.2.10:54");
    let routing = other(89, CLIENT, DNS_AT).payload(&[7; 100]);
    vec![
        Vector::new(
            "the fragments of a datagram to a port without a service",
            DNS,
        )
        .slow_path()
        .client(part(&elsewhere, FIRST), passed(Pass::NoService))
        .client(part(&elsewhere, LAST), passed(Pass::Fragment))
        .client(part(&elsewhere, SECOND), passed(Pass::Fragment))
        .client(part(&elsewhere, SECOND), passed(Pass::Fragment)),
        Vector::new(
            "the same identification again to a port without a service",
            DNS,
        )
        .client(part(&elsewhere, FIRST), passed(Pass::NoService))
        .client(part(&elsewhere, FIRST), passed(Pass::NoService))
        .client(question(FIRST), forwarded())
        .counts(0, 1, [1, 1500], [0, 0])
        .leaves(2, 1),
        Vector::new("the fragments of another protocol", DNS)
            .slow_path()
            .client(routing.clone().cut(0, 64), passed(Pass::OtherProtocol))
            .client(routing.cut(64, 64), passed(Pass::Fragment)),
    ]
}
