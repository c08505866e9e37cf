//! Needs root.
//!
//! Two CPUs open, use and end the same connections through the compiled program while the daemon's own code removes them in
//! another process, which is killed again and again in the middle of its work. Afterwards the table must be whole.
//!
//! `BALANCER_OPERATIONS` says how many packets.

#![allow(clippy::unwrap_used, reason = "a test that fails here has failed")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, Map, MapData};
use aya::programs::Xdp;
use balancer::config::{self, FlowLookup, Timeouts};
use balancer::datapath::compile::{Image, compile, words};
use balancer::datapath::flows::{FlowTable, Pass, now};
use balancer::datapath::kernel::{Back, Kernel, Sizes, Work};
use balancer::datapath::raw::Record;
use balancer_common::abi::{Link, Path, map};
use balancer_common::family::Family;
use balancer_common::hop::Hop;
use balancer_common::table::Lines as _;
use balancer_common::table::flow::{Flow, Stage};
use balancer_common::tuple::Tuple;
use balancer_lab::Lab;
use support::chance::Chance;
use support::cpus::on_both;
use support::flows::counted;
use support::frame::{SYN, tcp, udp};
use support::ids::in_order;
use support::properties::ends;
use support::variable::number;
use support::{BACKEND_MAC, BOX_MAC, frame, program, source};

/// The interface that a test run pretends a frame came in by: `lo`.
const INGRESS: u32 = 1;

/// So small that packets run into each other, into the bounds, and into ports that are taken.
const fn sizes(lookup: FlowLookup) -> Sizes {
    Sizes {
        connections: 256,
        half_open: 200,
        lookup,
    }
}
const CLIENTS: u64 = 512;
/// How many of them are at work at a time.
const AT_WORK: u64 = 64;

const CONFIG: &str = r#"
[datapath]
interfaces = ["lo"]
source_ports = "40000-40127"
[[service]]
name = "tcp"
listen = "192.0.2.10:80"
protocol = "tcp"
scheduler = "random"
backend = [{ address = "10.0.0.2:8080" }, { address = "10.0.0.3:8080" }]
[[service]]
name = "udp"
listen = "192.0.2.10:53"
protocol = "udp"
backend = [{ address = "10.0.0.4:5353" }]
[[service]]
name = "transparent"
listen = "192.0.2.10:81"
protocol = "tcp"
source_nat = "none"
backend = [{ address = "10.0.0.5:8080" }]
[[service]]
name = "tcp6"
listen = "[2001:db8::10]:80"
protocol = "tcp"
backend = [{ address = "[2001:db8:1::2]:8080" }, { address = "[2001:db8:1::3]:8080" }]
"#;

/// Whom each client talks to, by its number.
const SERVICES: [&str; 4] = [
    "192.0.2.10:80",
    "192.0.2.10:53",
    "192.0.2.10:81",
    "[2001:db8::10]:80",
];

/// How many backends there are.
const BACKENDS: u32 = 6;

fn image() -> Image {
    let config = config::parse("stress.toml", CONFIG).unwrap();
    let ids = in_order(&config.services);
    let ports = config.datapath.source_ports;
    compile(1, &config.services, &ids, ports, |_| Some(INGRESS))
}

fn load(lookup: FlowLookup, pins: &FilePath) -> Kernel {
    let mut kernel = Kernel::load(sizes(lookup), Work::Kernel(Back::Transmit), Some(pins)).unwrap();
    for backend in 0..BACKENDS {
        let path = Path {
            hop: Hop::new(INGRESS, BACKEND_MAC, BOX_MAC),
            source: words(source(backend < 4)),
        };
        kernel.set_path(backend, path).unwrap();
    }
    kernel.set_image(&image()).unwrap();
    kernel
        .set_links([(
            INGRESS,
            Link {
                mtu: 65_535,
                ..Link::default()
            },
        )])
        .unwrap();
    kernel
}

fn timeouts() -> Timeouts {
    let timeout = Duration::from_millis(1);
    Timeouts {
        tcp_handshake: timeout,
        tcp_established: timeout,
        tcp_closing: timeout,
        udp: timeout,
        udp_stream: timeout,
        fragment: timeout,
    }
}

/// The sweeper's process. It does nothing but for this test's own calls.
#[test]
fn sweeper() {
    let Some(pins) = std::env::var_os("BALANCER_STRESS_SWEEPER") else {
        return;
    };
    let lookup = match std::env::var("BALANCER_STRESS_LOOKUP").unwrap().as_str() {
        "hash" => FlowLookup::Hash,
        _ => FlowLookup::Table,
    };
    let mut kernel = load(lookup, FilePath::new(&pins));
    println!("at work");
    let mut chance = Chance(std::process::id().into());
    // Its parent kills it; should that be gone, it ends by itself.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        let (mut v4, mut v6) = (Pass::default(), Pass::default());
        let timeouts = timeouts();
        while kernel.v4.look(&mut v4, &timeouts, now().unwrap()) {}
        while kernel.v6.look(&mut v6, &timeouts, now().unwrap()) {}
        kernel.grace().unwrap();
        kernel.v4.free(&v4);
        kernel.v6.free(&v6);
        // Connections under traffic.
        let backend = chance.below(u64::from(BACKENDS) * 2) as u32;
        let (v4, v6) = (
            kernel.v4.flush(|id| id == backend),
            kernel.v6.flush(|id| id == backend),
        );
        kernel.grace().unwrap();
        kernel.v4.free(&v4);
        kernel.v6.free(&v6);
    }
}

/// Starts it, and waits until it is at work.
fn start_sweeper(lookup: FlowLookup, pins: &FilePath) -> Child {
    let word = match lookup {
        FlowLookup::Table => "table",
        FlowLookup::Hash => "hash",
    };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sweeper", "--nocapture"])
        .env("BALANCER_STRESS_SWEEPER", pins)
        .env("BALANCER_STRESS_LOOKUP", word)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let said = lines.map(Result::unwrap).any(|line| line == "at work");
    assert!(said, "the sweeper ended: {:?}", child.wait());
    child
}

/// What a client sends, by what it is for.
struct Frames {
    opening: Vec<u8>,
    more: Vec<u8>,
    fin: Vec<u8>,
    reset: Vec<u8>,
}

/// Address and port of a client tell which one it is, each on its own: parts of two flows would be seen.
fn client(number: u64, is_v4: bool) -> SocketAddr {
    let port = 2000 + number;
    let address = if is_v4 {
        format!("198.18.{}.{}:{port}", number >> 8, number & 255)
    } else {
        format!("[2001:db8:2::{number:x}]:{port}")
    };
    address.parse().unwrap()
}

fn frames(number: u64) -> Frames {
    let service = SERVICES[number as usize % SERVICES.len()];
    let from = client(number, number % 4 != 3).to_string();
    if number % 4 == 1 {
        let frame = udp(&from, service).payload(b"datagram").build();
        return Frames {
            opening: frame.clone(),
            more: frame.clone(),
            fin: frame.clone(),
            reset: frame,
        };
    }
    let frame = |flags| tcp(flags, &from, service).payload(b"data").build();
    Frames {
        opening: frame("S"),
        more: frame("A"),
        fin: frame("FA"),
        reset: frame("R"),
    }
}

/// The backend's answer to what was forwarded to it, with these TCP control bits.
fn answer(forwarded: &[u8], flags: u8) -> Vec<u8> {
    let mut frame = frame::answer(forwarded).unwrap();
    let l4 = if frame[12] == 8 { 34 } else { 54 };
    if protocol(&frame) == 6 {
        // Behind the handshake all has the numbers of the first segment after it.
        let sequence = SYN + u32::from(flags & 2 == 0);
        let bits = [frame[l4 + 12], flags];
        replace_word(&mut frame, l4, 6, (sequence as u16).to_be_bytes());
        replace_word(&mut frame, l4, 12, bits);
    }
    frame
}

/// Replaces a word of a TCP header, and updates the checksum (RFC 1624).
fn replace_word(frame: &mut [u8], l4: usize, at: usize, new: [u8; 2]) {
    let word = |at: usize| u16::from_be_bytes([frame[l4 + at], frame[l4 + at + 1]]);
    let sum = u32::from(!word(16)) + u32::from(!word(at)) + u32::from(u16::from_be_bytes(new));
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    frame[l4 + at..l4 + at + 2].copy_from_slice(&new);
    frame[l4 + 16..l4 + 18].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

fn protocol(frame: &[u8]) -> u8 {
    frame[if frame[12] == 8 { 23 } else { 20 }]
}

/// Asserts that a frame is whole: addresses and ports that belong together, and right checksums.
fn check(frame: &[u8]) {
    let (source, destination) = ends(frame);
    let is_client = |end: SocketAddr| {
        let number = u64::from(end.port()).wrapping_sub(2000);
        number < CLIENTS && client(number, number % 4 != 3) == end
    };
    let [from, to] = [source, destination].map(|end| end.to_string());
    let to_backend = match destination.port() {
        8080 => {
            (from.starts_with("10.0.0.1:") && ["10.0.0.2:8080", "10.0.0.3:8080"].contains(&&*to))
                || (from.starts_with("[2001:db8:1::1]:")
                    && ["[2001:db8:1::2]:8080", "[2001:db8:1::3]:8080"].contains(&&*to))
                || (to == "10.0.0.5:8080" && is_client(source))
        }
        5353 => from.starts_with("10.0.0.1:") && to == "10.0.0.4:5353",
        _ => false,
    };
    let number = usize::from(destination.port().wrapping_sub(2000));
    let to_client = SERVICES[number % SERVICES.len()] == from && is_client(destination);
    assert!(to_backend || to_client, "{from} to {to}");
}

/// Runs the program on a frame. What it sends on is whole.
fn run(program: &Xdp, frame: &[u8]) -> Option<Vec<u8>> {
    const XDP_TX: u32 = 3;
    let ran = program::run(program, INGRESS, frame);
    (ran.action == XDP_TX).then(|| {
        check(&ran.output);
        ran.output
    })
}

/// Packets on one CPU, until `budget` are sent by all. Says how many were forwarded.
fn send(program: &Xdp, cpu: usize, sent: &AtomicU64, budget: u64, all: &[Frames]) -> u64 {
    const SYN_ACK: u8 = 0x12;
    const ACK: u8 = 0x10;
    const FIN_ACK: u8 = 0x11;
    const RST: u8 = 0x04;
    let mut chance = Chance(cpu as u64 + 1);
    let mut forwarded = 0;
    // What the backends got last from each client.
    let mut got: Vec<Option<Vec<u8>>> = vec![None; CLIENTS as usize];
    loop {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        if number >= budget {
            return forwarded;
        }
        // Who was at work for a while rests, until all others were.
        let client = ((number / 4000 + chance.below(AT_WORK)) % CLIENTS) as usize;
        let frames = &all[client];
        let frame = match chance.below(16) {
            0..3 => &frames.opening,
            3..8 => &frames.more,
            8 => &frames.fin,
            9 => &frames.reset,
            kind => {
                let Some(last) = &got[client] else {
                    continue;
                };
                let flags = match kind {
                    10 | 11 => SYN_ACK,
                    12 => FIN_ACK,
                    13 if chance.below(4) == 0 => RST,
                    _ => ACK,
                };
                forwarded += u64::from(run(program, &answer(last, flags)).is_some());
                continue;
            }
        };
        if let Some(output) = run(program, frame) {
            forwarded += 1;
            got[client] = Some(output);
        }
    }
}

/// Where there is an index it has an entry for each line that is in use, and no other.
fn check_index<F: Family>(lookup: FlowLookup, pins: &FilePath, name: &str, table: &FlowTable<F>) {
    type Index<F> = HashMap<MapData, Record<Tuple<F>>, u32>;
    if lookup == FlowLookup::Table {
        assert!(table.index().is_none());
        return;
    }
    let map = Map::HashMap(MapData::from_pin(pins.join(name)).unwrap());
    let entries = Index::<F>::try_from(map).unwrap();
    let mut indexed: Vec<_> = entries.iter().map(|entry| entry.unwrap().1).collect();
    indexed.sort_unstable();
    let used = |index: &u32| !table.line(*index).unwrap().meta().is(Stage::Free);
    let used: Vec<_> = (0..table.geometry().lines()).filter(used).collect();
    assert_eq!(indexed, used);
}

fn is_free<F: Family>(table: &FlowTable<F>) -> bool {
    let is_free = |flow: &Flow<F>| flow.meta().is(Stage::Free);
    (0..table.geometry().lines()).all(|index| table.line(index).is_some_and(is_free))
}

#[test]
fn two_cpus_and_a_sweeper_that_is_killed_leave_a_whole_table() {
    for lookup in [FlowLookup::Table, FlowLookup::Hash] {
        if let Some(lab) = Lab::for_test("stress") {
            storm(&lab, lookup);
        }
    }
}

fn storm(lab: &Lab, lookup: FlowLookup) {
    let pins = lab.pin_path().unwrap();
    std::fs::create_dir_all(&pins).unwrap();
    let budget = number("BALANCER_OPERATIONS").unwrap_or(1_000_000);
    let all: Vec<_> = (0..CLIENTS).map(frames).collect();
    let mut kernel = load(lookup, &pins);
    let done = AtomicBool::new(false);
    let program: &Xdp = kernel.program().unwrap();
    let send_all = |budget| -> u64 {
        let sent = AtomicU64::new(0);
        on_both(|cpu| send(program, cpu, &sent, budget, &all))
            .iter()
            .sum()
    };
    let (forwarded, kills) = thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut chance = Chance(7);
            let mut kills = 0;
            while !done.load(Ordering::Relaxed) {
                let mut sweeper = start_sweeper(lookup, &pins);
                thread::sleep(Duration::from_micros(chance.below(100_000)));
                sweeper.kill().unwrap();
                sweeper.wait().unwrap();
                kills += 1;
            }
            kills
        });
        let forwarded = send_all(budget);
        done.store(true, Ordering::Relaxed);
        (forwarded, killer.join().unwrap())
    });
    // Some more without a sweeper, so that there is something to look at.
    send_all(1000);
    let stats = kernel.stats().unwrap();
    println!(
        "{lookup:?}: {budget} operations, {} packets, {forwarded} forwarded, {kills} kills of the sweeper",
        stats.received()
    );
    drop(kernel);

    // The next daemon: what the last one had begun is ended, and after a pass nothing is half.
    let mut kernel = load(lookup, &pins);
    let pass = |kernel: &mut Kernel, timeouts: &Timeouts| {
        let (mut v4, mut v6) = (Pass::default(), Pass::default());
        while kernel.v4.look(&mut v4, timeouts, now().unwrap()) {}
        while kernel.v6.look(&mut v6, timeouts, now().unwrap()) {}
        kernel.grace().unwrap();
        kernel.v4.free(&v4);
        kernel.v6.free(&v6);
    };
    let long = Timeouts {
        tcp_handshake: Duration::from_hours(1),
        tcp_established: Duration::from_hours(1),
        tcp_closing: Duration::from_hours(1),
        udp: Duration::from_hours(1),
        udp_stream: Duration::from_hours(1),
        fragment: Duration::from_secs(2),
    };
    thread::sleep(Duration::from_millis(200));
    pass(&mut kernel, &long);
    let left = counted(&kernel.v4, &mut 0) + counted(&kernel.v6, &mut 0);
    let check_indexes = |kernel: &Kernel| {
        check_index(lookup, &pins, map::INDEX_V4, &kernel.v4);
        check_index(lookup, &pins, map::INDEX_V6, &kernel.v6);
    };
    check_indexes(&kernel);
    assert!(left > 0, "nothing was left to look at");
    // And after some more there is nothing.
    for _ in 0..3 {
        pass(&mut kernel, &timeouts());
    }
    assert!(is_free(&kernel.v4) && is_free(&kernel.v6));
    check_indexes(&kernel);
    assert_eq!((kernel.v4.count(), kernel.v6.count()), (0, 0));
    let half_open = [kernel.v4.count_half_open(), kernel.v6.count_half_open()];
    assert_eq!(half_open, [0, 0]);
    assert!(
        forwarded > budget / 10,
        "{forwarded} of {budget} packets were forwarded"
    );
    assert!(kills > 0);
}
