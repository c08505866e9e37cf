//! A tuple: what a connection looks like in one direction.

use crate::family::Family;

/// Protocol, addresses and ports of a packet. The key of the flow table, so its layout has no padding.
///
/// Addresses and ports are as in the packet (network order), put together into words that the packet path loads,
/// compares and stores whole: a table that hashes 8 bytes at a time must not wait for narrower stores.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple<F: Family> {
    /// Source, then destination address.
    pub addresses: F::Pair,
    /// Bytes 0–1 source port, 2–3 destination port, 4 protocol, 5–7 zero.
    pub ports: PortsProtocol,
}

/// Ports and protocol in one word.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortsProtocol(pub u64);

impl PortsProtocol {
    /// From the ports as the four bytes of the L4 header, loaded as one word.
    #[inline(always)]
    #[must_use]
    pub const fn from_wire(ports: u32, protocol: u8) -> Self {
        Self(ports as u64 | (protocol as u64) << 32)
    }

    /// From ports in host order.
    #[inline(always)]
    #[must_use]
    pub const fn new(source: u16, destination: u16, protocol: u8) -> Self {
        let [a, b] = source.to_be_bytes();
        let [c, d] = destination.to_be_bytes();
        Self::from_wire(u32::from_ne_bytes([a, b, c, d]), protocol)
    }

    /// The ports as the four bytes of the L4 header, as one word.
    #[inline(always)]
    #[must_use]
    pub const fn wire(self) -> u32 {
        self.0 as u32
    }

    /// The source port, in host order.
    #[inline(always)]
    #[must_use]
    pub const fn source(self) -> u16 {
        let [a, b, _, _] = self.wire().to_ne_bytes();
        u16::from_be_bytes([a, b])
    }

    /// The destination port, in host order.
    #[inline(always)]
    #[must_use]
    pub const fn destination(self) -> u16 {
        let [_, _, c, d] = self.wire().to_ne_bytes();
        u16::from_be_bytes([c, d])
    }

    /// The IP protocol number.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(self) -> u8 {
        (self.0 >> 32) as u8
    }

    /// The same with another destination port, in host order.
    #[inline(always)]
    #[must_use]
    pub const fn to(self, destination: u16) -> Self {
        Self::new(self.source(), destination, self.protocol())
    }

    /// Source and destination swapped.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self::from_wire(self.wire().rotate_left(16), self.protocol())
    }
}

impl<F: Family> Tuple<F> {
    /// The tuple of the packets that answer this one's.
    #[inline(always)]
    #[must_use]
    pub fn reversed(&self) -> Self {
        Self {
            addresses: F::reversed(self.addresses),
            ports: self.ports.reversed(),
        }
    }
}
