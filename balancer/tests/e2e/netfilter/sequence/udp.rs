//! Datagrams.

use super::{Sequence, answered, asked, at, backend, client};
use crate::netfilter::twin::REPLACED;
use crate::netfilter::world::{ALL, Side};
use crate::support::frame::udp;

pub const SEQUENCES: &[Sequence] = &[
    Sequence {
        name: "a question and its answer",
        of: ALL,
        steps: |talk| {
            [
                answered(talk),
                vec![
                    ("next question", client(&talk.asks().payload(b"odd"))),
                    ("empty answer", backend(&talk.answers().payload(b""))),
                ],
            ]
            .concat()
        },
    },
    Sequence {
        name: "UDP without a checksum",
        of: ALL,
        steps: |talk| {
            vec![
                ("question", client(&talk.asks().without_checksum())),
                ("answer", backend(&talk.answers().without_checksum())),
            ]
        },
    },
    Sequence {
        name: "wrong checksums of UDP",
        of: ALL,
        steps: |talk| {
            vec![
                (
                    "wrong question",
                    client(&talk.asks().checksum_off_by(0x101)),
                ),
                ("question", client(&talk.asks())),
                (
                    "wrong answer",
                    backend(&talk.answers().checksum_off_by(0x101)),
                ),
            ]
        },
    },
    Sequence {
        name: "DSCP and ECN",
        of: ALL,
        steps: |talk| {
            vec![
                ("question", client(&talk.asks().traffic_class(0xb9))),
                ("answer", backend(&talk.answers().traffic_class(0x2b))),
            ]
        },
    },
    Sequence {
        name: "TTLs",
        of: ALL,
        steps: |talk| {
            vec![
                ("first with TTL 1", client(&talk.asks().ttl(1))),
                ("first with TTL 2", client(&talk.asks().ttl(2))),
                ("answer with TTL 255", backend(&talk.answers().ttl(255))),
                ("answer with TTL 1", backend(&talk.answers().ttl(1))),
                ("question with TTL 1", client(&talk.asks().ttl(1))),
                ("question with TTL 0", client(&talk.asks().ttl(0))),
            ]
        },
    },
    Sequence {
        name: "TTLs of TCP",
        of: ALL,
        steps: |talk| {
            vec![
                ("SYN with TTL 1", client(&talk.c("S", 0, 0).ttl(1))),
                ("SYN", client(&talk.c("S", 0, 0))),
                ("SYN-ACK with TTL 1", backend(&talk.b("SA", 0, 0).ttl(1))),
            ]
        },
    },
    Sequence {
        name: "TTLs of what is not for the service",
        of: ALL,
        steps: |talk| {
            let asks = |port, ttl| {
                let destination = at(talk.world.service(), port);
                client(&udp(&talk.client(0), &destination).payload(b"who?").ttl(ttl))
            };
            let other = at(talk.world.backend(), 4000);
            vec![
                ("to the box", asks(4000, 1)),
                (
                    "through the box",
                    client(&udp(&talk.client(1), &other).payload(b"who?").ttl(1)),
                ),
            ]
        },
    },
    Sequence {
        name: "answers that nobody asked for",
        of: ALL,
        steps: |talk| {
            let [source, destination] = talk.ends(Side::Backend, 0);
            let elsewhere = at(talk.world.backend(), 4000);
            let [_, unknown] = talk.ends(Side::Backend, 5);
            [
                asked(talk),
                vec![
                    (
                        "from another port",
                        backend(&udp(&elsewhere, &destination).payload(b"it is me")),
                    ),
                    (
                        "to another port",
                        backend(&udp(&source, &unknown).payload(b"it is me")),
                    ),
                    ("the right one", backend(&talk.answers())),
                ],
            ]
            .concat()
        },
    },
    Sequence {
        name: "two clients with one port",
        of: ALL,
        steps: |talk| {
            let asks =
                || udp(&at(talk.world.other(), talk.first), &talk.service()).payload(b"me too");
            let port = if talk.world.is_masqueraded() {
                REPLACED
            } else {
                0
            };
            let peer = if talk.world.is_masqueraded() {
                talk.world.peer()
            } else {
                talk.world.other()
            };
            let answer = udp(&talk.backend(), &at(peer, talk.first + port)).payload(b"you too");
            [
                asked(talk),
                vec![
                    ("other's question", client(&asks())),
                    ("other's answer", backend(&answer)),
                    ("first one's answer", backend(&talk.answers())),
                    ("other's next question", client(&asks())),
                ],
            ]
            .concat()
        },
    },
    Sequence {
        name: "a client's port below 1024",
        of: ALL,
        steps: |talk| {
            let low = at(talk.world.client(), 1000);
            vec![(
                "question",
                client(&udp(&low, &talk.service()).payload(b"who?")),
            )]
        },
    },
    Sequence {
        name: "a client's port of the box's own range",
        of: ALL,
        steps: |talk| {
            let high = at(talk.world.client(), 40_000);
            vec![(
                "question",
                client(&udp(&high, &talk.service()).payload(b"who?")),
            )]
        },
    },
];
