//! What a packet does to its flow's state.

use crate::family::Family;
use crate::table::flow::{Flow, Meta, PRECISION, Stage};
use crate::table::state::{self, Phase, State};
use crate::table::tick::Tick;
use crate::table::{Lines, find};
use crate::wire::protocol;

/// How often an exchange is tried: it fails only against another packet of the same direction, or the daemon.
const TRIES: u32 = 4;

/// What became of a packet's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Touched {
    /// It goes on.
    Alive = 0,
    /// It is gone.
    Gone = 1,
    /// The packet opens a new connection in the place of this one, which is over (RFC 9293, section 3.6.1, allows it
    /// before the time-wait delay has passed).
    Over = 2,
}

impl Touched {
    /// The inverse of `as u32`.
    #[inline(always)]
    #[must_use]
    pub const fn decode(word: u32) -> Self {
        match word {
            0 => Self::Alive,
            1 => Self::Gone,
            _ => Self::Over,
        }
    }
}

/// Whether a packet with these TCP control bits (0: UDP) changes nothing of its flow, not even when it was last seen.
#[inline(always)]
#[must_use]
pub fn is_settled(meta: Meta, flags: u8, now: Tick) -> bool {
    meta.is(Stage::Live)
        && meta.state().is_settled(flags)
        && now.0.wrapping_sub(meta.last_seen().0) < PRECISION
}

/// Advances a flow by a packet with these TCP control bits (0: UDP).
#[inline(always)]
pub fn touch<F: Family, L: Lines<F>>(lines: &L, flow: &Flow<F>, flags: u8, now: Tick) -> Touched {
    for _ in 0..TRIES {
        let meta = flow.meta();
        if !meta.is_visible() {
            return Touched::Gone;
        }
        let (protocol, reply) = (flow.protocol(), flow.is_reply());
        let before = meta.state();
        let mut after = before;
        if !before.is_settled(flags) || meta.is(Stage::Dying) {
            // A client that came back may have opened another connection in the place of a reply's own, which is gone.
            let peer = find(lines, &flow.peer()).filter(|peer| peer.is_answered_by(flow));
            match peer {
                None if reply => return Touched::Gone,
                // First the original, on which the daemon's decision falls; when it has fallen, the next try sees it.
                Some(peer) if reply && !revive(peer) => continue,
                _ => {}
            }
            let peer = peer.map(|peer| peer.meta().state());
            if protocol == protocol::TCP
                && !reply
                && state::is_opening(protocol, flags)
                && peer.is_none_or(|peer| Phase::of(before, peer).is_over())
            {
                return Touched::Over;
            }
            after = before.after(protocol, reply, flags, peer.unwrap_or(State(0)));
        }
        if flow.replace_meta(meta, Meta::new(Stage::Live, after, now)) {
            if before.completes(after, protocol, reply)
                && let Some(totals) = lines.totals()
            {
                totals.completed.add(1);
            }
            return Touched::Alive;
        }
    }
    // Others advance the same flow faster than we: it is alive.
    Touched::Alive
}

/// Makes a flow live again that the daemon is about to remove. Says whether it is live.
#[inline(always)]
fn revive<F: Family>(flow: &Flow<F>) -> bool {
    let meta = flow.meta();
    meta.is(Stage::Live) || meta.is(Stage::Dying) && flow.replace_meta(meta, meta.at(Stage::Live))
}
