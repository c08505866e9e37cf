//! What differs between IPv4 and IPv6.

use core::fmt::Debug;
use core::hash::Hash;

use crate::checksum;
use crate::fragment::Fragment;
use crate::icmp::Quoted;
use crate::packet::Packet;
use crate::parse::{self, L3};
use crate::tuple::Tuple;
use crate::verdict::{Drop, Exit, Pass};
use crate::wire::{ipv4, ipv6, protocol};
use crate::word::Word;

/// A pair of addresses in shared memory. It is written by one CPU before others look at it, so it need not be whole.
pub trait PairCell<P>: Debug + Default + Send + Sync {
    /// The pair.
    fn get(&self) -> P;
    /// Writes it.
    fn set(&self, pair: P);
    /// Whether it is this one. (Compared as arrays, four words are compared by a loop over bytes in BPF.)
    fn is(&self, pair: &P) -> bool;
}

impl PairCell<u64> for Word {
    #[inline(always)]
    fn get(&self) -> u64 {
        self.get()
    }

    #[inline(always)]
    fn set(&self, pair: u64) {
        self.set(pair);
    }

    #[inline(always)]
    fn is(&self, pair: &u64) -> bool {
        self.get() == *pair
    }
}

impl PairCell<[u64; 4]> for [Word; 4] {
    #[inline(always)]
    fn get(&self) -> [u64; 4] {
        let [a, b, c, d] = self;
        [a.get(), b.get(), c.get(), d.get()]
    }

    #[inline(always)]
    fn set(&self, pair: [u64; 4]) {
        let [a, b, c, d] = self;
        a.set(pair[0]);
        b.set(pair[1]);
        c.set(pair[2]);
        d.set(pair[3]);
    }

    #[inline(always)]
    fn is(&self, pair: &[u64; 4]) -> bool {
        let [a, b, c, d] = self;
        (a.get() ^ pair[0]) | (b.get() ^ pair[1]) | (c.get() ^ pair[2]) | (d.get() ^ pair[3]) == 0
    }
}

/// How many keys a hash has; all of them odd numbers by chance.
pub const KEYS: usize = 5;

/// Mixes a sum of products with odd keys by chance: their upper halves are spread evenly (multiply-shift hashing), but
/// sequences stay sequences.
#[inline(always)]
const fn mix(sum: u64) -> u64 {
    // An odd constant without structure: the golden ratio's.
    (sum ^ (sum >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// An address family: its addresses and its header. Everything else is written once.
pub trait Family: Copy + Debug + Eq + Hash + Ord + 'static {
    /// An address, in network order.
    type Address: Copy + Debug + Eq + Hash;
    /// Source and destination address as they lie side by side in the header, in 64-bit words.
    type Pair: Copy + Debug + Eq + Hash + Ord;
    /// A pair in shared memory.
    type PairWords: PairCell<Self::Pair>;
    /// 4 or 6.
    const VERSION: u8;
    /// The protocol number of its ICMP.
    const ICMP: u8;
    /// No addresses.
    const NO_PAIR: Self::Pair;

    /// Puts two addresses side by side.
    fn pair(source: Self::Address, destination: Self::Address) -> Self::Pair;
    /// The source address.
    fn source(pair: Self::Pair) -> Self::Address;
    /// The destination address.
    fn destination(pair: Self::Pair) -> Self::Address;
    /// Source and destination swapped.
    fn reversed(pair: Self::Pair) -> Self::Pair;

    /// An address as 16 bytes in two words; IPv4 as IPv4-mapped (RFC 4291, section 2.5.5.2).
    fn mapped(address: Self::Address) -> [u64; 2];
    /// The inverse of [`Family::mapped`].
    fn unmapped(words: [u64; 2]) -> Self::Address;

    /// A keyed hash of a tuple; its upper half is the better one.
    fn keyed_hash(tuple: &Tuple<Self>, keys: &[u64; KEYS]) -> u64;

    /// What replacing the addresses `old` by `new` adds to a checksum, not folded.
    fn replaced(old: Self::Pair, new: Self::Pair) -> u64;

    /// Reads and checks the network header at `offset`.
    ///
    /// # Errors
    /// The verdict for a packet that is malformed or that the pipeline leaves to the kernel.
    fn parse<P: Packet>(packet: &P, offset: usize) -> Result<L3<Self>, Exit>;

    /// The TTL or hop limit of the header at `offset`; `None` when the frame ends before.
    fn ttl<P: Packet>(packet: &P, offset: usize) -> Option<u8>;

    /// Reads of a fragment, whose network header at `offset` [`Family::parse`] has checked, what concerns it as such.
    ///
    /// # Errors
    /// None for a fragment.
    fn fragment<P: Packet>(packet: &P, offset: usize) -> Result<Fragment<Self>, Exit>;

    /// The transport protocol of a first fragment, and how many bytes of extension headers are before it.
    ///
    /// # Errors
    /// The verdict for a packet whose headers are not all in its first fragment (RFC 7112).
    fn behind_fragment<P: Packet>(packet: &P, fragment: &Fragment<Self>)
    -> Result<(u8, u16), Exit>;

    /// Whether a router may cut the packet at `offset` into fragments.
    fn may_be_cut<P: Packet>(packet: &P, offset: usize) -> bool;

    /// Whether an ICMP type is an error.
    fn is_error(kind: u8) -> bool;

    /// Reads the network header at `offset` that an error quotes; `None` when the transport header cannot be found
    /// behind it: it is malformed, cut, or of a fragment.
    fn quoted<P: Packet>(packet: &P, offset: usize) -> Option<Quoted<Self>>;

    /// Writes new addresses into a quoted network header and, where it has a checksum, brings that up to date by `delta`.
    ///
    /// # Errors
    /// [`Drop::Truncated`], not of a header that was read.
    fn rewrite_quoted<P: Packet>(
        packet: &mut P,
        offset: usize,
        new: &Self::Pair,
        delta: u16,
    ) -> Result<(), Exit>;

    /// Writes new addresses, decrements the TTL and, where the header has one, brings its checksum up to date by
    /// `delta`, which accounts for both.
    ///
    /// # Errors
    /// [`Drop::TtlExceeded`] when the TTL is 1 or 0; the packet is as it was.
    fn rewrite<P: Packet>(
        packet: &mut P,
        offset: usize,
        new: &Self::Pair,
        delta: u16,
    ) -> Result<(), Exit>;
}

/// IPv4 (RFC 791).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V4;

/// IPv6 (RFC 8200).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct V6;

impl Family for V4 {
    /// As loaded from the packet: `u32::from_ne_bytes` of the four bytes.
    type Address = u32;
    type Pair = u64;
    type PairWords = Word;
    const VERSION: u8 = 4;
    const ICMP: u8 = protocol::ICMP;
    const NO_PAIR: u64 = 0;

    #[inline(always)]
    fn pair(source: u32, destination: u32) -> u64 {
        let (first, second) = (u32::from_le(source), u32::from_le(destination));
        (u64::from(first) | u64::from(second) << 32).to_le()
    }

    #[inline(always)]
    fn source(pair: u64) -> u32 {
        let [a, b, c, d, ..] = pair.to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d])
    }

    #[inline(always)]
    fn destination(pair: u64) -> u32 {
        let [.., a, b, c, d] = pair.to_ne_bytes();
        u32::from_ne_bytes([a, b, c, d])
    }

    #[inline(always)]
    fn reversed(pair: u64) -> u64 {
        pair.rotate_left(32)
    }

    #[inline(always)]
    fn mapped(address: u32) -> [u64; 2] {
        let [a, b, c, d] = address.to_ne_bytes();
        [0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])]
    }

    #[inline(always)]
    fn unmapped(words: [u64; 2]) -> u32 {
        Self::destination(words[1])
    }

    #[inline(always)]
    fn keyed_hash(tuple: &Tuple<Self>, keys: &[u64; KEYS]) -> u64 {
        let addresses = tuple.addresses.wrapping_mul(keys[0]);
        mix(addresses.wrapping_add(tuple.ports.0.wrapping_mul(keys[1])))
    }

    #[inline(always)]
    fn replaced(old: u64, new: u64) -> u64 {
        checksum::replace(old, new)
    }

    #[inline(always)]
    fn parse<P: Packet>(packet: &P, offset: usize) -> Result<L3<Self>, Exit> {
        parse::ipv4(packet, offset)
    }

    #[inline(always)]
    fn ttl<P: Packet>(packet: &P, offset: usize) -> Option<u8> {
        Some(ipv4::Header(packet.window(offset)?).ttl())
    }

    #[inline(always)]
    fn rewrite<P: Packet>(
        packet: &mut P,
        offset: usize,
        new: &u64,
        delta: u16,
    ) -> Result<(), Exit> {
        let header = ipv4::HeaderMut(packet.window_mut(offset).ok_or(Drop::Truncated)?);
        if header.ttl() <= 1 {
            return Err(Drop::TtlExceeded.into());
        }
        header.forward(*new, delta);
        Ok(())
    }

    #[inline(always)]
    fn fragment<P: Packet>(packet: &P, offset: usize) -> Result<Fragment<Self>, Exit> {
        parse::ipv4_fragment(packet, offset)
    }

    #[inline(always)]
    fn behind_fragment<P: Packet>(_: &P, fragment: &Fragment<Self>) -> Result<(u8, u16), Exit> {
        Ok((fragment.protocol, 0))
    }

    #[inline(always)]
    fn may_be_cut<P: Packet>(packet: &P, offset: usize) -> bool {
        let header = packet.window(offset);
        header.is_some_and(|header| !ipv4::Header(header).dont_fragment())
    }

    /// Destination Unreachable, Time Exceeded, Parameter Problem. (Source Quench is ignored: RFC 6633; Redirect is not
    /// forwarded: RFC 1812, section 5.2.7.2.)
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 3 | 11 | 12)
    }

    #[inline(always)]
    fn quoted<P: Packet>(packet: &P, offset: usize) -> Option<Quoted<Self>> {
        let header = ipv4::Header(packet.window(offset)?);
        let length = header.header_length();
        // Only the first fragment has the ports.
        let (start, _) = header.fragment();
        if header.version() != 4 || length < ipv4::LENGTH || start > 0 {
            return None;
        }
        Some(Quoted {
            addresses: header.addresses(),
            protocol: header.protocol(),
            l4: offset + length,
        })
    }

    #[inline(always)]
    fn rewrite_quoted<P: Packet>(
        packet: &mut P,
        offset: usize,
        new: &u64,
        delta: u16,
    ) -> Result<(), Exit> {
        let header = ipv4::HeaderMut(packet.window_mut(offset).ok_or(Drop::Truncated)?);
        header.translate(*new, delta);
        Ok(())
    }
}

impl Family for V6 {
    type Address = [u64; 2];
    type Pair = [u64; 4];
    type PairWords = [Word; 4];
    const VERSION: u8 = 6;
    const ICMP: u8 = protocol::ICMPV6;
    const NO_PAIR: [u64; 4] = [0; 4];

    #[inline(always)]
    fn pair(source: [u64; 2], destination: [u64; 2]) -> [u64; 4] {
        [source[0], source[1], destination[0], destination[1]]
    }

    #[inline(always)]
    fn source(pair: [u64; 4]) -> [u64; 2] {
        [pair[0], pair[1]]
    }

    #[inline(always)]
    fn destination(pair: [u64; 4]) -> [u64; 2] {
        [pair[2], pair[3]]
    }

    #[inline(always)]
    fn reversed(pair: [u64; 4]) -> [u64; 4] {
        [pair[2], pair[3], pair[0], pair[1]]
    }

    #[inline(always)]
    fn mapped(address: [u64; 2]) -> [u64; 2] {
        address
    }

    #[inline(always)]
    fn unmapped(words: [u64; 2]) -> [u64; 2] {
        words
    }

    #[inline(always)]
    fn keyed_hash(tuple: &Tuple<Self>, keys: &[u64; KEYS]) -> u64 {
        let [a, b, c, d] = tuple.addresses;
        let source = (a.wrapping_mul(keys[0])).wrapping_add(b.wrapping_mul(keys[1]));
        let destination = (c.wrapping_mul(keys[2])).wrapping_add(d.wrapping_mul(keys[3]));
        let ports = tuple.ports.0.wrapping_mul(keys[4]);
        mix(source.wrapping_add(destination).wrapping_add(ports))
    }

    #[inline(always)]
    fn replaced(old: [u64; 4], new: [u64; 4]) -> u64 {
        checksum::replace(old[0], new[0])
            + checksum::replace(old[1], new[1])
            + checksum::replace(old[2], new[2])
            + checksum::replace(old[3], new[3])
    }

    #[inline(always)]
    fn parse<P: Packet>(packet: &P, offset: usize) -> Result<L3<Self>, Exit> {
        parse::ipv6(packet, offset)
    }

    #[inline(always)]
    fn ttl<P: Packet>(packet: &P, offset: usize) -> Option<u8> {
        Some(ipv6::Header(packet.window(offset)?).hop_limit())
    }

    #[inline(always)]
    fn rewrite<P: Packet>(
        packet: &mut P,
        offset: usize,
        new: &[u64; 4],
        _: u16,
    ) -> Result<(), Exit> {
        let header = ipv6::HeaderMut(packet.window_mut(offset).ok_or(Drop::Truncated)?);
        if header.hop_limit() <= 1 {
            return Err(Drop::TtlExceeded.into());
        }
        header.forward(*new);
        Ok(())
    }

    #[inline(always)]
    fn fragment<P: Packet>(packet: &P, offset: usize) -> Result<Fragment<Self>, Exit> {
        parse::ipv6_fragment(packet, offset)
    }

    #[inline(always)]
    fn behind_fragment<P: Packet>(
        packet: &P,
        fragment: &Fragment<Self>,
    ) -> Result<(u8, u16), Exit> {
        let (data, next) = (fragment.data, fragment.protocol);
        let walked = parse::transport(packet, data, next, fragment.length);
        Ok(walked.map_err(|_| Drop::TinyFragment)?)
    }

    /// Only its sender does that (RFC 8200, section 4.5).
    #[inline(always)]
    fn may_be_cut<P: Packet>(_: &P, _: usize) -> bool {
        false
    }

    /// Destination Unreachable, Packet Too Big, Time Exceeded, Parameter Problem (RFC 4443, section 2.1).
    #[inline(always)]
    fn is_error(kind: u8) -> bool {
        matches!(kind, 1..=4)
    }

    #[inline(always)]
    fn quoted<P: Packet>(packet: &P, offset: usize) -> Option<Quoted<Self>> {
        let header = ipv6::Header(packet.window(offset)?);
        if header.version() != 6 {
            return None;
        }
        let (start, next) = (offset + ipv6::LENGTH, header.next_header());
        let (protocol, l4) = match parse::transport(packet, start, next, header.payload_length()) {
            Ok((protocol, skipped)) => (protocol, start + usize::from(skipped)),
            Err(exit) if exit == Pass::Fragment.into() => {
                let fragment = parse::ipv6_fragment(packet, offset).ok()?;
                if fragment.start > 0 {
                    return None;
                }
                let (protocol, skipped) = Self::behind_fragment(packet, &fragment).ok()?;
                (protocol, fragment.data + usize::from(skipped))
            }
            Err(_) => return None,
        };
        Some(Quoted {
            addresses: header.addresses(),
            protocol,
            l4,
        })
    }

    #[inline(always)]
    fn rewrite_quoted<P: Packet>(
        packet: &mut P,
        offset: usize,
        new: &[u64; 4],
        _: u16,
    ) -> Result<(), Exit> {
        let header = ipv6::HeaderMut(packet.window_mut(offset).ok_or(Drop::Truncated)?);
        header.translate(*new);
        Ok(())
    }
}
