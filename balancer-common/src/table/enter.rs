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
use crate::table::flow::{Flow, HopId, Meta, Stage, Traits};
use crate::table::segment::{Scale, Segment};
use crate::table::state::{Phase, State};
use crate::table::tick::Tick;
use crate::table::{self, Lines, PLACES, Totals, bit, find, index, left};
use crate::tuple::Tuple;

/// How many source ports are tried, beside the client's own.
pub const PORT_TRIES: u32 = 64;

/// The distance from one that is tried to the next. A prime above any number of ports, so that the two have no divisor
/// in common: of a range with fewer than [`PORT_TRIES`] each is tried.
const PORT_STRIDE: u32 = 73_939;

/// How often the removal of a reply is tried whose original is removed: it fails only against a packet of it. What is not
/// removed is the daemon's business.
const KILL_TRIES: u32 = 4;

/// A connection to be entered.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Connection<F: Family> {
    /// The tuple of its first packet.
    pub tuple: Tuple<F>,
    /// That of its answers, as long as its destination port is free.
    pub reply: Tuple<F>,
    /// Where to look for another one, if it is not.
    pub source_ports: SourcePorts,
    /// The service's id.
    pub service: u16,
    /// The backend's id.
    pub backend: u16,
    /// Where replies go.
    pub back: HopId,
    /// The packet as a segment.
    pub segment: Segment,
    /// When the packet came.
    pub now: Tick,
    /// Whether the packet was VLAN-tagged.
    pub tagged: bool,
}

impl<F: Family> Connection<F> {
    /// That of a first packet's tuple; nothing of it is decided yet.
    #[inline(always)]
    #[must_use]
    pub const fn of(tuple: Tuple<F>) -> Self {
        Self {
            tuple,
            reply: tuple,
            source_ports: SourcePorts::NONE,
            service: 0,
            backend: 0,
            back: HopId {
                number: 0,
                generation: 0,
            },
            segment: Segment::DATAGRAM,
            now: Tick(0),
            tagged: false,
        }
    }
}

/// A range of source ports, in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SourcePorts {
    /// The first.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
}

impl SourcePorts {
    /// The source port is not translated.
    pub const NONE: Self = Self { first: 0, last: 0 };

    /// Whether a client may keep its own port.
    #[inline(always)]
    #[must_use]
    pub fn allow(self, port: u16) -> bool {
        self == Self::NONE || (port >= self.first && port <= self.last)
    }

    /// How many there are.
    #[inline(always)]
    const fn span(self) -> u32 {
        (self.last - self.first) as u32 + 1
    }

    /// One of them, by an even random number; the one `further` in the order in which they are tried.
    #[inline(always)]
    #[must_use]
    pub const fn any(self, random: u32, further: u32) -> u16 {
        let start = (random as u64 * self.span() as u64) >> 32;
        let index = (start as u32 + further * PORT_STRIDE) % self.span();
        self.first + index as u16
    }
}

/// Why a connection was not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Refused {
    /// It is there already.
    Exists = 1,
    /// There is no room for another connection.
    Full,
    /// There is no room for another half-open one.
    HalfOpenFull,
    /// Every reply tuple that was tried is another connection's.
    Taken,
    /// Other CPUs are entering connections at the same places: the packet must come again.
    Busy,
}

impl Refused {
    /// One word, for an engine that keeps a part of this in a function of its own.
    #[inline(always)]
    #[must_use]
    pub const fn encode(result: Result<(), Self>) -> u32 {
        match result {
            Ok(()) => 0,
            Err(refused) => refused as u32,
        }
    }

    /// The inverse of [`Refused::encode`].
    ///
    /// # Errors
    /// What was encoded.
    #[inline(always)]
    pub const fn decode(word: u32) -> Result<(), Self> {
        Err(match word {
            0 => return Ok(()),
            1 => Self::Exists,
            2 => Self::Full,
            3 => Self::HalfOpenFull,
            4 => Self::Taken,
            _ => Self::Busy,
        })
    }
}

/// Enters a connection. When the destination port of its reply is taken others are tried, from one by an even random number on.
///
/// A connection of the same tuple that is closing makes room.
///
/// # Errors
/// [`Refused`]; nothing was entered.
#[inline(always)]
pub fn enter<F: Family, L: Lines<F>>(
    lines: &L,
    connection: &mut Connection<F>,
    random: impl Fn() -> u32,
) -> Result<(), Refused> {
    let home = lines.geometry().home(&connection.tuple);
    let line = lines.line(home).ok_or(Refused::Full)?;
    if !table::lock(&line.home, u32::MAX) {
        return Err(Refused::Busy);
    }
    let result = enter_locked(lines, connection, home, random);
    table::unlock(&line.home);
    result
}

#[inline(always)]
fn enter_locked<F: Family, L: Lines<F>>(
    lines: &L,
    connection: &mut Connection<F>,
    home: u32,
    random: impl Fn() -> u32,
) -> Result<(), Refused> {
    let totals = lines.totals().ok_or(Refused::Full)?;
    if let Some(old) = find(lines, &connection.tuple)
        && !lines.give_way(old)
    {
        return Err(Refused::Exists);
    }
    count_in(lines, totals)?;
    let result = enter_counted(lines, connection, home, random);
    if result.is_err() {
        totals.opened.add(u64::MAX);
    }
    result
}

#[inline(always)]
fn enter_counted<F: Family, L: Lines<F>>(
    lines: &L,
    connection: &mut Connection<F>,
    home: u32,
    random: impl Fn() -> u32,
) -> Result<(), Refused> {
    let place = lines.claim(home).ok_or(Refused::Full)?;
    let number = lines.geometry().line(home, place);
    let result = if index::add(lines, &connection.tuple, number) {
        let result = enter_claimed(lines, connection, place, random);
        if result.is_err() {
            index::forget(lines, &connection.tuple, number);
        }
        result
    } else {
        Err(Refused::Busy)
    };
    if result.is_err() {
        release(lines, number);
    }
    result
}

/// Gives back a line that was claimed.
#[inline(always)]
fn release<F: Family, L: Lines<F>>(lines: &L, number: u32) {
    if let Some(line) = lines.line(number) {
        line.set_meta(Meta::new(Stage::Free, State(0), Tick(0)));
    }
}

#[inline(always)]
fn enter_claimed<F: Family, L: Lines<F>>(
    lines: &L,
    connection: &mut Connection<F>,
    place: u32,
    random: impl Fn() -> u32,
) -> Result<(), Refused> {
    let mut result = lines.enter_pair(connection, place);
    let is_other_wanted = |result| matches!(result, Err(Refused::Taken | Refused::Busy));
    if is_other_wanted(result) && connection.source_ports != SourcePorts::NONE {
        let (ports, random) = (connection.source_ports, random());
        for attempt in 0..PORT_TRIES {
            if !is_other_wanted(result) || attempt >= ports.span() {
                break;
            }
            connection.reply.ports = connection.reply.ports.to(ports.any(random, attempt));
            result = lines.enter_pair(connection, place);
        }
    }
    result
}

/// Removes the connection of an original if it is closing, and still is when its original is exchanged. Says whether there
/// is none of the tuple any more: nobody else enters one, since the home of the tuple is locked.
#[inline(always)]
pub fn give_way<F: Family, L: Lines<F>>(lines: &L, old: &Flow<F>) -> bool {
    let meta = old.meta();
    if old.is_reply() || !meta.is_visible() {
        return !meta.is_visible();
    }
    let reply = find(lines, &old.peer());
    let is_over = |reply: &Flow<F>| Phase::of(meta.state(), reply.meta().state()).is_over();
    if reply.is_some_and(|reply| !is_over(reply)) || !old.replace_meta(meta, meta.replaced()) {
        return false;
    }
    if let Some(totals) = lines.totals() {
        totals.replaced.add(1);
    }
    if let Some(reply) = reply {
        for _ in 0..KILL_TRIES {
            let meta = reply.meta();
            if !meta.is_visible() || reply.replace_meta(meta, meta.at(Stage::Dead)) {
                break;
            }
        }
    }
    true
}

/// Counts a connection, within the bounds.
#[inline(always)]
fn count_in<F: Family, L: Lines<F>>(lines: &L, totals: &Totals) -> Result<(), Refused> {
    let geometry = lines.geometry();
    let (ended, ceased) = (totals.ended(), totals.ceased());
    let opened = totals.opened.add(1).wrapping_add(1);
    let refused = if left(opened, ended) > geometry.max_connections.into() {
        Refused::Full
    } else if left(opened, ceased) > geometry.max_half_open.into() {
        Refused::HalfOpenFull
    } else {
        return Ok(());
    };
    totals.opened.add(u64::MAX);
    Err(refused)
}

/// Claims a free line for a flow of a home: its place.
#[inline(always)]
pub fn claim<F: Family, L: Lines<F>>(lines: &L, home: u32) -> Option<u32> {
    // With an index nothing is at home, where lookups look first.
    let first = u32::from(lines.index().is_some());
    for place in first..PLACES {
        let line = lines.line(lines.geometry().line(home, place))?;
        let meta = line.meta();
        if meta.is(Stage::Free) && line.replace_meta(meta, meta.at(Stage::Claimed)) {
            return Some(place);
        }
    }
    None
}

/// Claims a line for the reply of a connection, and makes both its flows visible; the original's home is locked, and the
/// line at `place` of it claimed.
///
/// # Errors
/// [`Refused::Taken`], [`Refused::Busy`]: not this reply tuple; [`Refused::Full`]. The original's line stays claimed.
#[inline(always)]
pub fn enter_pair<F: Family, L: Lines<F>>(
    lines: &L,
    connection: &Connection<F>,
    place: u32,
) -> Result<(), Refused> {
    let geometry = lines.geometry();
    let home = geometry.home(&connection.tuple);
    let home_line = lines.line(home).ok_or(Refused::Full)?;
    let original = lines
        .line(geometry.line(home, place % PLACES))
        .ok_or(Refused::Full)?;
    let reply_home = geometry.home(&connection.reply);
    let reply_line = lines.line(reply_home).ok_or(Refused::Full)?;
    // The lock of the original's home is held already.
    let is_same = reply_home == home;
    if !is_same && !table::lock(&reply_line.home, 1) {
        return Err(Refused::Busy);
    }
    // A backend that is its own service's client, from its listening port to a service on the address that it would be
    // given: its answers would have the tuple of its questions.
    let is_own = is_same && connection.reply == connection.tuple;
    let claimed = if is_own || find(lines, &connection.reply).is_some() {
        Err(Refused::Taken)
    } else {
        lines.claim(reply_home).ok_or(Refused::Full)
    };
    let result = claimed.and_then(|reply_place| {
        let number = geometry.line(reply_home, reply_place);
        let reply = lines.line(number).ok_or(Refused::Full)?;
        if !index::add(lines, &connection.reply, number) {
            release(lines, number);
            return Err(Refused::Taken);
        }
        publish(
            connection,
            (home_line, place, original),
            (reply_line, reply_place, reply),
        );
        Ok(())
    });
    if !is_same {
        table::unlock(&reply_line.home);
    }
    result
}

#[inline(always)]
fn publish<F: Family>(
    connection: &Connection<F>,
    (home, place, original): (&Flow<F>, u32, &Flow<F>),
    (reply_home, reply_place, reply): (&Flow<F>, u32, &Flow<F>),
) {
    let traits = |is_reply, ack| Traits {
        reply: is_reply,
        tagged: connection.tagged,
        backend: connection.backend,
        ack,
    };
    let (tuple, answer, segment) = (&connection.tuple, &connection.reply, &connection.segment);
    let back = connection.back.to_bits();
    reply.fill(answer, tuple, back, traits(true, segment.first()));
    let began = connection.now.0;
    original.fill(tuple, answer, began, traits(false, segment.end()));
    // Most flows are at home, which has no bit.
    if reply_place > 0 {
        reply_home.home.add(bit(reply_place));
    }
    if place > 0 {
        home.home.add(bit(place));
    }
    let live = Meta::new(Stage::Live, State(0), connection.now);
    reply.set_meta(live.scaled(Scale::MOST));
    original.set_meta(live.scaled(segment.scale()));
}
