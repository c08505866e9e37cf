//! Senders of refused packets are told.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use balancer_lab::{RawPort, TcpEcho, eventually, eventually_some};
use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TcpHeader, TransportSlice};

use crate::site::{PATIENCE, SOON, Shape, Site};

const V4: &str = "192.0.2.10:7";
const V6: &str = "[2001:db8::10]:7";
const CLIENT: &str = "192.0.2.1";
const CLIENT6: &str = "2001:db8::1";

/// Services over TCP and UDP, in both families, whose only backend takes connections or not.
fn services(site: &Site, weight: u32) -> String {
    let services = ["tcp", "udp"].map(|protocol| site.both_families(protocol, 7));
    services
        .concat()
        .replace(" }", &format!(", weight = {weight} }}"))
}

fn site(name: &str, weight: u32) -> Option<Site> {
    let mut site = Site::new(name, Shape::Links, 1)?;
    site.start(&services(&site, weight));
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
        let socket = site.udp(any, to);
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
    if !site.is_in_kernel() {
        return;
    }
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
    site.start(&services(&site, 0));
    for to in [V4, V6] {
        assert_eq!(connect(&site, to).0, ErrorKind::ConnectionRefused, "{to}");
    }
}

/// What traceroute lives by: the box says that it is there, the packet is not sent on and opens nothing.
///
/// Over IPv4 it says so from the interface's own address, whatever the service's (RFC 1812, section 4.3.2.4); over IPv6 too, unless
/// what the packet was sent to is an address of the box itself (RFC 4443, section 2.2).
#[test]
fn the_box_is_a_hop() {
    let cases = [
        (CLIENT, "198.51.100.10", "192.0.2.10"),
        (CLIENT, "10.0.1.1", "192.0.2.10"),
        (CLIENT6, "2001:db8:100::10", "2001:db8::10"),
        (CLIENT6, "2001:db8:1::1", "2001:db8:1::1"),
    ];
    let Some(mut site) = Site::new("hop", Shape::Links, 1) else {
        return;
    };
    let services = cases.map(|(_, to, _)| {
        let name = to.replace(':', "-");
        let (listen, backend) = if to.contains(':') {
            (format!("[{to}]:7"), "[2001:db8:1::3]:7")
        } else {
            (format!("{to}:7"), "10.0.1.3:7")
        };
        format!(
            "[[service]]\nname = \"{name}\"\nlisten = \"{listen}\"\nprotocol = \"udp\"\nbackend = [{{ address = \"{backend}\" }}]\n"
        )
    });
    site.start(&services.concat());
    let port = RawPort::open(&site.client, "eth0").unwrap();
    for (from, to, expected) in cases {
        let ends = (from.parse().unwrap(), to.parse().unwrap());
        let mut frame = Vec::new();
        let builder = match ends {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                site.link_header().ipv4(from.octets(), to.octets(), 1)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                site.link_header().ipv6(from.octets(), to.octets(), 1)
            }
            _ => unreachable!(),
        };
        builder.udp(7000, 7).write(&mut frame, b"probe").unwrap();
        port.send(&frame).unwrap();
        let is_answer = |frame: &[u8]| exceeded(frame).is_some();
        let answer = port.receive(SOON, is_answer).unwrap().expect("an answer");
        let (ends, quote) = exceeded(&answer).unwrap();
        let expected = [expected, from].map(|end| end.parse::<IpAddr>().unwrap());
        assert_eq!(ends, expected, "{to}");
        assert_eq!(quote, frame[14..], "{to}: what it quotes");
    }
    assert_eq!(site.status().connections.current, 0);
    assert_eq!(site.status().slow_path.dropped["ttl_exceeded"], 4);
}

/// Source and destination of a Time Exceeded, if it is one, with the right checksums, and what it quotes.
fn exceeded(frame: &[u8]) -> Option<([IpAddr; 2], Vec<u8>)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match (packet.net?, packet.transport?) {
        (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(icmp)) => {
            let header = ip.header().to_header();
            let icmp_header = icmp.header();
            let Icmpv4Type::TimeExceeded(_) = icmp_header.icmp_type else {
                return None;
            };
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let checksum = icmp_header.icmp_type.calc_checksum(icmp.payload());
            assert_eq!(icmp_header.checksum, checksum);
            let ends = [header.source.into(), header.destination.into()];
            Some((ends, icmp.payload().to_vec()))
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            let header = ip.header();
            let Icmpv6Type::TimeExceeded(_) = icmp.header().icmp_type else {
                return None;
            };
            assert!(icmp.is_checksum_valid(header.source(), header.destination()));
            let ends = [header.source().into(), header.destination().into()];
            Some((ends, icmp.payload().to_vec()))
        }
        _ => None,
    }
}

/// A flood of segments of no connection is not answered with a flood.
#[test]
fn who_asks_too_often_is_told_less_often() {
    const SEGMENTS: u64 = 3000;
    let Some(site) = site("limited", 1) else {
        return;
    };
    let port = RawPort::open(&site.client, "eth0").unwrap();
    let segment = |change: fn(&mut TcpHeader)| {
        let mut header = TcpHeader::new(7000, 7, 1000, 1024);
        change(&mut header);
        let mut frame = Vec::new();
        site.link_header()
            .ipv4([192, 0, 2, 1], [192, 0, 2, 10], 64)
            .tcp_header(header)
            .write(&mut frame, &[])
            .unwrap();
        frame
    };
    let acknowledgement = segment(|header| {
        header.ack = true;
        header.acknowledgment_number = 77;
    });
    let start = Instant::now();
    for _ in 0..SEGMENTS {
        port.send(&acknowledgement).unwrap();
    }
    eventually("all of them to be counted", PATIENCE, || {
        // With engine `userspace` there may be no room for some.
        let drops = site.drops().drops;
        drops["no_connection"] + drops["queue_full"] == SEGMENTS
    })
    .unwrap();
    // Nobody is told of a RST. When the daemon has seen one it has seen all that the program has handed over before.
    let reset = segment(|header| header.rst = true);
    let counts = eventually_some("the daemon to have seen all", PATIENCE, || {
        port.send(&reset).unwrap();
        let counts = site.status().slow_path;
        let seen = counts.told + counts.limited + counts.untold;
        (counts.untold > 0 && seen == counts.dropped["no_connection"]).then_some(counts)
    })
    .unwrap();
    let took = start.elapsed().as_secs() + 1;
    assert!(
        counts.told >= 50 && counts.told <= 50 + 50 * took,
        "{counts:?}"
    );
    assert!(counts.limited > 0, "{counts:?}");
    let is_reset = |frame: &[u8]| {
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        matches!(packet.transport, Some(TransportSlice::Tcp(tcp)) if tcp.rst() && tcp.sequence_number() == 77)
    };
    let resets = port.capture(counts.told as usize, SOON, is_reset).unwrap();
    assert_eq!(resets.len() as u64, counts.told);
    let more = port.receive(Duration::from_millis(100), is_reset);
    assert_eq!(more.unwrap(), None, "one more than were counted");
}
