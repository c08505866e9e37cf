//! Headers with options and extensions, malformed ones, and what is for nobody here.

use super::{Sequence, at, backend, client};
use crate::hostile::right_checksum;
use crate::netfilter::world::{ALL, Side, V4, V6};
use crate::support::frame::{other, tcp, udp};

/// A change of bytes from the network header on, and a new header checksum.
macro_rules! header {
    ($packet:ident => $change:block) => {
        |frame: &mut Vec<u8>| {
            {
                let $packet = &mut frame[14..];
                $change
            }
            right_checksum(frame);
        }
    };
}

pub const SEQUENCES: &[Sequence] = &[
    Sequence {
        name: "extension headers",
        of: V6,
        steps: |talk| {
            let padding = [0, 0, 1, 4, 0, 0, 0, 0];
            vec![
                (
                    "destination options",
                    client(&talk.asks_from(0).extension(60, &padding)),
                ),
                (
                    "hop-by-hop options",
                    client(&talk.asks_from(1).extension(0, &padding)),
                ),
                (
                    "an unknown destination option, to be told of",
                    client(
                        &talk
                            .asks_from(2)
                            .extension(60, &[0, 0, 0x9e, 4, 0, 0, 0, 0]),
                    ),
                ),
                (
                    "an unknown hop-by-hop option, to be told of",
                    client(&talk.asks_from(3).extension(0, &[0, 0, 0x9e, 4, 0, 0, 0, 0])),
                ),
                (
                    "a used-up routing header of type 2",
                    client(&talk.asks_from(4).extension(43, &[0, 0, 2, 0, 0, 0, 0, 0])),
                ),
                (
                    "a routing header of type 2 with a segment left",
                    client(&talk.asks_from(5).extension(
                        43,
                        &[
                            0, 2, 2, 1, 0, 0, 0, 0, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                            0, 0, 9,
                        ],
                    )),
                ),
                (
                    "a used-up routing header of type 0",
                    client(&talk.asks_from(6).extension(43, &[0, 0, 0, 0, 0, 0, 0, 0])),
                ),
                (
                    "hop-by-hop options behind others",
                    client(
                        &talk
                            .asks_from(7)
                            .extension(60, &padding)
                            .extension(0, &padding),
                    ),
                ),
                (
                    "seven of them",
                    client(
                        &(0..7).fold(talk.asks_from(8), |frame, _| frame.extension(60, &padding)),
                    ),
                ),
                (
                    "no next header",
                    client(&other(59, &talk.client(9), &talk.service()).payload(b"none")),
                ),
            ]
        },
    },
    Sequence {
        name: "IPv4 options",
        of: V4,
        steps: |talk| {
            let with = |port, options: &[u8]| client(&talk.asks_from(port).options(options));
            vec![
                ("no operation", with(0, &[1, 1, 1, 0])),
                ("record route", with(1, &[7, 7, 4, 0, 0, 0, 0, 0])),
                ("timestamp", with(2, &[68, 8, 5, 0, 0, 0, 0, 0])),
                ("router alert", with(3, &[148, 4, 0, 0])),
                ("loose source route", with(4, &[131, 7, 4, 10, 0, 1, 3, 0])),
                ("strict source route", with(5, &[137, 7, 4, 10, 0, 1, 3, 0])),
                (
                    "used-up source route",
                    with(6, &[131, 7, 8, 10, 0, 1, 3, 0]),
                ),
                ("an option of length 0", with(7, &[7, 0, 0, 0])),
                ("an option beyond the header", with(8, &[7, 40, 4, 0])),
                ("an unknown one", with(9, &[0x5e, 4, 0, 0])),
                ("basic security label", with(10, &[130, 4, 0, 0])),
            ]
        },
    },
    Sequence {
        name: "malformed IPv4 headers",
        of: V4,
        steps: |talk| {
            let with =
                |port, change: fn(&mut Vec<u8>)| client(&talk.asks_from(port).changed(change));
            vec![
                (
                    "version 6",
                    with(0, header!(packet => { packet[0] = 0x65; })),
                ),
                (
                    "a header length of 16",
                    with(1, header!(packet => { packet[0] = 0x44; })),
                ),
                (
                    "a header longer than the packet",
                    with(2, header!(packet => { packet[0] = 0x4f; })),
                ),
                (
                    "a total length beyond the frame",
                    with(3, header!(packet => { packet[3] += 1; })),
                ),
                (
                    "a total length below the header",
                    with(4, header!(packet => { packet[3] = 19; })),
                ),
                (
                    "a wrong header checksum",
                    with(5, |frame| frame[14 + 10] ^= 1),
                ),
                (
                    "the reserved bit",
                    with(6, header!(packet => { packet[6] |= 0x80; })),
                ),
                (
                    "bytes behind the packet",
                    with(7, |frame| frame.extend([0xee; 9])),
                ),
            ]
        },
    },
    Sequence {
        name: "malformed IPv6 headers",
        of: V6,
        steps: |talk| {
            let with =
                |port, change: fn(&mut Vec<u8>)| client(&talk.asks_from(port).changed(change));
            vec![
                ("version 4", with(0, |frame| frame[14] = 0x4a)),
                (
                    "a payload length beyond the frame",
                    with(1, |frame| frame[14 + 5] += 1),
                ),
                (
                    "a payload length below the UDP header",
                    with(2, |frame| frame[14 + 5] = 7),
                ),
                (
                    "bytes behind the packet",
                    with(3, |frame| frame.extend([0xee; 9])),
                ),
            ]
        },
    },
    Sequence {
        name: "addresses that nobody can have",
        of: ALL,
        steps: |talk| {
            let from = |four: &str, six: &str| {
                let source = if talk.world.is_ipv4() { four } else { six };
                client(
                    &udp(&at(source.parse().unwrap(), talk.first), &talk.service())
                        .payload(b"who?"),
                )
            };
            vec![
                ("loopback", from("127.0.0.1", "::1")),
                ("unspecified", from("0.0.0.0", "::")),
                ("multicast", from("224.0.0.9", "ff02::9")),
                ("broadcast or multicast", from("255.255.255.255", "ff0e::1")),
                ("reserved", from("240.0.0.1", "::7f00:1")),
                ("the service's own", from("192.0.2.10", "2001:db8::10")),
            ]
        },
    },
    Sequence {
        name: "an address of the box as the source",
        of: ALL,
        steps: |talk| {
            let source = at(talk.world.inside(), talk.first);
            vec![(
                "question",
                client(&udp(&source, &talk.service()).payload(b"who?")),
            )]
        },
    },
    Sequence {
        name: "port 0",
        of: ALL,
        steps: |talk| {
            let none = at(talk.world.client(), 0);
            let to_none = at(talk.world.service(), 0);
            vec![
                (
                    "UDP from it",
                    client(&udp(&none, &talk.service()).payload(b"who?")),
                ),
                (
                    "UDP to it",
                    client(&udp(&talk.client(0), &to_none).payload(b"who?")),
                ),
                ("TCP from it", client(&tcp("S", &none, &talk.service()))),
                ("TCP to it", client(&tcp("S", &talk.client(1), &to_none))),
            ]
        },
    },
    Sequence {
        name: "malformed TCP headers",
        of: ALL,
        steps: |talk| {
            let from = |port| {
                let [source, destination] = talk.ends(Side::Client, port);
                tcp("S", &source, &destination)
            };
            let with = |port, change: fn(&mut Vec<u8>)| client(&from(port).changed(change));
            vec![
                (
                    "a data offset of 16",
                    with(0, |frame| {
                        let at = frame.len() - 8;
                        frame[at] = 0x40;
                    }),
                ),
                (
                    "a data offset beyond the packet",
                    with(1, |frame| {
                        let at = frame.len() - 8;
                        frame[at] = 0x60;
                    }),
                ),
                (
                    "a packet that ends in the header",
                    client(
                        &other(6, &talk.client(2), &talk.service())
                            .payload(&[0x13, 0x88, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0]),
                    ),
                ),
                (
                    "reserved bits",
                    with(3, |frame| {
                        let at = frame.len() - 8;
                        frame[at] |= 0x0e;
                        // The urgent pointer makes up for it in the checksum.
                        frame[at + 6] -= 0x0e;
                    }),
                ),
            ]
        },
    },
    Sequence {
        name: "malformed UDP headers",
        of: ALL,
        steps: |talk| {
            let with = |port, change: fn(&mut Vec<u8>)| {
                client(&talk.asks_from(port).without_checksum().changed(change))
            };
            vec![
                (
                    "a length of 7",
                    with(0, |frame| {
                        let at = frame.len() - 13 - 4;
                        frame[at + 1] = 7;
                    }),
                ),
                (
                    "a length beyond the packet",
                    with(1, |frame| {
                        let at = frame.len() - 13 - 4;
                        frame[at + 1] += 1;
                    }),
                ),
                (
                    "a length below the packet's",
                    with(2, |frame| {
                        let at = frame.len() - 13 - 4;
                        frame[at + 1] -= 1;
                    }),
                ),
                (
                    "a packet that ends in the header",
                    client(
                        &other(17, &talk.client(3), &talk.service()).payload(&[0x13, 0x88, 0, 80]),
                    ),
                ),
            ]
        },
    },
    Sequence {
        name: "what is not for a service",
        of: ALL,
        steps: |talk| {
            let elsewhere = at(talk.world.service(), 4000);
            let through = at(talk.world.backend(), 4000);
            vec![
                (
                    "SYN to another port",
                    client(&tcp("S", &talk.client(0), &elsewhere)),
                ),
                (
                    "ACK to another port",
                    client(&tcp("A", &talk.client(1), &elsewhere)),
                ),
                (
                    "UDP to another port",
                    client(&udp(&talk.client(2), &elsewhere).payload(b"who?")),
                ),
                (
                    "SYN through the box",
                    client(&tcp("S", &talk.client(3), &through)),
                ),
                (
                    "UDP through the box",
                    client(&udp(&talk.client(4), &through).payload(b"who?")),
                ),
                (
                    "SCTP",
                    client(&other(132, &talk.client(5), &talk.service()).payload(&[0; 12])),
                ),
                (
                    "UDP-Lite",
                    client(&other(136, &talk.client(6), &talk.service()).payload(&[0; 12])),
                ),
                (
                    "to the backend's own address and port",
                    client(&tcp("S", &talk.client(7), &talk.backend())),
                ),
                (
                    "the backend begins",
                    backend(&tcp(
                        "S",
                        &at(talk.world.backend(), 5000),
                        &at(talk.world.client(), 7000),
                    )),
                ),
            ]
        },
    },
];
