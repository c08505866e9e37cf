//! Next hops: the link and the link-layer addresses that a packet leaves with.

use crate::wire::{ETHERNET, put, u32_at, u64_at};
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
        let word = |mac: [u8; 6]| {
            mac.iter()
                .rev()
                .fold(0, |word, &byte| word << 8 | u64::from(byte))
        };
        Self::from_words(index, word(destination), word(source))
    }

    /// The same of addresses in the lower 48 bits of little-endian words, their first byte lowest.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(index: u32, destination: u64, source: u64) -> Self {
        const MAC: u64 = (1 << 48) - 1;
        Self {
            words: [
                (destination & MAC | source << 48).to_le(),
                ((source & MAC) >> 16 | (index as u64) << 32).to_le(),
            ],
        }
    }

    /// The way back of a frame that came in by interface `index`: `macs` are its first twelve bytes.
    #[inline(always)]
    #[must_use]
    pub fn back(index: u32, macs: &[u8; 12]) -> Self {
        let low = u64::from_le(u64_at(macs, 0));
        let high = u64::from(u32::from_le(u32_at(macs, 8)));
        Self::from_words(index, low >> 48 | high << 16, low)
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

    /// Writes destination and source MAC into a frame.
    #[inline(always)]
    pub fn write(&self, frame: &mut [u8; ETHERNET]) {
        put(frame, 0, self.words[0].to_ne_bytes());
        put(frame, 8, (u64::from_le(self.words[1]) as u32).to_le_bytes());
    }

    /// The destination MAC.
    #[must_use]
    pub fn destination(&self) -> [u8; 6] {
        let [destination @ .., _, _] = self.words[0].to_ne_bytes();
        destination
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
    pub fn new(hop: Hop) -> Self {
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
        let mut frame = [0xff; ETHERNET];
        hop.write(&mut frame);
        assert_eq!(frame, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0xff, 0xff]);
        assert_eq!(hop.destination(), [1, 2, 3, 4, 5, 6]);
        let back = Hop::back(7, &[7, 8, 9, 10, 11, 12, 1, 2, 3, 4, 5, 6]);
        assert_eq!(back, hop);
        assert!(!Hop::default().is_known());
    }
}
