//! The safety net: flows found by somebody else's hash.
//!
//! A table may have an *index*, a map from tuples to lines each of whose operations is atomic: a hash of the kernel's. Then
//! no flow is at home, and lookups ask the index instead of the home word. Lines are claimed, locked, advanced and
//! removed as ever.
//!
//! # Who writes what
//! - A packet adds the entry of a line that it has claimed, under the lock of the tuple's home, before the flow is
//!   visible. If the connection is not entered after all, it takes the entry away again.
//! - The daemon takes the entry of a dead line away before the line is free.
//!
//! So an entry is only ever taken away by who owns the line that it names, and nobody replaces one: a tuple has
//! [`SLOTS`] entries, and a new flow of a tuple whose old one is dead, but not free yet, takes another of them. While
//! all are taken the tuple has to wait for the daemon.

use crate::family::Family;
use crate::table::Lines;
use crate::tuple::{PortsProtocol, Tuple};

/// How many flows of one tuple there may be entries for, of which one may be visible.
pub const SLOTS: u64 = 4;

/// How many entries an index needs room for: each connection has two flows, and half as many again may be dead.
#[must_use]
pub const fn entries(max_connections: u32) -> u32 {
    if max_connections < 64 {
        256
    } else {
        max_connections.saturating_mul(3)
    }
}

/// A map from tuples to lines, with [`SLOTS`] entries a tuple.
pub trait Index<F: Family> {
    /// The line of an entry.
    fn get(&self, tuple: &Tuple<F>, slot: u64) -> Option<u32>;

    /// Adds an entry; `false` when it is there already, or there is no room.
    fn insert(&self, tuple: &Tuple<F>, slot: u64, line: u32) -> bool;

    /// Takes an entry away.
    fn remove(&self, tuple: &Tuple<F>, slot: u64);
}

/// The index of a table that has none.
#[derive(Clone, Copy, Debug)]
pub enum NoIndex {}

impl<F: Family> Index<F> for NoIndex {
    fn get(&self, _: &Tuple<F>, _: u64) -> Option<u32> {
        match *self {}
    }

    fn insert(&self, _: &Tuple<F>, _: u64, _: u32) -> bool {
        match *self {}
    }

    fn remove(&self, _: &Tuple<F>, _: u64) {
        match *self {}
    }
}

/// The key of an entry in a map: the tuple, with the slot in bits of ports and protocol that are zero in every tuple.
#[inline(always)]
#[must_use]
pub const fn key_ports(ports: PortsProtocol, slot: u64) -> PortsProtocol {
    PortsProtocol(ports.0 | slot << 40)
}

/// The line of the visible flow of a tuple.
#[inline(always)]
pub(super) fn find<F: Family, L: Lines<F>>(
    lines: &L,
    index: &L::Index,
    tuple: &Tuple<F>,
) -> Option<u32> {
    for slot in 0..SLOTS {
        if let Some(number) = index.get(tuple, slot) {
            let line = lines.line(number)?;
            if line.meta().is_visible() && line.is_of(tuple) {
                return Some(number);
            }
        }
    }
    None
}

/// Adds the entry of a line, if there is an index. Says whether the flow will be found.
#[inline(always)]
pub(super) fn add<F: Family, L: Lines<F>>(lines: &L, tuple: &Tuple<F>, line: u32) -> bool {
    let Some(index) = lines.index() else {
        return true;
    };
    (0..SLOTS).any(|slot| index.insert(tuple, slot, line))
}

/// Takes the entry of a line away, if there is one. The line is the caller's.
#[inline(always)]
pub(super) fn forget<F: Family, L: Lines<F>>(lines: &L, tuple: &Tuple<F>, line: u32) {
    let Some(index) = lines.index() else {
        return;
    };
    for slot in 0..SLOTS {
        if index.get(tuple, slot) == Some(line) {
            index.remove(tuple, slot);
        }
    }
}
