//! Entering a connection: both its flows, or neither.
//!
//! - *Two CPUs, one new connection.* The lock of the original's home decides: the second finds the flow that the first
//!   entered.
//! - *Two connections, one source port.* The lock of the reply's home decides: the second finds the reply, and takes
//!   another port.
//! - *No deadlock.* The second lock is only tried for; who does not get it takes another port, or gives up.
//! - *Nothing half.* The reply becomes visible, then the original; after the first nothing can fail. What fails before
//!   that takes back what it did.

use crate::family::Family;
use crate::table::flow::{Direction, Flow, HopId, Meta, Stage};
use crate::table::state::State;
use crate::table::tick::Tick;
use crate::table::{self, Lines, PLACES, Totals, bit, find};
use crate::tuple::Tuple;

/// How many source ports are tried.
pub const PORT_TRIES: u32 = 8;

/// A connection to be entered, but for its reply tuple.
#[derive(Clone, Copy, Debug)]
pub struct Connection<F: Family> {
    /// The tuple of its first packet.
    pub tuple: Tuple<F>,
    /// The backend's id.
    pub backend: u16,
    /// Whether the packet was VLAN-tagged.
    pub tagged: bool,
    /// Where replies go.
    pub back: HopId,
    /// When the packet came.
    pub now: Tick,
}

/// Why a connection was not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is there already.
    Exists,
    /// There is no room for another connection.
    Full,
    /// There is no room for another half-open one.
    HalfOpenFull,
    /// Every reply tuple that was tried is another connection's.
    Taken,
    /// Other CPUs are entering connections at the same places: the packet must come again.
    Busy,
}

/// Enters a connection. `reply` gives reply tuples to try, [`PORT_TRIES`] at most; `None`: there are no more.
///
/// A connection of the same tuple that `is_over` says to be over makes room.
///
/// # Errors
/// [`Refused`]; nothing was entered.
#[inline(always)]
pub fn enter<F: Family, L: Lines<F>>(
    lines: &L,
    connection: &Connection<F>,
    reply: impl FnMut(u32) -> Option<Tuple<F>>,
    is_over: impl Fn(Meta, Meta) -> bool,
) -> Result<(), Refused> {
    let home = lines.geometry().home(&connection.tuple);
    let line = lines.line(home).ok_or(Refused::Full)?;
    if !table::lock(&line.home, u32::MAX) {
        return Err(Refused::Busy);
    }
    let result = enter_locked(lines, connection, home, line, reply, is_over);
    table::unlock(&line.home);
    result
}

#[inline(always)]
fn enter_locked<F: Family, L: Lines<F>>(
    lines: &L,
    connection: &Connection<F>,
    home: u32,
    line: &Flow<F>,
    reply: impl FnMut(u32) -> Option<Tuple<F>>,
    is_over: impl Fn(Meta, Meta) -> bool,
) -> Result<(), Refused> {
    if let Some(old) = find(lines, &connection.tuple)
        && !give_way(lines, old, is_over)
    {
        return Err(Refused::Exists);
    }
    let totals = lines.totals().ok_or(Refused::Full)?;
    count_in(lines, totals)?;
    let result = claim(lines, home).map_or(Err(Refused::Full), |(place, original)| {
        let result = enter_pair(lines, connection, (home, line), (place, original), reply);
        if result.is_err() {
            original.set_meta(Meta::new(Stage::Free, State(0), Tick(0)));
        }
        result
    });
    if result.is_err() {
        totals.opened.add(u64::MAX);
    }
    result
}

/// Removes an original that is over, if it still is when it is exchanged. Its reply is left to the daemon.
#[inline(always)]
fn give_way<F: Family, L: Lines<F>>(
    lines: &L,
    old: &Flow<F>,
    is_over: impl Fn(Meta, Meta) -> bool,
) -> bool {
    let meta = old.meta();
    if old.is_reply() || !meta.is_visible() {
        return !meta.is_visible();
    }
    let over = match find(lines, &old.peer()) {
        Some(reply) => is_over(meta, reply.meta()),
        None => true,
    };
    over && old.replace_meta(meta, meta.at(Stage::Dead))
}

/// Counts a connection, within the bounds.
#[inline(always)]
fn count_in<F: Family, L: Lines<F>>(lines: &L, totals: &Totals) -> Result<(), Refused> {
    let geometry = lines.geometry();
    let opened = totals.opened.add(1).wrapping_add(1);
    let refused = if opened.wrapping_sub(totals.closed.get()) > u64::from(geometry.max_connections)
    {
        Refused::Full
    } else if opened
        .wrapping_sub(totals.completed.get())
        .wrapping_sub(totals.half_closed.get())
        > u64::from(geometry.max_half_open)
    {
        Refused::HalfOpenFull
    } else {
        return Ok(());
    };
    totals.opened.add(u64::MAX);
    Err(refused)
}

/// Claims a free line for a flow of a home: its place and the line.
#[inline(never)]
fn claim<F: Family, L: Lines<F>>(lines: &L, home: u32) -> Option<(u32, &Flow<F>)> {
    for place in 0..PLACES {
        let line = lines.line(lines.geometry().line(home, place))?;
        let meta = line.meta();
        if meta.is(Stage::Free) && line.replace_meta(meta, meta.at(Stage::Claimed)) {
            return Some((place, line));
        }
    }
    None
}

/// Finds a reply tuple that is free, and makes both flows visible.
#[inline(always)]
fn enter_pair<F: Family, L: Lines<F>>(
    lines: &L,
    connection: &Connection<F>,
    (home, home_line): (u32, &Flow<F>),
    (place, original): (u32, &Flow<F>),
    mut reply: impl FnMut(u32) -> Option<Tuple<F>>,
) -> Result<(), Refused> {
    let mut refused = Refused::Taken;
    for attempt in 0..PORT_TRIES {
        let Some(tuple) = reply(attempt) else {
            break;
        };
        let reply_home = lines.geometry().home(&tuple);
        let reply_line = lines.line(reply_home).ok_or(Refused::Full)?;
        // The lock of the original's home is held already.
        let is_same = reply_home == home;
        if !is_same && !table::lock(&reply_line.home, 1) {
            refused = Refused::Busy;
            continue;
        }
        let result = if find(lines, &tuple).is_some() {
            Err(Refused::Taken)
        } else {
            claim(lines, reply_home).ok_or(Refused::Full)
        };
        if let Ok((reply_place, reply)) = result {
            publish(
                connection,
                &tuple,
                (home_line, place, original),
                (reply_line, reply_place, reply),
            );
        }
        if !is_same {
            table::unlock(&reply_line.home);
        }
        match result {
            Ok(_) => return Ok(()),
            Err(Refused::Taken) => refused = Refused::Taken,
            Err(other) => return Err(other),
        }
    }
    Err(refused)
}

#[inline(always)]
fn publish<F: Family>(
    connection: &Connection<F>,
    reply_tuple: &Tuple<F>,
    (home, place, original): (&Flow<F>, u32, &Flow<F>),
    (reply_home, reply_place, reply): (&Flow<F>, u32, &Flow<F>),
) {
    let direction = |tuple: &Tuple<F>, new: &Tuple<F>, is_reply, extra| Direction {
        tuple: *tuple,
        new: new.reversed(),
        reply: is_reply,
        tagged: connection.tagged,
        backend: connection.backend,
        extra,
    };
    let (tuple, back) = (&connection.tuple, connection.back.to_bits());
    reply.fill(&direction(reply_tuple, tuple, true, back));
    original.fill(&direction(tuple, reply_tuple, false, connection.now.0));
    reply_home.home.add(bit(reply_place));
    home.home.add(bit(place));
    let live = Meta::new(Stage::Live, State(0), connection.now);
    reply.set_meta(live);
    original.set_meta(live);
}
