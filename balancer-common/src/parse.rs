//! From bytes to headers: the only parser.
//!
//! Malformed packets are dropped under a reason of their own; what is well formed but not the pipeline's business
//! goes to the kernel. Offsets stay small and bounded at every step, which is what the verifier wants to see.

use crate::checksum::{fold, is_whole};
use crate::family::{Family, V4, V6};
use crate::fragment::{Fragment, Key};
use crate::packet::Packet;
use crate::table::segment::{Scale, Segment};
use crate::tuple::{PortsProtocol, Tuple};
use crate::verdict::{Drop, Exit, Pass};
use crate::wire::{self, ETHERNET, ethertype, ipv4, ipv6, protocol, tcp, u16_at, u32_at};

/// How many extension headers an IPv6 packet may have (RFC 8504, section 5.3 lets a node set a limit).
const MAX_EXTENSION_HEADERS: usize = 6;

/// What the Ethernet header says.
#[derive(Clone, Copy, Debug)]
pub struct L2 {
    /// The Ethernet type behind the tags, as loaded.
    pub ethertype: u16,
    /// Where the network header begins: 14, 18 or 22.
    pub l3: usize,
}

/// What the network header says.
#[derive(Clone, Copy, Debug)]
pub struct L3<F: Family> {
    /// Source and destination.
    pub addresses: F::Pair,
    /// TCP or UDP, or whatever else there is.
    pub protocol: u8,
    /// Where the transport header begins.
    pub l4: usize,
    /// The packet's length from the network header on, in bytes.
    pub length: u16,
    /// The length from the transport header on, in bytes.
    pub payload: u16,
}

/// All that the pipeline knows of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Headers<F: Family> {
    /// Who talks to whom.
    pub tuple: Tuple<F>,
    /// Where the network header begins.
    pub l3: usize,
    /// Where the transport header begins.
    pub l4: usize,
    /// The packet's length from the network header on, in bytes: what counters count.
    pub length: u16,
}

impl<F: Family> Headers<F> {
    /// Whether it is one of TCP.
    #[inline(always)]
    pub fn is_tcp(&self) -> bool {
        self.tuple.ports.protocol() == protocol::TCP
    }

    /// Where the packet ends.
    #[inline(always)]
    pub fn end(&self) -> usize {
        self.l3 + usize::from(self.length)
    }

    /// Whether the frame carries VLAN tags.
    #[inline(always)]
    #[must_use]
    pub fn is_tagged(&self) -> bool {
        self.l3 != ETHERNET
    }
}

/// Reads the Ethernet header and up to two VLAN tags (IEEE 802.1Q).
///
/// # Errors
/// [`Drop::Truncated`]; [`Pass::NotUnicast`] for group addresses.
#[inline(always)]
pub fn ethernet<P: Packet + ?Sized>(packet: &P) -> Result<L2, Exit> {
    let header: &[u8; ETHERNET] = packet.window(0).ok_or(Drop::Truncated)?;
    if header[0] & 1 != 0 {
        return Err(Pass::NotUnicast.into());
    }
    let mut l2 = L2 {
        ethertype: u16_at(header, 12),
        l3: ETHERNET,
    };
    if is_tag(l2.ethertype) {
        l2 = tag(packet, l2.l3)?;
        if is_tag(l2.ethertype) {
            l2 = tag(packet, l2.l3)?;
        }
    }
    l2.l3 = packet.forget(l2.l3);
    Ok(l2)
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == ethertype::VLAN || ethertype == ethertype::SERVICE_VLAN
}

#[inline(always)]
fn tag<P: Packet + ?Sized>(packet: &P, offset: usize) -> Result<L2, Exit> {
    let tag: &[u8; 4] = packet.window(offset).ok_or(Drop::Truncated)?;
    Ok(L2 {
        ethertype: u16_at(tag, 2),
        l3: offset + 4,
    })
}

/// Reads an IPv4 header.
#[inline(always)]
pub(crate) fn ipv4<P: Packet>(packet: &P, offset: usize) -> Result<L3<V4>, Exit> {
    let header = ipv4::Header(packet.window(offset).ok_or(Drop::Truncated)?);
    if header.version() != 4 {
        return Err(Drop::BadVersion.into());
    }
    let header_length = header.header_length();
    if header_length < ipv4::LENGTH {
        return Err(Drop::BadHeaderLength.into());
    }
    let length = header.total_length();
    if usize::from(length) < header_length {
        return Err(Drop::BadHeaderLength.into());
    }
    if !packet.reaches(offset + usize::from(length)) {
        return Err(Drop::BadTotalLength.into());
    }
    let mut sum = header.sum();
    let mut found = OPTIONS_GOOD;
    if header_length > ipv4::LENGTH {
        let options = packet.options(offset + ipv4::LENGTH, offset + header_length);
        sum += options & 0xffff_ffff;
        found = options >> 32;
    }
    if !is_whole(sum) {
        return Err(Drop::BadChecksum.into());
    }
    let addresses = header.addresses();
    let (source, destination) = (
        V4::source(addresses).to_ne_bytes(),
        V4::destination(addresses).to_ne_bytes(),
    );
    let (protocol, is_fragment) = (header.protocol(), header.is_fragment());
    if destination[0] >= 224 {
        return Err(Pass::NotUnicast.into());
    }
    if !matches!(source[0], 1..=126 | 128..=223) {
        return Err(Drop::MartianSource.into());
    }
    if source == destination {
        return Err(Drop::Land.into());
    }
    match found {
        OPTIONS_GOOD => {}
        OPTIONS_SOURCE_ROUTE => return Err(Drop::SourceRoute.into()),
        _ => return Err(Drop::BadOptions.into()),
    }
    if is_fragment {
        return Err(Pass::Fragment.into());
    }
    Ok(L3 {
        addresses,
        protocol,
        l4: offset + header_length,
        length,
        payload: length - header_length as u16,
    })
}

const OPTIONS_GOOD: u64 = 0;
const OPTIONS_SOURCE_ROUTE: u64 = 1;
const OPTIONS_BAD: u64 = 2;

/// Reads IPv4 options from `start` to `end`, at most 40 bytes: their sum in the lower half, and what [`options_found`]
/// says in the upper.
#[inline(always)]
pub fn options<P: Packet>(packet: &P, start: usize, end: usize) -> u64 {
    options_sum(packet, start, end) | options_found(packet, start, end) << 32
}

/// The folded sum of IPv4 options.
#[inline(always)]
pub fn options_sum<P: Packet>(packet: &P, start: usize, end: usize) -> u64 {
    let mut sum = 0;
    let mut offset = start;
    for _ in 0..10 {
        if offset >= end {
            break;
        }
        // A header that ends behind the frame was dropped before.
        let Some(word) = packet.window::<4>(offset) else {
            break;
        };
        sum += u64::from(u32_at(word, 0));
        offset += 4;
    }
    fold(sum).into()
}

/// Walks IPv4 options: whether there is a source route (RFC 7126, sections 4.3 and 4.4) or an option that overruns the
/// header.
#[inline(always)]
pub fn options_found<P: Packet>(packet: &P, start: usize, end: usize) -> u64 {
    let length = packet.forget(end - start);
    let mut walked = 0;
    for _ in 0..40 {
        // Forgotten, since else every way through the options so far would be followed on its own.
        walked = packet.forget(walked);
        if walked >= length {
            break;
        }
        match packet.option(start + walked) {
            OPTION_END => break,
            OPTION_SOURCE_ROUTE => return OPTIONS_SOURCE_ROUTE,
            option => walked += option as usize,
        }
        if walked > length {
            return OPTIONS_BAD;
        }
    }
    OPTIONS_GOOD
}

/// There are no more options, or this one is a source route, or it has no length.
const OPTION_END: u32 = 0;
const OPTION_SOURCE_ROUTE: u32 = 256;
const OPTION_BAD: u32 = 257;

/// The length of the IPv4 option at `offset`, or one of the above. A bad one is longer than any header.
#[inline(always)]
pub fn option<P: Packet>(packet: &P, offset: usize) -> u32 {
    const END: u8 = 0;
    const NO_OPERATION: u8 = 1;
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    const STRICT_SOURCE_ROUTE: u8 = 137;
    // With the byte before it, which is of the header: the verifier learns nothing from a window of one byte.
    let Some([_, kind]) = packet.window::<2>(offset - 1) else {
        return OPTION_BAD;
    };
    match *kind {
        END => OPTION_END,
        NO_OPERATION => 1,
        LOOSE_SOURCE_ROUTE | STRICT_SOURCE_ROUTE => OPTION_SOURCE_ROUTE,
        _ => match packet.window::<2>(offset) {
            Some([_, length]) if *length >= 2 => (*length).into(),
            _ => OPTION_BAD,
        },
    }
}

/// Reads an IPv6 header and its extension headers.
#[inline(always)]
pub(crate) fn ipv6<P: Packet>(packet: &P, offset: usize) -> Result<L3<V6>, Exit> {
    let header = ipv6::Header(packet.window(offset).ok_or(Drop::Truncated)?);
    if header.version() != 6 {
        return Err(Drop::BadVersion.into());
    }
    let payload = header.payload_length();
    if !packet.reaches(offset + ipv6::LENGTH + usize::from(payload))
        || payload > u16::MAX - ipv6::LENGTH as u16
    {
        return Err(Drop::BadTotalLength.into());
    }
    let addresses = header.addresses();
    let (source, destination) = (V6::source(addresses), V6::destination(addresses));
    if destination[0].to_ne_bytes()[0] == 0xff {
        return Err(Pass::NotUnicast.into());
    }
    // Of ::/127 that is the unspecified and the loopback address.
    if source[0].to_ne_bytes()[0] == 0xff || (source[0] == 0 && u64::from_be(source[1]) <= 1) {
        return Err(Drop::MartianSource.into());
    }
    if source == destination {
        return Err(Drop::Land.into());
    }
    let (protocol, skipped) =
        transport(packet, offset + ipv6::LENGTH, header.next_header(), payload)?;
    Ok(L3 {
        addresses,
        protocol,
        l4: offset + ipv6::LENGTH + usize::from(skipped),
        length: payload + ipv6::LENGTH as u16,
        payload: payload - skipped,
    })
}

/// Reads what a fragment's IPv4 header says of it; the rest of the header has been checked.
#[inline(always)]
pub(crate) fn ipv4_fragment<P: Packet>(packet: &P, offset: usize) -> Result<Fragment<V4>, Exit> {
    let header = ipv4::Header(packet.window(offset).ok_or(Drop::Truncated)?);
    let (header_length, total) = (header.header_length(), header.total_length());
    let (start, more) = header.fragment();
    Ok(Fragment {
        key: Key {
            addresses: header.addresses(),
            identification: header.identification().into(),
            protocol: header.protocol().into(),
        },
        start: start.into(),
        more,
        data: offset + header_length,
        length: total.saturating_sub(header_length as u16),
        protocol: header.protocol(),
        total,
    })
}

/// Reads what an IPv6 fragment header says; what stands before it has been checked.
#[inline(always)]
pub(crate) fn ipv6_fragment<P: Packet>(packet: &P, offset: usize) -> Result<Fragment<V6>, Exit> {
    let header = ipv6::Header(packet.window(offset).ok_or(Drop::Truncated)?);
    let payload = header.payload_length();
    let start = offset + ipv6::LENGTH;
    let walked = packet.extensions(start, header.next_header(), payload);
    let Walked::Fragment { skipped } = Walked::of(walked) else {
        return Err(Drop::BadOptions.into());
    };
    let at = start + usize::from(skipped);
    let extension: &[u8; FRAGMENT_HEADER] = packet.window(at).ok_or(Drop::Truncated)?;
    let word = u16::from_be(u16_at(extension, 2));
    Ok(Fragment {
        key: Key {
            addresses: header.addresses(),
            identification: u32_at(extension, 4),
            protocol: 0,
        },
        start: (word & 0xfff8).into(),
        more: word & 1 != 0,
        data: at + FRAGMENT_HEADER,
        length: payload.saturating_sub(skipped + FRAGMENT_HEADER as u16),
        protocol: extension[0],
        total: payload + ipv6::LENGTH as u16,
    })
}

/// The length of an IPv6 fragment header.
const FRAGMENT_HEADER: usize = 8;

/// The protocol behind the extension headers from `start` on, and how long they are.
///
/// # Errors
/// The verdict for a fragment, and for headers that cannot be walked.
#[inline(always)]
pub(crate) fn transport<P: Packet>(
    packet: &P,
    start: usize,
    next: u8,
    payload: u16,
) -> Result<(u8, u16), Exit> {
    if !is_extension(next) {
        return Ok((next, 0));
    }
    match Walked::of(packet.extensions(start, next, payload)) {
        Walked::Transport { protocol, length } => Ok((protocol, length)),
        Walked::Fragment { .. } => Err(Pass::Fragment.into()),
        Walked::SourceRoute => Err(Drop::SourceRoute.into()),
        Walked::Bad => Err(Drop::BadOptions.into()),
    }
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    matches!(
        next,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AUTHENTICATION
            | protocol::DESTINATION
    )
}

/// Where a chain of extension headers ended.
enum Walked {
    Transport {
        protocol: u8,
        length: u16,
    },
    /// The fragment header stands behind so many bytes.
    Fragment {
        skipped: u16,
    },
    SourceRoute,
    Bad,
}

impl Walked {
    // A function that is not inlined can give the verifier one register only: an enum with a payload would be two.
    const SOURCE_ROUTE: u64 = 1 << 32;
    const BAD: u64 = 2 << 32;
    const FRAGMENT: u64 = 3 << 32;

    #[inline(always)]
    fn of(packed: u64) -> Self {
        match packed {
            // At most six headers of at most 2,048 bytes each; the clamps show the verifier.
            _ if packed >= Self::FRAGMENT => Self::Fragment {
                skipped: packed as u16 & 0x3fff,
            },
            Self::SOURCE_ROUTE => Self::SourceRoute,
            Self::BAD => Self::Bad,
            _ => Self::Transport {
                protocol: (packed >> 16) as u8,
                length: packed as u16 & 0x3fff,
            },
        }
    }
}

/// Walks the extension headers from `start`, of which the first is `next`, within `payload` bytes.
/// Gives what `Walked::of` takes.
#[inline(always)]
pub fn extensions<P: Packet>(packet: &P, start: usize, mut next: u8, payload: u16) -> u64 {
    let mut skipped = 0_u16;
    for _ in 0..MAX_EXTENSION_HEADERS {
        // Before the window: what follows the last of them may be shorter, or nothing (RFC 8200, section 4.7).
        if !is_extension(next) {
            break;
        }
        let Some(header) = packet.window::<8>(start + usize::from(skipped & 0x3fff)) else {
            return Walked::BAD;
        };
        let length = match next {
            protocol::HOP_BY_HOP | protocol::DESTINATION => 8 + (u16::from(header[1]) << 3),
            protocol::ROUTING => {
                // Type 0 is a source route (RFC 5095); used up or not, nobody has reason to send it.
                if header[2] == 0 {
                    return Walked::SOURCE_ROUTE;
                }
                // It is not yet where it goes: the kernel's (RFC 8200, section 4.4).
                if header[3] != 0 {
                    return u64::from(skipped) | u64::from(protocol::ROUTING) << 16;
                }
                8 + (u16::from(header[1]) << 3)
            }
            protocol::AUTHENTICATION => (u16::from(header[1]) + 2) << 2,
            protocol::FRAGMENT => {
                // Neither an offset nor more to come: an atomic fragment (RFC 6946), a whole packet.
                if u16_at(header, 2) & 0xfff9_u16.to_be() != 0 {
                    return Walked::FRAGMENT | u64::from(skipped);
                }
                8
            }
            _ => break,
        };
        next = header[0];
        skipped += length;
        if skipped > payload {
            return Walked::BAD;
        }
    }
    if is_extension(next) {
        return Walked::BAD;
    }
    u64::from(skipped) | u64::from(next) << 16
}

/// Reads network and transport header.
///
/// # Errors
/// The verdict for a packet that is malformed, or neither TCP nor UDP.
#[inline(always)]
pub fn headers<F: Family, P: Packet>(packet: &P, offset: usize) -> Result<Headers<F>, Exit> {
    let l3 = F::parse(packet, offset)?;
    let ports = match l3.protocol {
        protocol::TCP => tcp(packet, l3.l4, l3.payload)?,
        protocol::UDP => udp(packet, l3.l4, l3.payload)?,
        _ => return Err(Pass::OtherProtocol.into()),
    };
    if ports as u16 == 0 || ports >> 16 == 0 {
        return Err(Drop::PortZero.into());
    }
    let ports = PortsProtocol::from_wire(ports, l3.protocol);
    Ok(Headers {
        tuple: Tuple {
            addresses: l3.addresses,
            ports,
        },
        l3: offset,
        l4: l3.l4,
        length: l3.length,
    })
}

/// The tuple of a packet that has its ports: a whole one, or a first fragment.
///
/// # Errors
/// The verdict for one that is malformed, or neither TCP nor UDP.
pub fn tuple<F: Family, P: Packet>(packet: &P, offset: usize) -> Result<Tuple<F>, Exit> {
    match headers(packet, offset) {
        Err(exit) if exit == Pass::Fragment.into() => {
            let fragment = F::fragment(packet, offset)?;
            Ok(first_fragment(packet, offset, &fragment)?.tuple)
        }
        headers => Ok(headers?.tuple),
    }
}

/// Reads the transport header of a first fragment.
///
/// # Errors
/// The verdict for one that is malformed, too short, or neither TCP nor UDP.
#[inline(always)]
pub(crate) fn first_fragment<F: Family, P: Packet>(
    packet: &P,
    l3: usize,
    fragment: &Fragment<F>,
) -> Result<Headers<F>, Exit> {
    let (protocol, skipped) = F::behind_fragment(packet, fragment)?;
    // Bounded as the prover wants to see it: no frame is longer.
    let l4 = (fragment.data & 0x7fff) + usize::from(skipped);
    let payload = fragment.length.saturating_sub(skipped);
    let ports = match protocol {
        protocol::TCP => tcp(packet, l4, payload).map_err(|_| Drop::TinyFragment)?,
        protocol::UDP if usize::from(payload) < wire::udp::LENGTH => {
            return Err(Drop::TinyFragment.into());
        }
        // Its length is that of the whole.
        protocol::UDP => {
            let header: &[u8; wire::udp::LENGTH] = packet.window(l4).ok_or(Drop::Truncated)?;
            u32_at(header, 0)
        }
        _ => return Err(Pass::OtherProtocol.into()),
    };
    if ports as u16 == 0 || ports >> 16 == 0 {
        return Err(Drop::PortZero.into());
    }
    Ok(Headers {
        tuple: Tuple {
            addresses: fragment.key.addresses,
            ports: PortsProtocol::from_wire(ports, protocol),
        },
        l3,
        l4,
        length: fragment.total,
    })
}

#[inline(always)]
fn tcp<P: Packet>(packet: &P, offset: usize, payload: u16) -> Result<u32, Exit> {
    if usize::from(payload) < tcp::LENGTH {
        return Err(Drop::BadTcpHeader.into());
    }
    let header: &[u8; tcp::LENGTH] = packet.window(offset).ok_or(Drop::Truncated)?;
    let length = tcp::header_length(header);
    if usize::from(length) < tcp::LENGTH || length > payload {
        return Err(Drop::BadTcpHeader.into());
    }
    Ok(u32_at(header, 0))
}

/// A packet of this protocol as a segment, from `start` to `end`.
#[inline(always)]
pub fn segment_of<P: Packet>(packet: &P, protocol: u8, start: usize, end: usize) -> Segment {
    match packet.window::<{ tcp::LENGTH }>(start) {
        Some(header) if protocol == protocol::TCP => {
            Segment::from_word(packet.segment(start, end), tcp::acknowledgement(header))
        }
        _ => Segment::DATAGRAM,
    }
}

/// What else a TCP header says of its connection, which few packets are asked for: the segment from `start` to `end`, as
/// [one word](Segment::to_word).
#[inline(always)]
pub fn segment<P: Packet>(packet: &P, start: usize, end: usize) -> u64 {
    // It was there when the headers were read.
    let Some(header) = packet.window::<{ tcp::LENGTH }>(start) else {
        return Segment::DATAGRAM.to_word();
    };
    let flags = tcp::flags(header);
    let data = start + usize::from(tcp::header_length(header));
    let scale = if flags & tcp::flags::SYN == 0 {
        Scale::NONE
    } else {
        Scale(packet.window_scale(start + tcp::LENGTH, data) as u8 & 15)
    };
    Segment::new(flags, tcp::sequence(header), 0)
        .carrying(end.wrapping_sub(data) as u16)
        .offering(scale)
        .to_word()
}

/// The [`Scale`] among the TCP options from `start` to `end`, at most 40 bytes; the largest, when they cannot be read.
#[inline(always)]
pub fn window_scale<P: Packet>(packet: &P, start: usize, end: usize) -> u32 {
    const UNKNOWN: u32 = Scale::MOST.0 as u32;
    let length = packet.forget(end.wrapping_sub(start));
    let mut walked = 0;
    for _ in 0..40 {
        walked = packet.forget(walked);
        if walked >= length {
            break;
        }
        let at = start + walked;
        // With the byte before it, as in `option`.
        match packet.window::<2>(at - 1) {
            Some([_, tcp::option::WINDOW_SCALE]) => {
                return match packet.window::<3>(at) {
                    Some([_, 3, shift]) if walked + 3 <= length => u32::from(*shift).min(UNKNOWN),
                    _ => UNKNOWN,
                };
            }
            Some(_) => {}
            None => return UNKNOWN,
        }
        // The two kinds without a length are those of IPv4.
        match packet.option(at) {
            OPTION_END => break,
            option => walked += option as usize,
        }
        if walked > length {
            return UNKNOWN;
        }
    }
    Scale::NONE.0.into()
}

#[inline(always)]
fn udp<P: Packet>(packet: &P, offset: usize, payload: u16) -> Result<u32, Exit> {
    if usize::from(payload) < wire::udp::LENGTH {
        return Err(Drop::BadUdpLength.into());
    }
    let header: &[u8; wire::udp::LENGTH] = packet.window(offset).ok_or(Drop::Truncated)?;
    let length = u16::from_be(u16_at(header, 4));
    if usize::from(length) < wire::udp::LENGTH || length > payload {
        return Err(Drop::BadUdpLength.into());
    }
    Ok(u32_at(header, 0))
}
