//! Frames by description. Built from scratch each time, checksums included, so that the frame expected out of an
//! engine owes nothing to the engine's own arithmetic.

use std::net::{IpAddr, SocketAddr};

use balancer_common::wire::protocol;

use super::{BOX_MAC, CLIENT_MAC};

/// What follows the network header.
#[derive(Clone, Copy, Debug)]
enum Transport {
    Udp,
    /// The control bits, by their first letters.
    Tcp(&'static str),
    /// ICMP of either family: type, code, and the four bytes that depend on them.
    Icmp(u8, u8, [u8; 4]),
    /// A protocol of which only the number counts; its bytes are the payload.
    Other(u8),
}

/// What the transport checksum is.
#[derive(Clone, Copy, Debug)]
enum Checksum {
    Right,
    /// UDP: 0 (RFC 768).
    None,
    /// The right one and this, in one's complement.
    Off(u16),
}

/// A frame. What is not said has a value of its own, other than 0 where the header has room for one: it must come
/// out as it went in.
#[derive(Clone, Debug)]
pub struct Frame {
    destination_mac: [u8; 6],
    source_mac: [u8; 6],
    tags: Vec<[u8; 4]>,
    source: SocketAddr,
    destination: SocketAddr,
    traffic_class: u8,
    ttl: u8,
    identification: u16,
    fragment: u16,
    options: Vec<u8>,
    extensions: Vec<(u8, Vec<u8>)>,
    transport: Transport,
    tcp_options: Vec<u8>,
    sequence: u32,
    acknowledgement: u32,
    payload: Vec<u8>,
    checksum: Checksum,
    /// Of a fragment: which bytes it has of what follows the network header.
    cut: Option<(usize, usize)>,
    change: fn(&mut Vec<u8>),
}

/// The number of a SYN, either way.
pub const SYN: u32 = 0x0102_0304;

/// A TCP segment; control bits by their first letters (E and C are those of ECN). Its numbers are those of a handshake with
/// [`SYN`] both ways, or of the first segment after it.
pub fn tcp(flags: &'static str, source: &str, destination: &str) -> Frame {
    let sequence = SYN + u32::from(!flags.contains('S'));
    Frame::new(Transport::Tcp(flags), source, destination).numbers(sequence, SYN + 1)
}

/// A UDP datagram.
pub fn udp(source: &str, destination: &str) -> Frame {
    Frame::new(Transport::Udp, source, destination)
}

/// An ICMP error of this type and code that quotes so many bytes of a packet. The ends have ports, which mean
/// nothing.
pub fn error(
    [kind, code]: [u8; 2],
    source: &str,
    destination: &str,
    quoted: &Frame,
    length: usize,
) -> Frame {
    let transport = Transport::Icmp(kind, code, [0, 0, 5, 0xdc]);
    Frame::new(transport, source, destination).payload(&quote(quoted, length))
}

/// So many bytes of a packet from its network header on; all where it is shorter.
pub fn quote(quoted: &Frame, length: usize) -> Vec<u8> {
    let frame = quoted.build();
    frame[14..].iter().copied().take(length).collect()
}

/// Another protocol.
pub fn other(number: u8, source: &str, destination: &str) -> Frame {
    Frame::new(Transport::Other(number), source, destination)
}

impl Frame {
    fn new(transport: Transport, source: &str, destination: &str) -> Self {
        Self {
            destination_mac: BOX_MAC,
            source_mac: CLIENT_MAC,
            tags: Vec::new(),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            traffic_class: 0,
            ttl: 64,
            identification: 0x1234,
            fragment: 0x4000,
            options: Vec::new(),
            extensions: Vec::new(),
            transport,
            tcp_options: Vec::new(),
            sequence: 0,
            acknowledgement: 0,
            payload: Vec::new(),
            checksum: Checksum::Right,
            cut: None,
            change: |_| {},
        }
    }

    /// Destination, then source MAC.
    pub fn macs(self, destination_mac: [u8; 6], source_mac: [u8; 6]) -> Self {
        Self {
            destination_mac,
            source_mac,
            ..self
        }
    }

    /// A VLAN tag behind those that are there: Ethernet type and control information.
    pub fn tag(mut self, ethertype: u16, control: u16) -> Self {
        let [a, b] = ethertype.to_be_bytes();
        let [c, d] = control.to_be_bytes();
        self.tags.push([a, b, c, d]);
        self
    }

    /// Other ends.
    pub fn between(self, source: &str, destination: &str) -> Self {
        Self {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            ..self
        }
    }

    /// Type of service, or traffic class: DSCP and ECN.
    pub fn traffic_class(self, traffic_class: u8) -> Self {
        Self {
            traffic_class,
            ..self
        }
    }

    /// TTL or hop limit.
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// One hop less.
    pub fn forwarded(self) -> Self {
        let ttl = self.ttl.wrapping_sub(1);
        self.ttl(ttl)
    }

    /// What tells the fragments of a datagram from those of others.
    pub fn identification(self, identification: u16) -> Self {
        Self {
            identification,
            ..self
        }
    }

    /// The flags and the offset of an IPv4 fragment, as one word.
    pub fn fragment(self, fragment: u16) -> Self {
        Self { fragment, ..self }
    }

    /// The fragment with `length` bytes of it, from `start` on, or all that there are.
    pub fn cut(self, start: usize, length: usize) -> Self {
        Self {
            cut: Some((start, length)),
            ..self
        }
    }

    /// IPv4 options, a multiple of four bytes.
    pub fn options(self, options: &[u8]) -> Self {
        Self {
            options: options.to_vec(),
            ..self
        }
    }

    /// An IPv6 extension header behind those that are there; its first byte is set to what follows.
    pub fn extension(mut self, number: u8, bytes: &[u8]) -> Self {
        self.extensions.push((number, bytes.to_vec()));
        self
    }

    /// TCP options, a multiple of four bytes.
    pub fn tcp_options(self, options: &[u8]) -> Self {
        Self {
            tcp_options: options.to_vec(),
            ..self
        }
    }

    /// Sequence and acknowledgement number.
    pub fn numbers(self, sequence: u32, acknowledgement: u32) -> Self {
        Self {
            sequence,
            acknowledgement,
            ..self
        }
    }

    /// What is carried.
    pub fn payload(self, payload: &[u8]) -> Self {
        Self {
            payload: payload.to_vec(),
            ..self
        }
    }

    /// UDP without a checksum.
    pub fn without_checksum(self) -> Self {
        Self {
            checksum: Checksum::None,
            ..self
        }
    }

    /// A transport checksum that is wrong by this much.
    pub fn checksum_off_by(self, difference: u16) -> Self {
        Self {
            checksum: Checksum::Off(difference),
            ..self
        }
    }

    /// The bytes changed after all.
    pub fn changed(self, change: fn(&mut Vec<u8>)) -> Self {
        Self { change, ..self }
    }

    /// Its bytes.
    pub fn build(&self) -> Vec<u8> {
        let whole = self.segment();
        let (segment, fragment) = match self.cut {
            None => (&whole[..], None),
            Some((start, length)) => {
                let end = whole.len().min(start + length);
                let (offset, more) = (start as u16 / 8, u16::from(end < whole.len()));
                (&whole[start.min(end)..end], Some((offset, more)))
            }
        };
        let mut frame = [self.destination_mac, self.source_mac].concat();
        frame.extend(self.tags.as_flattened());
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend(0x0800_u16.to_be_bytes());
                let length = 20 + self.options.len();
                let mut header = vec![0x40 | (length / 4) as u8, self.traffic_class];
                header.extend(((length + segment.len()) as u16).to_be_bytes());
                header.extend(self.identification.to_be_bytes());
                let word = fragment.map_or(self.fragment, |(offset, more)| offset | more << 13);
                header.extend(word.to_be_bytes());
                header.extend([self.ttl, self.protocol(), 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header.extend(&self.options);
                let sum = checksum(&header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                frame.extend(header);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend(0x86dd_u16.to_be_bytes());
                let mut extensions = Vec::new();
                let mut next = self.protocol();
                if let Some((offset, more)) = fragment {
                    extensions.extend([next, 0]);
                    extensions.extend((offset << 3 | more).to_be_bytes());
                    extensions.extend([1, 2]);
                    extensions.extend(self.identification.to_be_bytes());
                    next = protocol::FRAGMENT;
                }
                for (number, bytes) in self.extensions.iter().rev() {
                    extensions.splice(0..0, bytes.iter().copied());
                    extensions[0] = next;
                    next = *number;
                }
                let flow_label = 0xa_bcde;
                let first = 6 << 28 | u32::from(self.traffic_class) << 20 | flow_label;
                frame.extend(first.to_be_bytes());
                frame.extend(((extensions.len() + segment.len()) as u16).to_be_bytes());
                frame.extend([next, self.ttl]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                frame.extend(extensions);
            }
            _ => panic!("two families"),
        }
        frame.extend(segment);
        (self.change)(&mut frame);
        frame
    }

    fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Udp => protocol::UDP,
            Transport::Tcp(_) => protocol::TCP,
            Transport::Icmp(..) if self.source.is_ipv4() => protocol::ICMP,
            Transport::Icmp(..) => protocol::ICMPV6,
            Transport::Other(number) => number,
        }
    }

    fn segment(&self) -> Vec<u8> {
        let ports = [self.source.port(), self.destination.port()].map(u16::to_be_bytes);
        let mut segment = ports.concat();
        let checksum_at = match self.transport {
            Transport::Other(_) => return self.payload.clone(),
            Transport::Icmp(kind, code, rest) => {
                segment = vec![kind, code, 0, 0];
                segment.extend(rest);
                2
            }
            Transport::Udp => {
                segment.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                segment.extend([0, 0]);
                6
            }
            Transport::Tcp(flags) => {
                segment.extend(self.sequence.to_be_bytes());
                segment.extend(self.acknowledgement.to_be_bytes());
                let length = 20 + self.tcp_options.len();
                let flags = flags.chars().fold(0, |bits, flag| {
                    bits | 1 << "FSRPAUEC".find(flag).expect("a control bit")
                });
                segment.extend([((length / 4) << 4) as u8, flags]);
                segment.extend([0x20, 0x21, 0, 0, 0x22, 0x23]);
                segment.extend(&self.tcp_options);
                16
            }
        };
        segment.extend(&self.payload);
        let addresses = [octets(self.source.ip()), octets(self.destination.ip())].concat();
        let right = match (
            transport_checksum(&addresses, self.protocol(), &segment),
            self.transport,
        ) {
            // RFC 768: a computed 0 is sent as all ones.
            (0, Transport::Udp) => 0xffff,
            (right, _) => right,
        };
        let sum = match self.checksum {
            Checksum::Right => right,
            Checksum::None => 0,
            Checksum::Off(difference) => {
                let (sum, carry) = right.overflowing_add(difference);
                sum + u16::from(carry)
            }
        };
        segment[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
        segment
    }
}

/// The frame that answers `frame`: addresses, ports and MACs swapped.
pub fn answer(frame: &[u8]) -> Option<Vec<u8>> {
    let mut answer = frame.to_vec();
    let l3 = match (frame.get(12)?, frame.get(13)?) {
        (8, 0) if frame[14] == 0x45 => (26, 4, 34),
        (0x86, 0xdd) => (22, 16, 54),
        _ => return None,
    };
    let (addresses, size, ports) = l3;
    if frame.len() < ports + 4 {
        return None;
    }
    answer[addresses..addresses + 2 * size].rotate_left(size);
    answer[ports..ports + 4].rotate_left(2);
    answer[..12].rotate_left(6);
    Some(answer)
}

/// The bytes of an address.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The checksum of a segment between these addresses, source and destination; 0 when the segment has the right one already.
pub fn transport_checksum(addresses: &[u8], protocol: u8, segment: &[u8]) -> u16 {
    // RFC 792: the segment alone. That of ICMPv6 covers what others do (RFC 4443, section 2.3).
    if protocol == protocol::ICMP {
        return checksum(segment);
    }
    // RFC 9293, section 3.1, and RFC 8200, section 8.1: a pseudo-header before it.
    let length = (segment.len() as u32).to_be_bytes();
    checksum(&[addresses, &length, &[0, 0, 0, protocol], segment].concat())
}

/// The Internet checksum of bytes (RFC 1071), word by word.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
