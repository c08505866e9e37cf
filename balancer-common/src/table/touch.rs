//! What a packet does to its flow's state.

use crate::family::Family;
use crate::table::flow::{Flow, Meta, PRECISION, Stage};
use crate::table::segment::{Advanced, Segment, Side};
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
    /// Another packet or the daemon changed the flow meanwhile.
    Again = 3,
}

impl Touched {
    /// The inverse of `as u32`.
    #[inline(always)]
    #[must_use]
    pub const fn decode(word: u32) -> Self {
        match word {
            0 => Self::Alive,
            1 => Self::Gone,
            2 => Self::Over,
            _ => Self::Again,
        }
    }
}

/// Whether a packet may change nothing of its flow, not even when it was last seen.
#[inline(always)]
#[must_use]
pub fn is_settled(meta: Meta, now: Tick) -> bool {
    meta.is_established() && now.0.wrapping_sub(meta.last_seen().0) < PRECISION
}

/// Advances a flow by a packet.
#[inline(always)]
pub fn touch<F: Family, L: Lines<F>>(
    lines: &L,
    flow: &Flow<F>,
    segment: Segment,
    now: Tick,
) -> Touched {
    for _ in 0..TRIES {
        let touched = lines.try_touch(flow, segment, now);
        if touched != Touched::Again {
            return touched;
        }
    }
    // Others advance the same flow faster than we: it is alive.
    Touched::Alive
}

/// Tries to, once.
#[inline(always)]
pub fn try_touch<F: Family, L: Lines<F>>(
    lines: &L,
    flow: &Flow<F>,
    segment: Segment,
    now: Tick,
) -> Touched {
    let meta = flow.meta();
    if !meta.is_visible() {
        return Touched::Gone;
    }
    let (protocol, reply) = (flow.protocol(), flow.is_reply());
    let before = flow.side(meta);
    let mut after = before;
    let is_settled =
        before.state.is_settled(segment.flags()) && after.acknowledge(segment.acknowledgement);
    if !is_settled || meta.is(Stage::Dying) {
        // A client that came back may have opened another connection in the place of a reply's own, which is gone.
        let peer = find(lines, &flow.peer()).filter(|peer| peer.is_answered_by(flow));
        let other = match peer {
            None if reply => return Touched::Gone,
            None => None,
            Some(peer) => Some(peer.side(peer.meta())),
        };
        if protocol == protocol::TCP
            && !reply
            && state::is_opening(protocol, segment.flags())
            && other.is_none_or(|other| Phase::of(before.state, other.state).is_over())
        {
            return Touched::Over;
        }
        let advanced = if protocol == protocol::TCP {
            other.and_then(|other| lines.advance(reply, before, other, segment))
        } else {
            let peer = other.map_or(State(0), |other| other.state);
            let state = before.state.after_datagram(reply, peer);
            Some(Side { state, ..before }.into())
        };
        let Some(Advanced { own, is_answer }) = advanced else {
            // The peer may be gone because the flow is.
            let counted = meta.counted(flow.packets());
            let is_same = if counted == meta {
                flow.meta() == meta
            } else {
                flow.replace_meta(meta, counted)
            };
            return if is_same {
                Touched::Alive
            } else {
                Touched::Again
            };
        };
        match peer {
            // First the original, on which the daemon's decision falls; when it has fallen, the next try sees it.
            Some(peer) if reply && !revive(peer) => return Touched::Again,
            // Before the state that says so.
            Some(peer) if is_answer => peer.set_ack(segment.first()),
            _ => {}
        }
        after = own;
    }
    let advanced = meta
        .at(Stage::Live)
        .of(after.state)
        .scaled(after.scale)
        .counted(flow.packets())
        .seen(now);
    if !flow.replace_meta(meta, advanced) {
        return Touched::Again;
    }
    if after.ack != before.ack {
        flow.set_ack(after.ack);
    }
    if before.state.completes(after.state, protocol, reply)
        && let Some(totals) = lines.totals()
    {
        totals.completed.add(1);
    }
    Touched::Alive
}

/// Makes a flow live again that the daemon is about to remove. Says whether it is live.
#[inline(always)]
fn revive<F: Family>(flow: &Flow<F>) -> bool {
    let meta = flow.meta();
    meta.is(Stage::Live) || meta.is(Stage::Dying) && flow.replace_meta(meta, meta.at(Stage::Live))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_flow_under_traffic_is_written_to_now_and_then() {
        let seen = Tick(u32::MAX - 3);
        let flow = |stage, state| Meta::new(stage, State(state), seen);
        let live = flow(Stage::Live, State::ESTABLISHED | State::FIN);
        let after = |ticks| Tick(seen.0.wrapping_add(ticks));
        assert!(is_settled(live, seen) && is_settled(live, after(PRECISION - 1)));
        assert!(!is_settled(live, after(PRECISION)));
        // Of a clock that is behind nothing is said.
        assert!(!is_settled(live, after(u32::MAX)));
        assert!(!is_settled(flow(Stage::Live, State::SYN_ACK), seen));
        assert!(!is_settled(flow(Stage::Dying, State::ESTABLISHED), seen));
    }
}
