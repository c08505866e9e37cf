//! The flow table: where a tuple's flow is.
//!
//! An array of lines, one [`Flow`] each. A tuple has a *home* by a keyed hash; its flow is there, or else in one of the
//! [`WINDOW`] - 1 lines after it, or else in a window of the overflow lines behind all homes, which is the same for all
//! tuples of a home. Which of these lines hold flows of a home, its *home word* says, a bit each: a lookup reads the
//! home, and further lines only where there is something. (Or the table has an [`index`], and no flow is at home.)
//!
//! # Who may do what
//! - Packets find flows, enter pairs ([`crate::table::enter`]) and advance them ([`crate::table::touch`]). The daemon alone frees
//!   lines ([`crate::table::retire`]), and not before every packet that may have found the flow has ended (a grace period of
//!   RCU): what a packet has found stays what it is until the packet is done.
//! - To enter a flow a packet holds the *lock* of its home. The daemon takes no locks, so one that was killed leaves
//!   none behind.
//!
//! # What always holds
//! 1. A tuple has one visible flow at most: who enters it looks for another under the lock of the home.
//! 2. A visible original has its visible reply: the reply becomes visible first, and dies last.
//! 3. A reply whose original is gone is found and removed by the daemon; until then its tuple is not given to others.

pub mod enter;
pub mod flow;
pub mod index;
pub mod retire;
pub mod segment;
pub mod state;
pub mod tick;
pub mod touch;

use crate::family::{Family, KEYS};
use crate::table::enter::{Connection, Refused};
use crate::table::flow::Flow;
use crate::table::index::Index;
use crate::table::segment::{Advanced, Segment, Side};
use crate::table::tick::Tick;
use crate::table::touch::Touched;
use crate::tuple::Tuple;
use crate::word::{HalfWord, Word};

/// How many lines a home's window has, the home included; and how many an overflow window has.
pub const WINDOW: u32 = 16;

/// The lines of a table, and the key of its hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Geometry {
    /// The keys of the hash: odd numbers by chance, and the same as long as the table lives.
    pub keys: [u64; KEYS],
    /// Lines that are homes.
    pub homes: u32,
    /// Overflow windows, each beginning a line after the one before.
    pub overflows: u32,
    /// How many connections there may be.
    pub max_connections: u32,
    /// How many half-open ones.
    pub max_half_open: u32,
}

impl Geometry {
    /// For so many connections: somewhat less than four lines each, a 32nd of them for overflow, so that about half
    /// the lines are in use at most. All connections find room, but for a chance that is nought for practice.
    #[must_use]
    pub const fn new(keys: [u64; KEYS], max_connections: u32, max_half_open: u32) -> Self {
        let lines = if max_connections < 64 {
            256
        } else {
            max_connections / 8 * 31
        };
        let overflows = lines / 32;
        Self {
            keys,
            homes: lines - overflows - 2 * WINDOW,
            overflows,
            max_connections,
            max_half_open,
        }
    }

    /// How many lines the table has.
    #[must_use]
    pub const fn lines(&self) -> u32 {
        self.homes + self.overflows + 2 * WINDOW
    }

    /// The home of a tuple.
    #[inline(always)]
    #[must_use]
    pub fn home<F: Family>(&self, tuple: &Tuple<F>) -> u32 {
        // The upper half of the hash, scaled.
        let hash = F::keyed_hash(tuple, &self.keys);
        (((hash >> 32) * u64::from(self.homes)) >> 32) as u32
    }

    /// The first line of the overflow window of a home.
    #[inline(always)]
    #[must_use]
    pub const fn overflow(&self, home: u32) -> u32 {
        let hash = home.wrapping_mul(0x9e37_79b1);
        self.homes + WINDOW + ((hash as u64 * self.overflows as u64) >> 32) as u32
    }

    /// The line that is a home's `place`, below [`PLACES`].
    #[inline(always)]
    #[must_use]
    pub const fn line(&self, home: u32, place: u32) -> u32 {
        if place < WINDOW {
            home + place
        } else {
            self.overflow(home) + place - WINDOW
        }
    }
}

/// How many places there are for the flows of a home.
pub const PLACES: u32 = 2 * WINDOW;

/// In a home word: somebody enters a flow of this home.
const LOCK: u32 = 1 << 31;

/// The bit of a home word that says that a flow of this home is at `place`. The home itself needs none.
#[inline(always)]
pub(crate) const fn bit(place: u32) -> u32 {
    (1 << place) >> 1
}

/// How often a lock is tried for. Who holds it enters one pair meanwhile.
const LOCK_TRIES: u32 = 32;

/// Takes the lock of a home.
#[inline(always)]
pub(crate) fn lock(home: &HalfWord, tries: u32) -> bool {
    for _ in 0..tries.min(LOCK_TRIES) {
        let word = home.get();
        if word & LOCK == 0 && home.replace(word, word | LOCK) {
            return true;
        }
    }
    false
}

/// Gives it back.
#[inline(always)]
pub(crate) fn unlock(home: &HalfWord) {
    // It is the highest bit: adding it once more takes it away.
    home.add(LOCK);
}

/// The counters of a table, and the note of the daemon about the line that it frees. Connections are what was opened
/// less what was closed or replaced; half-open are what was opened less completed less what was closed half-open.
#[repr(C, align(64))]
#[derive(Debug, Default)]
pub struct Totals {
    /// Connections entered; by packets.
    pub opened: Word,
    /// Connections that ceased to be half-open, as each begins; by packets.
    pub completed: Word,
    /// Connections that were over, and whose tuple a new one has taken; by packets.
    pub replaced: Word,
    /// Connections whose lines were freed, those replaced left out; by the daemon.
    pub closed: Word,
    /// Connections that were half-open when they were freed; by the daemon.
    pub half_closed: Word,
    /// The line that the daemon frees, and one; 0: none. Then its meta word, and what `closed` and `half_closed` become.
    pub(crate) note: [Word; 4],
}

impl Totals {
    /// Connections.
    #[inline(always)]
    pub fn connections(&self) -> u64 {
        let ended = self.ended();
        left(self.opened.get(), ended)
    }

    /// Half-open ones.
    #[inline(always)]
    pub fn half_open(&self) -> u64 {
        let ceased = self.ceased();
        left(self.opened.get(), ceased)
    }

    /// Connections that are over. To be read before `opened`, or some would have ended before they began.
    #[inline(always)]
    fn ended(&self) -> u64 {
        self.closed.get().wrapping_add(self.replaced.get())
    }

    /// Connections that are not half-open any more; to be read before `opened`.
    #[inline(always)]
    fn ceased(&self) -> u64 {
        self.completed.get().wrapping_add(self.half_closed.get())
    }
}

/// How many of those that were opened are left; never less than none.
#[inline(always)]
fn left(opened: u64, gone: u64) -> u64 {
    let left = opened.wrapping_sub(gone);
    if left > u64::MAX / 2 { 0 } else { left }
}

/// A table's memory.
///
/// The functions with a body are loops, or have many ways through them; an engine may keep each in a function of its own: see
/// there what they do.
pub trait Lines<F: Family>: Sized {
    /// What its index is, if it may have one: [`index::NoIndex`] where not.
    type Index: Index<F>;

    /// Its shape.
    fn geometry(&self) -> &Geometry;

    /// A line; `None` when there is none of that number, which does not happen.
    fn line(&self, index: u32) -> Option<&Flow<F>>;

    /// Its counters.
    fn totals(&self) -> Option<&Totals>;

    /// The index by which its flows are found; `None`: by their homes.
    #[inline(always)]
    fn index(&self) -> Option<&Self::Index> {
        None
    }

    /// [`find_displaced`].
    #[inline(always)]
    fn find_displaced(&self, tuple: &Tuple<F>, home: u32, places: u32) -> Option<u32> {
        find_displaced(self, tuple, home, places)
    }

    /// [`touch::try_touch`].
    #[inline(always)]
    fn try_touch(&self, flow: &Flow<F>, segment: Segment, now: Tick) -> Touched {
        touch::try_touch(self, flow, segment, now)
    }

    /// [`segment::advance`].
    #[inline(always)]
    fn advance(&self, reply: bool, own: Side, peer: Side, segment: Segment) -> Option<Advanced> {
        segment::advance(reply, own, peer, segment)
    }

    /// [`enter::give_way`].
    #[inline(always)]
    fn give_way(&self, old: &Flow<F>) -> bool {
        enter::give_way(self, old)
    }

    /// [`enter::claim`].
    #[inline(always)]
    fn claim(&self, home: u32) -> Option<u32> {
        enter::claim(self, home)
    }

    /// [`enter::enter_pair`].
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    fn enter_pair(&self, connection: &Connection<F>, place: u32) -> Result<(), Refused> {
        enter::enter_pair(self, connection, place)
    }
}

/// The visible flow of a tuple.
#[inline(always)]
pub fn find<'a, F: Family, L: Lines<F>>(lines: &'a L, tuple: &Tuple<F>) -> Option<&'a Flow<F>> {
    let home = lines.geometry().home(tuple);
    let line = lines.line(home)?;
    // The stage first: of a line that is visible the tuple is that of the flow.
    if line.meta().is_visible() && line.is_of(tuple) {
        return Some(line);
    }
    let places = line.home.get() & !LOCK;
    if places == 0 && lines.index().is_none() {
        return None;
    }
    lines.line(lines.find_displaced(tuple, home, places)?)
}

/// The line of the visible flow of a tuple, which is not at home but at one of these places, or in the index.
#[inline(always)]
pub fn find_displaced<F: Family, L: Lines<F>>(
    lines: &L,
    tuple: &Tuple<F>,
    home: u32,
    places: u32,
) -> Option<u32> {
    if let Some(index) = lines.index() {
        return index::find(lines, index, tuple);
    }
    for place in 1..PLACES {
        if places & bit(place) != 0 {
            let index = lines.geometry().line(home, place);
            let line = lines.line(index)?;
            if line.meta().is_visible() && line.is_of(tuple) {
                return Some(index);
            }
        }
    }
    None
}
