//! The fields of TCP (RFC 9293, section 3.1) that matter here.

use super::u32_at;

/// The length of a header without options.
pub const LENGTH: usize = 20;
/// Where the checksum is.
pub const CHECKSUM: usize = 16;

/// Kinds of options.
pub mod option {
    /// How far the window is shifted (RFC 7323, section 2.2).
    pub const WINDOW_SCALE: u8 = 3;
}

/// The sequence number.
#[inline(always)]
#[must_use]
pub fn sequence(header: &[u8; LENGTH]) -> u32 {
    u32::from_be(u32_at(header, 4))
}

/// The acknowledgement number.
#[inline(always)]
#[must_use]
pub fn acknowledgement(header: &[u8; LENGTH]) -> u32 {
    u32::from_be(u32_at(header, 8))
}

/// How long the header says that it is, with options.
#[inline(always)]
#[must_use]
pub const fn header_length(header: &[u8; LENGTH]) -> u16 {
    ((header[12] >> 4) as u16) << 2
}

/// The control bits.
#[inline(always)]
#[must_use]
pub const fn flags(header: &[u8; LENGTH]) -> u8 {
    header[13]
}

/// Control bits.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgement field is significant.
    pub const ACK: u8 = 0x10;
}
