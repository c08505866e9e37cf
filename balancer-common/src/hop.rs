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

    /// The hop of two words as it lies in memory.
    #[must_use]
    pub const fn of_memory(words: [u64; 2]) -> Self {
        Self { words }
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

/// How many next hops of clients are remembered, number 0 included, which stands for none.
pub const HOPS: u32 = 1 << 14;

/// How many places a next hop may be remembered at.
const PROBES: u32 = 8;

/// Where a next hop is remembered, so that flows need only its number. Packets fill a place that is empty; what it
/// holds then stays, until the daemon empties it because no flow has its number.
#[repr(C, align(16))]
#[derive(Debug, Default)]
pub struct HopCell {
    words: [Word; 2],
}

/// In the second word, where no interface index reaches: no more flows get this number.
const CLOSED: u64 = (1_u64 << 63).to_le();

impl HopCell {
    /// What it holds; not known when it holds nothing, or is just being filled.
    #[inline(always)]
    pub fn get(&self) -> Hop {
        let [low, high] = &self.words;
        // In the other order they are written.
        let low = low.get();
        let high = if low == 0 { 0 } else { high.get() & !CLOSED };
        Hop { words: [low, high] }
    }

    /// Fills it with `hop`, or finds that already in it. Says whether a flow may have its number for `hop`.
    #[inline(always)]
    fn hold(&self, hop: &Hop) -> bool {
        let [low, high] = &self.words;
        // The word with the interface is never 0 for a hop that is known: it claims the place. Another CPU that claims it
        // for the same hop at the same time may not see the rest of it yet, and goes on to the next place.
        if high.get() == 0 && high.replace(0, hop.words[1]) {
            low.set(hop.words[0]);
            return true;
        }
        high.get() == hop.words[1] && low.get() == hop.words[0]
    }

    /// Gives no more flows its number; those that have it go on. This and what follows is the daemon's part.
    pub fn close(&self) {
        if !self.is_closed() {
            self.words[1].add(CLOSED);
        }
    }

    /// Whether it gives no more flows its number.
    pub fn is_closed(&self) -> bool {
        self.words[1].get() & CLOSED != 0
    }

    /// Undoes [`HopCell::close`].
    pub fn reopen(&self) {
        if self.is_closed() {
            self.words[1].add(CLOSED);
        }
    }

    /// Empties it. It is closed, and no flow has its number.
    pub fn clear(&self) {
        let [low, high] = &self.words;
        low.set(0);
        high.set(0);
    }
}

/// The next hops that are remembered, [`HOPS`] places.
pub trait Hops {
    /// A place; `None` when there is none of that number.
    fn hop_cell(&self, number: u16) -> Option<&HopCell>;

    /// The next hop of a number; not known when there is none.
    #[inline(always)]
    fn hop(&self, number: u16) -> Hop {
        self.hop_cell(number).map_or(Hop::default(), HopCell::get)
    }
}

/// Remembers a next hop. Gives its number; 0 when there is no place left.
#[inline(always)]
pub fn note<H: Hops>(hops: &H, hop: &Hop) -> u16 {
    // A hop without addresses is not told from a place that is just being filled; no frame has such.
    if !hop.is_known() || hop.words[0] == 0 {
        return 0;
    }
    let mixed = (hop.words[0] ^ hop.words[1].rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let first = (mixed >> 40) as u32;
    for probe in 0..PROBES {
        let number = ((first + probe) & (HOPS - 1)) as u16;
        if number != 0 && hops.hop_cell(number).is_some_and(|cell| cell.hold(hop)) {
            return number;
        }
    }
    0
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
