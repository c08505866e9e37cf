//! What tests of the pipeline share: a box with services, frames, and what is read off them.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part; a helper that fails has failed its test"
)]

use std::net::SocketAddr;

use balancer::config;
use balancer::datapath::compile::{ServiceIds, compile, words};
use balancer::datapath::memory::Memory;
use balancer_common::abi::Path;
use balancer_common::hop::Hop;
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

pub const CLIENT_SIDE: u32 = 2;
pub const BACKEND_SIDE: u32 = 3;
pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const BOX_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// A box with these services; each backend has an id in the order of the file.
pub fn memory(services: &str) -> Memory {
    let text = format!("[datapath]\ninterfaces = [\"eth0\", \"eth1\"]\n{services}");
    let config = config::parse("test.toml", &text).unwrap();
    let mut next = 0;
    let ids: Vec<ServiceIds> = (0..)
        .zip(&config.services)
        .map(|(service, entry)| ServiceIds {
            service,
            backends: entry
                .backends
                .iter()
                .map(|_| {
                    next += 1;
                    next - 1
                })
                .collect(),
        })
        .collect();
    let image = compile(
        1,
        &config.services,
        &ids,
        config.datapath.source_ports,
        |name| match name {
            "eth0" => Some(CLIENT_SIDE),
            "eth1" => Some(BACKEND_SIDE),
            _ => None,
        },
    );
    let mut memory = Memory::new(image, 64);
    let addresses = config.services.iter().flat_map(|service| &service.backends);
    for (path, backend) in memory.paths.iter_mut().zip(addresses) {
        let source = if backend.address.is_ipv4() {
            "10.0.0.1"
        } else {
            "2001:db8:1::1"
        };
        *path = Path {
            hop: Hop::new(BACKEND_SIDE, BACKEND_MAC, BOX_MAC),
            source: words(source.parse().unwrap()),
        };
    }
    memory
}

#[derive(Clone, Copy)]
pub enum L4 {
    Udp,
    Tcp(&'static str),
}

/// A frame with good checksums; TCP's control bits by their first letters.
pub fn frame(l4: L4, source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    let (source, destination): (SocketAddr, SocketAddr) =
        (source.parse().unwrap(), destination.parse().unwrap());
    let ethernet = PacketBuilder::ethernet2(CLIENT_MAC, BOX_MAC);
    let ip = match (source, destination) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            ethernet.ipv4(from.ip().octets(), to.ip().octets(), 64)
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            ethernet.ipv6(from.ip().octets(), to.ip().octets(), 64)
        }
        _ => panic!("two families"),
    };
    let mut frame = Vec::new();
    match l4 {
        L4::Udp => ip
            .udp(source.port(), destination.port())
            .write(&mut frame, payload)
            .unwrap(),
        L4::Tcp(flags) => {
            let mut tcp = ip.tcp(source.port(), destination.port(), 1000, 1024);
            for flag in flags.chars() {
                tcp = match flag {
                    'S' => tcp.syn(),
                    'A' => tcp.ack(1),
                    'F' => tcp.fin(),
                    'R' => tcp.rst(),
                    other => panic!("no flag {other}"),
                };
            }
            tcp.write(&mut frame, payload).unwrap();
        }
    }
    frame
}

/// Source and destination of a frame, whose checksums must be right.
pub fn tuple(frame: &[u8]) -> (String, String) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let (source, destination): (std::net::IpAddr, std::net::IpAddr) =
        match packet.net.as_ref().unwrap() {
            etherparse::NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                assert_eq!(
                    header.header_checksum,
                    header.calc_header_checksum(),
                    "IPv4 checksum"
                );
                (header.source.into(), header.destination.into())
            }
            etherparse::NetSlice::Ipv6(ip) => {
                let header = ip.header().to_header();
                (header.source.into(), header.destination.into())
            }
            etherparse::NetSlice::Arp(_) => panic!("ARP"),
        };
    let raw = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (segment, protocol, ports) = match packet.transport.as_ref().unwrap() {
        TransportSlice::Tcp(tcp) => (
            tcp.slice().to_vec(),
            6_u8,
            (tcp.source_port(), tcp.destination_port()),
        ),
        TransportSlice::Udp(udp) => (
            udp.slice().to_vec(),
            17,
            (udp.source_port(), udp.destination_port()),
        ),
        _ => panic!("neither TCP nor UDP"),
    };
    // RFC 9293, section 3.1: the sum over pseudo-header and segment is all ones.
    let mut bytes = [raw(source), raw(destination)].concat();
    bytes.extend([0, protocol]);
    bytes.extend((segment.len() as u16).to_be_bytes());
    bytes.extend(&segment);
    if bytes.len() % 2 == 1 {
        bytes.push(0);
    }
    let sum: u64 = bytes
        .chunks(2)
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    assert_eq!(
        balancer_common::checksum::fold(sum),
        0xffff,
        "transport checksum"
    );
    (
        SocketAddr::new(source, ports.0).to_string(),
        SocketAddr::new(destination, ports.1).to_string(),
    )
}
