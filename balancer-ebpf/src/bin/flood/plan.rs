//! What the generator and its program share: the flows, and the headers of a flow's frames.
//!
//! Both compile this file, so the frames that are tested in user space are those that the program writes.

/// How many words of a frame [`Plan::template`] has room for.
pub const WORDS: usize = 10;

/// How many of them the headers of IPv4 lie in: every frame is at least as long.
pub const WORDS_V4: usize = 7;

/// The same for IPv6.
pub const WORDS_V6: usize = 10;

/// What is sent. Numbers are in the machine's order, but for the template.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The first bytes of every frame, as they lie in it.
    pub template: [u64; WORDS],
    /// The interface that frames leave by.
    pub interface: u32,
    /// How many flows there are; at least 1.
    pub flows: u32,
    /// The last four bytes of the first source address.
    pub source: u32,
    /// The first source port.
    pub port: u32,
    /// How many source ports there are; at least 1.
    pub ports: u32,
    /// The sum of what the checksum of the IPv4 header covers, without `source`'s bytes; 16 bits.
    pub header_sum: u32,
    /// The sum of what the transport's checksum covers, without `source`'s bytes and the port; 16 bits.
    pub transport_sum: u32,
    /// 1: each frame is of a flow that chance takes; 0: they take turns.
    pub random: u32,
}

const _: () = assert!(size_of::<Plan>() == WORDS * 8 + 8 * 4);

/// Where the sender is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many frames it has sent.
    pub sent: u64,
    /// The flow whose turn is next.
    pub next: u64,
}

/// What the receiver has counted.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames.
    pub packets: u64,
    /// Their bytes, from the first address to the end of the payload.
    pub bytes: u64,
}

/// What is different in the frames of each flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patch {
    /// The last four bytes of the source address.
    pub source: u32,
    /// The source port.
    pub port: u16,
    /// The checksum of the IPv4 header.
    pub header: u16,
    /// The checksum of the transport. In UDP, 0 is to be written as 0xffff.
    pub transport: u16,
}

impl Plan {
    /// The patch of a flow. Ports are used up first, then comes the next address.
    #[inline(always)]
    #[must_use]
    pub fn patch(&self, flow: u32) -> Patch {
        // The verifier wants no proof that a divisor is not 0, but the compiler does.
        let ports = if self.ports == 0 { 1 } else { self.ports };
        let source = self.source.wrapping_add(flow / ports);
        let port = self.port.wrapping_add(flow % ports) & 0xffff;
        let sum = (source >> 16) + (source & 0xffff);
        Patch {
            source,
            port: port as u16,
            header: !fold(self.header_sum + sum),
            transport: !fold(self.transport_sum + sum + port),
        }
    }
}

/// A sum of less than 2³² in ones' complement of 16 bits (RFC 1071, section 2).
#[inline(always)]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + (sum & 0xffff)) as u16
}
