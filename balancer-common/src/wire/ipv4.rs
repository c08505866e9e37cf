//! The IPv4 header (RFC 791, section 3.1), its first 20 bytes.

use super::{put, u16_at, u32_at, u64_at};
use crate::checksum;

/// The length of a header without options.
pub const LENGTH: usize = 20;

/// A header to read.
pub struct Header<'a>(pub &'a [u8; LENGTH]);

impl Header<'_> {
    /// The version: 4.
    #[inline(always)]
    #[must_use]
    pub fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// The header's length in bytes, options included: 0 to 60.
    #[inline(always)]
    #[must_use]
    pub fn header_length(&self) -> usize {
        usize::from(self.0[0] & 15) << 2
    }

    /// The packet's length in bytes.
    #[inline(always)]
    #[must_use]
    pub fn total_length(&self) -> u16 {
        u16::from_be(u16_at(self.0, 2))
    }

    /// Whether it is a fragment: an offset, or more to come.
    #[inline(always)]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        u16_at(self.0, 6) & 0x3fff_u16.to_be() != 0
    }

    /// Of a fragment where its data begins in the whole, in bytes, and whether there is more behind it.
    #[inline(always)]
    #[must_use]
    pub fn fragment(&self) -> (u16, bool) {
        let word = u16::from_be(u16_at(self.0, 6));
        ((word & 0x1fff) << 3, word & 0x2000 != 0)
    }

    /// Whether its sender wants it whole.
    #[inline(always)]
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.0[6] & 0x40 != 0
    }

    /// The identification, as loaded.
    #[inline(always)]
    #[must_use]
    pub fn identification(&self) -> u16 {
        u16_at(self.0, 4)
    }

    /// Time to live.
    #[inline(always)]
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.0[8]
    }

    /// The protocol of the payload.
    #[inline(always)]
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.0[9]
    }

    /// Source and destination address.
    #[inline(always)]
    #[must_use]
    pub fn addresses(&self) -> u64 {
        u64_at(self.0, 12)
    }

    /// The sum of the 20 bytes, not folded: 0xffff folded, for a header without options that is right.
    #[inline(always)]
    #[must_use]
    pub fn sum(&self) -> u64 {
        u64::from(u32_at(self.0, 0))
            + u64::from(u32_at(self.0, 4))
            + u64::from(u32_at(self.0, 8))
            + checksum::halves(self.addresses())
    }
}

/// A header to write.
pub struct HeaderMut<'a>(pub &'a mut [u8; LENGTH]);

impl HeaderMut<'_> {
    /// Time to live.
    #[inline(always)]
    #[must_use]
    pub fn ttl(&self) -> u8 {
        self.0[8]
    }

    /// New addresses of a quoted header, its checksum after `delta`, which accounts for them.
    #[inline(always)]
    pub fn translate(self, addresses: u64, delta: u16) {
        let sum = checksum::update(u16_at(self.0, 10), delta);
        put(self.0, 10, sum.to_ne_bytes());
        put(self.0, 12, addresses.to_ne_bytes());
    }

    /// New addresses, one hop less, the checksum after `delta`, which accounts for both.
    #[inline(always)]
    pub fn forward(self, addresses: u64, delta: u16) {
        self.0[8] = self.0[8].wrapping_sub(1);
        self.translate(addresses, delta);
    }
}
