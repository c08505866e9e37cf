//! Fragments, and what is too long.

use super::{Sent, Sequence, Talk, at, client, sent};
use crate::netfilter::world::{ALL, Side, V6};
use crate::support::frame::{Frame, udp};

/// Pieces of a datagram: where each begins, and how long it is at most.
type Pieces = &'static [(usize, usize)];

const IN_ORDER: Pieces = &[(0, 400), (400, 400), (800, 400)];
const BACKWARDS: Pieces = &[(800, 400), (400, 400), (0, 400)];

/// The pieces of one of the sequence's datagrams, which is told by its number.
fn cut(talk: &Talk, side: Side, datagram: u16, frame: &Frame, pieces: Pieces) -> Sent {
    let frame = frame.clone().identification(talk.first + datagram);
    let cut = |&(start, length): &(usize, usize)| frame.clone().cut(start, length);
    let frames: Vec<Frame> = pieces.iter().map(cut).collect();
    sent(side, &frames)
}

fn question(talk: &Talk, datagram: u16, pieces: Pieces) -> Sent {
    let frame = talk.asks().payload(&[7; 1000]);
    cut(talk, Side::Client, datagram, &frame, pieces)
}

fn answer(talk: &Talk, datagram: u16, pieces: Pieces) -> Sent {
    let frame = talk.answers().payload(&[8; 1000]);
    cut(talk, Side::Backend, datagram, &frame, pieces)
}

pub const SEQUENCES: &[Sequence] = &[
    Sequence {
        name: "fragments in order",
        of: ALL,
        steps: |talk| {
            let longest_second = &[(0, 400), (400, 600), (1000, 400)];
            vec![
                ("question", question(talk, 1, IN_ORDER)),
                ("answer", answer(talk, 2, IN_ORDER)),
                (
                    "the second is the longest",
                    question(talk, 3, longest_second),
                ),
            ]
        },
    },
    Sequence {
        name: "fragments in another order",
        of: ALL,
        steps: |talk| {
            let first_second = &[(400, 400), (0, 400), (800, 400)];
            vec![
                ("the last one first", question(talk, 1, BACKWARDS)),
                ("the first one in the middle", answer(talk, 2, first_second)),
            ]
        },
    },
    Sequence {
        name: "an identification is used again at once",
        of: ALL,
        steps: |talk| {
            vec![
                ("in order", question(talk, 1, IN_ORDER)),
                ("in order again", question(talk, 1, IN_ORDER)),
                ("the last one first", question(talk, 1, BACKWARDS)),
            ]
        },
    },
    Sequence {
        name: "fragments of a datagram that is not complete",
        of: ALL,
        steps: |talk| {
            vec![
                ("the first", question(talk, 1, &[(0, 400)])),
                ("the second", question(talk, 1, &[(400, 400)])),
                ("the last", question(talk, 1, &[(800, 400)])),
            ]
        },
    },
    Sequence {
        name: "fragments that overlap",
        of: ALL,
        steps: |talk| {
            let by_eight = &[(0, 400), (392, 400), (792, 400)];
            let twice = &[(0, 400), (400, 400), (400, 400), (800, 400)];
            vec![
                ("by some bytes", question(talk, 1, by_eight)),
                ("one comes twice", question(talk, 2, twice)),
            ]
        },
    },
    Sequence {
        name: "a tiny first fragment",
        of: ALL,
        steps: |talk| {
            let syn = talk.c("S", 0, 0).tcp_options(&[1, 1, 1, 0]);
            let pieces = &[(0, 8), (8, 400)];
            vec![("SYN", cut(talk, Side::Client, 1, &syn, pieces))]
        },
    },
    Sequence {
        name: "fragments of a wrong checksum",
        of: ALL,
        steps: |talk| {
            let frame = talk.asks().payload(&[7; 1000]).checksum_off_by(0x101);
            vec![("question", cut(talk, Side::Client, 1, &frame, IN_ORDER))]
        },
    },
    Sequence {
        name: "fragments for the box itself",
        of: ALL,
        steps: |talk| {
            let to = at(talk.world.service(), 4000);
            let frame = udp(&talk.client(0), &to).payload(&[7; 1000]);
            vec![("question", cut(talk, Side::Client, 1, &frame, IN_ORDER))]
        },
    },
    Sequence {
        name: "longer than the backend's link takes",
        of: ALL,
        steps: |talk| {
            vec![
                ("question", client(&talk.asks().payload(&[7; 1400]))),
                (
                    "question that may be cut",
                    client(&talk.asks().fragment(0).payload(&[7; 1400])),
                ),
                ("a short one", client(&talk.asks())),
            ]
        },
    },
    Sequence {
        name: "an atomic fragment",
        of: V6,
        steps: |talk| {
            vec![(
                "question",
                client(&talk.asks().extension(44, &[0, 0, 0, 0, 9, 9, 9, 9])),
            )]
        },
    },
];
