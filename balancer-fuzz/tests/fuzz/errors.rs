//! ICMP errors about connections that are there. What is made by the grammar alone comes out as it must, byte for byte; whatever comes, the
//! connections stay as they are.

use std::net::SocketAddr;

use balancer_common::verdict::{Pass, Verdict};

use crate::bytes::Bytes;
use crate::layout;
use crate::support::frame::{Frame, error, quote, tcp, udp};
use crate::support::properties::ends;
use crate::support::{BACKEND_MAC, BACKEND_SIDE, BOX_MAC, CLIENT_MAC, CLIENT_SIDE};
use crate::world::{World, in_a_box};

/// Who talks to which service.
const CONNECTIONS: [(&str, &str); 5] = [
    ("198.51.100.1:3000", "192.0.2.10:80"),
    ("198.51.100.1:3000", "192.0.2.10:8001"),
    ("198.51.100.1:3000", "192.0.2.10:53"),
    ("[2001:db8:100::1]:3000", "[2001:db8::10]:80"),
    ("[2001:db8:100::1]:3000", "[2001:db8::10]:53"),
];

const ROUTER: &str = "203.0.113.1:0";
const ROUTER6: &str = "[2001:db8:ffff::1]:0";

/// Type and code; the last of each are no errors about connections.
const KINDS: [[u8; 2]; 7] = [[3, 3], [3, 4], [11, 0], [12, 0], [3, 1], [4, 0], [8, 0]];
const KINDS6: [[u8; 2]; 7] = [[1, 4], [2, 0], [3, 0], [4, 1], [1, 0], [127, 0], [128, 0]];
const ERRORS: usize = 5;

/// The ends of a connection as the client knows them, and as the backend does: source and destination.
struct Ends {
    outside: [String; 2],
    inside: [String; 2],
}

/// An error of each kind about each connection, from both sides, with much and with little of the packet.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for connection in 0..CONNECTIONS.len() as u8 {
        for inward in [0, 8] {
            let mut seed = Vec::new();
            for kind in 0..KINDS.len() as u8 {
                for (length, shape) in [(14, 0), (18, 0x20), (24, 1), (27, 2), (255, 0x9f)] {
                    seed.extend([connection | inward, kind, length, shape]);
                }
            }
            seeds.push(seed);
        }
    }
    seeds
}

/// Runs a sequence of errors.
pub fn check(input: &[u8]) {
    let mut bytes = Bytes(input);
    in_a_box(0, |world| {
        let connections = CONNECTIONS.map(|ends| open(world, ends));
        let records = world.records();
        while !bytes.is_empty() {
            give(world, &connections, &mut bytes);
            assert_eq!(world.records(), records);
        }
    });
}

/// Opens a connection.
fn open(world: &mut World<'_>, (client, service): (&str, &str)) -> Ends {
    let (_, output) = world.give(CLIENT_SIDE, &packet(client, service, "S").build());
    let text = |end: SocketAddr| end.to_string();
    let (source, backend) = ends(&output);
    let ends = Ends {
        outside: [client.to_owned(), service.to_owned()],
        inside: [text(source), text(backend)],
    };
    let [source, backend] = &ends.inside;
    let reply = packet(backend, source, "SA").macs(BOX_MAC, BACKEND_MAC);
    world.give(BACKEND_SIDE, &reply.build());
    world.give(CLIENT_SIDE, &packet(client, service, "A").build());
    ends
}

/// Whether it is one of UDP between these ends.
fn is_datagram(source: &str, destination: &str) -> bool {
    let is = |end: &str| end.ends_with(":53") || end.ends_with(":5353");
    is(source) || is(destination)
}

fn packet(source: &str, destination: &str, flags: &'static str) -> Frame {
    if is_datagram(source, destination) {
        udp(source, destination)
    } else {
        tcp(flags, source, destination)
    }
}

/// Gives the box the error that the next four bytes say, or more where there are changes.
fn give(world: &mut World<'_>, connections: &[Ends], bytes: &mut Bytes<'_>) {
    let (what, kind) = (bytes.byte(), bytes.number());
    let (length, shape) = (bytes.number() * 2, bytes.byte());
    let number = usize::from(what & 7) % connections.len();
    let Ends { outside, inside } = &connections[number];
    let is_ipv4 = number < 3;
    let is_inward = what & 8 != 0;
    // What is quoted went to the other side of the box, and came from this one.
    let (sent, quoted) = if is_inward {
        (reversed(outside), reversed(inside))
    } else {
        (inside.clone(), outside.clone())
    };
    let quoted_packet = |[source, destination]: &[String; 2]| {
        let mut quoted = packet(source, destination, "A").payload(&[0x77; 40]).ttl(9);
        if shape & 1 != 0 {
            quoted = quoted.tcp_options(&[1; 12]);
        }
        if shape & 2 != 0 && is_datagram(source, destination) {
            quoted = quoted.without_checksum();
        }
        if shape & 4 != 0 {
            quoted = if is_ipv4 {
                quoted.options(&[7, 4, 4, 0])
            } else {
                quoted.extension(60, &[0, 0, 1, 4, 0, 0, 0, 0])
            };
        }
        quoted
    };
    let kinds = if is_ipv4 { KINDS } else { KINDS6 };
    let kind = kind % kinds.len();
    let router = if is_ipv4 { ROUTER } else { ROUTER6 };
    let packet = quoted_packet(&sent);
    let mut input = error(kinds[kind], router, &sent[0], &packet, length);
    if shape & 8 != 0 && is_ipv4 {
        input = input.options(&[148, 4, 0, 0]);
    }
    if shape & 0x10 != 0 {
        input = input.tag(0x8100, 5);
    }
    if shape & 0x20 != 0 {
        input = input.checksum_off_by(0x1234);
    }
    let (side, macs) = if is_inward {
        (CLIENT_SIDE, [BACKEND_MAC, BOX_MAC])
    } else {
        (BACKEND_SIDE, [CLIENT_MAC, BOX_MAC])
    };
    let mut frame = input.build();
    let whole = frame.clone();
    bytes.change(usize::from(what >> 5), &mut frame);
    if what & 0x10 != 0 {
        layout::repair(&mut frame);
    }
    let (verdict, output) = world.give(side, &frame);
    if frame != whole {
        return;
    }
    let options = if shape & 4 == 0 { 0 } else { 4 };
    let least = if is_ipv4 {
        28 + options
    } else {
        48 + 2 * options
    };
    if kind >= ERRORS || length < least {
        assert_eq!(verdict, Verdict::Pass(Pass::OtherProtocol));
        return;
    }
    let [to, from] = macs;
    let payload = quote(&quoted_packet(&quoted), length);
    let right = input
        .macs(to, from)
        .forwarded()
        .between(&quoted[1], &quoted[0])
        .payload(&payload);
    assert!(matches!(verdict, Verdict::Redirect(_)), "{verdict:?}");
    assert_eq!(output, right.build());
}

fn reversed([source, destination]: &[String; 2]) -> [String; 2] {
    [destination.clone(), source.clone()]
}
