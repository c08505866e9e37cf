//! Sequences of frames, made by a grammar and changed, or any bytes; between them time passes, the sweeper comes, the config and the
//! ways change.

use balancer_common::verdict::Verdict;

use crate::bytes::Bytes;
use crate::layout;
use crate::support::frame::{Frame, SYN, answer, other, tcp, udp};
use crate::table;
use crate::world::{World, in_a_box, interface};

const CLIENTS: [&str; 4] = [
    "198.51.100.1:3000",
    "198.51.100.2:3000",
    "198.51.100.2:80",
    "10.0.0.3:8080",
];
const CLIENTS6: [&str; 2] = ["[2001:db8:100::1]:3000", "[2001:db8:100::2]:3000"];
const SERVICES: [&str; 8] = [
    "192.0.2.10:80",
    "192.0.2.10:81",
    "192.0.2.10:8001",
    "192.0.2.10:8003",
    "192.0.2.10:53",
    "203.0.113.9:53",
    "192.0.2.10:9999",
    "10.0.0.1:3000",
];
const SERVICES6: [&str; 2] = ["[2001:db8::10]:80", "[2001:db8::10]:53"];

const FLAGS: [&str; 12] = [
    "S", "SA", "A", "PA", "FA", "RA", "R", "F", "", "SF", "SEC", "FSRPAUEC",
];

/// The kinds of steps.
const RAW: u8 = 0;
const ANSWER: u8 = 1;
const OTHER: u8 = 2;
/// And five of frames made by the grammar.
const KINDS: u8 = 8;

/// Each vector: its frames, as they are.
pub fn seeds() -> Vec<Vec<u8>> {
    let vectors = table::all();
    let settings = [0, 1, 6];
    let raw = |setting: u8, frames: &mut dyn Iterator<Item = (u32, Vec<u8>)>| {
        let mut seed = vec![setting];
        for (side, frame) in frames {
            let side = (0..4).find(|&number| interface(number) == side).unwrap();
            seed.push(RAW | (side as u8) << 3);
            seed.extend((frame.len() as u16).to_be_bytes());
            seed.extend(frame);
        }
        seed
    };
    let recorded = vectors
        .iter()
        .zip(settings.into_iter().cycle())
        .map(|(vector, setting)| raw(setting, &mut vector.frames()));
    recorded.chain(lives()).collect()
}

/// Connections that are opened, answered and closed, by the grammar.
fn lives() -> impl Iterator<Item = Vec<u8>> {
    (0..8).map(|service| {
        let mut seed = vec![service & 1];
        // SYN, its answer, data, two answers, FIN, its answer, time, the sweeper.
        for (flags, answer) in [(0, 1), (2, 2), (3, 3), (4, 4)] {
            seed.extend([3, service, flags, 0]);
            seed.extend([ANSWER | 1 << 5, 1, answer]);
        }
        seed.extend([OTHER, 0, 50, OTHER, 1]);
        seed
    })
}

/// Runs a sequence.
pub fn check(input: &[u8]) {
    let mut bytes = Bytes(input);
    in_a_box(bytes.byte(), |world| {
        let mut sent = Vec::new();
        while !bytes.is_empty() {
            step(world, &mut bytes, &mut sent);
        }
    });
}

/// One step; `sent` is the frame that was sent on last.
fn step(world: &mut World<'_>, bytes: &mut Bytes<'_>, sent: &mut Vec<u8>) {
    let what = bytes.byte();
    let mut side = usize::from(what >> 3 & 3);
    let mut frame = match what % KINDS {
        RAW => {
            let length = bytes.long();
            bytes.take(length).to_vec()
        }
        ANSWER => {
            side ^= 1;
            let Some(frame) = answered(bytes, sent) else {
                return;
            };
            frame
        }
        OTHER => return other_step(world, bytes),
        _ => made(bytes).build(),
    };
    bytes.change(usize::from(what >> 6), &mut frame);
    if what & 1 << 5 != 0 {
        layout::repair(&mut frame);
    }
    let (verdict, output) = world.give(interface(side), &frame);
    if matches!(verdict, Verdict::Transmit | Verdict::Redirect(_)) {
        *sent = output;
    }
}

/// The answer to what was sent on last, with other control bits if it is a segment and the first byte says so.
fn answered(bytes: &mut Bytes<'_>, sent: &[u8]) -> Option<Vec<u8>> {
    /// Control bits of SYN and ACK, ACK, FIN and ACK, RST and ACK.
    const BITS: [u8; 4] = [0x12, 0x10, 0x11, 0x14];
    let mut frame = answer(sent)?;
    let is_changed = bytes.byte() & 1 != 0;
    let bits = bytes.of(&BITS);
    if is_changed
        && let Some(layout) = layout::frame(&frame).filter(|layout| layout.protocol == 6)
        && let Some(place) = frame.get_mut(layout.l4 + 13)
    {
        *place = bits;
    }
    Some(frame)
}

fn other_step(world: &mut World<'_>, bytes: &mut Bytes<'_>) {
    /// A range of few, of one, and the default.
    const PORTS: [&str; 3] = [
        "source_ports = \"3000-3002\"",
        "source_ports = \"3000-3000\"",
        "",
    ];
    match bytes.byte() % 4 {
        0 => world.wait(bytes.number() as u64 * 100),
        1 => world.sweep(),
        2 => {
            let without = bytes.number();
            world.reload(without, bytes.of(&PORTS));
        }
        _ => world.ways(bytes.byte() & 1 == 0),
    }
}

/// A frame of the grammar, from three bytes and those that the third asks for.
fn made(bytes: &mut Bytes<'_>) -> Frame {
    let (who, kind, shape) = (bytes.number(), bytes.number(), bytes.byte());
    let (source, destination) = if who & 0x40 == 0 {
        (CLIENTS[who >> 3 & 3], SERVICES[who & 7])
    } else {
        (CLIENTS6[who >> 3 & 1], SERVICES6[who & 1])
    };
    let is_ipv4 = who & 0x40 == 0;
    let is_udp = if who & 0x80 == 0 {
        destination.ends_with(":53")
    } else {
        !destination.ends_with(":53")
    };
    let mut frame = if kind >= 0xf0 {
        other(kind as u8 & 15, source, destination)
    } else if is_udp {
        udp(source, destination)
    } else {
        tcp(FLAGS[kind % FLAGS.len()], source, destination)
    };
    if shape & 1 != 0 {
        let length = bytes.number() * 8;
        frame = frame.payload(&vec![0x5a; length]);
    }
    if shape & 2 != 0 {
        // In the window, at its edges, behind them.
        const EDGES: [u32; 6] = [0, 0xffff, 0x1_0000, u32::MAX, 0x3fff_c000, 0x8000_0000];
        let mut number = || SYN.wrapping_add(bytes.of(&EDGES));
        frame = frame.numbers(number(), number());
    }
    if shape & 4 != 0 {
        frame = frame.ttl(bytes.byte());
    }
    if shape & 8 != 0 {
        frame = frame.tag(bytes.of(&[0x8100, 0x88a8]), 5);
    }
    if shape & 0x10 != 0 {
        let words = 1 + bytes.number() % 9;
        let mut options = bytes.take(words * 4).to_vec();
        options.resize(words * 4, 0);
        frame = if is_ipv4 {
            frame.options(&options)
        } else {
            options.resize((words * 4).next_multiple_of(8), 0);
            options[1] = (options.len() / 8 - 1) as u8;
            frame.extension(bytes.of(&[0, 60, 43, 51]), &options)
        };
    }
    if shape & 0x20 != 0 {
        let words = bytes.number() % 11;
        let mut options = bytes.take(words * 4).to_vec();
        options.resize(words * 4, 1);
        frame = frame.tcp_options(&options);
    }
    if shape & 0x40 != 0 {
        frame = frame.cut(bytes.number() * 8, bytes.number() * 8);
    }
    if shape & 0x80 != 0 {
        frame = match bytes.byte() {
            0 => frame.without_checksum(),
            off => frame.checksum_off_by(u16::from(off) * 0x0101),
        };
    }
    frame
}
