//! Senders of refused packets are told.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use balancer_lab::{RawPort, TcpEcho, eventually};
use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

use crate::schedule::nth;
use crate::site::{PATIENCE, SOON, Shape, Site};

const V4: &str = "192.0.2.10:7";
const V6: &str = "[2001:db8::10]:7";

/// Services over TCP and UDP, in both families, whose only backend takes connections or not.
fn services(weight: u32) -> String {
    let mut text = String::new();
    for protocol in ["tcp", "udp"] {
        for (family, listen, to) in [("4", V4, "10.0.1.3:7"), ("6", V6, "[2001:db8:1::3]:7")] {
            let backend = format!("{{ address = \"{to}\", weight = {weight} }}");
            text += &nth(listen, &[backend]).replace(
                "name = \"web\"",
                &format!("name = \"{protocol}{family}\"\nprotocol = \"{protocol}\""),
            );
        }
    }
    text
}

fn site(name: &str, weight: u32) -> Option<Site> {
    let mut site = Site::new(name, Shape::Links, 1)?;
    site.start(&services(weight));
    Some(site)
}

fn connect(site: &Site, to: &str) -> (ErrorKind, Duration) {
    let start = Instant::now();
    let to: SocketAddr = to.parse().unwrap();
    let result = site.client.connect(to, None, SOON);
    let error = result.map(|_| ()).unwrap_err();
    let kind = std::error::Error::source(&error)
        .and_then(|source| source.downcast_ref::<std::io::Error>())
        .unwrap_or_else(|| panic!("{error}"))
        .kind();
    (kind, start.elapsed())
}

#[test]
fn without_a_backend_clients_are_refused_at_once() {
    let Some(mut site) = site("refused", 0) else {
        return;
    };
    for to in [V4, V6] {
        let (kind, took) = connect(&site, to);
        assert_eq!(kind, ErrorKind::ConnectionRefused, "{to}");
        assert!(took < Duration::from_secs(1), "{to}: {took:?}");

        let any = if to == V4 { "0.0.0.0:0" } else { "[::]:0" };
        let socket = site.client.udp_socket(any.parse().unwrap()).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.connect(to.parse::<SocketAddr>().unwrap()).unwrap();
        socket.send(b"?").unwrap();
        let error = socket.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}: {error}");
    }
    let counts = site.status().slow_path;
    assert_eq!(
        (counts.told, counts.limited, counts.untold, counts.unsent),
        (4, 0, 0, 0)
    );
    assert_eq!(counts.dropped["no_backend"], 4);
    assert_eq!(site.drops().drops["no_backend"], 4);

    // Nobody is there to tell: the packet is dropped all the same.
    site.kill();
    let (kind, took) = connect(&site, V4);
    assert_eq!(kind, ErrorKind::TimedOut, "{took:?}");
    site.start_again();
    assert_eq!(connect(&site, V4).0, ErrorKind::ConnectionRefused);
    // The first SYN of the connection that nobody was told of, and its repetitions.
    assert!(site.drops().drops["no_backend"] >= 6);
}

#[test]
fn a_segment_without_a_connection_is_reset() {
    let Some(site) = site("orphan", 1) else {
        return;
    };
    let _echo = TcpEcho::start(&site.backends[0], [7]).unwrap();
    for to in [V4, V6] {
        let mut stream = site
            .client
            .connect(to.parse().unwrap(), None, SOON)
            .unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        assert!(stream.read(&mut [0; 256]).unwrap() > 0);
        site.ctl(&["flush", "connections"]).unwrap();
        stream.write_all(b"is anybody there?").unwrap();
        let error = stream.read(&mut [0; 256]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{to}: {error}");
    }
}

#[test]
fn clients_are_told_in_generic_mode_too() {
    let Some(mut site) = Site::new("generic", Shape::Links, 1) else {
        return;
    };
    site.datapath_key("xdp_mode = \"generic\"");
    site.start(&services(0));
    for to in [V4, V6] {
        assert_eq!(connect(&site, to).0, ErrorKind::ConnectionRefused, "{to}");
    }
}

/// What traceroute lives by: the box says that it is there, the packet is not sent on and opens nothing.
#[test]
fn the_box_is_a_hop() {
    let Some(site) = site("hop", 1) else {
        return;
    };
    let port = RawPort::open(&site.client, "eth0").unwrap();
    let macs = (
        site.client.mac("eth0").unwrap(),
        site.balancer.mac("eth0").unwrap(),
    );
    let link = || PacketBuilder::ethernet2(macs.0.0, macs.1.0);
    // An address of the box that no service has: errors about the way come from the box itself.
    let (v4, v6): ([u8; 4], [u8; 16]) = (
        [192, 0, 2, 1],
        "2001:db8::1"
            .parse::<std::net::Ipv6Addr>()
            .unwrap()
            .octets(),
    );
    let to6 = "2001:db8::10"
        .parse::<std::net::Ipv6Addr>()
        .unwrap()
        .octets();
    let mut frames = [Vec::new(), Vec::new()];
    let builder = link().ipv4(v4, [192, 0, 2, 10], 1).udp(7000, 7);
    builder.write(&mut frames[0], b"probe").unwrap();
    let builder = link().ipv6(v6, to6, 1).udp(7000, 7);
    builder.write(&mut frames[1], b"probe").unwrap();
    for frame in &frames {
        port.send(frame).unwrap();
        let is_answer = |frame: &[u8]| exceeded(frame).is_some();
        let answer = port.receive(SOON, is_answer).unwrap().expect("an answer");
        assert_eq!(exceeded(&answer).unwrap(), frame[14..], "what it quotes");
    }
    assert_eq!(site.status().connections.current, 0);
    assert_eq!(site.status().slow_path.dropped["ttl_exceeded"], 2);
}

/// What a Time Exceeded quotes, if it is one, to the client, from the box, with the right checksums.
fn exceeded(frame: &[u8]) -> Option<Vec<u8>> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let quote = match (packet.net?, packet.transport?) {
        (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!(header.source, [192, 0, 2, 10]);
            let icmp_header = icmp.header();
            let Icmpv4Type::TimeExceeded(_) = icmp_header.icmp_type else {
                return None;
            };
            let checksum = icmp_header.icmp_type.calc_checksum(icmp.payload());
            assert_eq!(icmp_header.checksum, checksum);
            icmp.payload()
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let header = ip.header();
            let Icmpv6Type::TimeExceeded(_) = icmp.header().icmp_type else {
                return None;
            };
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
            icmp.payload()
        }
        _ => return None,
    };
    Some(quote.to_vec())
}

/// A flood of segments of no connection is not answered with a flood.
#[test]
fn who_asks_too_often_is_told_less_often() {
    const SEGMENTS: u64 = 3000;
    let Some(site) = site("limited", 1) else {
        return;
    };
    let port = RawPort::open(&site.client, "eth0").unwrap();
    let macs = (
        site.client.mac("eth0").unwrap(),
        site.balancer.mac("eth0").unwrap(),
    );
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(macs.0.0, macs.1.0)
        .ipv4([192, 0, 2, 1], [192, 0, 2, 10], 64)
        .tcp(7000, 7, 1000, 1024)
        .ack(77)
        .write(&mut frame, &[])
        .unwrap();
    let start = Instant::now();
    for _ in 0..SEGMENTS {
        port.send(&frame).unwrap();
    }
    eventually("all of them to be counted", PATIENCE, || {
        site.drops().drops["no_connection"] == SEGMENTS
    })
    .unwrap();
    // What the program has handed over is looked at at once.
    let took = start.elapsed().as_secs() + 1;
    std::thread::sleep(Duration::from_millis(200));
    let counts = site.status().slow_path;
    let handed_over = counts.dropped["no_connection"];
    assert_eq!(counts.told + counts.limited, handed_over);
    assert!(
        counts.told >= 50 && counts.told <= 50 + 50 * took,
        "{counts:?}"
    );
    let resets = port.capture(SEGMENTS as usize, Duration::from_millis(500), |frame| {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        matches!(packet.transport, Some(TransportSlice::Tcp(tcp)) if tcp.rst() && tcp.sequence_number() == 77)
    });
    assert_eq!(resets.unwrap().len() as u64, counts.told);
}
