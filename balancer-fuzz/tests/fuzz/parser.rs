//! Any frame: the parser says no more than is there, and what other parsers say.

use std::net::IpAddr;

use balancer::datapath::compile::{address, words};
use balancer_common::family::{Family, V4, V6};
use balancer_common::parse::{self, Headers};
use balancer_common::verdict::{Drop, Exit, VERDICTS, Verdict};
use balancer_common::wire::ethertype;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use crate::layout;
use crate::support::vector::Vector;
use crate::table;

/// The frames of the vectors.
pub fn seeds() -> Vec<Vec<u8>> {
    let vectors = table::all();
    let frames = vectors.iter().flat_map(Vector::frames);
    let mut seeds: Vec<Vec<u8>> = frames.map(|(_, frame)| [vec![0], frame].concat()).collect();
    seeds.sort();
    seeds.dedup();
    seeds
}

/// The first byte says whether checksums are made right.
pub fn check(input: &[u8]) {
    let Some((first, frame)) = input.split_first() else {
        return;
    };
    let mut frame = frame.to_vec();
    if first & 1 != 0 {
        layout::repair(&mut frame);
    }
    let frame = frame.as_slice();
    let l2 = match parse::ethernet(&frame) {
        Ok(l2) => l2,
        Err(exit) => return check_exit(frame, exit),
    };
    match l2.ethertype {
        ethertype::IPV4 => check_packet::<V4>(frame, l2.l3),
        ethertype::IPV6 => check_packet::<V6>(frame, l2.l3),
        _ => {}
    }
}

fn check_packet<F: Family>(frame: &[u8], l3: usize) {
    let headers = parse::headers::<F, _>(&frame, l3);
    let tuple = parse::tuple::<F, _>(&frame, l3);
    match headers {
        Ok(headers) => {
            assert_eq!(tuple, Ok(headers.tuple));
            check_headers(frame, &headers);
        }
        Err(exit) => check_exit(frame, exit),
    }
    if let Ok(tuple) = tuple {
        assert!(tuple.ports.source() != 0 && tuple.ports.destination() != 0);
    }
}

/// Headers that were read are where another parser finds them.
fn check_headers<F: Family>(frame: &[u8], headers: &Headers<F>) {
    let layout = layout::frame(frame).expect("a packet");
    assert!(layout.fragment.is_none());
    assert_eq!((layout.l3, layout.l4), (headers.l3, headers.l4));
    assert_eq!(layout.end, headers.end());
    assert!(headers.end() <= frame.len());
    assert_eq!(layout.header_error(frame).unwrap_or(0), 0);
    let ports = headers.tuple.ports;
    assert_eq!(layout.protocol, ports.protocol());
    // A UDP header tells the length of all, a TCP header its own.
    let (told, least) = match ports.protocol() {
        6 => (usize::from(frame[headers.l4 + 12] >> 4) * 4, 20),
        _ => (
            u16::from_be_bytes([frame[headers.l4 + 4], frame[headers.l4 + 5]]).into(),
            8,
        ),
    };
    assert!((least..=headers.end() - headers.l4).contains(&told));
    let segment = parse::segment_of(&frame, ports.protocol(), headers.l4, headers.end());
    let (source, destination) = (
        address(F::mapped(F::source(headers.tuple.addresses))),
        address(F::mapped(F::destination(headers.tuple.addresses))),
    );
    let Some((ends, numbers)) = other_parser(frame) else {
        return;
    };
    assert_eq!(ends.map(words), [source, destination].map(words));
    assert_eq!(numbers.ports, [ports.source(), ports.destination()]);
    if let Some((sequence, acknowledgement, length)) = numbers.tcp {
        // As many numbers as it has bytes, and one each for SYN and FIN.
        let expected = (sequence, acknowledgement, length);
        let found = (
            segment.sequence(),
            segment.acknowledgement,
            segment.end().wrapping_sub(segment.first()) as usize,
        );
        assert_eq!(found, expected);
    }
}

/// Nothing is called cut off or too short that another parser takes for whole.
fn check_exit(frame: &[u8], exit: Exit) {
    assert!(exit.counter() < VERDICTS);
    let is_short = matches!(
        Verdict::from(exit),
        Verdict::Drop(
            Drop::Truncated
                | Drop::BadVersion
                | Drop::BadHeaderLength
                | Drop::BadTotalLength
                | Drop::BadTcpHeader
                | Drop::BadUdpLength
        )
    );
    if is_short && let Some(found) = other_parser(frame) {
        panic!("{:?}, but {found:?}", Verdict::from(exit));
    }
}

/// What a transport header says.
#[derive(Debug)]
struct Numbers {
    ports: [u16; 2],
    /// Sequence and acknowledgement number, and the length of the data.
    tcp: Option<(u32, u32, usize)>,
}

/// Addresses and numbers by `etherparse`, of a packet that it takes.
fn other_parser(frame: &[u8]) -> Option<([IpAddr; 2], Numbers)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let addresses: [IpAddr; 2] = match packet.net? {
        NetSlice::Ipv4(ip) => [
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ],
        // It takes that for a jumbogram (RFC 2675).
        NetSlice::Ipv6(ip) if ip.header().payload_length() == 0 => return None,
        NetSlice::Ipv6(ip) => [
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ],
        NetSlice::Arp(_) => return None,
    };
    let numbers = match packet.transport? {
        TransportSlice::Tcp(tcp) => Numbers {
            ports: [tcp.source_port(), tcp.destination_port()],
            tcp: Some((
                tcp.sequence_number(),
                tcp.acknowledgment_number(),
                tcp.payload().len(),
            )),
        },
        // Likewise.
        TransportSlice::Udp(udp) if udp.length() == 0 => return None,
        TransportSlice::Udp(udp) => Numbers {
            ports: [udp.source_port(), udp.destination_port()],
            tcp: None,
        },
        _ => return None,
    };
    Some((addresses, numbers))
}
