//! Next hops: the link and the link-layer addresses that a packet leaves with.

use crate::wire::{u32_at, u64_at};
use crate::word::Word;

/// Destination MAC, source MAC and interface index, in two little-endian words: their first twelve bytes in memory
/// are those of the frame.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    words: [u64; 2],
}

impl Hop {
    /// Leaves by interface `index` to `destination`, from `source`.
    #[must_use]
    pub fn new(index: u32, destination: [u8; 6], source: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = destination;
        let [g, h, i, j, k, l] = source;
        Self::from_frame(index, &[a, b, c, d, e, f, g, h, i, j, k, l])
    }

    /// Leaves by interface `index` as the frame did whose first twelve bytes these are.
    #[inline(always)]
    fn from_frame(index: u32, macs: &[u8; 12]) -> Self {
        let high = u64::from(u32::from_le(u32_at(macs, 8)));
        Self {
            words: [u64_at(macs, 0), (high | u64::from(index) << 32).to_le()],
        }
    }

    /// The way back of a frame that came in by interface `index`: `macs` are its first twelve bytes.
    #[inline(always)]
    #[must_use]
    pub fn back(index: u32, macs: &[u8; 12]) -> Self {
        // By shifts, not byte by byte: the bytes would all have to be kept at once.
        let [low, high] = Self::from_frame(0, macs).words;
        let (low, high) = (u64::from_le(low), u64::from_le(high));
        let source = low >> 48 | high << 16;
        Self {
            words: [
                (source | (low & 0xffff) << 48).to_le(),
                (low >> 16 & 0xffff_ffff | u64::from(index) << 32).to_le(),
            ],
        }
    }

    /// The interface index; 0 when the next hop is not known.
    #[inline(always)]
    #[must_use]
    pub const fn interface(&self) -> u32 {
        (u64::from_le(self.words[1]) >> 32) as u32
    }

    /// Whether there is one.
    #[inline(always)]
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.interface() != 0
    }

    /// The first twelve bytes of the frame: destination MAC, source MAC.
    #[inline(always)]
    #[must_use]
    pub const fn macs(&self) -> [u8; 12] {
        let [a, b, c, d, e, f, g, h] = self.words[0].to_ne_bytes();
        let [i, j, k, l, ..] = self.words[1].to_ne_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

/// A [`Hop`] that a flow keeps and that may be replaced while other CPUs read it.
///
/// A reader on another CPU may see one word of the old hop and one of the new: one frame then goes where the old
/// hop or nobody is, as it would have a microsecond earlier. What is written twice is the same, since both
/// writers ask the same tables.
#[repr(C)]
#[derive(Debug, Default)]
pub struct HopCell {
    words: [Word; 2],
}

impl HopCell {
    /// A cell that holds `hop`.
    #[inline(always)]
    #[must_use]
    pub const fn new(hop: Hop) -> Self {
        Self {
            words: [Word::new(hop.words[0]), Word::new(hop.words[1])],
        }
    }

    /// What it holds.
    #[inline(always)]
    pub fn get(&self) -> Hop {
        Hop {
            words: [self.words[0].get(), self.words[1].get()],
        }
    }

    /// Replaces what it holds.
    #[inline(always)]
    pub fn set(&self, hop: Hop) {
        self.words[0].set(hop.words[0]);
        self.words[1].set(hop.words[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hop_keeps_its_parts() {
        let hop = Hop::new(7, [1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]);
        assert_eq!(hop.interface(), 7);
        assert_eq!(hop.macs(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        assert_eq!(Hop::back(7, &[7, 8, 9, 10, 11, 12, 1, 2, 3, 4, 5, 6]), hop);
        assert!(!Hop::default().is_known());
    }
}
