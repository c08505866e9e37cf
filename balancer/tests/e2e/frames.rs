//! Many frames through the rings of engine `userspace`: each is counted once, and the memory of each comes back.

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Instant;

use balancer::control::document::{PacketCounts, Status};
use balancer_lab::{Host, RawPort, UdpEcho, eventually};
use etherparse::PacketBuilder;

use crate::hostile::changed;
use crate::site::{PATIENCE, Shape, Site};

/// How many frames, unless `BALANCER_RING_FRAMES` says so.
const FRAMES: u64 = 1_000_000;
/// How many connections they are of.
const FLOWS: u16 = 1024;
/// The service.
const TO: ([u8; 4], u16) = ([192, 0, 2, 10], 7);
/// Where the IPv4 header begins.
const IP: usize = 14;

/// Frames of many connections, and between them some of each other kind: what the small program passes and drops, what a
/// worker passes and drops, and what waits for a fragment that does not come.
fn frames(site: &Site) -> Vec<Vec<u8>> {
    let udp = |source: Ipv4Addr, ttl, ports: (u16, u16)| {
        let mut frame = Vec::new();
        site.link_header()
            .ipv4(source.octets(), TO.0, ttl)
            .udp(ports.0, ports.1)
            .write(&mut frame, &[0; 18])
            .unwrap();
        frame
    };
    let client = |number: u16| Ipv4Addr::new(198, 18, (number >> 8) as u8, number as u8);
    let fragment = |offset: u16, more: bool, to: u16| {
        changed(udp(client(0), 64, (1, to)), |it| {
            let word = offset | if more { 0x2000 } else { 0 };
            it[IP + 4..IP + 6].copy_from_slice(&to.to_be_bytes());
            it[IP + 6..IP + 8].copy_from_slice(&word.to_be_bytes());
            set_checksum(&mut it[IP..IP + 20]);
        })
    };
    let mut frames = Vec::new();
    for number in 0..FLOWS {
        frames.push(udp(client(number), 64, (4000, TO.1)));
        match number % 64 {
            0 => frames.push(changed(udp(client(number), 64, (4000, TO.1)), |it| {
                it[IP + 10] ^= 1;
            })),
            1 => frames.push(udp(client(number), 64, (4000, 99))),
            2 => frames.push(udp(client(number), 1, (4000, TO.1))),
            3 => frames.push(fragment(0, true, 99)),
            4 => frames.push(fragment(100, false, 98)),
            _ => {}
        }
    }
    frames
}

/// Puts the checksum of an IPv4 header right (RFC 1071).
fn set_checksum(header: &mut [u8]) {
    header[10..12].fill(0);
    let words = header.chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    header[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// What the kernel says of a device: frames received, and frames that could not be sent.
fn device(host: &Host, name: &str) -> (u64, u64) {
    let read = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let table = host.enter(read).unwrap();
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix(&format!("{name}:")));
    let numbers: Vec<u64> = line
        .unwrap()
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    (numbers[1], numbers[11])
}

/// The status once nothing comes, waits or is on its way.
fn at_rest(site: &Site) -> Status {
    let mut last = PacketCounts::default();
    eventually("nothing to come any more", PATIENCE, || {
        let status = site.status();
        let frames = status.workers.threads.iter().map(|worker| worker.frames);
        let is_quiet = last == status.packets;
        last = status.packets;
        is_quiet && frames.map(|frames| frames.sending).sum::<u64>() == 0
    })
    .unwrap();
    site.status()
}

fn assert_whole(status: &Status) {
    for worker in &status.workers.threads {
        assert!(worker.answers, "{worker:?}");
        let frames = worker.frames;
        assert_eq!(frames.missing, 0, "{worker:?}");
        assert_eq!(frames.receiving, frames.total / 2, "{worker:?}");
        assert_eq!(frames.free, frames.total / 2, "{worker:?}");
    }
}

/// A site whose backend takes datagrams and does not answer.
fn site(name: &str) -> Option<(Site, UdpSocket)> {
    let mut site = Site::new(name, Shape::Queues(2, 1), 1)?;
    let sink = site.backends[0]
        .udp_socket("10.0.1.3:7".parse().unwrap())
        .unwrap();
    site.set_engine("userspace");
    site.daemon_key("on_exit = \"keep\"");
    site.balancer
        .ip("route add 198.18.0.0/15 via 192.0.2.1")
        .unwrap();
    Some((site, sink))
}

fn services() -> &'static str {
    "[[service]]\nname = \"udp\"\nlisten = \"192.0.2.10:7\"\nprotocol = \"udp\"\nbackend = [{ address = \"10.0.1.3:7\" }]\n"
}

#[test]
fn every_frame_is_counted_and_its_memory_comes_back() {
    let count = std::env::var("BALANCER_RING_FRAMES");
    let count = count.map_or(FRAMES, |count| count.parse().unwrap());
    let Some((mut site, _sink)) = site("frames") else {
        return;
    };
    site.start(services());
    let uncounted = site.uncounted();
    let before = site.status().packets;
    let (came_before, lost_before) = (
        device(&site.backends[0], "eth0").0,
        device(&site.balancer, "eth1").1,
    );
    let port = RawPort::open(&site.client, "eth0").unwrap();
    let frames = frames(&site);
    let start = Instant::now();
    for frame in frames.iter().cycle().take(count as usize) {
        // The device may have no room.
        let _ = port.send(frame);
    }
    let took = start.elapsed();
    let status = at_rest(&site);
    // Nothing has come that was not counted, and each of the ways was taken.
    assert_eq!(site.uncounted(), uncounted);
    let packets = status.packets;
    let PacketCounts {
        received,
        forwarded,
        passed,
        dropped,
        held,
    } = packets;
    assert_eq!(received, forwarded + passed + dropped + held);
    assert!(
        forwarded > before.forwarded && passed > before.passed && held > before.held,
        "{packets:?}"
    );
    let drops = site.drops().drops;
    for reason in ["bad_checksum", "ttl_exceeded"] {
        assert!(drops[reason] > 0, "{drops:?}");
    }
    // What was sent has come, or the kernel says that it did not; the box itself sends little.
    let came = device(&site.backends[0], "eth0").0 - came_before;
    let lost = device(&site.balancer, "eth1").1 - lost_before;
    let sent = forwarded - before.forwarded;
    assert!(
        (sent..sent + 1000).contains(&(came + lost)),
        "{sent} sent, {came} came, {lost} lost"
    );
    assert_whole(&status);
    println!(
        "{count} frames in {took:.1?}: {packets:?}; {} queue_full; {:?}",
        drops["queue_full"], status.workers
    );
}

/// Also at the end: what has come is worked on or counted before the workers end.
#[test]
fn what_has_come_at_the_end_is_counted() {
    let Some((mut site, _sink)) = site("frames-end") else {
        return;
    };
    site.start(services());
    let uncounted = site.uncounted();
    let port = RawPort::open(&site.client, "eth0").unwrap();
    let frames = frames(&site);
    for round in 0..3 {
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut frames = frames.iter().cycle();
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    let _ = port.send(frames.next().unwrap());
                }
            });
            let before = site.status().packets.received;
            eventually("frames to come", PATIENCE, || {
                site.status().packets.received > before + 10_000
            })
            .unwrap();
            site.terminate();
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        site.start_again();
        assert_eq!(site.uncounted(), uncounted, "round {round}");
        assert_whole(&at_rest(&site));
    }
}

/// First fragments of others go to the kernel, so many a second; the rest is dropped, and others do not wait.
#[test]
fn what_is_given_back_to_the_kernel_is_bounded() {
    /// As many for each worker in so many milliseconds.
    const BUDGET: u64 = 1024;
    const SPAN: u128 = 134;
    const FRAGMENTS: u64 = 60_000;
    let Some((mut site, sink)) = site("given-back") else {
        return;
    };
    drop(sink);
    let _echo = UdpEcho::start(&site.backends[0], [7]).unwrap();
    site.start(services());
    let port = RawPort::open(&site.client, "eth0").unwrap();
    let before = site.status().packets;
    let fragments: Vec<Vec<u8>> = (0..256_u16)
        .map(|number| {
            let mut frame = Vec::new();
            let [from, to] = [&site.client, &site.balancer].map(|host| host.mac("eth0").unwrap().0);
            PacketBuilder::ethernet2(from, to)
                .ipv4([192, 0, 2, 1], TO.0, 64)
                .udp(4000, 99)
                .write(&mut frame, &[0; 64])
                .unwrap();
            frame[IP + 4..IP + 6].copy_from_slice(&number.to_be_bytes());
            frame[IP + 6] = 0x20;
            set_checksum(&mut frame[IP..IP + 20]);
            frame
        })
        .collect();
    let socket = site.udp("192.0.2.1:7001", "192.0.2.10:7");
    let mut answered = 0;
    let start = Instant::now();
    for (number, fragment) in (0..FRAGMENTS).zip(fragments.iter().cycle()) {
        port.send(fragment).unwrap();
        if number % 2000 == 0 {
            socket.send(b"?").unwrap();
            answered += u64::from(socket.recv(&mut [0; 64]).is_ok());
        }
    }
    let status = at_rest(&site);
    let spans = start.elapsed().as_millis().div_ceil(SPAN) as u64 + 1;
    let packets = status.packets;
    let passed = packets.passed - before.passed;
    let full = site.drops().drops["queue_full"];
    assert!(answered > FRAGMENTS / 2000 / 2, "{answered} answered");
    assert!(passed >= BUDGET, "{packets:?}");
    assert!(
        passed <= BUDGET * spans + 1000,
        "{passed} passed in {spans} spans"
    );
    assert!(full > 0, "{packets:?}");
    assert_whole(&status);
    println!("{passed} passed in {spans} spans, {full} dropped, {answered} answered");
}
