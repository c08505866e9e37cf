//! The fields of UDP (RFC 768).

/// The length of the header.
pub const LENGTH: usize = 8;
/// Where the checksum is.
pub const CHECKSUM: usize = 6;
