//! Header views: fields by name over windows of fixed size. No view allocates, copies or can fail.

pub mod ipv4;
pub mod ipv6;
pub mod tcp;
pub mod udp;

/// The length of an Ethernet header without tags.
pub const ETHERNET: usize = 14;
/// Ethernet types, as loaded from the frame.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800_u16.to_be();
    /// IPv6.
    pub const IPV6: u16 = 0x86dd_u16.to_be();
    /// An IEEE 802.1Q tag.
    pub const VLAN: u16 = 0x8100_u16.to_be();
    /// An IEEE 802.1ad service tag.
    pub const SERVICE_VLAN: u16 = 0x88a8_u16.to_be();
}

/// IP protocol numbers.
pub mod protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// TCP (RFC 9293).
    pub const TCP: u8 = 6;
    /// UDP (RFC 768).
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// ICMP of IPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
}

/// `M` bytes of a window at a constant offset, as an array: one load, where loads byte by byte would reach the
/// verifier's machine as such. (The compiler sees that the offset is inside; zeros are never the answer.)
#[inline(always)]
fn chunk<const N: usize, const M: usize>(window: &[u8; N], offset: usize) -> [u8; M] {
    match window.get(offset..).and_then(|rest| rest.first_chunk()) {
        Some(chunk) => *chunk,
        None => [0; M],
    }
}

/// Two bytes of a window at a constant offset, in the machine's order as they lie.
#[inline(always)]
pub(crate) fn u16_at<const N: usize>(window: &[u8; N], offset: usize) -> u16 {
    u16::from_ne_bytes(chunk(window, offset))
}

/// Four bytes likewise.
#[inline(always)]
pub(crate) fn u32_at<const N: usize>(window: &[u8; N], offset: usize) -> u32 {
    u32::from_ne_bytes(chunk(window, offset))
}

/// Eight bytes likewise.
#[inline(always)]
pub(crate) fn u64_at<const N: usize>(window: &[u8; N], offset: usize) -> u64 {
    u64::from_ne_bytes(chunk(window, offset))
}

/// Writes bytes at a constant offset.
#[inline(always)]
pub(crate) fn put<const N: usize, const M: usize>(
    window: &mut [u8; N],
    offset: usize,
    bytes: [u8; M],
) {
    if let Some(chunk) = window
        .get_mut(offset..)
        .and_then(|rest| rest.first_chunk_mut())
    {
        *chunk = bytes;
    }
}
