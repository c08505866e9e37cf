//! The two engines do the same: the pipeline in user space and the compiled program under `BPF_PROG_TEST_RUN` get the
//! same frames, and verdict, bytes, counters and tables must be alike.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that fails here has failed")]

mod support;

use std::time::{SystemTime, UNIX_EPOCH};

use aya::programs::{TestRun, TestRunOptions};
use balancer::datapath::kernel::{FamilyMaps, Kernel, Sizes};
use balancer::datapath::memory::{FamilyTables, Memory};
use balancer::datapath::raw::KernelFamily;
use balancer_common::abi::Stats;
use balancer_common::pipeline::process;
use balancer_common::verdict::Verdict;
use support::{BACKEND_SIDE, L4, frame, memory};

/// The interface that a test run pretends the frame came in by: `lo`.
const INGRESS: u32 = 1;

const SERVICES: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
protocol = "tcp"
scheduler = "nth"
  [[service.backend]]
  address = "10.0.0.3:8080"
  weight = 3
  [[service.backend]]
  address = "10.0.0.4:8080"
  weight = 2
[[service]]
name = "transparent"
listen = "192.0.2.10:8000-8003"
protocol = "tcp"
scheduler = "nth"
source_nat = "none"
  [[service.backend]]
  address = "10.0.0.5"
[[service]]
name = "dns"
listen = "*:53"
protocol = "udp"
scheduler = "nth"
  [[service.backend]]
  address = "10.0.0.6:5353"
  [[service.backend]]
  address = "10.0.0.7"
[[service]]
name = "web6"
listen = "[2001:db8::10]:80"
protocol = "tcp"
scheduler = "nth"
  [[service.backend]]
  address = "[2001:db8:1::3]:8080"
[[service]]
name = "empty"
listen = "192.0.2.10:81"
protocol = "tcp"
scheduler = "nth"
  [[service.backend]]
  address = "10.0.0.8:81"
  weight = 0
"#;

struct Engines {
    memory: Memory,
    kernel: Kernel,
    stats: Stats,
}

impl Engines {
    fn new() -> Self {
        let memory = memory(SERVICES);
        let sizes = Sizes {
            connections: 65_536,
            half_open: 65_536,
        };
        let mut kernel = Kernel::load(sizes, None).unwrap();
        kernel.set_image(&memory.image).unwrap();
        for (backend, path) in (0..).zip(&memory.paths) {
            kernel.set_path(backend, *path).unwrap();
        }
        Self {
            memory,
            kernel,
            stats: Stats::default(),
        }
    }

    /// Gives a frame to both; the rewritten frame and its verdict, which are the same.
    fn run(&mut self, input: &[u8]) -> (Vec<u8>, Verdict) {
        let mut ours = input.to_vec();
        let verdict = process(&mut ours.as_mut_slice(), &self.memory, INGRESS);
        let mut theirs = vec![0; input.len() + 64];
        let result = self
            .kernel
            .program()
            .unwrap()
            .test_run(TestRunOptions {
                data_in: Some(input),
                data_out: Some(&mut theirs),
                ..TestRunOptions::default()
            })
            .unwrap();
        theirs.truncate(result.data_size_out as usize);
        let action = match verdict {
            Verdict::Drop(_) => 1,
            Verdict::Pass(_) => 2,
            Verdict::Transmit => 3,
            Verdict::Redirect(_) => 4,
        };
        assert_eq!(result.return_value, action, "{verdict:?} for {input:02x?}");
        assert_eq!(theirs, ours, "{verdict:?} for {input:02x?}");
        self.stats.received += 1;
        self.stats.verdicts[verdict.counter()] += 1;
        (ours, verdict)
    }

    /// Counters and tables.
    fn compare(&self) {
        assert_eq!(self.kernel.stats().unwrap(), self.stats);
        for (backend, ours) in (0..).zip(self.memory.backends.lock().unwrap().iter()) {
            assert_eq!(
                self.kernel.backend_stats(backend).unwrap(),
                *ours,
                "backend {backend}"
            );
        }
        for (service, ours) in (0..).zip(self.memory.services.lock().unwrap().iter()) {
            assert_eq!(
                self.kernel.service_stats(service).unwrap(),
                *ours,
                "service {service}"
            );
        }
        same_keys(&self.kernel.v4, &self.memory.v4);
        same_keys(&self.kernel.v6, &self.memory.v6);
        assert_eq!(
            self.stats.received,
            self.stats.verdicts.iter().sum::<u64>(),
            "received is forwarded, passed and dropped"
        );
    }
}

/// The same tuples are entered, and each connection is whole.
fn same_keys<F: KernelFamily>(kernel: &FamilyMaps<F>, memory: &FamilyTables<F>) {
    let mut flows = 0;
    kernel
        .each_flow(|tuple, flow| {
            flows += 1;
            let ours = memory.flows.get(&tuple).unwrap();
            assert_eq!(
                (ours.new, ours.state(), ours.backend),
                (flow.new, flow.state(), flow.backend)
            );
            assert!(memory.flows.contains_key(&flow.peer()));
        })
        .unwrap();
    assert_eq!(flows, memory.flows.len());
    let mut half_open = 0;
    kernel
        .each_half_open(|tuple, _| {
            half_open += 1;
            assert!(memory.half_open.contains_key(&tuple));
        })
        .unwrap();
    assert_eq!(half_open, memory.half_open.len());
}

/// `SplitMix64`: the same frames for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound
    }
}

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
    let l4 = match chance.below(8) {
        0 | 1 => L4::Udp,
        2 | 3 => L4::Tcp("S"),
        4 | 5 => L4::Tcp("A"),
        6 => L4::Tcp("FA"),
        _ => L4::Tcp("RA"),
    };
    frame(l4, &source, destination, &payload)
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
            let kept = if frame[12] == 8 { 26..38 } else { 22..58 };
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
    let sum = frame[14..14 + length]
        .chunks(2)
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = !balancer_common::checksum::fold(sum);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// The frame that answers `frame`: addresses, ports and MACs swapped.
fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let mut answer = frame.to_vec();
    let l3 = match (frame.get(12)?, frame.get(13)?) {
        (8, 0) if frame[14] == 0x45 => (26, 4, 34),
        (0x86, 0xdd) => (22, 16, 54),
        _ => return None,
    };
    let (addresses, size, ports) = l3;
    if frame.len() < ports + 4 {
        return None;
    }
    answer[addresses..addresses + 2 * size].rotate_left(size);
    answer[ports..ports + 4].rotate_left(2);
    answer[..12].rotate_left(6);
    Some(answer)
}

/// How many frames: `BALANCER_FRAMES`, else what is quick.
fn frames() -> u64 {
    std::env::var("BALANCER_FRAMES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(20_000)
}

#[test]
fn both_engines_do_the_same() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("left out: loading a program needs root");
        return;
    }
    let seed = std::env::var("BALANCER_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .subsec_nanos()
                .into()
        });
    println!("seed {seed} (BALANCER_SEED)");
    let mut chance = Chance(seed);
    let mut engines = Engines::new();
    let mut forwarded = 0;
    for _ in 0..frames() {
        let mut input = random_frame(&mut chance);
        if chance.below(4) == 0 {
            mutate(&mut chance, &mut input);
        }
        let (output, verdict) = engines.run(&input);
        if verdict == Verdict::Redirect(BACKEND_SIDE) {
            forwarded += 1;
            // The backend answers most of what reaches it.
            if chance.below(4) > 0
                && let Some(mut reply) = answer(&output)
            {
                if output[12] == 8 && output[23] == 6 && output[47] == 2 {
                    reply[47] = 0x12;
                }
                engines.run(&reply);
            }
        }
    }
    engines.compare();
    assert!(
        forwarded > frames() / 4,
        "only {forwarded} frames were forwarded"
    );
    let kinds = engines
        .stats
        .verdicts
        .iter()
        .filter(|&&count| count > 0)
        .count();
    println!(
        "{} frames, {forwarded} forwarded to backends, {kinds} kinds of verdicts",
        engines.stats.received
    );
}
