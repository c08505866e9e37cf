//! What the sender of a dropped packet is told: a RST, or an ICMP error.
//!
//! The answer leaves by the interface that the packet came in by, to the address that it came from. Who is not told:
//! the sender of a RST or of an ICMP error, and whoever has no address of its own (RFC 1812, section 4.3.2.7; RFC 4443,
//! section 2.4 (e); the pipeline has dropped what comes from or goes to such addresses already).

use std::net::IpAddr;

use balancer_common::family::{Family as _, V4, V6};
use balancer_common::parse;
use balancer_common::verdict::Drop;
use balancer_common::wire::ETHERNET;
use etherparse::icmpv4::{DestUnreachableHeader as Unreachable4, TimeExceededCode as Exceeded4};
use etherparse::icmpv6::{DestUnreachableCode as Unreachable6, TimeExceededCode as Exceeded6};
use etherparse::{
    Icmpv4Type, Icmpv6Type, IpDscp, IpHeaders, IpNumber, Ipv4Header, Ipv6Header, LaxNetSlice,
    LaxSlicedPacket, PacketBuilder, TcpHeader, TcpSlice,
};

/// The TTL of an answer.
const TTL: u8 = 64;

/// Of an error (RFC 1812, section 4.3.2.5).
const CONTROL: IpDscp = IpDscp::CS6;

/// How long an ICMP error may be, from the network header on: RFC 1812, section 4.3.2.3; RFC 4443, section 3.1.
const LONGEST_V4: usize = 576;
const LONGEST_V6: usize = 1280;

/// The headers of an ICMP error, without options: those of IP and its own.
const HEADERS_V4: usize = 20 + 8;
const HEADERS_V6: usize = 40 + 8;

/// What a sender may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// The service is not there: RST, or port unreachable.
    Closed,
    /// The packet's time has run out.
    Expired,
    /// There is no way.
    Unreachable,
    /// The packet is longer than the next link takes: so many bytes.
    TooBig(u16),
}

impl Told {
    fn of(reason: Drop, mtu: u32) -> Option<Self> {
        match reason {
            Drop::NoConnection
            | Drop::NoBackend
            | Drop::TableFull
            | Drop::PortsExhausted
            | Drop::TupleInUse => Some(Self::Closed),
            Drop::TtlExceeded => Some(Self::Expired),
            Drop::NoNextHop => Some(Self::Unreachable),
            Drop::TooBig => Some(Self::TooBig(u16::try_from(mtu).ok()?)),
            _ => None,
        }
    }
}

/// A packet whose sender may be told.
#[derive(Debug)]
pub struct Complaint<'a> {
    told: Told,
    frame: &'a [u8],
    /// Where the network header begins.
    l3: usize,
    /// Who sent it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// Of TCP the header and what it carries.
    tcp: Option<TcpSlice<'a>>,
    /// From the network header to the packet's end.
    packet: &'a [u8],
}

impl<'a> Complaint<'a> {
    /// Reads a frame that was dropped for `reason`, as it came; `mtu` is how long it may have been, if it was too big. `None`
    /// when nobody is told.
    #[must_use]
    pub fn of(reason: Drop, mtu: u32, frame: &'a [u8]) -> Option<Self> {
        let told = Told::of(reason, mtu)?;
        let l3 = parse::ethernet(&frame).ok()?.l3;
        // An answer to a group would go to all of it.
        if frame.get(6)? & 1 != 0 {
            return None;
        }
        let rest = frame.get(l3..)?;
        if start(rest) > 0 {
            // Only the first fragment is complained about.
            return None;
        }
        let sliced = LaxSlicedPacket::from_ip(rest).ok()?;
        let (source, destination, length, payload): (IpAddr, IpAddr, usize, _) = match sliced.net? {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                if matches!(told, Told::TooBig(_)) && !header.dont_fragment() {
                    // It would have been cut, had there been time for it.
                    return None;
                }
                let (source, destination) = (header.source_addr(), header.destination_addr());
                let length = header.total_len().into();
                (
                    source.into(),
                    destination.into(),
                    length,
                    ip.payload().clone(),
                )
            }
            LaxNetSlice::Ipv6(ip) => {
                let header = ip.header();
                let (source, destination) = (header.source_addr(), header.destination_addr());
                let length = usize::from(header.payload_length()) + 40;
                (
                    source.into(),
                    destination.into(),
                    length,
                    ip.payload().clone(),
                )
            }
            LaxNetSlice::Arp(_) => return None,
        };
        let tcp = match payload.ip_number {
            IpNumber::TCP => Some(TcpSlice::from_slice(payload.payload).ok()?),
            IpNumber::UDP => None,
            // What is neither and has got so far is an ICMP error.
            _ => return None,
        };
        if tcp.as_ref().is_some_and(TcpSlice::rst) {
            return None;
        }
        Some(Self {
            told,
            frame,
            l3,
            source,
            destination,
            tcp,
            packet: rest.get(..length).unwrap_or(rest),
        })
    }

    /// The answer, a whole frame. What concerns the way and not the service comes from the box itself, from its `own` address if
    /// it has one.
    #[must_use]
    pub fn answer(&self, own: Option<IpAddr>) -> Option<Vec<u8>> {
        let closed = self.told == Told::Closed;
        let source = if closed {
            self.destination
        } else {
            own.unwrap_or(self.destination)
        };
        let mut answer = self.link_header()?;
        match (&self.tcp, source, self.source) {
            (Some(tcp), ..) if closed => {
                let builder = PacketBuilder::ip(self.network_header(source, IpDscp::CS0)?);
                let header = reset(tcp);
                builder.tcp_header(header).write(&mut answer, &[]).ok()?;
            }
            (_, IpAddr::V4(_), IpAddr::V4(_)) => {
                let error = match self.told {
                    Told::Closed => Icmpv4Type::DestinationUnreachable(Unreachable4::Port),
                    Told::Unreachable => Icmpv4Type::DestinationUnreachable(Unreachable4::Host),
                    Told::Expired => Icmpv4Type::TimeExceeded(Exceeded4::TtlExceededInTransit),
                    Told::TooBig(next_hop_mtu) => {
                        Icmpv4Type::DestinationUnreachable(Unreachable4::FragmentationNeeded {
                            next_hop_mtu,
                        })
                    }
                };
                let builder =
                    PacketBuilder::ip(self.network_header(source, CONTROL)?).icmpv4(error);
                let quote = self.quote(LONGEST_V4 - HEADERS_V4);
                builder.write(&mut answer, quote).ok()?;
            }
            (_, IpAddr::V6(_), IpAddr::V6(_)) => {
                let error = match self.told {
                    Told::Closed => Icmpv6Type::DestinationUnreachable(Unreachable6::Port),
                    Told::Unreachable => Icmpv6Type::DestinationUnreachable(Unreachable6::Address),
                    Told::Expired => Icmpv6Type::TimeExceeded(Exceeded6::HopLimitExceeded),
                    Told::TooBig(mtu) => Icmpv6Type::PacketTooBig { mtu: mtu.into() },
                };
                let builder =
                    PacketBuilder::ip(self.network_header(source, CONTROL)?).icmpv6(error);
                let quote = self.quote(LONGEST_V6 - HEADERS_V6);
                builder.write(&mut answer, quote).ok()?;
            }
            _ => return None,
        }
        Some(answer)
    }

    /// The link header back, with the tags as they were.
    fn link_header(&self) -> Option<Vec<u8>> {
        let header = self.frame.get(..self.l3)?;
        let (macs, rest) = header.split_at_checked(ETHERNET - 2)?;
        let (destination, source) = macs.split_at(6);
        Some([source, destination, rest].concat())
    }

    /// `dscp` is for IPv4: over IPv6 nothing asks for one.
    fn network_header(&self, source: IpAddr, dscp: IpDscp) -> Option<IpHeaders> {
        match (source, self.source) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                // Length and checksum come with the payload, the protocol with the header behind it.
                let protocol = IpNumber::ICMP;
                let (source, destination) = (source.octets(), destination.octets());
                let mut header = Ipv4Header::new(0, TTL, protocol, source, destination).ok()?;
                header.dont_fragment = true;
                header.dscp = dscp;
                Some(IpHeaders::Ipv4(
                    header,
                    etherparse::Ipv4Extensions::default(),
                ))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let header = Ipv6Header {
                    hop_limit: TTL,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv6Header::default()
                };
                Some(IpHeaders::Ipv6(
                    header,
                    etherparse::Ipv6Extensions::default(),
                ))
            }
            _ => None,
        }
    }

    fn quote(&self, room: usize) -> &[u8] {
        self.packet.get(..room).unwrap_or(self.packet)
    }
}

/// Where a packet's data begins in that of the datagram that it is a fragment of; 0 for a whole one.
fn start(packet: &[u8]) -> u32 {
    let version = packet.first().map(|byte| byte >> 4);
    match version {
        Some(4) => V4::fragment(&packet, 0).map_or(0, |fragment| fragment.start),
        Some(6) => V6::fragment(&packet, 0).map_or(0, |fragment| fragment.start),
        _ => 0,
    }
}

/// The RST for a segment of a connection that is not there (RFC 9293, section 3.10.7.1).
fn reset(segment: &TcpSlice<'_>) -> TcpHeader {
    let (source, destination) = (segment.destination_port(), segment.source_port());
    let mut header = TcpHeader::new(source, destination, 0, 0);
    header.rst = true;
    if segment.ack() {
        header.sequence_number = segment.acknowledgment_number();
    } else {
        let length =
            segment.payload().len() as u32 + u32::from(segment.syn()) + u32::from(segment.fin());
        header.ack = true;
        header.acknowledgment_number = segment.sequence_number().wrapping_add(length);
    }
    header
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    const LINK: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    const CLIENT: [u8; 4] = [192, 0, 2, 1];
    const SERVICE: [u8; 4] = [192, 0, 2, 10];
    const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const SERVICE6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
    const OWN: [u8; 4] = [192, 0, 2, 254];
    const OWN6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 254];

    /// A frame made by `build`, padded as Ethernet does.
    fn frame(build: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut frame = Vec::new();
        build(&mut frame);
        let length = frame.len().max(60);
        frame.resize(length, 0);
        frame
    }

    fn tcp(change: impl FnOnce(&mut TcpHeader), payload: &[u8]) -> Vec<u8> {
        let mut header = TcpHeader::new(4000, 80, 1000, 1024);
        change(&mut header);
        let builder = PacketBuilder::ethernet2(LINK.0, LINK.1).ipv4(CLIENT, SERVICE, 9);
        frame(|frame| builder.tcp_header(header).write(frame, payload).unwrap())
    }

    fn udp(payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(LINK.0, LINK.1).ipv4(CLIENT, SERVICE, 9);
        frame(|frame| builder.udp(4000, 53).write(frame, payload).unwrap())
    }

    fn udp6(payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(LINK.0, LINK.1).ipv6(CLIENT6, SERVICE6, 9);
        frame(|frame| builder.udp(4000, 53).write(frame, payload).unwrap())
    }

    fn answer(reason: Drop, frame: &[u8]) -> Option<Vec<u8>> {
        let complaint = Complaint::of(reason, 1300, frame)?;
        let own = match complaint.source {
            IpAddr::V4(_) => OWN.into(),
            IpAddr::V6(_) => OWN6.into(),
        };
        complaint.answer(Some(own))
    }

    /// The RST for a segment.
    fn reset_of(frame: &[u8]) -> TcpHeader {
        let answer = answer(Drop::NoConnection, frame).unwrap();
        let packet = SlicedPacket::from_ethernet(&answer).unwrap();
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) =
            (packet.net, packet.transport)
        else {
            panic!("{answer:02x?}");
        };
        assert_eq!(ip.header().source(), SERVICE);
        assert_eq!(ip.header().destination(), CLIENT);
        assert_eq!(ip.header().ttl(), TTL);
        let header = tcp.to_header();
        assert_eq!((header.source_port, header.destination_port), (80, 4000));
        assert_eq!(
            tcp.checksum(),
            tcp.calc_checksum_ipv4(SERVICE, CLIENT).unwrap()
        );
        assert!(header.rst && !header.syn && !header.fin);
        header
    }

    #[test]
    fn a_reset_has_the_numbers_that_are_expected() {
        let reset = reset_of(&tcp(|header| header.syn = true, &[]));
        assert_eq!((reset.ack, reset.sequence_number), (true, 0));
        assert_eq!(reset.acknowledgment_number, 1001);
        // Padding is no data.
        let reset = reset_of(&tcp(|header| header.fin = true, b"12345"));
        assert_eq!((reset.ack, reset.acknowledgment_number), (true, 1006));
        let reset = reset_of(&tcp(
            |header| {
                header.ack = true;
                header.acknowledgment_number = 77;
            },
            b"12345",
        ));
        assert_eq!((reset.ack, reset.sequence_number), (false, 77));
    }

    #[test]
    fn errors_are_not_too_long() {
        for (frame, longest) in [(udp(&[7; 1400]), 576), (udp6(&[7; 1400]), 1280)] {
            let answer = answer(Drop::NoBackend, &frame).unwrap();
            assert_eq!(answer.len() - ETHERNET, longest);
            // The packet as it came, behind the headers.
            let headers = if longest == 576 {
                HEADERS_V4
            } else {
                HEADERS_V6
            };
            let quote = &answer[ETHERNET + headers..];
            assert_eq!(quote, &frame[ETHERNET..ETHERNET + quote.len()]);
        }
    }

    #[test]
    fn the_service_says_what_concerns_it_and_the_box_the_rest() {
        let (frame, frame6) = (udp(b"?"), udp6(b"?"));
        for (reason, from, from6) in [
            (Drop::NoBackend, SERVICE, SERVICE6),
            (Drop::TtlExceeded, OWN, OWN6),
            (Drop::NoNextHop, OWN, OWN6),
        ] {
            let source = answer(reason, &frame).unwrap()[ETHERNET + 12..ETHERNET + 16].to_vec();
            assert_eq!(source, from, "{reason:?}");
            let source = answer(reason, &frame6).unwrap()[ETHERNET + 8..ETHERNET + 24].to_vec();
            assert_eq!(source, from6, "{reason:?} over IPv6");
        }
    }

    /// Type and code of the error about a frame, whose headers are as they should be, and what it quotes.
    fn error_about(reason: Drop, frame: &[u8]) -> ([u8; 2], Vec<u8>) {
        let answer = answer(reason, frame).unwrap();
        let packet = SlicedPacket::from_ethernet(&answer).unwrap();
        match (packet.net, packet.transport) {
            (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) => {
                let header = ip.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                assert_eq!((header.time_to_live, header.dont_fragment), (TTL, true));
                assert_eq!(header.dscp.value() >> 3, 6);
                assert_eq!(header.destination, CLIENT);
                let sum = icmp.icmp_type().calc_checksum(icmp.payload());
                assert_eq!(icmp.checksum(), sum);
                let payload = icmp.payload().to_vec();
                ([icmp.type_u8(), icmp.code_u8()], payload)
            }
            (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
                let header = ip.header();
                assert_eq!(header.hop_limit(), TTL);
                assert_eq!(header.destination(), CLIENT6);
                assert!(icmp.is_checksum_valid(header.source(), header.destination()));
                let payload = icmp.payload().to_vec();
                ([icmp.type_u8(), icmp.code_u8()], payload)
            }
            _ => panic!("{answer:02x?}"),
        }
    }

    #[test]
    fn errors_say_why_and_quote_the_packet() {
        for (reason, kind, kind6) in [
            (Drop::NoBackend, [3, 3], [1, 4]),
            (Drop::NoNextHop, [3, 1], [1, 3]),
            (Drop::TtlExceeded, [11, 0], [3, 0]),
        ] {
            for (mut frame, length, kind) in [
                (udp(b"?"), 20 + 8 + 1, kind),
                (udp6(b"?"), 40 + 8 + 1, kind6),
            ] {
                // Padding is no part of the packet.
                frame.extend([0; 8]);
                let packet = frame[ETHERNET..ETHERNET + length].to_vec();
                assert_eq!(error_about(reason, &frame), (kind, packet), "{reason:?}");
            }
        }
    }

    #[test]
    fn nobody_is_told_of_resets_errors_and_later_fragments() {
        let reset = tcp(|header| header.rst = true, &[]);
        assert_eq!(answer(Drop::TtlExceeded, &reset), None);
        let error = Icmpv4Type::DestinationUnreachable(Unreachable4::Port);
        let builder = PacketBuilder::ethernet2(LINK.0, LINK.1).ipv4(CLIENT, SERVICE, 9);
        let error = frame(|frame| builder.icmpv4(error).write(frame, &[0; 28]).unwrap());
        assert_eq!(answer(Drop::TtlExceeded, &error), None);
        let mut fragment = udp(&[7; 100]);
        // The first may be complained about.
        fragment[ETHERNET + 6] = 0x20;
        assert!(answer(Drop::TtlExceeded, &fragment).is_some());
        fragment[ETHERNET + 7] = 1;
        assert_eq!(answer(Drop::TtlExceeded, &fragment), None);
        let mut fragment = udp6(&[7; 100]);
        fragment[ETHERNET + 4..ETHERNET + 7].copy_from_slice(&[0, 8 + 8 + 100, 44]);
        // The first, and more to come.
        fragment.splice(ETHERNET + 40..ETHERNET + 40, [17, 0, 0, 1, 0, 0, 0, 77]);
        assert!(answer(Drop::TtlExceeded, &fragment).is_some());
        fragment[ETHERNET + 43] |= 8;
        assert_eq!(answer(Drop::TtlExceeded, &fragment), None);
        let mut group = udp(b"?");
        group[6] |= 1;
        assert_eq!(answer(Drop::TtlExceeded, &group), None);
    }

    #[test]
    fn only_who_wants_it_whole_hears_that_it_is_too_big() {
        let mut frame = udp(&[7; 1400]);
        frame[ETHERNET + 6] = 0x40;
        let error = answer(Drop::TooBig, &frame).unwrap();
        assert_eq!(error[ETHERNET + 20..ETHERNET + 22], [3, 4]);
        assert_eq!(error[ETHERNET + 26..ETHERNET + 28], 1300_u16.to_be_bytes());
        frame[ETHERNET + 6] = 0;
        assert_eq!(answer(Drop::TooBig, &frame), None);
        let error = answer(Drop::TooBig, &udp6(&[7; 1400])).unwrap();
        assert_eq!(error[ETHERNET + 40], 2);
        assert_eq!(error[ETHERNET + 44..ETHERNET + 48], 1300_u32.to_be_bytes());
    }

    #[test]
    fn tags_are_kept() {
        let mut frame = udp(b"?");
        frame.splice(12..12, [0x88, 0xa8, 0, 7, 0x81, 0, 0, 5]);
        let answer = answer(Drop::NoBackend, &frame).unwrap();
        assert_eq!(answer[..6], frame[6..12]);
        assert_eq!(answer[6..12], frame[..6]);
        assert_eq!(answer[12..22], frame[12..22]);
    }
}
