//! Removing connections: what the daemon alone does, one at a time of it.
//!
//! In three steps, each of which may be the last one of a daemon that is killed:
//!
//! 1. [`condemn`]: original and reply are marked as dying. They stay visible; a packet of either direction revives the
//!    original, and the next exchange fails.
//! 2. The original dies, by one exchange: from here on the connection is gone. Then the reply dies, which no packet can
//!    revive any more.
//! 3. After a grace period [`free`] gives both lines back.
//!
//! Between two passes there is a grace period too: a packet that saw a flow dying in the first has ended before the second.
//!
//! What a killed daemon leaves is all of it legal: dying flows are revived by their next packet or by [`recover`], dead lines
//! are freed by the next daemon, and a reply without its original is [`orphaned`].

use crate::family::Family;
use crate::table::flow::{Flow, Meta, Stage};
use crate::table::state::{Phase, State};
use crate::table::tick::Tick;
use crate::table::{Lines, PLACES, Totals, bit, find, index};
use crate::wire::protocol;

/// A connection as the daemon sees it when it thinks of removing it.
#[derive(Clone, Copy, Debug)]
pub struct Prospect {
    /// IP protocol number.
    pub protocol: u8,
    /// Where it stands.
    pub phase: Phase,
    /// When its last packet came, or up to [`crate::table::flow::PRECISION`] ticks earlier.
    pub last_seen: Tick,
}

/// Removes the connection of an original flow if `is_over` says so, and no packet of it comes meanwhile. Says whether
/// it did; the lines are not free yet.
pub fn condemn<F: Family, L: Lines<F>>(
    lines: &L,
    original: &Flow<F>,
    is_over: impl Fn(&Prospect) -> bool,
) -> bool {
    let meta = original.meta();
    if !meta.is_visible() || original.is_reply() {
        return false;
    }
    let reply = find(lines, &original.peer());
    let reply_meta = reply.map_or(meta, Flow::meta);
    let (last, other) = (meta.last_seen(), reply_meta.last_seen());
    let prospect = Prospect {
        protocol: original.protocol(),
        phase: Phase::of(meta.state(), reply_meta.state()),
        last_seen: if other.0.wrapping_sub(last.0) < u32::MAX / 2 {
            other
        } else {
            last
        },
    };
    if !is_over(&prospect) {
        return false;
    }
    let dying = meta.at(Stage::Dying);
    if !original.replace_meta(meta, dying) {
        return false;
    }
    if let Some(reply) = reply
        && !reply.replace_meta(reply_meta, reply_meta.at(Stage::Dying))
    {
        // A packet came. If one comes for the original too, it is live by that.
        original.replace_meta(dying, meta.at(Stage::Live));
        return false;
    }
    // What it counts as when it is freed, the dead flow tells on its own: of UDP the reply knows it.
    let established =
        prospect.protocol != protocol::TCP && reply_meta.state().has(State::ESTABLISHED);
    let state = if established {
        State(meta.state().0 | State::ESTABLISHED)
    } else {
        meta.state()
    };
    let dead = meta.at(Stage::Dead).of(state);
    if !original.replace_meta(dying, dead) && !original.meta().is(Stage::Dead) {
        // Revived by a packet. (When it is dead, a packet has put a new connection in its place.) A packet may still hold
        // the word of the dying reply: it must not find that word again when this is tried once more.
        if let Some(reply) = reply {
            let later = Tick(reply_meta.last_seen().0.wrapping_add(1));
            let live = reply_meta.at(Stage::Live).seen(later);
            reply.replace_meta(reply_meta.at(Stage::Dying), live);
        }
        return false;
    }
    if let Some(reply) = reply {
        kill(reply);
    }
    true
}

/// Whether a reply's original is not there. It is gone when this holds before a grace period and after it: that of a
/// connection which a packet enters comes a moment after its reply.
pub fn orphaned<F: Family, L: Lines<F>>(lines: &L, reply: &Flow<F>) -> bool {
    let tuple = reply.tuple();
    reply.meta().is_visible()
        && reply.is_reply()
        && find(lines, &reply.peer()).is_none_or(|original| original.peer() != tuple)
}

/// Makes a flow dead that packets cannot bring back: a reply whose original is dead.
pub fn kill<F: Family>(flow: &Flow<F>) {
    loop {
        let meta = flow.meta();
        if !meta.is_visible() || flow.replace_meta(meta, meta.at(Stage::Dead)) {
            return;
        }
    }
}

/// Frees a dead line: after a grace period, so that no packet has found the flow in it.
///
/// The note makes it one step for who comes after a kill: with the note there, `closed` becomes what it says, however
/// often it is done.
pub fn free<F: Family, L: Lines<F>>(lines: &L, number: u32) {
    let (Some(line), Some(totals)) = (lines.line(number), lines.totals()) else {
        return;
    };
    let meta = line.meta();
    if !meta.is(Stage::Dead) {
        return;
    }
    forget_place(lines, line, number);
    index::forget(lines, &line.tuple(), number);
    if !line.is_reply() {
        let half = u64::from(!meta.state().has(State::ESTABLISHED));
        let [noted, what, closed, half_closed] = &totals.note;
        what.set(meta.0);
        let counts = u64::from(!meta.is_replaced());
        closed.set(totals.closed.get().wrapping_add(counts));
        half_closed.set(totals.half_closed.get().wrapping_add(half));
        // An established connection is one that was completed, or is counted as such: see `condemn`.
        noted.set(u64::from(number) + 1);
        totals.closed.set(closed.get());
        totals.half_closed.set(half_closed.get());
    }
    line.set_meta(Meta::new(Stage::Free, State(0), Tick(0)));
    totals.note[0].set(0);
}

/// Ends what a killed daemon had begun. To be called before anything is removed, with a grace period after it.
pub fn recover<F: Family, L: Lines<F>>(lines: &L) {
    if let Some(totals) = lines.totals() {
        end_freeing(lines, totals);
    }
    for index in 0..lines.geometry().lines() {
        let Some(line) = lines.line(index) else {
            continue;
        };
        let meta = line.meta();
        if !meta.is(Stage::Dying) {
            continue;
        }
        // A flow is not marked as dying before its pair is whole: a reply without its original is what is left of it.
        if orphaned(lines, line) {
            kill(line);
        } else {
            // If it is not, a packet was first.
            line.replace_meta(meta, meta.at(Stage::Live));
        }
    }
}

fn end_freeing<F: Family, L: Lines<F>>(lines: &L, totals: &Totals) {
    let [noted, what, closed, half_closed] = &totals.note;
    let Some(index) = noted.get().checked_sub(1) else {
        return;
    };
    totals.closed.set(closed.get());
    totals.half_closed.set(half_closed.get());
    // Freed already, it may be somebody else's by now.
    if let Some(line) = lines.line(index as u32)
        && line.meta() == Meta(what.get())
    {
        line.set_meta(Meta::new(Stage::Free, State(0), Tick(0)));
    }
    noted.set(0);
}

/// Takes the bit of a line out of its flow's home word.
fn forget_place<F: Family, L: Lines<F>>(lines: &L, line: &Flow<F>, index: u32) {
    let geometry = lines.geometry();
    let home = geometry.home(&line.tuple());
    let Some(home_line) = lines.line(home) else {
        return;
    };
    for place in 1..PLACES {
        if geometry.line(home, place) == index && home_line.home.get() & bit(place) != 0 {
            home_line.home.add(bit(place).wrapping_neg());
            return;
        }
    }
}
