//! What keeps a flood of first packets off.
//!
//! While more connections are half-open than half of [`max_half_open`](crate::table::Geometry::max_half_open), the first
//! packet of another is noted and dropped, and opens it when it comes again. Who wants a connection repeats a SYN after a
//! second (RFC 6298, section 2.1), with the same sequence number; who makes up addresses or numbers mostly does not. So what
//! comes once can only take half of the room, and no more of it comes to the backends.
//!
//! A note is pushed out by [`NOTES`] newer ones of its row. Of a million first packets a second, nearly all are known a second
//! later; of three million, four in five; of five million, one in seven.

use crate::family::Family;
use crate::table::Lines;
use crate::tuple::Tuple;
use crate::word::HalfWord;

/// How many rows there are.
pub const ROWS: u32 = 1 << ROW_BITS;
const ROW_BITS: u32 = 18;

/// How many notes a row has: with the place of the next one they are a cache line.
pub const NOTES: usize = 15;

/// Notes of packets.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Row {
    /// A part of the hash of each, 0: none. A packet may be lost from them when two CPUs write at once.
    notes: [HalfWord; NOTES],
    /// The place of the oldest, which the next one takes.
    oldest: HalfWord,
}

impl Row {
    #[inline(always)]
    fn has(&self, note: u32) -> bool {
        self.notes.iter().any(|noted| noted.get() == note)
    }

    #[inline(always)]
    fn add(&self, note: u32) {
        let place = self.oldest.get();
        if let Some(oldest) = self.notes.get(place as usize) {
            oldest.set(note);
            let next = place + 1;
            self.oldest.set(if next < NOTES as u32 { next } else { 0 });
        }
    }
}

/// The rows.
pub trait Screen {
    /// One of them; `None` behind the end.
    fn screen_row(&self, index: u32) -> Option<&Row>;
}

/// Whether the first packet of a connection, of TCP with this sequence number, may open it.
#[inline(always)]
pub fn passes<F: Family, T: Lines<F> + Screen>(
    tables: &T,
    tuple: &Tuple<F>,
    sequence: u32,
) -> bool {
    let geometry = tables.geometry();
    let half = u64::from(geometry.max_half_open / 2);
    if tables
        .totals()
        .is_some_and(|totals| totals.half_open() <= half)
    {
        return true;
    }
    // The hash of the flow table, whose upper half is the better one, and the number.
    let hash = F::keyed_hash(tuple, &geometry.keys);
    let mixed = (hash ^ hash >> 32 ^ u64::from(sequence)).wrapping_mul(geometry.keys[0]);
    let Some(row) = tables.screen_row((mixed >> (u64::BITS - ROW_BITS)) as u32) else {
        return false;
    };
    let note = (mixed >> 14) as u32 | 1;
    let has_come = row.has(note);
    if !has_come {
        row.add(note);
    }
    has_come
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_row_knows_its_newest_notes() {
        let row = Row::default();
        for note in 1..=100 {
            assert!(!row.has(note));
            row.add(note);
            let known: usize = (1..=100).filter(|&note| row.has(note)).count();
            assert_eq!(known, NOTES.min(note as usize));
            assert!(row.has(note) && row.has(note.saturating_sub(14).max(1)));
        }
    }

    #[test]
    fn a_row_is_a_line_of_the_cache() {
        assert_eq!((size_of::<Row>(), align_of::<Row>()), (64, 64));
    }
}
