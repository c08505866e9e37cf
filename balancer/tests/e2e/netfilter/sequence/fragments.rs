//! Fragments, and what is too long.

use super::{Sequence, at, client, cut};
use crate::netfilter::world::{ALL, Side, V6};
use crate::support::frame::udp;

pub const SEQUENCES: &[Sequence] = &[
    Sequence {
        name: "fragments in order",
        of: ALL,
        steps: |talk| {
            let question = talk.asks().payload(&[7; 1000]);
            let answer = talk.answers().payload(&[8; 1000]);
            vec![
                (
                    "question",
                    cut(
                        talk,
                        &question,
                        Side::Client,
                        1,
                        &[(0, 400), (400, 400), (800, 400)],
                    ),
                ),
                (
                    "answer",
                    cut(
                        talk,
                        &answer,
                        Side::Backend,
                        2,
                        &[(0, 400), (400, 400), (800, 400)],
                    ),
                ),
                (
                    "the second is the longest",
                    cut(
                        talk,
                        &question,
                        Side::Client,
                        3,
                        &[(0, 400), (400, 600), (1000, 400)],
                    ),
                ),
            ]
        },
    },
    Sequence {
        name: "fragments in another order",
        of: ALL,
        steps: |talk| {
            let question = talk.asks().payload(&[7; 1000]);
            let answer = talk.answers().payload(&[8; 1000]);
            vec![
                (
                    "the last one first",
                    cut(
                        talk,
                        &question,
                        Side::Client,
                        4,
                        &[(800, 400), (400, 400), (0, 400)],
                    ),
                ),
                (
                    "the first one in the middle",
                    cut(
                        talk,
                        &answer,
                        Side::Backend,
                        5,
                        &[(400, 400), (0, 400), (800, 400)],
                    ),
                ),
            ]
        },
    },
    Sequence {
        name: "an identification is used again at once",
        of: ALL,
        steps: |talk| {
            let question = talk.asks().payload(&[7; 1000]);
            let send = |pieces| cut(talk, &question, Side::Client, 0, pieces);
            vec![
                ("in order", send(&[(0, 400), (400, 400), (800, 400)])),
                ("in order again", send(&[(0, 400), (400, 400), (800, 400)])),
                (
                    "the last one first",
                    send(&[(800, 400), (400, 400), (0, 400)]),
                ),
            ]
        },
    },
    Sequence {
        name: "fragments of a datagram that is not complete",
        of: ALL,
        steps: |talk| {
            let question = talk.asks().payload(&[7; 1000]);
            vec![
                (
                    "the first",
                    cut(talk, &question, Side::Client, 6, &[(0, 400)]),
                ),
                (
                    "the second",
                    cut(talk, &question, Side::Client, 6, &[(400, 400)]),
                ),
                (
                    "the last",
                    cut(talk, &question, Side::Client, 6, &[(800, 400)]),
                ),
            ]
        },
    },
    Sequence {
        name: "fragments that overlap",
        of: ALL,
        steps: |talk| {
            let question = talk.asks().payload(&[7; 1000]);
            vec![
                (
                    "by some bytes",
                    cut(
                        talk,
                        &question,
                        Side::Client,
                        7,
                        &[(0, 400), (392, 400), (792, 400)],
                    ),
                ),
                (
                    "one comes twice",
                    cut(
                        talk,
                        &question,
                        Side::Client,
                        8,
                        &[(0, 400), (400, 400), (400, 400), (800, 400)],
                    ),
                ),
            ]
        },
    },
    Sequence {
        name: "a tiny first fragment",
        of: ALL,
        steps: |talk| {
            let syn = talk.c("S", 0, 0).tcp_options(&[1, 1, 1, 0]);
            vec![("SYN", cut(talk, &syn, Side::Client, 9, &[(0, 8), (8, 400)]))]
        },
    },
    Sequence {
        name: "fragments of a wrong checksum",
        of: ALL,
        steps: |talk| {
            let question = talk.asks().payload(&[7; 1000]).checksum_off_by(0x101);
            vec![(
                "question",
                cut(
                    talk,
                    &question,
                    Side::Client,
                    10,
                    &[(0, 400), (400, 400), (800, 400)],
                ),
            )]
        },
    },
    Sequence {
        name: "fragments for the box itself",
        of: ALL,
        steps: |talk| {
            let to = at(talk.world.service(), 4000);
            let question = udp(&talk.client(0), &to).payload(&[7; 1000]);
            vec![(
                "question",
                cut(
                    talk,
                    &question,
                    Side::Client,
                    11,
                    &[(0, 400), (400, 400), (800, 400)],
                ),
            )]
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
