//! Who means it gets through a flood of first packets, and who is there already does not notice.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use balancer_lab::{MacAddress, RawPort, TcpEcho, UdpEcho, eventually};
use etherparse::PacketBuilder;

use crate::site::{PATIENCE, SOON, Shape, Site, greeting};

/// How many half-open connections there may be.
const HALF_OPEN: u64 = 256;
/// How many clients begin a connection while it goes on.
const CLIENTS: usize = 50;
/// How many frames are sent at a time, and at most.
const BURST: u32 = 20;
const MOST: u32 = 1_000_000;
const TO: ([u8; 4], u16) = ([192, 0, 2, 10], 7);

/// The frame of that number: a SYN or a datagram, from an address and a port of its own.
fn frame(macs: [MacAddress; 2], number: u32) -> Vec<u8> {
    let source = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + number % 100_000);
    let ip = PacketBuilder::ethernet2(macs[0].0, macs[1].0).ipv4(source.octets(), TO.0, 64);
    let port = 1024 + (number / 100_000) as u16;
    let mut frame = Vec::new();
    if number.is_multiple_of(2) {
        let syn = ip
            .tcp(port, TO.1, number.wrapping_mul(0x9e37_79b1), 64_240)
            .syn();
        syn.write(&mut frame, &[]).unwrap();
    } else {
        ip.udp(port, TO.1).write(&mut frame, b"flood").unwrap();
    }
    frame
}

/// Sends them until it is over, at a pace at which the link loses nothing of what is no flood.
fn flood(site: &Site, port: &RawPort, over: &AtomicBool) {
    let macs = [&site.client, &site.balancer].map(|host| host.mac("eth0").unwrap());
    for burst in 0..MOST / BURST {
        if over.load(Ordering::Relaxed) {
            break;
        }
        for number in 0..BURST {
            port.send(&frame(macs, burst * BURST + number)).unwrap();
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Dropped, also by a panic, it is over.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn who_comes_again_gets_through_a_flood() {
    let Some(mut site) = Site::new("flood", Shape::Links, 1) else {
        return;
    };
    let _tcp = TcpEcho::start(&site.backends[0], [7]).unwrap();
    let _udp = UdpEcho::start(&site.backends[0], [7]).unwrap();
    site.datapath_key(&format!("max_half_open = {HALF_OPEN}"));
    site.start(&(site.both_families("tcp", TO.1) + &site.both_families("udp", TO.1)));
    let to = SocketAddr::from(TO);
    let mut held = BufReader::new(site.client.connect(to, None, SOON).unwrap());
    held.get_ref().set_read_timeout(Some(SOON)).unwrap();
    let mut line = String::new();
    held.read_line(&mut line).unwrap();
    let port = RawPort::open(&site.client, "eth0").unwrap();
    let over = AtomicBool::new(false);
    let dropped = |reason| site.drops().drops[reason];
    thread::scope(|scope| {
        let _over = Over(&over);
        scope.spawn(|| flood(&site, &port, &over));
        eventually("the flood to have taken its half", PATIENCE, || {
            dropped("first_packet") > 0
        })
        .unwrap();
        let begin = || {
            let start = Instant::now();
            assert_eq!(greeting(&site.client, to, None).0, "b1");
            start.elapsed()
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(begin)).collect();
        let took: Vec<_> = clients.into_iter().map(|it| it.join().unwrap()).collect();
        // A SYN is repeated after a second. One that comes just when another has left its place gets in at once.
        let at_once = took.iter().filter(|&&it| it < Duration::from_millis(900));
        assert!(at_once.count() < CLIENTS / 5, "{took:?}");
        let socket = site
            .client
            .udp_socket("192.0.2.1:0".parse().unwrap())
            .unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut answer = [0; 64];
        let answered = (0..10).position(|_| {
            socket.send_to(b"?", to).unwrap();
            socket.recv(&mut answer).is_ok()
        });
        assert!(matches!(answered, Some(1..)), "{answered:?}");
        for word in ["one\n", "two\n", "three\n"] {
            held.get_mut().write_all(word.as_bytes()).unwrap();
            line.clear();
            held.read_line(&mut line).unwrap();
            assert_eq!(line, word);
        }
        let half_open = site.status().connections.half_open;
        assert!(
            (HALF_OPEN / 2..HALF_OPEN).contains(&half_open),
            "{half_open}"
        );
    });
    assert_eq!(dropped("half_open_full"), 0);
    assert!(
        dropped("first_packet") > 1000,
        "{}",
        dropped("first_packet")
    );
}
