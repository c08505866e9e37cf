//! The IPv6 header (RFC 8200, section 3).

use super::{put, u16_at, u64_at};

/// The length of the fixed header.
pub const LENGTH: usize = 40;

/// A header to read.
pub struct Header<'a>(pub &'a [u8; LENGTH]);

impl Header<'_> {
    /// The version: 6.
    #[inline(always)]
    #[must_use]
    pub fn version(&self) -> u8 {
        self.0[0] >> 4
    }

    /// The length of what follows the fixed header, in bytes.
    #[inline(always)]
    #[must_use]
    pub fn payload_length(&self) -> u16 {
        u16::from_be(u16_at(self.0, 4))
    }

    /// The protocol of the first extension header or of the payload.
    #[inline(always)]
    #[must_use]
    pub fn next_header(&self) -> u8 {
        self.0[6]
    }

    /// Hop limit.
    #[inline(always)]
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.0[7]
    }

    /// Source and destination address.
    #[inline(always)]
    #[must_use]
    pub fn addresses(&self) -> [u64; 4] {
        [
            u64_at(self.0, 8),
            u64_at(self.0, 16),
            u64_at(self.0, 24),
            u64_at(self.0, 32),
        ]
    }
}

/// A header to write.
pub struct HeaderMut<'a>(pub &'a mut [u8; LENGTH]);

impl HeaderMut<'_> {
    /// Hop limit.
    #[inline(always)]
    #[must_use]
    pub fn hop_limit(&self) -> u8 {
        self.0[7]
    }

    /// New addresses, one hop less.
    #[inline(always)]
    pub fn forward(self, addresses: [u64; 4]) {
        self.0[7] = self.0[7].wrapping_sub(1);
        self.translate(addresses);
    }

    /// New addresses.
    #[inline(always)]
    pub fn translate(self, addresses: [u64; 4]) {
        put(self.0, 8, addresses[0].to_ne_bytes());
        put(self.0, 16, addresses[1].to_ne_bytes());
        put(self.0, 24, addresses[2].to_ne_bytes());
        put(self.0, 32, addresses[3].to_ne_bytes());
    }
}
