//! Pieces of a few datagrams, in any order, overlapping, again, changed; early ones wait, where there is a slow path. Of each datagram the
//! receiver gets the data in order, each byte once, and when nothing was changed its checksum is right in the end.

use std::collections::HashMap;

use balancer_common::verdict::{Punt, Verdict};

use crate::bytes::Bytes;
use crate::layout::{self, Layout};
use crate::support::frame::{Frame, tcp, udp};
use crate::support::{BACKEND_MAC, BACKEND_SIDE, BOX_MAC, CLIENT_SIDE};
use crate::world::{World, in_a_box};

/// What the datagrams are of: questions and answers, requests.
const CONNECTIONS: [(&str, &str); 5] = [
    ("198.51.100.1:3000", "192.0.2.10:53"),
    ("10.0.0.6:5353", "10.0.0.1:3000"),
    ("198.51.100.1:3000", "192.0.2.10:80"),
    ("[2001:db8:100::1]:3000", "[2001:db8::10]:53"),
    ("[2001:db8:1::6]:5353", "[2001:db8:1::1]:3000"),
];

/// How long a datagram is remembered, in milliseconds, and what the ticks make of that.
const TIMEOUT: u64 = 2000;
const BLUR: u64 = 10;

/// Of a datagram, as it came: addresses, identification and, of IPv4, the protocol.
type Key = (Vec<u8>, Vec<u8>, u8);

/// A datagram: its connection, and how long it is.
type Of = (usize, u8);

/// What of a datagram has gone on.
struct Progress {
    data: Vec<u8>,
    is_complete: bool,
    since: u64,
    /// The datagram, as long as all that went on is of it.
    of: Option<Of>,
}

/// Who gets what the box sends on.
struct Receiver<'a, 'b> {
    world: &'a mut World<'b>,
    has_slow_path: bool,
    datagrams: HashMap<Key, Progress>,
    /// Those that wait: interface, frame, and the datagram if it is as it was made.
    held: Vec<(u32, Vec<u8>, Option<Of>)>,
}

/// Datagrams in order, backwards, with a piece twice and with ones that overlap.
pub fn seeds() -> Vec<Vec<u8>> {
    let orders: [&[(u8, u8)]; 5] = [
        &[(0, 4), (4, 4), (8, 200)],
        &[(8, 200), (4, 4), (0, 4)],
        &[(0, 4), (4, 4), (4, 4), (8, 200)],
        &[(0, 4), (2, 8), (3, 2), (8, 200)],
        &[(0, 200), (0, 4), (4, 200), (0, 4), (4, 200)],
    ];
    let mut seeds = Vec::new();
    for connection in 0..CONNECTIONS.len() as u8 {
        for (number, order) in orders.iter().enumerate() {
            let mut seed = vec![number as u8 & 1];
            for (start, length) in *order {
                seed.extend([connection << 3, 12, *start, *length]);
            }
            // Those that wait, twice.
            seed.extend([7, 0, 7, 0]);
            seeds.push(seed);
        }
    }
    seeds
}

/// Runs a sequence of pieces.
pub fn check(input: &[u8]) {
    let mut bytes = Bytes(input);
    let setting = bytes.byte();
    in_a_box(setting, |world| {
        // So that there are connections for what answers and segments are of.
        for number in [0, 2, 3] {
            let (source, destination) = CONNECTIONS[number];
            let first = if number == 2 {
                tcp("S", source, destination)
            } else {
                udp(source, destination)
            };
            let (verdict, _) = world.give(CLIENT_SIDE, &first.build());
            assert!(matches!(verdict, Verdict::Redirect(_)), "{verdict:?}");
        }
        let mut receiver = Receiver {
            world,
            has_slow_path: setting & 1 != 0,
            datagrams: HashMap::new(),
            held: Vec::new(),
        };
        while !bytes.is_empty() {
            receiver.step(&mut bytes);
        }
    });
}

/// The whole datagram of a number: the connection, and how long it is.
fn datagram(connection: usize, length: usize) -> Frame {
    let (source, destination) = CONNECTIONS[connection];
    let payload: Vec<u8> = (0..length * 8 + 3).map(|byte| byte as u8).collect();
    let frame = if connection == 2 {
        tcp("PA", source, destination)
    } else {
        udp(source, destination)
    };
    frame.payload(&payload)
}

impl Receiver<'_, '_> {
    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let what = bytes.byte();
        match what & 7 {
            7 => self.retry(),
            6 => self.world.wait(bytes.number() as u64 * 16),
            5 => self.world.reload(usize::MAX, ""),
            identification => {
                let connection = usize::from(what >> 3 & 7) % CONNECTIONS.len();
                let shape = bytes.byte();
                let (start, length) = (bytes.number() * 8, bytes.number() * 8);
                let whole = datagram(connection, usize::from(shape & 63)).fragment(0);
                let piece = whole.cut(start, length);
                let mut frame = piece.identification(identification.into()).build();
                let right = frame.clone();
                bytes.change(usize::from(what >> 6), &mut frame);
                if shape & 64 != 0 {
                    layout::repair(&mut frame);
                }
                let of = (frame == right).then_some((connection, shape & 63));
                let side = if matches!(connection, 1 | 4) {
                    frame[..6].copy_from_slice(&BOX_MAC);
                    frame[6..12].copy_from_slice(&BACKEND_MAC);
                    BACKEND_SIDE
                } else {
                    CLIENT_SIDE
                };
                self.give(side, frame, of);
            }
        }
    }

    /// Gives the box a frame; one of a datagram as it was made is `of` that.
    fn give(&mut self, side: u32, frame: Vec<u8>, of: Option<Of>) {
        let (verdict, output) = self.world.give(side, &frame);
        match verdict {
            Verdict::Transmit | Verdict::Redirect(_) => self.receive(&frame, &output, of),
            Verdict::Punt(reason) => {
                assert!(self.has_slow_path, "{reason:?}");
                if reason == Punt::Fragment && self.held.len() < 64 {
                    self.held.push((side, frame, of));
                }
            }
            _ => {}
        }
    }

    /// Gives those that wait again, the foremost first.
    fn retry(&mut self) {
        let start = |frame: &[u8]| {
            let fragment = layout::frame(frame).and_then(|layout| layout.fragment);
            fragment.map_or(0, |(start, _)| start)
        };
        let mut held = std::mem::take(&mut self.held);
        held.sort_by_key(|(_, frame, _)| start(frame));
        for (side, frame, of) in held {
            self.give(side, frame, of);
        }
    }

    /// A frame came out.
    fn receive(&mut self, input: &[u8], output: &[u8], of: Option<Of>) {
        let before = layout::frame(input).unwrap();
        let Some((start, more)) = before.fragment else {
            return;
        };
        let (at, length) = before.identification;
        let key = (
            input[before.addresses()].to_vec(),
            input[at..at + length].to_vec(),
            if before.is_ipv4 { before.protocol } else { 0 },
        );
        // Where the data begins: of a first fragment of IPv6 there may be headers before the transport's.
        let from = if before.is_ipv4 { before.l4 } else { at + 4 };
        let data = &output[from..before.end];
        let now = self.world.now();
        if start == 0 {
            if let Some(old) = self.datagrams.get(&key) {
                let age = now - old.since;
                assert!(old.is_complete || age + BLUR >= TIMEOUT, "two firsts");
            }
            let progress = Progress {
                data: data.to_vec(),
                is_complete: false,
                since: now,
                of,
            };
            self.datagrams.insert(key, progress);
            return;
        }
        let progress = self.datagrams.get_mut(&key).expect("the first came before");
        assert!(!progress.is_complete, "behind its end");
        assert!(now - progress.since <= TIMEOUT + BLUR, "too late");
        assert_eq!(start, progress.data.len(), "a gap, or data twice");
        progress.data.extend(data);
        progress.is_complete = !more;
        if progress.of != of {
            progress.of = None;
        }
        if progress.is_complete && progress.of.is_some() {
            check_whole(&before, output, &progress.data);
        }
    }
}

/// The checksum of a datagram that came whole, with the addresses of its last fragment.
fn check_whole(layout: &Layout, output: &[u8], data: &[u8]) {
    assert_eq!(
        layout.error_of(output, data),
        Some(0),
        "checksum of the datagram"
    );
}
