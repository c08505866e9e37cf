//! The two engines do the same with frames that chance makes: the pipeline in user space and the compiled program under
//! `BPF_PROG_TEST_RUN` get the same ones, and verdict, bytes, counters and tables must be alike.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that fails here has failed")]

mod support;

use balancer::config::FlowLookup;
use balancer::datapath::kernel::Sizes;
use balancer_common::tables::Reception;
use balancer_common::verdict::Verdict;
use support::chance::{Chance, seed};
use support::engines::{Engines, Setting};
use support::flows::connections;
use support::frame::{SYN, answer, checksum, tcp, udp};
use support::place::in_the_box;
use support::variable::number;
use support::{BACKEND_MAC, BACKEND_SIDE, CLIENT_SIDE, SERVICES};

/// Few clients with few ports, so that connections go through their whole life. Every client has ports of its
/// own for every destination: a source port that is taken would be replaced by chance, and chance differs.
fn random_frame(chance: &mut Chance) -> Vec<u8> {
    let client = chance.below(20);
    let port = 2000 + client * 10 + chance.below(4);
    let (source, destination) = if chance.below(5) == 0 {
        let of = ["[2001:db8::10]:80", "[2001:db8::10]:81"];
        (
            format!("[2001:db8::{}]:{port}", 100 + client),
            of[chance.below(2) as usize],
        )
    } else {
        let of = [
            "192.0.2.10:80",
            "192.0.2.10:81",
            "192.0.2.10:8001",
            "192.0.2.10:53",
            "203.0.113.9:53",
            "192.0.2.10:9999",
        ];
        let index = chance.below(6);
        (
            format!("198.51.100.{}:{}", 1 + client, port + 1000 * index),
            of[index as usize],
        )
    };
    let payload = vec![0xa5; chance.below(30) as usize];
    let frame = match chance.below(8) {
        0 | 1 => udp(&source, destination),
        2 | 3 => tcp("S", &source, destination).tcp_options(&random_options(chance)),
        4 | 5 => tcp("A", &source, destination),
        6 => tcp("FA", &source, destination),
        _ => tcp("RA", &source, destination),
    };
    let mut frame = frame.payload(&payload);
    if chance.below(4) == 0 {
        // In the window, at its edges, behind them.
        let mut number = || {
            let window = 0xffff << chance.below(16);
            let edge = chance.below(3) as u32 * 0xffff;
            SYN.wrapping_add([edge, window, 0_u32.wrapping_sub(window)][chance.below(3) as usize])
        };
        frame = frame.numbers(number(), number());
    }
    match chance.below(16) {
        // A piece of it, which may follow another, overlap it, or come too early.
        0 => {
            let payload = vec![0x5a; chance.below(300) as usize];
            let start = [0, 8, 16, 24, 48, 96, 104][chance.below(7) as usize];
            let length = [8, 16, 24, 48, 80, 300, 21][chance.below(7) as usize];
            frame = frame.payload(&payload).cut(start, length);
        }
        // More than the link takes, which may be cut or not.
        1 => {
            let payload = vec![0x5a; 1200 + chance.below(200) as usize];
            let may_be_cut = [0, 0x4000][chance.below(2) as usize];
            frame = frame.payload(&payload).fragment(may_be_cut);
        }
        _ => {}
    }
    frame.build()
}

/// TCP options: none, a window scale, or what chance makes of their bytes.
fn random_options(chance: &mut Chance) -> Vec<u8> {
    match chance.below(3) {
        0 => Vec::new(),
        1 => vec![1, 3, 3, chance.below(20) as u8],
        _ => (0..4 * chance.below(11))
            .map(|_| [0, 1, 2, 3, 4, chance.below(256) as u8][chance.below(6) as usize])
            .collect(),
    }
}

/// Changes a frame a little, or much.
fn mutate(chance: &mut Chance, frame: &mut Vec<u8>) {
    match chance.below(8) {
        0 => frame.truncate(14.max(chance.below(frame.len() as u64) as usize)),
        1 => {
            // One or two VLAN tags.
            for _ in 0..=chance.below(3) {
                frame.splice(12..12, [0x81, 0x00, 0x00, 0x05]);
            }
        }
        2 if frame[12] == 8 => {
            // IPv4 options, with a right checksum.
            let words = 1 + chance.below(10) as u8;
            frame[14] = 0x45 + words;
            let kinds = [0, 1, 7, 68, 131, 137, 148];
            let options: Vec<u8> = (0..words * 4)
                .map(|_| {
                    if chance.below(2) == 0 {
                        kinds[chance.below(7) as usize]
                    } else {
                        chance.below(8) as u8
                    }
                })
                .collect();
            frame.splice(34..34, options);
            let length = (frame.len() - 14) as u16;
            frame[16..18].copy_from_slice(&length.to_be_bytes());
            fix_header_checksum(frame);
        }
        3 if frame[12] != 8 => {
            // IPv6 extension headers in front of what was first.
            for _ in 0..=chance.below(7) {
                let header = [0, 43, 44, 51, 60][chance.below(5) as usize];
                let next = std::mem::replace(&mut frame[20], header);
                let length = [0, 0, 0, 1, 200][chance.below(5) as usize];
                let extension = [
                    next,
                    length,
                    chance.below(2) as u8,
                    chance.below(2) as u8,
                    0,
                    0,
                    0,
                    0,
                ];
                frame.splice(54..54, extension);
                let length = (frame.len() - 54) as u16;
                frame[18..20].copy_from_slice(&length.to_be_bytes());
            }
        }
        _ => {
            let changes = 1 + chance.below(3);
            // Not addresses and ports: see `random_frame`.
            let kept = match (frame[12], frame[20]) {
                (8, _) => 26..38,
                // Behind a fragment header.
                (_, 44) => 22..66,
                _ => 22..58,
            };
            for _ in 0..changes {
                let at = 12 + chance.below(frame.len() as u64 - 12) as usize;
                if kept.contains(&at) {
                    continue;
                }
                frame[at] = if chance.below(2) == 0 {
                    chance.below(256) as u8
                } else {
                    frame[at] ^ (1 << chance.below(8))
                };
            }
            if frame[12] == 8 && chance.below(3) > 0 && frame.len() > 34 {
                fix_header_checksum(frame);
            }
        }
    }
}

fn fix_header_checksum(frame: &mut [u8]) {
    let length = usize::from(frame[14] & 15) * 4;
    if length < 20 || frame.len() < 14 + length {
        return;
    }
    frame[24..26].fill(0);
    let sum = checksum(&frame[14..14 + length]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// How many frames: `BALANCER_FRAMES`, else what is quick.
fn frames() -> u64 {
    number("BALANCER_FRAMES").unwrap_or(100_000)
}

#[test]
fn both_engines_do_the_same() {
    in_the_box("differential", || {
        let seed = seed();
        println!("seed {seed} (BALANCER_SEED)");
        let mut engines = Engines::both(Sizes {
            connections: 65_536,
            half_open: 65_536,
            lookup: FlowLookup::Table,
        });
        engines.set_up(&Setting {
            services: SERVICES.to_owned(),
            slow_path: Reception::Taken,
            mtu: 1300,
            ..Setting::default()
        });
        let forwarded = run(&mut engines, &mut Chance(seed), seed);
        engines.compare();
        // Each is whole.
        connections(&engines.memory.v4);
        connections(&engines.memory.v6);
        assert!(
            forwarded > frames() / 6,
            "only {forwarded} frames were forwarded"
        );
        let verdicts = engines.stats.verdicts.iter();
        let kinds = verdicts.filter(|&&count| count > 0).count();
        println!(
            "{} frames, {forwarded} forwarded to backends, {kinds} kinds of verdicts",
            engines.stats.received()
        );
    });
}

/// Runs the frames and answers to them. Says how many went to backends.
fn run(engines: &mut Engines, chance: &mut Chance, seed: u64) -> u64 {
    let mut forwarded = 0;
    for number in 0..frames() {
        engines.about = format!("frame {number} of seed {seed}");
        if number % 1000 == 0 {
            engines.sweep();
            // Before either engine has too many, or they are too old for the one whose time goes on.
            engines.forget_datagrams();
        }
        let mut input = random_frame(chance);
        if chance.below(4) == 0 {
            mutate(chance, &mut input);
        }
        let (verdict, output) = engines.run(side(chance, CLIENT_SIDE), &input);
        let is_sent = matches!(verdict, Verdict::Transmit | Verdict::Redirect(_));
        if is_sent && output.starts_with(&BACKEND_MAC) {
            forwarded += 1;
            // The backend answers most of what reaches it.
            if chance.below(4) > 0
                && let Some(mut reply) = answer(&output)
            {
                if output[12] == 8 && output[23] == 6 && output.get(47) == Some(&2) {
                    reply[47] = 0x12;
                }
                engines.run(side(chance, BACKEND_SIDE), &reply);
            }
        }
    }
    forwarded
}

/// This side mostly, else the other.
fn side(chance: &mut Chance, mostly: u32) -> u32 {
    if chance.below(5) > 0 {
        mostly
    } else {
        CLIENT_SIDE + BACKEND_SIDE - mostly
    }
}
