//! The fields of TCP (RFC 9293, section 3.1) that matter here.

/// The length of a header without options.
pub const LENGTH: usize = 20;
/// Where the checksum is.
pub const CHECKSUM: usize = 16;

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
