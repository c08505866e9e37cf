//! Where the parts of a packet are, and whether its checksums are right: by other code than the parser's.

use crate::support::frame::{checksum, transport_checksum};

const HOP_BY_HOP: u8 = 0;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const ICMPV6: u8 = 58;
const DESTINATION: u8 = 60;

/// Offsets in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub is_ipv4: bool,
    pub l3: usize,
    pub l4: usize,
    /// Where the packet ends, by its network header.
    pub end: usize,
    pub protocol: u8,
    /// Of a fragment: where its data begins in the datagram's, and whether more is to come.
    pub fragment: Option<(usize, bool)>,
    /// Where the identification of a fragment is, and how long.
    pub identification: (usize, usize),
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]))
}

/// The parts of a frame; `None` when it is not of IP, or ends too early.
pub fn frame(frame: &[u8]) -> Option<Layout> {
    let mut at = 12;
    for _ in 0..2 {
        if matches!(word(frame, at)?, 0x8100 | 0x88a8) {
            at += 4;
        }
    }
    match word(frame, at)? {
        0x0800 => ipv4(frame, at + 2),
        0x86dd => ipv6(frame, at + 2),
        _ => None,
    }
}

fn ipv4(frame: &[u8], l3: usize) -> Option<Layout> {
    let header = usize::from(frame.get(l3)? & 15) * 4;
    let fragment = word(frame, l3 + 6)?;
    let (start, more) = (usize::from(fragment & 0x1fff) * 8, fragment & 0x2000 != 0);
    let layout = Layout {
        is_ipv4: true,
        l3,
        l4: l3 + header,
        end: l3 + usize::from(word(frame, l3 + 2)?),
        protocol: *frame.get(l3 + 9)?,
        fragment: (start > 0 || more).then_some((start, more)),
        identification: (l3 + 4, 2),
    };
    (frame[l3] >> 4 == 4 && header >= 20 && layout.l4 <= frame.len()).then_some(layout)
}

fn ipv6(frame: &[u8], l3: usize) -> Option<Layout> {
    let mut layout = Layout {
        is_ipv4: false,
        l3,
        l4: l3 + 40,
        end: l3 + 40 + usize::from(word(frame, l3 + 4)?),
        protocol: *frame.get(l3 + 6)?,
        fragment: None,
        identification: (0, 0),
    };
    if frame[l3] >> 4 != 6 || layout.l4 > frame.len() {
        return None;
    }
    // What is behind the header of a later fragment is data.
    while layout.fragment.is_none_or(|(start, _)| start == 0) {
        let at = layout.l4;
        let length = match layout.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => 8 + usize::from(*frame.get(at + 1)?) * 8,
            AUTHENTICATION => 8 + usize::from(*frame.get(at + 1)?) * 4,
            FRAGMENT => {
                let fragment = word(frame, at + 2)?;
                let (start, more) = (usize::from(fragment & 0xfff8), fragment & 1 != 0);
                layout.fragment = (start > 0 || more).then_some((start, more));
                layout.identification = (at + 4, 4);
                8
            }
            _ => break,
        };
        layout.protocol = *frame.get(at)?;
        layout.l4 += length;
    }
    (layout.l4 <= frame.len()).then_some(layout)
}

impl Layout {
    /// Where source and destination are.
    pub fn addresses(&self) -> std::ops::Range<usize> {
        if self.is_ipv4 {
            self.l3 + 12..self.l3 + 20
        } else {
            self.l3 + 8..self.l3 + 40
        }
    }

    /// Where the TTL or hop limit is.
    pub fn ttl(&self) -> usize {
        self.l3 + if self.is_ipv4 { 8 } else { 7 }
    }

    /// Where the IPv4 header's checksum is.
    pub fn header_checksum(&self) -> Option<usize> {
        self.is_ipv4.then_some(self.l3 + 10)
    }

    /// Whether it has ports.
    pub fn has_ports(&self) -> bool {
        matches!(self.protocol, TCP | UDP) && self.fragment.is_none_or(|(start, _)| start == 0)
    }

    /// Where the transport checksum is, if the packet has one.
    pub fn checksum(&self) -> Option<usize> {
        let at = match self.protocol {
            TCP => 16,
            UDP => 6,
            ICMP if self.is_ipv4 => 2,
            ICMPV6 if !self.is_ipv4 => 2,
            _ => return None,
        };
        self.fragment
            .is_none_or(|(start, _)| start == 0)
            .then_some(self.l4 + at)
    }

    /// What an ICMP error quotes.
    pub fn quoted(&self, bytes: &[u8]) -> Option<Self> {
        let kind = *bytes.get(self.l4)?;
        let at = self.l4 + 8;
        match self.protocol {
            _ if self.fragment.is_some() => None,
            ICMP if self.is_ipv4 && matches!(kind, 3 | 11 | 12) => ipv4(bytes, at),
            ICMPV6 if !self.is_ipv4 && kind < 128 => ipv6(bytes, at),
            _ => None,
        }
    }

    /// By how much the header's checksum is wrong: 0 if it is right.
    pub fn header_error(&self, bytes: &[u8]) -> Option<u16> {
        self.header_checksum()?;
        Some(one_zero(checksum(bytes.get(self.l3..self.l4)?)))
    }

    /// By how much the transport checksum is wrong, when all is there that it is of, and it is one.
    pub fn error(&self, bytes: &[u8]) -> Option<u16> {
        if self.fragment.is_some() || self.is_without(bytes) {
            return None;
        }
        let at = self.checksum()?;
        let segment = bytes.get(self.l4..self.end)?;
        self.error_of(bytes, segment).filter(|_| at + 2 <= self.end)
    }

    /// The same of a datagram whose data is elsewhere.
    pub fn error_of(&self, bytes: &[u8], segment: &[u8]) -> Option<u16> {
        let mut length = segment.len();
        if self.protocol == UDP {
            // What is behind it is not its own (RFC 768).
            length = word(segment, 4)?.into();
            if length < 8 {
                return None;
            }
        }
        let (addresses, segment) = (&bytes[self.addresses()], segment.get(..length)?);
        let wrong = transport_checksum(addresses, self.protocol, segment);
        Some(one_zero(wrong))
    }

    /// Whether it is UDP that says that it has no checksum.
    pub fn is_without(&self, bytes: &[u8]) -> bool {
        self.protocol == UDP && word(bytes, self.l4 + 6) == Some(0)
    }
}

/// One's complement has two zeros.
fn one_zero(sum: u16) -> u16 {
    sum % 0xffff
}

/// Makes the checksums of a frame right, also those of what it quotes.
pub fn repair(bytes: &mut [u8]) {
    let Some(layout) = frame(bytes) else {
        return;
    };
    if let Some(quoted) = layout.quoted(bytes) {
        repair_header(bytes, &quoted);
    }
    repair_header(bytes, &layout);
    if layout.fragment.is_some() || layout.is_without(bytes) {
        return;
    }
    if let Some(at) = layout.checksum()
        && at + 2 <= layout.end
        && layout.end <= bytes.len()
    {
        bytes[at..at + 2].fill(0);
        let segment = &bytes[layout.l4..layout.end];
        if let Some(sum) = layout.error_of(bytes, segment) {
            let sum = if sum == 0 && layout.protocol == UDP {
                0xffff
            } else {
                sum
            };
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
    }
}

fn repair_header(bytes: &mut [u8], layout: &Layout) {
    if let Some(at) = layout.header_checksum() {
        bytes[at..at + 2].fill(0);
        let sum = checksum(&bytes[layout.l3..layout.l4]);
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}
