//! Connections, read out of the flow tables, and those that are over, removed.

use std::collections::HashMap as StdHashMap;
use std::time::Duration;

use balancer_common::family::Family;
use balancer_common::flow::{Flow, Phase, State, Tick};
use balancer_common::tuple::Tuple;
use balancer_common::wire::protocol;
use nix::time::{ClockId, clock_gettime};

use super::kernel::{FamilyMaps, KernelError};
use super::raw::{KernelFamily, flow_from_raw, tuple_to_raw};
use crate::config::Timeouts;

/// The time now, on the clock of the packet path.
///
/// # Errors
/// Never, on Linux.
pub fn now() -> Result<Tick, KernelError> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_err(std::io::Error::from)?;
    let nanoseconds = Duration::from(time).as_nanos() as u64;
    Ok(Tick::from_nanoseconds(nanoseconds))
}

/// A connection: both its flows.
#[derive(Debug)]
pub struct Connection<F: Family> {
    /// The tuple of packets from the client.
    pub tuple: Tuple<F>,
    /// Their flow.
    pub original: Flow<F>,
    /// The flow of the answers; `None` for the moment in which it is being removed.
    pub reply: Option<Flow<F>>,
}

impl<F: Family> Connection<F> {
    /// Where it stands.
    pub fn phase(&self) -> Phase {
        phase(&self.original, self.reply.as_ref())
    }

    /// When its last packet came.
    pub fn last_seen(&self, now: Tick) -> Tick {
        last_seen(&self.original, self.reply.as_ref(), now)
    }
}

fn phase<F: Family>(original: &Flow<F>, reply: Option<&Flow<F>>) -> Phase {
    let state = original.state();
    Phase::of(state, reply.map_or(state, Flow::state))
}

fn last_seen<F: Family>(original: &Flow<F>, reply: Option<&Flow<F>>, now: Tick) -> Tick {
    let idle = |flow: &Flow<F>| now.milliseconds_since(flow.last_seen());
    match reply {
        Some(reply) if idle(reply) < idle(original) => reply.last_seen(),
        _ => original.last_seen(),
    }
}

/// How long a connection of this protocol in this phase may be idle.
#[must_use]
pub fn timeout(timeouts: &Timeouts, ip_protocol: u8, phase: Phase) -> Duration {
    match (ip_protocol == protocol::TCP, phase) {
        (true, Phase::HalfOpen) => timeouts.tcp_handshake,
        (true, Phase::Established) => timeouts.tcp_established,
        (true, Phase::Closing) => timeouts.tcp_closing,
        (false, Phase::HalfOpen) => timeouts.udp,
        (false, _) => timeouts.udp_stream,
    }
}

/// The shortest of [`timeout`]s for a protocol: who was idle for less is alive in any phase.
fn shortest(timeouts: &Timeouts, ip_protocol: u8) -> Duration {
    [Phase::HalfOpen, Phase::Established, Phase::Closing]
        .into_iter()
        .map(|phase| timeout(timeouts, ip_protocol, phase))
        .min()
        .unwrap_or_default()
}

/// What is in a family's tables, and what a pass of the sweeper removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Connections there.
    pub connections: u64,
    /// Of these half-open, as counted against their bound.
    pub half_open: u64,
    /// Connections removed.
    pub removed: u64,
}

/// What a look at a family's tables found that may have to go.
#[derive(Debug)]
pub struct Found<F: Family> {
    /// What there is, and what was removed so far.
    pub swept: Swept,
    /// Original tuples of connections that may have been idle for too long.
    idle: Vec<Tuple<F>>,
    /// Tuples of replies that were idle, each with its original's.
    orphans: Vec<(Tuple<F>, Tuple<F>)>,
    /// Tuples that have been counted as half-open for long.
    half_open: Vec<Tuple<F>>,
}

/// How many tuples [`FamilyMaps::remove_some`] looks at: some ten milliseconds' worth.
const SOME: usize = 2048;

/// A connection of which one direction has ended, or both.
#[derive(Default)]
struct Ending {
    backend: u32,
    original: State,
    reply: State,
}

impl Swept {
    /// Both families together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            half_open: self.half_open + other.half_open,
            removed: self.removed + other.removed,
        }
    }
}

impl<F: KernelFamily> FamilyMaps<F> {
    /// Every connection, as it stands now.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn connections(&self) -> Result<Vec<Connection<F>>, KernelError> {
        let mut originals = Vec::new();
        let mut replies = StdHashMap::new();
        self.each_flow(|tuple, flow| {
            if flow.is_reply() {
                replies.insert(tuple, flow);
            } else {
                originals.push((tuple, flow));
            }
        })?;
        let connection = |(tuple, original): (Tuple<F>, Flow<F>)| {
            let reply = replies.remove(&original.peer());
            Connection {
                tuple,
                original,
                reply,
            }
        };
        Ok(originals.into_iter().map(connection).collect())
    }

    /// How many connections there are, and how many of them are half-open.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn count(&self) -> Result<Swept, KernelError> {
        let mut count = Swept::default();
        self.each_flow(|_, flow| count.connections += u64::from(!flow.is_reply()))?;
        self.each_half_open(|_, _| count.half_open += 1)?;
        Ok(count)
    }

    /// Adds how many connections each backend has, by its id, those that are closing left out.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn count_active(&self, counts: &mut StdHashMap<u32, u64>) -> Result<(), KernelError> {
        // Only what ends is looked at in pairs: it is little, and its phase depends on both directions.
        let mut ending: StdHashMap<Tuple<F>, Ending> = StdHashMap::new();
        self.each_flow(|tuple, flow| {
            let is_reply = flow.is_reply();
            if !is_reply {
                *counts.entry(flow.backend).or_default() += 1;
            }
            if flow.state().0 & (State::FIN | State::RST) != 0 {
                let key = if is_reply { flow.peer() } else { tuple };
                let ending = ending.entry(key).or_default();
                ending.backend = flow.backend;
                if is_reply {
                    ending.reply = flow.state();
                } else {
                    ending.original = flow.state();
                }
            }
        })?;
        for Ending {
            backend,
            original,
            reply,
        } in ending.into_values()
        {
            if Phase::of(original, reply) == Phase::Closing
                && let Some(count) = counts.get_mut(&backend)
            {
                *count = count.saturating_sub(1);
            }
        }
        counts.retain(|_, count| *count > 0);
        Ok(())
    }

    /// Removes the connections to backends that `wanted` picks by their id. Says how many.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn flush(&mut self, wanted: impl Fn(u32) -> bool, now: Tick) -> Result<u64, KernelError> {
        let mut picked = Vec::new();
        self.each_flow(|tuple, flow| {
            if !flow.is_reply() && wanted(flow.backend) {
                picked.push(tuple);
            }
        })?;
        let mut flushed = 0;
        for tuple in picked {
            flushed += u64::from(self.remove_if(&tuple, |_, _| true, now)?);
        }
        Ok(flushed)
    }

    fn flow(&mut self, tuple: &Tuple<F>) -> Option<Flow<F>> {
        let flows = self.flows().ok()?;
        flows.get(&tuple_to_raw(*tuple), 0).ok().map(flow_from_raw)
    }

    /// Looks for connections that were idle for too long, and for what an earlier daemon left.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn look(&self, timeouts: &Timeouts, now: Tick) -> Result<Found<F>, KernelError> {
        let mut found = Found {
            swept: Swept::default(),
            idle: Vec::new(),
            orphans: Vec::new(),
            half_open: Vec::new(),
        };
        let shortest = [protocol::TCP, protocol::UDP].map(|number| shortest(timeouts, number));
        self.each_flow(|tuple, flow| {
            let shortest = shortest[usize::from(tuple.ports.protocol() != protocol::TCP)];
            let idle = Duration::from_millis(now.milliseconds_since(flow.last_seen()));
            if flow.is_reply() {
                if idle >= shortest {
                    found.orphans.push((tuple, flow.peer()));
                }
                return;
            }
            found.swept.connections += 1;
            if idle >= shortest {
                found.idle.push(tuple);
            }
        })?;
        let limit = timeouts.tcp_handshake.max(timeouts.udp);
        self.each_half_open(|tuple, entered| {
            found.swept.half_open += 1;
            if Duration::from_millis(now.milliseconds_since(entered)) > limit {
                found.half_open.push(tuple);
            }
        })?;
        Ok(found)
    }

    /// Removes some of what was found, if it still is so. Says whether there is more.
    ///
    /// The kernel's map has no conditional removal: a packet that comes in the microseconds between the last look at
    /// a connection and its removal finds it gone, as it would have a moment later.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn remove_some(
        &mut self,
        found: &mut Found<F>,
        timeouts: &Timeouts,
        now: Tick,
    ) -> Result<bool, KernelError> {
        for _ in 0..SOME {
            if let Some(tuple) = found.idle.pop() {
                let limit = |phase| timeout(timeouts, tuple.ports.protocol(), phase);
                if self.remove_if(&tuple, |phase, idle| idle >= limit(phase), now)? {
                    found.swept.removed += 1;
                }
            } else if let Some((reply, original)) = found.orphans.pop() {
                // Left by a daemon that was killed between the two.
                if self.flow(&original).is_none() {
                    let _ = self.flows()?.remove(&tuple_to_raw(reply));
                }
            } else if let Some(tuple) = found.half_open.pop() {
                if self.flow(&tuple).is_none() {
                    let _ = self.half_open()?.remove(&tuple_to_raw(tuple));
                }
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes a connection when `condition` holds for its phase and idle time, looked up now. Says whether it did.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn remove_if(
        &mut self,
        tuple: &Tuple<F>,
        condition: impl FnOnce(Phase, Duration) -> bool,
        now: Tick,
    ) -> Result<bool, KernelError> {
        let Some(original) = self.flow(tuple) else {
            return Ok(false);
        };
        let peer = original.peer();
        let reply = self.flow(&peer);
        let phase = phase(&original, reply.as_ref());
        let last_seen = last_seen(&original, reply.as_ref(), now);
        let idle = Duration::from_millis(now.milliseconds_since(last_seen));
        if !condition(phase, idle) {
            return Ok(false);
        }
        // The original first: without it the next packet of the client opens a new connection.
        let mut flows = self.flows()?;
        let _ = flows.remove(&tuple_to_raw(*tuple));
        let _ = flows.remove(&tuple_to_raw(peer));
        if phase == Phase::HalfOpen {
            let _ = self.half_open()?.remove(&tuple_to_raw(*tuple));
        }
        Ok(true)
    }
}
