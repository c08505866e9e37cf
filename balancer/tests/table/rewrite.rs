//! What is rewritten, and what is not.

use balancer_common::verdict::Drop;
use balancer_common::wire::protocol;

use super::{
    BOX, BOX6, CLIENT, CLIENT6, DNS, DNS_AT, DNS6, DNS6_AT, NAMES, NAMES6, ONE, ONE6, WEB, WEB_AT,
    WEB6, WEB6_AT,
};
use crate::support::frame::{Frame, tcp, udp};
use crate::support::vector::{Vector, dropped, to_backend, to_client};

const TRANSPARENT: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
source_nat = "none"
backend = [{ address = "10.0.0.3:8080" }]
"#;

const TRANSPARENT6: &str = r#"
[[service]]
name = "dns6"
listen = "[2001:db8::10]:53"
protocol = "udp"
source_nat = "none"
backend = [{ address = "[2001:db8:1::6]:5353" }]
"#;

const ONE_SOURCE: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
source_nat = "10.0.0.77"
backend = [{ address = "10.0.0.3:8080" }]
"#;

const ONE_SOURCE6: &str = r#"
[[service]]
name = "web6"
listen = "[2001:db8::10]:80"
source_nat = "2001:db8:1::77"
backend = [{ address = "[2001:db8:1::3]:8080" }]
"#;

pub fn table() -> Vec<Vector> {
    let mut vectors = source_nat();
    vectors.extend(checksums());
    vectors.extend(hops());
    vectors.extend(kept());
    vectors.extend(options());
    vectors.extend(extensions());
    vectors
}

/// One SYN to the first web server, as it is.
fn syn(name: &'static str, input: Frame, length: u64) -> Vector {
    Vector::new(name, WEB)
        .client(input, to_backend(BOX, ONE))
        .counts(0, 1, [1, length], [0, 0])
        .leaves(2, 1)
}

/// The same over IPv6.
fn syn6(name: &'static str, input: Frame, length: u64) -> Vector {
    Vector::new(name, WEB6)
        .client(input, to_backend(BOX6, ONE6))
        .counts(0, 1, [1, length], [0, 0])
        .leaves(2, 1)
}

/// One query to the first name server, and its answer.
fn exchange(name: &'static str, query: Frame, answer: Frame, lengths: [u64; 2]) -> Vector {
    Vector::new(name, DNS)
        .client(query, to_backend(BOX, NAMES))
        .backend(answer, to_client(DNS_AT, CLIENT))
        .counts(0, 1, [1, lengths[0]], [1, lengths[1]])
        .leaves(2, 0)
}

fn source_nat() -> Vec<Vector> {
    vec![
        Vector::new("without source NAT client and port stay", TRANSPARENT)
            .client(
                tcp("S", "198.51.100.7:60000", WEB_AT),
                to_backend("198.51.100.7:60000", ONE),
            )
            .backend(
                tcp("SA", ONE, "198.51.100.7:60000"),
                to_client(WEB_AT, "198.51.100.7:60000"),
            )
            .counts(0, 1, [1, 40], [1, 40])
            .leaves(2, 1),
        Vector::new(
            "without source NAT client and port stay over IPv6",
            TRANSPARENT6,
        )
        .client(
            udp(CLIENT6, DNS6_AT).payload(b"q"),
            to_backend(CLIENT6, NAMES6),
        )
        .backend(
            udp(NAMES6, CLIENT6).payload(b"a"),
            to_client(DNS6_AT, CLIENT6),
        )
        .counts(0, 1, [1, 49], [1, 49])
        .leaves(2, 0),
        Vector::new("source NAT to an address of its own", ONE_SOURCE)
            .client(tcp("S", CLIENT, WEB_AT), to_backend("10.0.0.77:4000", ONE))
            .backend(tcp("SA", ONE, "10.0.0.77:4000"), to_client(WEB_AT, CLIENT))
            .counts(0, 1, [1, 40], [1, 40])
            .leaves(2, 1),
        Vector::new("source NAT to an address of its own over IPv6", ONE_SOURCE6)
            .client(
                tcp("S", CLIENT6, WEB6_AT),
                to_backend("[2001:db8:1::77]:4000", ONE6),
            )
            .backend(
                tcp("SA", ONE6, "[2001:db8:1::77]:4000"),
                to_client(WEB6_AT, CLIENT6),
            )
            .counts(0, 1, [1, 60], [1, 60])
            .leaves(2, 1),
        Vector::new(
            "a source port inside the range is kept, at its ends too",
            WEB,
        )
        .source_ports("source_ports = \"4000-5000\"")
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .client(
            tcp("S", "198.51.100.7:5000", WEB_AT),
            to_backend("10.0.0.1:5000", "10.0.0.4:8080"),
        )
        .counts(0, 1, [1, 40], [0, 0])
        .counts(1, 1, [1, 40], [0, 0])
        .leaves(4, 2),
        Vector::new(
            "a source port out of the range is replaced by one inside, and comes back",
            WEB,
        )
        .source_ports("source_ports = \"5000-5000\"")
        .client(
            tcp("S", "198.51.100.7:4999", WEB_AT),
            to_backend("10.0.0.1:5000", ONE),
        )
        .client(
            tcp("S", "198.51.100.7:5001", WEB_AT),
            to_backend("10.0.0.1:5000", "10.0.0.4:8080"),
        )
        .backend(
            tcp("SA", ONE, "10.0.0.1:5000"),
            to_client(WEB_AT, "198.51.100.7:4999"),
        )
        .counts(0, 1, [1, 40], [1, 40])
        .counts(1, 1, [1, 40], [0, 0])
        .leaves(4, 2),
        Vector::new(
            "a source port out of the range is replaced over IPv6 and UDP",
            DNS6,
        )
        .source_ports("source_ports = \"1024-1024\"")
        .client(
            udp("[2001:db8::7]:53", DNS6_AT),
            to_backend("[2001:db8:1::1]:1024", NAMES6),
        )
        .backend(
            udp(NAMES6, "[2001:db8:1::1]:1024"),
            to_client(DNS6_AT, "[2001:db8::7]:53"),
        )
        .counts(0, 1, [1, 48], [1, 48])
        .leaves(2, 0),
    ]
}

/// The payload with which the sum over a datagram is all ones, and its checksum comes to 0.
fn complement(datagram: &Frame) -> [u8; 2] {
    let plain = datagram.clone().payload(&[0, 0]).build();
    let [.., high, low, _, _] = plain[..] else {
        panic!("a UDP header and two bytes");
    };
    [high, low]
}

fn checksums() -> Vec<Vector> {
    let answered = complement(&udp(DNS_AT, CLIENT));
    let asked = complement(&udp(BOX, NAMES));
    let asked6 = complement(&udp(BOX6, NAMES6));
    assert!(
        udp(BOX, NAMES)
            .payload(&asked)
            .build()
            .ends_with(&[0xff, 0xff, asked[0], asked[1]]),
        "the vector below shows what it says"
    );
    vec![
        exchange(
            "a UDP checksum of 0, none, stays 0 over IPv4",
            udp(CLIENT, DNS_AT).payload(b"query").without_checksum(),
            udp(NAMES, BOX).payload(b"answer").without_checksum(),
            [33, 34],
        ),
        exchange(
            "a UDP checksum that comes to 0 is sent as 0xffff",
            udp(CLIENT, DNS_AT).payload(&asked),
            udp(NAMES, BOX).payload(&answered),
            [30, 30],
        ),
        Vector::new(
            "a UDP checksum that comes to 0 is sent as 0xffff over IPv6",
            DNS6,
        )
        .client(
            udp(CLIENT6, DNS6_AT).payload(&asked6),
            to_backend(BOX6, NAMES6),
        )
        .counts(0, 1, [1, 50], [0, 0])
        .leaves(2, 1),
        Vector::new(
            "a UDP checksum of 0, which the receiver may refuse, stays 0 over IPv6",
            DNS6,
        )
        .client(
            udp(CLIENT6, DNS6_AT).without_checksum(),
            to_backend(BOX6, NAMES6),
        )
        .counts(0, 1, [1, 48], [0, 0])
        .leaves(2, 1),
        exchange(
            "a UDP checksum of 0xffff is one, and is updated",
            udp(CLIENT, DNS_AT).payload(&complement(&udp(CLIENT, DNS_AT))),
            udp(NAMES, BOX).payload(&complement(&udp(NAMES, BOX))),
            [30, 30],
        ),
        syn(
            "a wrong TCP checksum stays wrong by the same",
            tcp("S", CLIENT, WEB_AT)
                .checksum_off_by(0x0123)
                .payload(b"odd"),
            43,
        ),
        syn6(
            "a wrong TCP checksum stays wrong by the same over IPv6",
            tcp("S", CLIENT6, WEB6_AT).checksum_off_by(1),
            60,
        ),
        exchange(
            "a wrong UDP checksum stays wrong by the same",
            udp(CLIENT, DNS_AT).checksum_off_by(0xfffe),
            udp(NAMES, BOX).checksum_off_by(0x8000),
            [28, 28],
        ),
        syn(
            "an odd payload changes nothing of the arithmetic",
            tcp("S", CLIENT, WEB_AT).payload(&[0xff; 7]),
            47,
        ),
    ]
}

fn hops() -> Vec<Vector> {
    vec![
        Vector::new("the TTL is decremented, from 255 and from 2", WEB)
            .client(tcp("S", CLIENT, WEB_AT).ttl(255), to_backend(BOX, ONE))
            .client(tcp("S", CLIENT, WEB_AT).ttl(2), to_backend(BOX, ONE))
            .backend(tcp("SA", ONE, BOX).ttl(128), to_client(WEB_AT, CLIENT))
            .counts(0, 1, [2, 80], [1, 40])
            .leaves(2, 1),
        Vector::new("the hop limit is decremented, from 255 and from 2", WEB6)
            .client(tcp("S", CLIENT6, WEB6_AT).ttl(255), to_backend(BOX6, ONE6))
            .client(tcp("S", CLIENT6, WEB6_AT).ttl(2), to_backend(BOX6, ONE6))
            .counts(0, 1, [2, 120], [0, 0])
            .leaves(2, 1),
        Vector::new(
            "a packet of a connection with TTL 1 or 0 is dropped and not counted for the backend",
            WEB,
        )
        .client(tcp("S", CLIENT, WEB_AT), to_backend(BOX, ONE))
        .client(tcp("S", CLIENT, WEB_AT).ttl(1), dropped(Drop::TtlExceeded))
        .client(tcp("S", CLIENT, WEB_AT).ttl(0), dropped(Drop::TtlExceeded))
        .backend(tcp("SA", ONE, BOX).ttl(1), dropped(Drop::TtlExceeded))
        .counts(0, 1, [1, 40], [0, 0])
        .leaves(2, 1),
        Vector::new(
            "a packet of a connection with hop limit 1 or 0 is dropped",
            WEB6,
        )
        .client(tcp("S", CLIENT6, WEB6_AT), to_backend(BOX6, ONE6))
        .client(
            tcp("S", CLIENT6, WEB6_AT).ttl(1),
            dropped(Drop::TtlExceeded),
        )
        .client(
            tcp("S", CLIENT6, WEB6_AT).ttl(0),
            dropped(Drop::TtlExceeded),
        )
        .counts(0, 1, [1, 60], [0, 0])
        .leaves(2, 1),
        Vector::new("a first packet with TTL 1 opens nothing", WEB)
            .client(tcp("S", CLIENT, WEB_AT).ttl(1), dropped(Drop::TtlExceeded)),
        Vector::new("a first packet with hop limit 1 opens nothing", WEB6).client(
            tcp("S", CLIENT6, WEB6_AT).ttl(1),
            dropped(Drop::TtlExceeded),
        ),
    ]
}

fn kept() -> Vec<Vector> {
    // What a test run takes in one piece: a page without headroom (256) and what the kernel keeps at the end (320).
    let jumbo = vec![0x5a; 4096 - 256 - 320 - 54];
    vec![
        exchange(
            "DSCP and ECN are kept",
            udp(CLIENT, DNS_AT).traffic_class(0xb9),
            udp(NAMES, BOX).traffic_class(0x03),
            [28, 28],
        ),
        Vector::new("traffic class and flow label are kept over IPv6", DNS6)
            .client(
                udp(CLIENT6, DNS6_AT).traffic_class(0xb9),
                to_backend(BOX6, NAMES6),
            )
            .backend(
                udp(NAMES6, BOX6).traffic_class(0x03),
                to_client(DNS6_AT, CLIENT6),
            )
            .counts(0, 1, [1, 48], [1, 48])
            .leaves(2, 0),
        syn(
            "a packet that may be fragmented still may",
            tcp("S", CLIENT, WEB_AT).fragment(0),
            40,
        ),
        syn(
            "the reserved bit of an IPv4 header makes no fragment",
            tcp("S", CLIENT, WEB_AT).fragment(0xc000),
            40,
        ),
        syn(
            "TCP options are kept",
            tcp("S", CLIENT, WEB_AT).tcp_options(&[
                2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
            ]),
            60,
        ),
        syn(
            "padding behind the packet is kept and not counted",
            tcp("S", CLIENT, WEB_AT).changed(|frame| frame.extend([0xee; 6])),
            40,
        ),
        syn6(
            "padding behind the packet is kept and not counted over IPv6",
            tcp("S", CLIENT6, WEB6_AT).changed(|frame| frame.extend([0xee; 6])),
            60,
        ),
        exchange(
            "a UDP datagram shorter than the packet around it is left so",
            udp(CLIENT, DNS_AT)
                .payload(b"surplus")
                .without_checksum()
                .changed(|frame| frame[38..40].copy_from_slice(&[0, 8])),
            udp(NAMES, BOX),
            [35, 28],
        ),
        syn(
            "a jumbo frame, as large as a test run takes",
            tcp("S", CLIENT, WEB_AT).payload(&jumbo),
            40 + 3466,
        ),
        syn6(
            "a jumbo frame over IPv6",
            tcp("S", CLIENT6, WEB6_AT).payload(&jumbo[20..]),
            60 + 3446,
        ),
        syn(
            "one VLAN tag is kept",
            tcp("S", CLIENT, WEB_AT).tag(0x8100, 0xa005),
            40,
        ),
        syn(
            "two VLAN tags are kept",
            tcp("S", CLIENT, WEB_AT).tag(0x88a8, 7).tag(0x8100, 0xffff),
            40,
        ),
        syn6(
            "two VLAN tags of the customer's kind are kept over IPv6",
            tcp("S", CLIENT6, WEB6_AT).tag(0x8100, 1).tag(0x8100, 2),
            60,
        ),
    ]
}

fn options() -> Vec<Vector> {
    vec![
        syn(
            "IPv4 options: router alert",
            tcp("S", CLIENT, WEB_AT).options(&[148, 4, 0, 0]),
            44,
        ),
        syn(
            "IPv4 options: no operation and record route",
            tcp("S", CLIENT, WEB_AT).options(&[1, 7, 7, 4, 0, 0, 0, 0]),
            48,
        ),
        syn(
            "IPv4 options: nothing counts behind the end of the list, not even a source route",
            tcp("S", CLIENT, WEB_AT).options(&[1, 1, 0, 131]),
            44,
        ),
        syn(
            "IPv4 options: all forty bytes",
            tcp("S", CLIENT, WEB_AT)
                .options(&[1; 40])
                .tag(0x88a8, 7)
                .tag(0x8100, 9),
            80,
        ),
        exchange(
            "IPv4 options with UDP, both ways",
            udp(CLIENT, DNS_AT)
                .options(&[68, 8, 5, 0, 1, 2, 3, 4])
                .payload(b"q"),
            udp(NAMES, BOX).options(&[148, 4, 0, 0]).payload(b"a"),
            [37, 33],
        ),
    ]
}

fn extensions() -> Vec<Vector> {
    let options = |octet: u8| [0, 0, 1, 4, octet, 0, 0, 0];
    vec![
        syn6(
            "IPv6 extension headers: hop-by-hop options",
            tcp("S", CLIENT6, WEB6_AT).extension(protocol::HOP_BY_HOP, &[0, 0, 5, 2, 0, 0, 1, 0]),
            68,
        ),
        syn6(
            "IPv6 extension headers: hop-by-hop options of 2,048 bytes",
            tcp("S", CLIENT6, WEB6_AT).extension(protocol::HOP_BY_HOP, &{
                let mut header = [0; 2048];
                header[1] = 255;
                header
            }),
            2108,
        ),
        syn6(
            "IPv6 extension headers: a routing header of another type than 0",
            tcp("S", CLIENT6, WEB6_AT).extension(protocol::ROUTING, &[0, 0, 4, 0, 0, 0, 0, 0]),
            68,
        ),
        syn6(
            "IPv6 extension headers: destination options",
            tcp("S", CLIENT6, WEB6_AT).extension(protocol::DESTINATION, &options(9)),
            68,
        ),
        syn6(
            "IPv6 extension headers: an atomic fragment",
            tcp("S", CLIENT6, WEB6_AT).extension(protocol::FRAGMENT, &[0, 0, 0, 0, 1, 2, 3, 4]),
            68,
        ),
        syn6(
            "IPv6 extension headers: the reserved bits of a fragment header make no fragment",
            tcp("S", CLIENT6, WEB6_AT).extension(protocol::FRAGMENT, &[0, 0xff, 0, 6, 1, 2, 3, 4]),
            68,
        ),
        syn6(
            "IPv6 extension headers: an authentication header, which counts in words of four bytes",
            tcp("S", CLIENT6, WEB6_AT)
                .extension(
                    protocol::AUTHENTICATION,
                    &[0, 1, 0, 0, 9, 9, 9, 9, 0, 0, 0, 1],
                )
                .extension(protocol::DESTINATION, &options(9)),
            80,
        ),
        syn6(
            "IPv6 extension headers: six are walked, behind two VLAN tags",
            tcp("S", CLIENT6, WEB6_AT)
                .tag(0x88a8, 7)
                .tag(0x8100, 9)
                .extension(protocol::HOP_BY_HOP, &options(1))
                .extension(protocol::DESTINATION, &options(2))
                .extension(protocol::ROUTING, &[0, 0, 2, 0, 0, 0, 0, 0])
                .extension(protocol::FRAGMENT, &[0, 0, 0, 0, 1, 2, 3, 4])
                .extension(
                    protocol::AUTHENTICATION,
                    &[0, 2, 0, 0, 9, 9, 9, 9, 0, 0, 0, 1, 5, 5, 5, 5],
                )
                .extension(protocol::DESTINATION, &options(3)),
            116,
        ),
        Vector::new("IPv6 extension headers: with UDP, both ways", DNS6)
            .client(
                udp(CLIENT6, DNS6_AT)
                    .extension(protocol::DESTINATION, &options(9))
                    .payload(b"q"),
                to_backend(BOX6, NAMES6),
            )
            .backend(
                udp(NAMES6, BOX6)
                    .extension(protocol::HOP_BY_HOP, &options(9))
                    .extension(protocol::DESTINATION, &options(8))
                    .payload(b"a"),
                to_client(DNS6_AT, CLIENT6),
            )
            .counts(0, 1, [1, 57], [1, 65])
            .leaves(2, 0),
    ]
}
