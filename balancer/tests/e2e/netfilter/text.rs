//! A frame in words that are the same in all worlds.

use std::fmt::Write as _;
use std::net::IpAddr;

use etherparse::{Ipv6ExtensionSlice, LaxNetSlice, LaxSlicedPacket};

use super::world::{Side, World};
use crate::support::frame::{SYN, checksum, octets, transport_checksum};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// What all the frames of a sequence are told by.
#[derive(Clone, Copy)]
pub struct Reader {
    pub world: World,
    pub side: Side,
    /// The first port of the client.
    pub first: u16,
}

/// A network header, and what is behind it.
pub struct Net<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub ttl: u8,
    /// Where the payload begins in its datagram, and whether more is to come.
    pub fragment: Option<(u16, bool)>,
    pub payload: &'a [u8],
    /// Where the payload begins behind the first byte of the header.
    pub offset: usize,
    /// The length that the header says.
    pub length: usize,
    notes: String,
}

impl<'a> Net<'a> {
    /// Of an IP packet, which may be cut.
    pub fn of(packet: &'a [u8]) -> Option<Self> {
        let sliced = LaxSlicedPacket::from_ip(packet).ok()?;
        let mut notes = String::new();
        let (source, destination, payload, ttl, class, fragment, length): (
            IpAddr,
            IpAddr,
            _,
            _,
            _,
            _,
            _,
        ) = match sliced.net? {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                if checksum(header.slice()) != 0 {
                    notes += ", header checksum wrong";
                }
                if !header.options().is_empty() {
                    write!(notes, ", options {:02x?}", header.options()).unwrap();
                }
                let start = header.fragments_offset().byte_offset();
                let is_fragment = start > 0 || header.more_fragments();
                if !is_fragment && !header.dont_fragment() {
                    notes += ", may be cut";
                }
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                    ip.payload().clone(),
                    header.ttl(),
                    header.slice()[1],
                    is_fragment.then_some((start, header.more_fragments())),
                    usize::from(header.total_len()),
                )
            }
            LaxNetSlice::Ipv6(ip) => {
                let header = ip.header();
                let headers = ip.extensions().clone().into_iter();
                // RFC 8200, section 4.5.
                let fragment = headers.filter_map(|it| match it {
                    Ipv6ExtensionSlice::Fragment(it) => Some(it.slice()),
                    _ => None,
                });
                let fragment = fragment.last().map(|header| {
                    let word = u16::from_be_bytes([header[2], header[3]]);
                    (word & !7, word & 1 != 0)
                });
                let length = ip.extensions().slice().len();
                let other = length - if fragment.is_some() { 8 } else { 0 };
                if other > 0 {
                    write!(notes, ", {other} bytes of extensions").unwrap();
                }
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                    ip.payload().clone(),
                    header.hop_limit(),
                    header.traffic_class(),
                    fragment,
                    usize::from(header.payload_length()) + 40,
                )
            }
            LaxNetSlice::Arp(_) => return None,
        };
        if class != 0 {
            write!(notes, ", class {class:#04x}").unwrap();
        }
        Some(Self {
            source,
            destination,
            protocol: payload.ip_number.0,
            ttl,
            fragment,
            offset: payload.payload.as_ptr() as usize - packet.as_ptr() as usize,
            payload: payload.payload,
            length,
            notes,
        })
    }

    /// Source and destination port, if these are there.
    pub fn ports(&self) -> Option<[u16; 2]> {
        let has_ports = matches!(self.protocol, TCP | UDP)
            && self.fragment.is_none_or(|(start, _)| start == 0)
            && self.payload.len() >= 4;
        has_ports
            .then(|| [0, 2].map(|at| u16::from_be_bytes([self.payload[at], self.payload[at + 1]])))
    }

    /// Whether it is an ICMP error.
    pub fn is_error(&self) -> bool {
        match self.protocol {
            ICMP => matches!(self.payload.first(), Some(3 | 4 | 5 | 11 | 12)),
            ICMPV6 => matches!(self.payload.first(), Some(..128)),
            _ => false,
        }
    }

    /// Whether its transport checksum is right.
    fn has_right_checksum(&self) -> bool {
        let told = match (self.protocol, self.payload) {
            (UDP, &[_, _, _, _, high, low, ..]) => u16::from_be_bytes([high, low]).into(),
            _ => self.payload.len(),
        };
        let addresses = [octets(self.source), octets(self.destination)].concat();
        let segment = self.payload.get(..told);
        segment.is_some_and(|it| transport_checksum(&addresses, self.protocol, it) == 0)
    }
}

impl Reader {
    /// A frame.
    pub fn frame(self, frame: &[u8]) -> String {
        let packet = &frame[14..];
        let text = match Net::of(packet) {
            Some(net) => {
                let behind = packet.len().saturating_sub(net.length);
                let behind = if behind > 0 {
                    format!(", {behind} bytes behind the packet")
                } else {
                    String::new()
                };
                format!("{}{behind}", self.packet(&net, false))
            }
            None => format!("{packet:02x?}"),
        };
        format!("{}: {text}", self.side.name())
    }

    fn packet(self, net: &Net<'_>, is_quoted: bool) -> String {
        let ports = net.ports();
        let name = |address, index: usize| {
            let port = ports.map(|ports| ports[index]);
            self.world.name(self.side, address, port, self.first)
        };
        let ends = format!("{} > {}", name(net.source, 0), name(net.destination, 1));
        let mut text = match (net.protocol, net.payload) {
            _ if net.fragment.is_some_and(|(start, _)| start > 0) => {
                format!("fragment of {} {ends}", net.protocol)
            }
            (TCP, payload) if payload.len() >= 20 => {
                let number = |at: usize, base: u32| {
                    let number = u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
                    match number {
                        0 => "none".to_owned(),
                        _ => number.wrapping_sub(base).cast_signed().to_string(),
                    }
                };
                let flags: String = "FSRPAUEC"
                    .char_indices()
                    .filter(|(bit, _)| payload[13] & 1 << bit != 0)
                    .map(|(_, flag)| flag)
                    .collect();
                let flags = if flags.is_empty() { "-" } else { &flags };
                let carried = payload.len() - payload.len().min(usize::from(payload[12] >> 4) * 4);
                let acknowledged = if payload[13] & 16 != 0 {
                    format!(" ack {}", number(8, SYN))
                } else {
                    String::new()
                };
                format!(
                    "TCP {flags} {ends}, {}{acknowledged}, {carried} bytes",
                    number(4, SYN)
                )
            }
            (TCP, _) => format!("TCP {ends}"),
            (UDP, payload) if payload.len() >= 8 => {
                let length = u16::from_be_bytes([payload[4], payload[5]]);
                let sum = if payload[6..8] == [0, 0] {
                    ", no checksum"
                } else {
                    ""
                };
                format!("UDP {ends}, {} bytes{sum}", i32::from(length) - 8)
            }
            (ICMP | ICMPV6, &[kind, code, _, _, a, b, c, d, ref rest @ ..]) => {
                let mut text = format!(
                    "{} {ends}",
                    kind_of(net.protocol == ICMP, kind, code, [a, b, c, d])
                );
                if net.is_error() {
                    let quoted = match Net::of(rest) {
                        Some(quoted) => {
                            format!(
                                "{}; {} bytes",
                                self.packet(&quoted, true),
                                quoted.payload.len()
                            )
                        }
                        None => format!("{rest:02x?}"),
                    };
                    write!(text, " about ({quoted})").unwrap();
                }
                text
            }
            (protocol, payload) => format!("protocol {protocol} {ends}, {} bytes", payload.len()),
        };
        if let Some((start, more)) = net.fragment {
            let end = usize::from(start) + net.payload.len();
            write!(
                text,
                ", bytes {start} to {end}{}",
                if more { " and more" } else { "" }
            )
            .unwrap();
        }
        let has_checksum =
            matches!(net.protocol, TCP | UDP | ICMP | ICMPV6) && net.fragment.is_none();
        let has_none = net.protocol == UDP && net.payload.get(6..8) == Some(&[0, 0]);
        if !is_quoted && has_checksum && !has_none && !net.has_right_checksum() {
            text += ", checksum wrong";
        }
        if is_quoted || net.ttl != 63 {
            write!(text, ", ttl {}", net.ttl).unwrap();
        }
        text + &net.notes
    }
}

/// What an ICMP message says, by type, code and the four bytes that depend on them.
fn kind_of(is_ipv4: bool, kind: u8, code: u8, rest: [u8; 4]) -> String {
    let mtu = u32::from_be_bytes(rest) & 0xffff;
    match (is_ipv4, kind, code) {
        (true, 3, 1) | (false, 1, 3) => "host unreachable".to_owned(),
        (true, 3, 3) | (false, 1, 4) => "port unreachable".to_owned(),
        (true, 3, 13) | (false, 1, 1) => "prohibited".to_owned(),
        (true, 3, 4) | (false, 2, 0) => format!("too big for {mtu}"),
        (true, 11, 0) | (false, 3, 0) => "time exceeded".to_owned(),
        (true, 12, _) | (false, 4, _) => format!("parameter problem {code} at {rest:?}"),
        (true, 8, 0) | (false, 128, 0) => "echo".to_owned(),
        (true, 0, 0) | (false, 129, 0) => "echo reply".to_owned(),
        _ => format!("ICMP {kind}/{code}"),
    }
}
