//! ICMP: errors about connections, and others.

use std::net::IpAddr;

use super::{
    HOST_UNREACHABLE, Kind, PARAMETER_PROBLEM, PORT_UNREACHABLE, Sequence, TIME_EXCEEDED, TOO_BIG,
    WHOLE, answered, asked, at, backend, client, established, goes_on,
};
use crate::netfilter::world::{ALL, Side, V4};
use crate::support::frame::error;

pub const SEQUENCES: &[Sequence] = &[
    Sequence {
        name: "errors about a question",
        of: ALL,
        steps: |talk| {
            let question = talk.inside(&talk.asks());
            let side = Side::Backend;
            let told = |kind, length| backend(&talk.error(side, kind, &question, length));
            let header = if talk.world.is_ipv4() { 20 } else { 40 };
            let from_backend = error(
                talk.kind(PORT_UNREACHABLE),
                &at(talk.world.backend(), 0),
                &at(talk.world.peer(), 0),
                &question,
                WHOLE,
            );
            [
                asked(talk),
                vec![
                    ("port unreachable", backend(&from_backend)),
                    ("host unreachable", told(HOST_UNREACHABLE, WHOLE)),
                    ("too big", told(TOO_BIG, WHOLE)),
                    ("time exceeded", told(TIME_EXCEEDED, WHOLE)),
                    ("parameter problem", told(PARAMETER_PROBLEM, WHOLE)),
                    ("eight bytes quoted", told(PORT_UNREACHABLE, header + 8)),
                    ("seven bytes quoted", told(PORT_UNREACHABLE, header + 7)),
                    ("ports quoted", told(PORT_UNREACHABLE, header + 4)),
                    ("no ports quoted", told(PORT_UNREACHABLE, header)),
                    ("half a header quoted", told(PORT_UNREACHABLE, header - 8)),
                    ("nothing quoted", told(PORT_UNREACHABLE, 0)),
                    ("odd quote", told(PORT_UNREACHABLE, header + 11)),
                    (
                        "wrong checksum",
                        backend(
                            &talk
                                .error(side, TIME_EXCEEDED, &question, WHOLE)
                                .checksum_off_by(0x101),
                        ),
                    ),
                    (
                        "TTL 1",
                        backend(&talk.error(side, TIME_EXCEEDED, &question, WHOLE).ttl(1)),
                    ),
                    (
                        "TTL 2 and a class",
                        backend(
                            &talk
                                .error(side, TIME_EXCEEDED, &question, WHOLE)
                                .ttl(2)
                                .traffic_class(0xc0),
                        ),
                    ),
                    ("the question again", client(&talk.asks())),
                    ("the answer", backend(&talk.answers())),
                ],
            ]
            .concat()
        },
    },
    Sequence {
        name: "errors about a question without a checksum",
        of: ALL,
        steps: |talk| {
            let question = talk.asks().without_checksum();
            let told = talk.error(Side::Backend, TIME_EXCEEDED, &talk.inside(&question), WHOLE);
            vec![
                ("question", client(&question)),
                ("time exceeded", backend(&told)),
            ]
        },
    },
    Sequence {
        name: "errors about an answer",
        of: ALL,
        steps: |talk| {
            let answer = talk.outside(&talk.answers());
            let told = |kind, length| client(&talk.error(Side::Client, kind, &answer, length));
            let from_client = error(
                talk.kind(PORT_UNREACHABLE),
                &at(talk.world.client(), 0),
                &at(talk.world.service(), 0),
                &answer,
                WHOLE,
            );
            [
                answered(talk),
                vec![
                    ("port unreachable", client(&from_client)),
                    ("host unreachable", told(HOST_UNREACHABLE, WHOLE)),
                    ("too big", told(TOO_BIG, WHOLE)),
                    ("time exceeded", told(TIME_EXCEEDED, WHOLE)),
                    ("parameter problem", told(PARAMETER_PROBLEM, WHOLE)),
                    ("the question again", client(&talk.asks())),
                ],
            ]
            .concat()
        },
    },
    Sequence {
        name: "errors about segments",
        of: ALL,
        steps: |talk| {
            let data = talk.c("PA", 10, 10).payload(b"more");
            let answer = talk.b("PA", 10, 10).payload(b"more");
            let header = if talk.world.is_ipv4() { 20 } else { 40 };
            let there = |kind, length| {
                backend(&talk.error(Side::Backend, kind, &talk.inside(&data), length))
            };
            let back = |kind, length| {
                client(&talk.error(Side::Client, kind, &talk.outside(&answer), length))
            };
            [
                established(talk),
                vec![
                    ("client's data too big", there(TOO_BIG, WHOLE)),
                    (
                        "client's data too big, eight bytes quoted",
                        there(TOO_BIG, header + 8),
                    ),
                    (
                        "client's data too big, quoted up to the checksum",
                        there(TOO_BIG, header + 17),
                    ),
                    ("backend unreachable", there(HOST_UNREACHABLE, WHOLE)),
                    ("backend's data too big", back(TOO_BIG, WHOLE)),
                    (
                        "backend's data too big, eight bytes quoted",
                        back(TOO_BIG, header + 8),
                    ),
                    ("client unreachable", back(HOST_UNREACHABLE, header + 8)),
                ],
                goes_on(talk),
            ]
            .concat()
        },
    },
    Sequence {
        name: "an error about a SYN",
        of: ALL,
        steps: |talk| {
            let syn = talk.c("S", 0, 0);
            let told = talk.error(Side::Backend, PORT_UNREACHABLE, &talk.inside(&syn), WHOLE);
            vec![
                ("SYN", client(&syn)),
                ("port unreachable", backend(&told)),
                ("SYN again", client(&syn)),
                ("SYN-ACK", backend(&talk.b("SA", 0, 0))),
            ]
        },
    },
    Sequence {
        name: "errors about what nobody knows",
        of: ALL,
        steps: |talk| {
            let question = talk.inside(&talk.asks());
            let answer = talk.outside(&talk.answers());
            vec![
                (
                    "from the backend's side",
                    backend(&talk.error(Side::Backend, TIME_EXCEEDED, &question, WHOLE)),
                ),
                (
                    "from the client's side",
                    client(&talk.error(Side::Client, TIME_EXCEEDED, &answer, WHOLE)),
                ),
            ]
        },
    },
    Sequence {
        name: "errors that quote what was not sent so",
        of: ALL,
        steps: |talk| {
            let question = talk.inside(&talk.asks());
            let own = talk.asks();
            [
                answered(talk),
                vec![
                    (
                        "quoted checksum wrong",
                        backend(&talk.error(
                            Side::Backend,
                            TIME_EXCEEDED,
                            &question.clone().checksum_off_by(0x101),
                            WHOLE,
                        )),
                    ),
                    (
                        "client's question, untranslated",
                        backend(&talk.error(Side::Backend, TIME_EXCEEDED, &own, WHOLE)),
                    ),
                    (
                        "client's question, from the client's side",
                        client(&talk.error_to(
                            Side::Client,
                            talk.world.client(),
                            TIME_EXCEEDED,
                            &own,
                            WHOLE,
                        )),
                    ),
                    (
                        "to somebody else",
                        backend(&talk.error_to(
                            Side::Backend,
                            talk.world.other(),
                            TIME_EXCEEDED,
                            &question,
                            WHOLE,
                        )),
                    ),
                    (
                        "quoted options",
                        backend(&talk.error(
                            Side::Backend,
                            TIME_EXCEEDED,
                            &question.clone().options(if talk.world.is_ipv4() {
                                &[7, 4, 4, 0]
                            } else {
                                &[]
                            }),
                            WHOLE,
                        )),
                    ),
                ],
            ]
            .concat()
        },
    },
    Sequence {
        name: "a wrong header checksum is quoted",
        of: V4,
        steps: |talk| {
            let question = talk.inside(&talk.asks()).changed(|frame| frame[24] ^= 1);
            [
                asked(talk),
                vec![(
                    "time exceeded",
                    backend(&talk.error(Side::Backend, TIME_EXCEEDED, &question, WHOLE)),
                )],
            ]
            .concat()
        },
    },
    Sequence {
        name: "ICMP that is no error",
        of: ALL,
        steps: |talk| {
            let say = |kind, to: IpAddr| {
                error(
                    talk.kind(kind),
                    &talk.client(0),
                    &at(to, 0),
                    &talk.asks(),
                    0,
                )
            };
            vec![
                (
                    "echo to the service",
                    client(&say(Kind([8, 0], [128, 0]), talk.world.service())),
                ),
                (
                    "echo through the box",
                    client(&say(Kind([8, 0], [128, 0]), talk.world.backend())),
                ),
                (
                    "echo reply to the service",
                    client(&say(Kind([0, 0], [129, 0]), talk.world.service())),
                ),
            ]
        },
    },
    Sequence {
        name: "source quench and redirect",
        of: V4,
        steps: |talk| {
            let question = talk.inside(&talk.asks());
            let told = |kind| backend(&talk.error(Side::Backend, kind, &question, WHOLE));
            [
                asked(talk),
                vec![
                    ("source quench", told(Kind([4, 0], [0, 0]))),
                    ("redirect", told(Kind([5, 1], [0, 0]))),
                ],
            ]
            .concat()
        },
    },
];
