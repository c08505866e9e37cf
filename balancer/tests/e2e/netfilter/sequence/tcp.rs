//! Segments.

use super::{FAR, Sequence, WINDOW, backend, client, closed, established, goes_on};
use crate::netfilter::world::{ALL, Side};
use crate::support::frame::{SYN, tcp};

pub const SEQUENCES: &[Sequence] = &[
    Sequence {
        name: "a connection lives and closes",
        of: ALL,
        steps: closed,
    },
    Sequence {
        name: "the client closes first, the backend goes on",
        of: ALL,
        steps: |talk| {
            [
                established(talk),
                vec![
                    ("client's FIN", client(&talk.c("FA", 10, 10))),
                    ("backend's ACK", backend(&talk.b("A", 10, 11))),
                    (
                        "backend goes on",
                        backend(&talk.b("PA", 10, 11).payload(b"more")),
                    ),
                    ("client's ACK", client(&talk.c("A", 11, 14))),
                    ("backend's FIN", backend(&talk.b("FA", 14, 11))),
                    ("last ACK", client(&talk.c("A", 11, 15))),
                ],
            ]
            .concat()
        },
    },
    Sequence {
        name: "the backend closes first, the client goes on",
        of: ALL,
        steps: |talk| {
            [
                established(talk),
                vec![
                    ("backend's FIN", backend(&talk.b("FA", 10, 10))),
                    ("client's ACK", client(&talk.c("A", 10, 11))),
                    (
                        "client goes on",
                        client(&talk.c("PA", 10, 11).payload(b"more")),
                    ),
                    ("backend's ACK", backend(&talk.b("A", 11, 14))),
                    ("client's FIN", client(&talk.c("FA", 14, 11))),
                    ("last ACK", backend(&talk.b("A", 11, 15))),
                ],
            ]
            .concat()
        },
    },
    Sequence {
        name: "both close at the same time",
        of: ALL,
        steps: |talk| {
            [
                established(talk),
                vec![
                    ("client's FIN", client(&talk.c("FA", 10, 10))),
                    ("backend's FIN", backend(&talk.b("FA", 10, 10))),
                    ("client's ACK", client(&talk.c("A", 11, 11))),
                    ("backend's ACK", backend(&talk.b("A", 11, 11))),
                ],
            ]
            .concat()
        },
    },
    Sequence {
        name: "SYN and SYN-ACK come again",
        of: ALL,
        steps: |talk| {
            vec![
                ("SYN", client(&talk.c("S", 0, 0))),
                ("SYN again", client(&talk.c("S", 0, 0))),
                ("SYN-ACK", backend(&talk.b("SA", 0, 0))),
                ("SYN again, late", client(&talk.c("S", 0, 0))),
                ("SYN-ACK again", backend(&talk.b("SA", 0, 0))),
                ("ACK", client(&talk.c("A", 0, 0))),
                ("SYN-ACK again, late", backend(&talk.b("SA", 0, 0))),
                ("ACK again", client(&talk.c("A", 0, 0))),
                ("data", client(&talk.c("PA", 0, 0).payload(b"ten bytes."))),
            ]
        },
    },
    Sequence {
        name: "both open at the same time",
        of: ALL,
        steps: |talk| {
            vec![
                ("client's SYN", client(&talk.c("S", 0, 0))),
                ("backend's SYN", backend(&talk.b("S", 0, 0))),
                ("client's SYN-ACK", client(&talk.c("SA", 0, 0))),
                ("backend's SYN-ACK", backend(&talk.b("SA", 0, 0))),
                (
                    "client's data",
                    client(&talk.c("PA", 0, 0).payload(b"ten bytes.")),
                ),
                (
                    "backend's data",
                    backend(&talk.b("PA", 0, 10).payload(b"ten bytes.")),
                ),
            ]
        },
    },
    Sequence {
        name: "a client gives up and begins anew",
        of: ALL,
        steps: |talk| {
            vec![
                ("SYN", client(&talk.c("S", 0, 0))),
                ("another SYN", client(&talk.c("S", FAR, 0))),
                ("SYN-ACK", backend(&talk.b("SA", 0, FAR))),
                ("ACK", client(&talk.c("A", FAR, 0))),
                ("data", client(&talk.c("PA", FAR, 0).payload(b"ten bytes."))),
            ]
        },
    },
    Sequence {
        name: "the SYN-ACK acknowledges something else",
        of: ALL,
        steps: |talk| {
            vec![
                ("SYN", client(&talk.c("S", 0, 0))),
                ("SYN-ACK", backend(&talk.b("SA", 0, FAR))),
                ("client's RST", client(&talk.c("R", FAR, 0))),
                ("SYN again", client(&talk.c("S", 0, 0))),
                ("right SYN-ACK", backend(&talk.b("SA", 0, 0))),
                ("ACK", client(&talk.c("A", 0, 0))),
            ]
        },
    },
    Sequence {
        name: "the backend refuses",
        of: ALL,
        steps: |talk| {
            vec![
                ("SYN", client(&talk.c("S", 0, 0))),
                ("RST", backend(&talk.b("RA", 0, 0).numbers(0, SYN + 1))),
                ("SYN again", client(&talk.c("S", 0, 0))),
                ("SYN-ACK", backend(&talk.b("SA", 0, 0))),
                ("ACK", client(&talk.c("A", 0, 0))),
            ]
        },
    },
    Sequence {
        name: "data in the SYN",
        of: ALL,
        steps: |talk| {
            vec![
                ("SYN", client(&talk.c("S", 0, 0).payload(b"ten bytes."))),
                ("SYN-ACK", backend(&talk.b("SA", 0, 10))),
                ("ACK", client(&talk.c("A", 10, 0))),
            ]
        },
    },
    Sequence {
        name: "SYN with options",
        of: ALL,
        steps: |talk| {
            let options = [
                2, 4, 5, 0xb4, 1, 3, 3, 7, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 0,
            ];
            vec![
                ("SYN", client(&talk.c("SEC", 0, 0).tcp_options(&options))),
                (
                    "SYN-ACK",
                    backend(&talk.b("SAE", 0, 0).tcp_options(&options)),
                ),
                ("ACK", client(&talk.c("A", 0, 0))),
                ("backend's window", backend(&talk.b("A", 0, 0))),
                (
                    "far data within the scaled window",
                    client(&talk.c("PA", 0x8_0000, 0).payload(b"ten bytes.")),
                ),
            ]
        },
    },
    Sequence {
        name: "the client resets",
        of: ALL,
        steps: |talk| {
            [
                established(talk),
                vec![
                    ("RST", client(&talk.c("R", 10, 10))),
                    (
                        "backend's late data",
                        backend(&talk.b("PA", 10, 10).payload(b"more")),
                    ),
                    (
                        "client's late data",
                        client(&talk.c("PA", 10, 10).payload(b"more")),
                    ),
                ],
            ]
            .concat()
        },
    },
    Sequence {
        name: "the backend resets",
        of: ALL,
        steps: |talk| {
            [
                established(talk),
                vec![
                    ("RST", backend(&talk.b("RA", 10, 10))),
                    (
                        "client's late data",
                        client(&talk.c("PA", 10, 10).payload(b"more")),
                    ),
                    ("next SYN", client(&talk.c("S", FAR, 0))),
                    ("next SYN-ACK", backend(&talk.b("SA", FAR, FAR))),
                ],
            ]
            .concat()
        },
    },
    Sequence {
        name: "a RST in the window, but not at its edge",
        of: ALL,
        steps: |talk| {
            [
                established(talk),
                vec![
                    ("RST", client(&talk.c("R", 110, 10))),
                    ("backend's challenge", backend(&talk.b("A", 10, 10))),
                ],
                goes_on(talk),
            ]
            .concat()
        },
    },
    Sequence {
        name: "a RST out of the window",
        of: ALL,
        steps: |talk| {
            [
                established(talk),
                vec![
                    ("client's RST", client(&talk.c("R", FAR, 10))),
                    ("backend's RST", backend(&talk.b("R", FAR, 10))),
                ],
                goes_on(talk),
            ]
            .concat()
        },
    },
    Sequence {
        name: "data out of the window",
        of: ALL,
        steps: |talk| {
            [
                established(talk),
                vec![
                    ("client's", client(&talk.c("PA", FAR, 10).payload(b"more"))),
                    (
                        "client's, long ago",
                        client(&talk.c("PA", FAR.wrapping_neg(), 10).payload(b"more")),
                    ),
                    (
                        "backend's",
                        backend(&talk.b("PA", FAR, 10).payload(b"more")),
                    ),
                    (
                        "client's beyond the edge",
                        client(&talk.c("PA", 10 + WINDOW, 10).payload(b"more")),
                    ),
                    (
                        "client's up to the edge",
                        client(&talk.c("PA", 6 + WINDOW, 10).payload(b"more")),
                    ),
                ],
                goes_on(talk),
            ]
            .concat()
        },
    },
    Sequence {
        name: "data is acknowledged that was not sent",
        of: ALL,
        steps: |talk| {
            [
                established(talk),
                vec![
                    ("client's", client(&talk.c("PA", 10, FAR).payload(b"more"))),
                    (
                        "backend's",
                        backend(&talk.b("PA", 10, FAR).payload(b"more")),
                    ),
                ],
                goes_on(talk),
            ]
            .concat()
        },
    },
    Sequence {
        name: "old data, and a question whether anybody is there",
        of: ALL,
        steps: |talk| {
            [
                established(talk),
                vec![
                    (
                        "client's data again",
                        client(&talk.c("PA", 0, 0).payload(b"ten bytes.")),
                    ),
                    (
                        "backend's data again",
                        backend(&talk.b("PA", 0, 10).payload(b"ten bytes.")),
                    ),
                    ("client's keepalive", client(&talk.c("A", 9, 10))),
                    ("backend's keepalive", backend(&talk.b("A", 9, 10))),
                    ("client's old ACK", client(&talk.c("A", 10, 0))),
                ],
            ]
            .concat()
        },
    },
    Sequence {
        name: "a SYN in a connection",
        of: ALL,
        steps: |talk| {
            [
                established(talk),
                vec![
                    ("client's, in the window", client(&talk.c("S", 20, 0))),
                    ("backend's challenge", backend(&talk.b("A", 10, 10))),
                    ("client's, out of the window", client(&talk.c("S", FAR, 0))),
                    ("backend's challenge again", backend(&talk.b("A", 10, 10))),
                    ("backend's", backend(&talk.b("S", FAR, 0))),
                    ("backend's SYN-ACK", backend(&talk.b("SA", FAR, 0))),
                ],
                goes_on(talk),
            ]
            .concat()
        },
    },
    Sequence {
        name: "a FIN out of the window",
        of: ALL,
        steps: |talk| {
            [
                established(talk),
                vec![
                    ("client's FIN", client(&talk.c("FA", FAR, 10))),
                    ("backend's FIN", backend(&talk.b("FA", FAR, 10))),
                ],
                goes_on(talk),
            ]
            .concat()
        },
    },
    Sequence {
        name: "the port is used again after closing",
        of: ALL,
        steps: |talk| {
            [
                closed(talk),
                vec![
                    ("next SYN", client(&talk.c("S", FAR, 0))),
                    ("next SYN-ACK", backend(&talk.b("SA", FAR, FAR))),
                    ("next ACK", client(&talk.c("A", FAR, FAR))),
                    (
                        "next data",
                        client(&talk.c("PA", FAR, FAR).payload(b"ten bytes.")),
                    ),
                    (
                        "backend's next data",
                        backend(&talk.b("PA", FAR, FAR + 10).payload(b"ten bytes.")),
                    ),
                ],
            ]
            .concat()
        },
    },
    Sequence {
        name: "the port is used again with an earlier number",
        of: ALL,
        steps: |talk| {
            [
                closed(talk),
                vec![
                    ("next SYN", client(&talk.c("S", FAR.wrapping_neg(), 0))),
                    (
                        "next SYN-ACK",
                        backend(&talk.b("SA", FAR, FAR.wrapping_neg())),
                    ),
                    ("next ACK", client(&talk.c("A", FAR.wrapping_neg(), FAR))),
                ],
            ]
            .concat()
        },
    },
    Sequence {
        name: "segments after closing",
        of: ALL,
        steps: |talk| {
            [
                closed(talk),
                vec![
                    ("backend's FIN again", backend(&talk.b("FA", 10, 11))),
                    ("last ACK again", client(&talk.c("A", 11, 11))),
                    (
                        "client's late data",
                        client(&talk.c("PA", 11, 11).payload(b"more")),
                    ),
                    ("backend's RST", backend(&talk.b("R", 11, 11))),
                    (
                        "client's late data again",
                        client(&talk.c("PA", 11, 11).payload(b"more")),
                    ),
                ],
            ]
            .concat()
        },
    },
    Sequence {
        name: "segments without a connection",
        of: ALL,
        steps: |talk| {
            let from = |port, flags| {
                let [source, destination] = talk.ends(Side::Client, port);
                client(&tcp(flags, &source, &destination))
            };
            let back = |port, flags| {
                let [source, destination] = talk.ends(Side::Backend, port);
                backend(&tcp(flags, &source, &destination))
            };
            vec![
                ("client's ACK", from(0, "A")),
                ("client's data", {
                    let [source, destination] = talk.ends(Side::Client, 1);
                    client(&tcp("PA", &source, &destination).payload(b"more"))
                }),
                ("client's FIN", from(2, "FA")),
                ("client's RST", from(3, "R")),
                ("client's SYN-ACK", from(4, "SA")),
                ("backend's ACK", back(5, "A")),
                ("backend's SYN", back(6, "S")),
                ("backend's SYN-ACK", back(7, "SA")),
                ("backend's RST", back(8, "R")),
            ]
        },
    },
    Sequence {
        name: "control bits that do not go together",
        of: ALL,
        steps: |talk| {
            let from = |port, flags| {
                let [source, destination] = talk.ends(Side::Client, port);
                client(&tcp(flags, &source, &destination))
            };
            vec![
                ("none", from(0, "")),
                ("SYN and FIN", from(1, "SF")),
                ("SYN and RST", from(2, "SR")),
                ("FIN, PSH and URG", from(3, "FPU")),
                ("all", from(4, "FSRPAU")),
                ("FIN alone", from(5, "F")),
                ("RST and FIN", from(6, "RF")),
                ("SYN, URG and PSH", from(7, "SUP")),
            ]
        },
    },
    Sequence {
        name: "control bits that do not go together, in a connection",
        of: ALL,
        steps: |talk| {
            [
                established(talk),
                vec![
                    ("none", client(&talk.c("", 10, 10))),
                    ("FIN, PSH and URG", client(&talk.c("FPU", 10, 10))),
                    ("SYN and FIN", client(&talk.c("SF", 10, 10))),
                    (
                        "data without ACK",
                        client(&talk.c("P", 10, 10).payload(b"more")),
                    ),
                ],
                goes_on(talk),
            ]
            .concat()
        },
    },
    Sequence {
        name: "wrong checksums of TCP",
        of: ALL,
        steps: |talk| {
            [
                vec![(
                    "wrong SYN",
                    client(&talk.c("S", 0, 0).checksum_off_by(0x101)),
                )],
                established(talk),
                vec![
                    (
                        "client's wrong data",
                        client(&talk.c("PA", 10, 10).payload(b"more").checksum_off_by(0x101)),
                    ),
                    (
                        "backend's wrong data",
                        backend(&talk.b("PA", 10, 10).payload(b"more").checksum_off_by(0x101)),
                    ),
                    (
                        "client's wrong RST",
                        client(&talk.c("R", 10, 10).checksum_off_by(0x101)),
                    ),
                ],
                goes_on(talk),
            ]
            .concat()
        },
    },
];
