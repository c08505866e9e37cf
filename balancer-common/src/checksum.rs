//! Internet checksums by difference (RFC 1624).
//!
//! Sums are made over 16-bit words as they lie in memory. One's-complement addition does not care about the byte
//! order (RFC 1071, section 2 B), so nothing is swapped as long as checksum and data are loaded alike.

/// What the TTL's decrement adds to an IPv4 header sum: the word `ttl << 8 | protocol` falls by 0x0100, and the
/// complement of 0x0100 lies in memory as `fe ff`.
pub const TTL_DECREMENT: u64 = u16::from_ne_bytes([0xfe, 0xff]) as u64;

/// Folds a sum of 16, 32 and 64-bit words to 16 bits.
#[inline(always)]
#[must_use]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// Whether a sum of less than 2⁴⁰ folds to 0xffff, as the sum over data and checksum must.
#[inline(always)]
#[must_use]
pub const fn is_whole(sum: u64) -> bool {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    // At most 0x1_00ff here, of which nothing above 0xffff folds to 0xffff.
    sum == 0xffff
}

/// The two halves of a word, added: a partial sum that many words can be added to without overflow.
#[inline(always)]
#[must_use]
pub const fn halves(word: u64) -> u64 {
    (word & 0xffff_ffff) + (word >> 32)
}

/// What replacing `old` by `new` adds to a sum: `~m + m'` (RFC 1624, equation 3), not folded.
#[inline(always)]
#[must_use]
pub const fn replace(old: u64, new: u64) -> u64 {
    halves(!old) + halves(new)
}

/// A checksum after `delta`, a folded sum of [`replace`]s, was added to its data: `~(~HC + ~m + m')`.
///
/// A checksum that was wrong stays wrong by the same difference.
#[inline(always)]
#[must_use]
pub const fn update(checksum: u16, delta: u16) -> u16 {
    let sum = (!checksum) as u32 + delta as u32;
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// A UDP checksum after `delta` (RFC 768): none (0) stays none, and a computed 0 is sent as 0xffff.
#[inline(always)]
#[must_use]
pub const fn update_udp(checksum: u16, delta: u16) -> u16 {
    if checksum == 0 {
        return 0;
    }
    match update(checksum, delta) {
        0 => 0xffff,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(words: &[u16]) -> u16 {
        !fold(words.iter().map(|&word| u64::from(word)).sum())
    }

    #[test]
    fn update_equals_full_recomputation() {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as u16
        };
        for _ in 0..100_000 {
            let mut words = [next(), next(), next(), next() | 1];
            let before = full(&words);
            let (old, new) = (words[1], next());
            words[1] = new;
            let delta = fold(replace(u64::from(old), u64::from(new)));
            assert_eq!(update(before, delta), full(&words), "{old:#x} to {new:#x}");
        }
    }

    #[test]
    fn fold_takes_wide_words() {
        let word = 0x0123_4567_89ab_cdef_u64;
        let narrow = 0x0123 + 0x4567 + 0x89ab + 0xcdef_u64;
        assert_eq!(fold(word), fold(narrow));
        assert_eq!(fold(halves(word)), fold(narrow));
        assert_eq!(fold(u64::MAX), 0xffff);
    }

    #[test]
    fn is_whole_equals_folding() {
        for high in [0, 1, 0xfe, 0xff, 0x100, 0xffff, 0x00ff_ffff] {
            for low in 0..=0xffff {
                let sum = high << 16 | low;
                assert_eq!(is_whole(sum), fold(sum) == 0xffff, "{sum:#x}");
            }
        }
    }

    #[test]
    fn ttl_decrement_is_one_less_in_the_high_byte() {
        let old = u16::from_ne_bytes([64, 6]);
        let new = u16::from_ne_bytes([63, 6]);
        let checksum = full(&[old, 0x1234]);
        assert_eq!(update(checksum, fold(TTL_DECREMENT)), full(&[new, 0x1234]));
    }

    #[test]
    fn udp_without_a_checksum_stays_without() {
        assert_eq!(update_udp(0, 0x1234), 0);
        assert_eq!(update_udp(!0x1234, !0x1234), 0xffff);
    }
}
