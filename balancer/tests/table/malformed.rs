//! Frames that are dropped or left to the kernel as they are, and open nothing.

use balancer_common::verdict::{Drop, Pass, Verdict};
use balancer_common::wire::protocol;

use super::{CLIENT, CLIENT6, DNS, DNS_AT, DNS6, DNS6_AT, WEB, WEB_AT, WEB6, WEB6_AT};
use crate::support::frame::{Frame, checksum, other, tcp, udp};
use crate::support::vector::{Expected, Vector};

/// What such a frame is, it, and what it gets.
type Case = (&'static str, Frame, Verdict);

/// A frame for each, to the service that it would be for were it as it should be.
pub fn table() -> Vec<Vector> {
    let services = [WEB, WEB6, DNS, DNS6].concat();
    [
        ethernet(),
        ipv4_header(),
        ipv4_options(),
        ipv6_header(),
        ipv6_extensions(),
        addresses(),
        ports_and_tcp_header(),
        udp_header(),
        not_ours(),
    ]
    .into_iter()
    .flatten()
    .map(|(name, frame, verdict)| {
        Vector::new(name, &services).client(frame, Expected::Untouched(verdict))
    })
    .collect()
}

fn syn() -> Frame {
    tcp("S", CLIENT, WEB_AT)
}

fn syn6() -> Frame {
    tcp("S", CLIENT6, WEB6_AT)
}

fn query() -> Frame {
    udp(CLIENT, DNS_AT)
}

fn query6() -> Frame {
    udp(CLIENT6, DNS6_AT)
}

/// Makes an IPv4 header's checksum right again.
fn right_checksum(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let end = 14 + usize::from(frame[14] & 15) * 4;
    let sum = checksum(&frame[14..end]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

fn ethernet() -> Vec<Case> {
    vec![
        (
            "a frame too short for Ethernet",
            syn().changed(|f| f.truncate(13)),
            Drop::Truncated.into(),
        ),
        (
            "Ethernet with nothing in it",
            syn().changed(|f| f.truncate(14)),
            Drop::Truncated.into(),
        ),
        (
            "a frame that ends inside a VLAN tag",
            syn().tag(0x8100, 5).changed(|f| f.truncate(17)),
            Drop::Truncated.into(),
        ),
        (
            "a frame that ends inside a second VLAN tag",
            syn()
                .tag(0x88a8, 7)
                .tag(0x8100, 5)
                .changed(|f| f.truncate(20)),
            Drop::Truncated.into(),
        ),
        (
            "three VLAN tags",
            syn().tag(0x88a8, 7).tag(0x8100, 5).tag(0x8100, 6),
            Pass::NotIp.into(),
        ),
        (
            "a VLAN tag of a kind before the standard",
            syn().tag(0x9100, 5),
            Pass::NotIp.into(),
        ),
        (
            "ARP",
            syn().changed(|f| f[12..14].copy_from_slice(&[0x08, 0x06])),
            Pass::NotIp.into(),
        ),
        (
            "ARP with a VLAN tag",
            syn()
                .tag(0x8100, 5)
                .changed(|f| f[16..18].copy_from_slice(&[0x08, 0x06])),
            Pass::NotIp.into(),
        ),
        (
            "LLDP to one station",
            syn().changed(|f| f[12..14].copy_from_slice(&[0x88, 0xcc])),
            Pass::NotIp.into(),
        ),
        (
            "an IEEE 802.3 length",
            syn().changed(|f| f[12..14].copy_from_slice(&[0, 40])),
            Pass::NotIp.into(),
        ),
        (
            "to an Ethernet group address",
            syn().changed(|f| f[0] |= 1),
            Pass::NotUnicast.into(),
        ),
        (
            "to the Ethernet broadcast address",
            syn().changed(|f| f[..6].fill(0xff)),
            Pass::NotUnicast.into(),
        ),
    ]
}

fn ipv4_header() -> Vec<Case> {
    vec![
        (
            "a frame that ends inside the IPv4 header",
            syn().changed(|f| f.truncate(33)),
            Drop::Truncated.into(),
        ),
        (
            "IPv6 in the version field of IPv4",
            syn().changed(|f| f[14] = 0x65),
            Drop::BadVersion.into(),
        ),
        (
            "version 0 in an IPv4 header",
            syn().changed(|f| f[14] = 0x05),
            Drop::BadVersion.into(),
        ),
        (
            "an IPv4 header length of 16",
            syn().changed(|f| f[14] = 0x44),
            Drop::BadHeaderLength.into(),
        ),
        (
            "an IPv4 header length of 0",
            syn().changed(|f| f[14] = 0x40),
            Drop::BadHeaderLength.into(),
        ),
        (
            "an IPv4 header longer than its packet",
            syn().changed(|f| {
                f[16..18].copy_from_slice(&19_u16.to_be_bytes());
                right_checksum(f);
            }),
            Drop::BadHeaderLength.into(),
        ),
        (
            "an IPv4 header with options longer than its packet",
            syn().changed(|f| {
                f.extend([0; 4]);
                f[14] = 0x4b;
                right_checksum(f);
            }),
            Drop::BadHeaderLength.into(),
        ),
        (
            "an IPv4 packet longer than its frame by a byte",
            syn().changed(|f| {
                f[17] += 1;
                right_checksum(f);
            }),
            Drop::BadTotalLength.into(),
        ),
        (
            "an IPv4 packet whose end was cut off",
            syn().payload(b"cut off").changed(|f| f.truncate(60)),
            Drop::BadTotalLength.into(),
        ),
        (
            "a wrong IPv4 header checksum",
            syn().changed(|f| f[24] ^= 1),
            Drop::BadChecksum.into(),
        ),
        (
            "an IPv4 header checksum of 0",
            syn().changed(|f| f[24..26].fill(0)),
            Drop::BadChecksum.into(),
        ),
        (
            "a wrong IPv4 header checksum because of its options",
            syn().options(&[1, 1, 1, 0]).changed(|f| f[35] ^= 2),
            Drop::BadChecksum.into(),
        ),
        (
            "an IPv4 fragment in the middle",
            query().payload(&[7; 16]).fragment(0x2001),
            Pass::Fragment.into(),
        ),
        (
            "the last IPv4 fragment, with ports of 0 in its data",
            other(protocol::TCP, CLIENT, WEB_AT)
                .payload(&[0; 20])
                .fragment(0x0fff),
            Pass::Fragment.into(),
        ),
    ]
}

fn ipv4_options() -> Vec<Case> {
    vec![
        (
            "an IPv4 loose source route",
            syn().options(&[131, 7, 4, 10, 0, 0, 9, 0]),
            Drop::SourceRoute.into(),
        ),
        (
            "an IPv4 strict source route",
            syn().options(&[137, 7, 4, 10, 0, 0, 9, 0]),
            Drop::SourceRoute.into(),
        ),
        (
            "an IPv4 source route behind other options",
            query().options(&[1, 148, 4, 0, 0, 1, 1, 131, 3, 4, 0, 0]),
            Drop::SourceRoute.into(),
        ),
        (
            "an IPv4 source route in the last byte",
            syn().options(&[1, 1, 1, 131]),
            Drop::SourceRoute.into(),
        ),
        (
            "an IPv4 option of length 0",
            syn().options(&[7, 0, 0, 0]),
            Drop::BadOptions.into(),
        ),
        (
            "an IPv4 option of length 1",
            syn().options(&[7, 1, 0, 0]),
            Drop::BadOptions.into(),
        ),
        (
            "an IPv4 option longer than the header",
            syn().options(&[1, 7, 4, 0]),
            Drop::BadOptions.into(),
        ),
        (
            "an IPv4 option without a length",
            syn().options(&[1, 1, 1, 7]),
            Drop::BadOptions.into(),
        ),
        (
            "bad IPv4 options of a fragment",
            syn().options(&[7, 0, 0, 0]).fragment(0x2000),
            Drop::BadOptions.into(),
        ),
    ]
}

fn ipv6_header() -> Vec<Case> {
    vec![
        (
            "a frame that ends inside the IPv6 header",
            syn6().changed(|f| f.truncate(53)),
            Drop::Truncated.into(),
        ),
        (
            "IPv4 in the version field of IPv6",
            syn6().changed(|f| f[14] = 0x45),
            Drop::BadVersion.into(),
        ),
        (
            "an IPv6 packet longer than its frame by a byte",
            syn6().changed(|f| f[19] += 1),
            Drop::BadTotalLength.into(),
        ),
        (
            "an IPv6 packet longer than any",
            syn6().changed(|f| f[18..20].fill(0xff)),
            Drop::BadTotalLength.into(),
        ),
        (
            "a jumbogram's length of 0",
            syn6().changed(|f| f[18..20].fill(0)),
            Drop::BadTcpHeader.into(),
        ),
    ]
}

fn ipv6_extensions() -> Vec<Case> {
    let options = [0, 0, 1, 4, 0, 0, 0, 0];
    vec![
        (
            "an IPv6 type 0 routing header",
            syn6().extension(protocol::ROUTING, &[0, 0, 0, 1, 0, 0, 0, 0]),
            Drop::SourceRoute.into(),
        ),
        (
            "an IPv6 type 0 routing header that is used up, behind other headers",
            syn6()
                .extension(protocol::HOP_BY_HOP, &options)
                .extension(protocol::DESTINATION, &options)
                .extension(protocol::ROUTING, &[0, 0, 0, 0, 0, 0, 0, 0]),
            Drop::SourceRoute.into(),
        ),
        (
            "seven IPv6 extension headers",
            (0..7).fold(syn6(), |frame, _| {
                frame.extension(protocol::DESTINATION, &options)
            }),
            Drop::BadOptions.into(),
        ),
        (
            "an IPv6 extension header longer than its packet",
            syn6().extension(protocol::DESTINATION, &[0, 4, 1, 4, 0, 0, 0, 0]),
            Drop::BadOptions.into(),
        ),
        (
            "an IPv6 extension header longer than its packet, but not than its frame",
            syn6()
                .extension(protocol::DESTINATION, &[0, 4, 1, 4, 0, 0, 0, 0])
                .changed(|f| f.extend([0; 64])),
            Drop::BadOptions.into(),
        ),
        (
            "an IPv6 extension header that the frame ends in",
            other(protocol::HOP_BY_HOP, CLIENT6, WEB6_AT).payload(&[6, 0, 1, 2]),
            Drop::BadOptions.into(),
        ),
        (
            "an IPv6 fragment in the middle",
            query6().extension(protocol::FRAGMENT, &[0, 0, 0x12, 0x39, 1, 2, 3, 4]),
            Pass::Fragment.into(),
        ),
        (
            "the last IPv6 fragment, behind hop-by-hop options",
            query6()
                .extension(protocol::HOP_BY_HOP, &options)
                .extension(protocol::FRAGMENT, &[0, 0, 0, 8, 1, 2, 3, 4]),
            Pass::Fragment.into(),
        ),
        (
            "an IPv6 routing header with segments left",
            syn6().extension(protocol::ROUTING, &[0, 0, 4, 1, 0, 0, 0, 0]),
            Pass::OtherProtocol.into(),
        ),
        (
            "an IPv6 packet without a next header",
            other(NO_NEXT_HEADER, CLIENT6, WEB6_AT),
            Pass::OtherProtocol.into(),
        ),
        (
            "an IPv6 packet without a next header behind destination options",
            other(NO_NEXT_HEADER, CLIENT6, WEB6_AT).extension(protocol::DESTINATION, &options),
            Pass::OtherProtocol.into(),
        ),
        (
            "ICMPv6 behind hop-by-hop options, to one host",
            other(58, CLIENT6, WEB6_AT)
                .payload(&[128, 0, 0, 0, 0, 0, 0, 0])
                .extension(protocol::HOP_BY_HOP, &options),
            Pass::OtherProtocol.into(),
        ),
    ]
}

/// RFC 8200, section 4.7.
const NO_NEXT_HEADER: u8 = 59;

/// SYNs between addresses that no connection is opened for.
fn addresses() -> Vec<Case> {
    let between = |source, destination| tcp("S", source, destination);
    vec![
        (
            "from an IPv4 address to itself",
            between("192.0.2.10:4000", WEB_AT),
            Drop::Land.into(),
        ),
        (
            "from a loopback address",
            between("127.0.0.1:4000", WEB_AT),
            Drop::MartianSource.into(),
        ),
        (
            "from an address of this network",
            between("0.1.2.3:4000", WEB_AT),
            Drop::MartianSource.into(),
        ),
        (
            "from the unspecified address",
            between("0.0.0.0:4000", WEB_AT),
            Drop::MartianSource.into(),
        ),
        (
            "from a multicast address",
            between("224.0.0.1:4000", WEB_AT),
            Drop::MartianSource.into(),
        ),
        (
            "from a reserved address",
            between("240.0.0.1:4000", WEB_AT),
            Drop::MartianSource.into(),
        ),
        (
            "from the broadcast address",
            between("255.255.255.255:4000", WEB_AT),
            Drop::MartianSource.into(),
        ),
        (
            "to a multicast address",
            between(CLIENT, "224.0.0.1:80"),
            Pass::NotUnicast.into(),
        ),
        (
            "to the broadcast address, as DHCP asks",
            udp("0.0.0.0:68", "255.255.255.255:67"),
            Pass::NotUnicast.into(),
        ),
        (
            "to a multicast address, with options, as IGMP joins",
            other(2, "198.51.100.7:0", "224.0.0.22:0")
                .payload(&[0x22, 0, 0, 0, 0, 0, 0, 0])
                .options(&[148, 4, 0, 0]),
            Pass::NotUnicast.into(),
        ),
        (
            "from the IPv6 loopback address",
            between("[::1]:4000", WEB6_AT),
            Drop::MartianSource.into(),
        ),
        (
            "from the unspecified IPv6 address",
            between("[::]:4000", WEB6_AT),
            Drop::MartianSource.into(),
        ),
        (
            "from an IPv6 multicast address",
            between("[ff02::1]:4000", WEB6_AT),
            Drop::MartianSource.into(),
        ),
        (
            "from an IPv6 address to itself",
            between("[2001:db8::10]:1", WEB6_AT),
            Drop::Land.into(),
        ),
        (
            "to an IPv6 multicast address",
            between(CLIENT6, "[ff02::1]:80"),
            Pass::NotUnicast.into(),
        ),
        (
            "to an IPv6 multicast address, as duplicate address detection asks",
            other(58, "[::]:0", "[ff02::1:ff00:7]:0").payload(&[135; 24]),
            Pass::NotUnicast.into(),
        ),
    ]
}

fn ports_and_tcp_header() -> Vec<Case> {
    vec![
        (
            "from TCP port 0",
            tcp("S", "198.51.100.7:0", WEB_AT),
            Drop::PortZero.into(),
        ),
        (
            "to TCP port 0",
            tcp("S", CLIENT, "192.0.2.10:0"),
            Drop::PortZero.into(),
        ),
        (
            "from UDP port 0",
            udp("198.51.100.7:0", DNS_AT),
            Drop::PortZero.into(),
        ),
        (
            "to UDP port 0 over IPv6",
            udp(CLIENT6, "[2001:db8::10]:0"),
            Drop::PortZero.into(),
        ),
        (
            "a TCP header that the packet ends in",
            other(protocol::TCP, CLIENT, WEB_AT).payload(&[1; 19]),
            Drop::BadTcpHeader.into(),
        ),
        (
            "no TCP header",
            other(protocol::TCP, CLIENT, WEB_AT),
            Drop::BadTcpHeader.into(),
        ),
        (
            "a TCP header that the IPv6 packet ends in",
            other(protocol::TCP, CLIENT6, WEB6_AT).payload(&[1; 19]),
            Drop::BadTcpHeader.into(),
        ),
        (
            "a TCP data offset of 16",
            syn().changed(|f| f[46] = 0x40),
            Drop::BadTcpHeader.into(),
        ),
        (
            "a TCP data offset beyond the packet",
            syn().changed(|f| f[46] = 0x60),
            Drop::BadTcpHeader.into(),
        ),
        (
            "a TCP data offset beyond the packet, but not beyond the frame",
            syn().changed(|f| {
                f[46] = 0xf0;
                f.extend([0; 64]);
            }),
            Drop::BadTcpHeader.into(),
        ),
        (
            "a TCP header beyond the packet, since options count too",
            other(protocol::TCP, CLIENT, WEB_AT)
                .payload(&[0x50; 16])
                .options(&[148, 4, 0, 0])
                .changed(|f| f.extend([0; 64])),
            Drop::BadTcpHeader.into(),
        ),
    ]
}

fn udp_header() -> Vec<Case> {
    vec![
        (
            "a UDP header that the packet ends in",
            other(protocol::UDP, CLIENT, DNS_AT).payload(&[1; 7]),
            Drop::BadUdpLength.into(),
        ),
        (
            "a UDP length of 7",
            query().changed(|f| f[39] = 7),
            Drop::BadUdpLength.into(),
        ),
        (
            "a UDP length beyond the packet",
            query().changed(|f| f[39] = 9),
            Drop::BadUdpLength.into(),
        ),
        (
            "a UDP length beyond the packet, but not beyond the frame",
            query().changed(|f| {
                f[39] = 20;
                f.extend([0; 64]);
            }),
            Drop::BadUdpLength.into(),
        ),
        (
            "a UDP length beyond the packet, since options count too",
            query().options(&[148, 4, 0, 0]).changed(|f| {
                f[43] = 12;
                f.extend([0; 64]);
            }),
            Drop::BadUdpLength.into(),
        ),
        (
            "a UDP length beyond the packet, since extension headers count too",
            query6()
                .extension(protocol::DESTINATION, &[0, 0, 1, 4, 0, 0, 0, 0])
                .changed(|f| {
                    f[67] = 16;
                    f.extend([0; 64]);
                }),
            Drop::BadUdpLength.into(),
        ),
        (
            "a UDP length of 0 over IPv6",
            query6().changed(|f| f[59] = 0),
            Drop::BadUdpLength.into(),
        ),
    ]
}

fn not_ours() -> Vec<Case> {
    vec![
        (
            "ICMP echo",
            other(1, CLIENT, WEB_AT).payload(&[8, 0, 0, 0, 0, 1, 0, 1]),
            Pass::OtherProtocol.into(),
        ),
        (
            "ICMP with nothing in it",
            other(1, CLIENT, WEB_AT),
            Pass::OtherProtocol.into(),
        ),
        (
            "ICMPv6 echo",
            other(58, CLIENT6, WEB6_AT).payload(&[128, 0, 0, 0, 0, 1, 0, 1]),
            Pass::OtherProtocol.into(),
        ),
        (
            "ESP",
            other(50, CLIENT, WEB_AT).payload(&[9; 24]),
            Pass::OtherProtocol.into(),
        ),
        (
            "SCTP",
            other(132, CLIENT, WEB_AT).payload(&[9; 24]),
            Pass::OtherProtocol.into(),
        ),
        (
            "UDP-Lite over IPv6",
            other(136, CLIENT6, DNS6_AT).payload(&[9; 24]),
            Pass::OtherProtocol.into(),
        ),
        (
            "IPv6 over IPv4",
            other(41, CLIENT, WEB_AT).payload(&[0x60; 40]),
            Pass::OtherProtocol.into(),
        ),
        (
            "an authentication header over IPv4, which is not walked",
            other(51, CLIENT, WEB_AT).payload(&[6; 44]),
            Pass::OtherProtocol.into(),
        ),
        (
            "another protocol with TTL 1, for the box itself",
            other(89, CLIENT, WEB_AT).payload(&[2; 24]).ttl(1),
            Pass::OtherProtocol.into(),
        ),
        (
            "TTL 1 to no service, for the box itself",
            tcp("S", CLIENT, "192.0.2.10:179").ttl(1),
            Pass::NoService.into(),
        ),
        (
            "hop limit 1 to no service, for the box itself",
            tcp("S", CLIENT6, "[2001:db8::10]:179").ttl(1),
            Pass::NoService.into(),
        ),
    ]
}
