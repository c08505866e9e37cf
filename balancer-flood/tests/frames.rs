//! Every frame of a scenario is right: addresses, ports, flags, lengths, checksums.

#![allow(clippy::unwrap_used, reason = "a test that unwraps in vain has failed")]

use std::collections::HashSet;
use std::net::IpAddr;

use balancer_flood::Scenario;
use balancer_flood::frame::Frames;
use etherparse::{Ipv4HeaderSlice, NetSlice, SlicedPacket, TransportSlice};

const SOURCE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const DESTINATION_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// What a frame is, once its checksums were found right.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Seen {
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    /// SYN and ACK; `None` is UDP.
    control: Option<(bool, bool)>,
}

fn scenario(family: u8, protocol: &str, mode: &str, rest: &str) -> Scenario {
    let (source, destination) = match family {
        4 => ("198.18.0.254-198.18.2.3", "192.0.2.10"),
        _ => ("2001:db8::fffe-2001:db8::1:3", "2001:db8::10"),
    };
    let text = format!(
        "name = \"test\"\nfamily = {family}\nprotocol = \"{protocol}\"\nmode = \"{mode}\"\n\
         destination_mac = \"02:00:00:00:00:02\"\nsource = \"{source}\"\ndestination = \"{destination}\"\n\
         source_ports = \"65000-65535\"\ndestination_port = 443\ncount = 1\n{rest}\n"
    );
    Scenario::parse("test.toml", &text).unwrap()
}

fn look(frame: &[u8]) -> Seen {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let ethernet = packet
        .link
        .unwrap()
        .to_header()
        .unwrap()
        .ethernet2()
        .unwrap();
    assert_eq!(
        (ethernet.source, ethernet.destination),
        (SOURCE_MAC, DESTINATION_MAC)
    );
    let (source, destination): (IpAddr, IpAddr) = match packet.net.as_ref().unwrap() {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            assert_eq!(
                header.header_checksum(),
                header.to_header().calc_header_checksum()
            );
            assert_eq!(usize::from(header.total_len()) + 14, frame.len());
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            assert_eq!(usize::from(header.payload_length()) + 54, frame.len());
            (
                header.source_addr().into(),
                header.destination_addr().into(),
            )
        }
        NetSlice::Arp(_) => panic!("ARP"),
    };
    let (ports, control, checksums) = match (packet.transport.unwrap(), source, destination) {
        (TransportSlice::Tcp(tcp), IpAddr::V4(from), IpAddr::V4(to)) => (
            (tcp.source_port(), tcp.destination_port()),
            Some((tcp.syn(), tcp.ack())),
            (
                tcp.checksum(),
                tcp.calc_checksum_ipv4(from.octets(), to.octets()).unwrap(),
            ),
        ),
        (TransportSlice::Tcp(tcp), IpAddr::V6(from), IpAddr::V6(to)) => (
            (tcp.source_port(), tcp.destination_port()),
            Some((tcp.syn(), tcp.ack())),
            (
                tcp.checksum(),
                tcp.calc_checksum_ipv6(from.octets(), to.octets()).unwrap(),
            ),
        ),
        (TransportSlice::Udp(udp), IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = udp.to_header();
            let sum = header.calc_checksum_ipv4_raw(from.octets(), to.octets(), udp.payload());
            (
                (header.source_port, header.destination_port),
                None,
                (header.checksum, sum.unwrap()),
            )
        }
        (TransportSlice::Udp(udp), IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = udp.to_header();
            let sum = header.calc_checksum_ipv6_raw(from.octets(), to.octets(), udp.payload());
            (
                (header.source_port, header.destination_port),
                None,
                (header.checksum, sum.unwrap()),
            )
        }
        (transport, ..) => panic!("{transport:?}"),
    };
    assert_eq!(checksums.0, checksums.1, "{source} {ports:?}");
    Seen {
        source: (source, ports.0),
        destination: (destination, ports.1),
        control,
    }
}

#[test]
fn every_flow_of_every_kind_has_a_right_frame_of_its_own() {
    for (family, size) in [(4, 60), (4, 1514), (6, 80), (6, 1513)] {
        for (protocol, mode, control) in [
            ("tcp", "established", Some((false, true))),
            ("tcp", "new", Some((true, false))),
            ("udp", "established", None),
            ("udp", "new", None),
        ] {
            let more = format!("frame_size = {size}\nflows = 3000");
            let scenario = scenario(family, protocol, mode, &more);
            let frames = Frames::new(&scenario, SOURCE_MAC, 1);
            assert_eq!(frames.of_flow(0), frames.first());
            let mut seen = HashSet::new();
            for flow in 0..scenario.flows {
                let frame = frames.of_flow(flow);
                assert_eq!(frame.len(), size);
                let frame = look(&frame);
                assert_eq!(frame.destination, (scenario.destination, 443));
                assert_eq!(frame.control, control);
                assert!((65000..=65535).contains(&frame.source.1));
                assert!((scenario.source.first..=scenario.source.last).contains(&frame.source.0));
                assert!(seen.insert(frame), "flow {flow} was there already");
            }
        }
    }
}

#[test]
fn fragments_are_of_longer_packets() {
    for (fragment, expected) in [("first", 0x2000_u16), ("later", 0x2000 + 185)] {
        let more = format!("frame_size = 66\nflows = 3000\nfragment = \"{fragment}\"");
        let scenario = scenario(4, "udp", "established", &more);
        let frames = Frames::new(&scenario, SOURCE_MAC, 1);
        for flow in 0..scenario.flows {
            let frame = frames.of_flow(flow);
            let header = Ipv4HeaderSlice::from_slice(&frame[14..]).unwrap();
            assert_eq!(frame[20..22], expected.to_be_bytes());
            assert_eq!(
                header.header_checksum(),
                header.to_header().calc_header_checksum()
            );
            assert_eq!(usize::from(header.total_len()) + 14, frame.len());
        }
    }
}

#[test]
fn a_udp_checksum_of_nothing_is_all_ones() {
    let mut all_ones = 0;
    for family in [4, 6] {
        // Enough ports for every checksum that there can be.
        let base = scenario(family, "udp", "new", "frame_size = 80");
        let scenario = Scenario {
            source_ports: "1-65535".parse().unwrap(),
            flows: 131_070,
            ..base
        };
        let frames = Frames::new(&scenario, SOURCE_MAC, 1);
        let checksum = if family == 4 { 40 } else { 60 };
        for flow in 0..scenario.flows {
            let frame = frames.of_flow(flow);
            assert_ne!(frame[checksum..checksum + 2], [0, 0]);
            if frame[checksum..checksum + 2] == [0xff, 0xff] {
                look(&frame);
                all_ones += 1;
            }
        }
    }
    assert!(all_ones >= 2, "{all_ones}");
}
