//! The flow table as the daemon has it: connections, listed and removed.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use balancer_common::family::Family;
use balancer_common::hop::HOPS;
use balancer_common::table::flow::{Flow, PRECISION, Stage};
use balancer_common::table::retire::{Prospect, condemn, free, kill, orphaned, recover};
use balancer_common::table::state::{Phase, State};
use balancer_common::table::tick::Tick;
use balancer_common::table::{Geometry, Lines, Totals, find};
use balancer_common::wire::protocol;
use nix::time::{ClockId, clock_gettime};

use super::index::KernelIndex;
use super::mapped::Mapped;
use crate::config::Timeouts;

/// The time now, on the clock of the packet path.
///
/// # Errors
/// Never, on Linux.
pub fn now() -> io::Result<Tick> {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?;
    let nanoseconds = Duration::from(time).as_nanos() as u64;
    Ok(Tick::from_nanoseconds(nanoseconds))
}

/// The lines of a family's flow table, to look at: whoever has this removes nothing.
#[derive(Clone, Debug)]
pub struct View<F: Family> {
    geometry: Geometry,
    lines: Arc<Mapped<Flow<F>>>,
    index: Option<Arc<KernelIndex<F>>>,
    totals: Arc<Mapped<Totals>>,
}

impl<F: Family> Lines<F> for View<F> {
    type Index = KernelIndex<F>;

    fn index(&self) -> Option<&KernelIndex<F>> {
        self.index.as_deref()
    }

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn line(&self, index: u32) -> Option<&Flow<F>> {
        self.lines.get(index as usize)
    }

    fn totals(&self) -> Option<&Totals> {
        self.totals.get(usize::from(F::VERSION == 6))
    }
}

/// The flow table of a family. Packets enter and advance flows; whoever has this alone removes them.
#[derive(Debug)]
pub struct FlowTable<F: Family> {
    view: View<F>,
    /// Whether the last pass found nothing at all, and nothing can be there that was entered before it.
    is_bare: bool,
}

/// A connection: both its flows.
#[derive(Debug)]
pub struct Connection<'a, F: Family> {
    /// That of packets from the client.
    pub original: &'a Flow<F>,
    /// That of the answers; `None` for the moment in which it is being removed.
    pub reply: Option<&'a Flow<F>>,
}

impl<F: Family> Connection<'_, F> {
    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        let state = self.original.meta().state();
        Phase::of(
            state,
            self.reply.map_or(state, |reply| reply.meta().state()),
        )
    }

    /// When its last packet came, or a little before that: see [`PRECISION`].
    #[must_use]
    pub fn last_seen(&self, now: Tick) -> Tick {
        let seen = self.original.meta().last_seen();
        let idle = |seen| now.milliseconds_since(seen);
        match self.reply.map(|reply| reply.meta().last_seen()) {
            Some(reply) if idle(reply) < idle(seen) => reply,
            _ => seen,
        }
    }
}

/// How long a connection is remembered that was refused: it must not fill the half-open part of the table, and whoever
/// repeats the SYN begins anew.
const REFUSED: Duration = Duration::from_secs(1);

/// How long a connection of this protocol in this phase may be idle.
#[must_use]
pub fn timeout(timeouts: &Timeouts, ip_protocol: u8, phase: Phase) -> Duration {
    match (ip_protocol == protocol::TCP, phase) {
        (true, Phase::HalfOpen) => timeouts.tcp_handshake,
        (true, Phase::Refused) => timeouts.tcp_handshake.min(REFUSED),
        (true, Phase::Established) => timeouts.tcp_established,
        (true, Phase::Closing) => timeouts.tcp_closing,
        (false, Phase::HalfOpen) => timeouts.udp,
        (false, _) => timeouts.udp_stream,
    }
}

/// The shortest of [`timeout`]s by what one flow shows: who was idle for less is alive, whatever the other one shows.
#[derive(Clone, Copy, Debug)]
struct Shortest {
    established: Duration,
    any: Duration,
}

impl Shortest {
    fn of(timeouts: &Timeouts, ip_protocol: u8) -> Self {
        let [half_open, refused, established, closing] = [
            Phase::HalfOpen,
            Phase::Refused,
            Phase::Established,
            Phase::Closing,
        ]
        .map(|phase| timeout(timeouts, ip_protocol, phase));
        let established = established.min(closing);
        Self {
            established,
            any: established.min(half_open).min(refused),
        }
    }

    fn by(self, state: State) -> Duration {
        if state.has(State::ESTABLISHED) {
            self.established
        } else {
            self.any
        }
    }
}

/// For how long nothing came; never more than it was, although flows are not written to for each packet.
fn idle(last_seen: Tick, now: Tick) -> Duration {
    let latest = Tick(last_seen.0.wrapping_add(PRECISION));
    Duration::from_millis(now.milliseconds_since(latest))
}

/// How many lines [`FlowTable::look`] looks at: a few milliseconds' worth.
const SOME: u32 = 1 << 16;

/// A pass over a family's table: [`FlowTable::look`] until there is no more, a grace period, [`FlowTable::free`].
#[derive(Debug, Default)]
pub struct Pass {
    /// The line to go on with.
    next: u32,
    /// Lines of flows that are gone; to be freed.
    dead: Vec<u32>,
    /// Replies whose originals are not there.
    orphans: Vec<u32>,
    /// Connections removed.
    pub removed: u64,
    /// Lines that were not free.
    used: u64,
    /// The numbers of next hops that flows have: see [`balancer_common::hop`].
    pub hops: Numbers,
}

/// A set of numbers of next hops.
#[derive(Debug)]
pub struct Numbers(Vec<bool>);

impl Default for Numbers {
    fn default() -> Self {
        Self(vec![false; HOPS as usize])
    }
}

impl Numbers {
    pub(super) fn insert(&mut self, number: u16) {
        if let Some(has) = self.0.get_mut(usize::from(number)) {
            *has = true;
        }
    }

    /// Whether it has a number.
    #[must_use]
    pub fn has(&self, number: u16) -> bool {
        self.0.get(usize::from(number)) == Some(&true)
    }
}

impl Pass {
    /// Whether there is nothing to be done after the grace period, so that none is needed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dead.is_empty() && self.orphans.is_empty()
    }
}

impl<F: Family> Lines<F> for FlowTable<F> {
    type Index = KernelIndex<F>;

    fn index(&self) -> Option<&KernelIndex<F>> {
        self.view.index()
    }

    fn geometry(&self) -> &Geometry {
        self.view.geometry()
    }

    fn line(&self, index: u32) -> Option<&Flow<F>> {
        self.view.line(index)
    }

    fn totals(&self) -> Option<&Totals> {
        self.view.totals()
    }
}

impl<F: Family> FlowTable<F> {
    /// The table in this memory; what an earlier daemon had begun is ended.
    #[must_use]
    pub fn new(
        geometry: Geometry,
        lines: Mapped<Flow<F>>,
        index: Option<KernelIndex<F>>,
        totals: Mapped<Totals>,
    ) -> Self {
        let view = View {
            geometry,
            lines: Arc::new(lines),
            index: index.map(Arc::new),
            totals: Arc::new(totals),
        };
        let table = Self {
            view,
            is_bare: false,
        };
        recover(&table);
        table
    }

    /// An empty table in memory of our own.
    ///
    /// # Errors
    /// There is not so much.
    pub fn anonymous(geometry: Geometry) -> io::Result<Self> {
        let lines = Mapped::anonymous(geometry.lines() as usize)?;
        Ok(Self::new(geometry, lines, None, Mapped::anonymous(2)?))
    }

    /// The same, for others to look at.
    #[must_use]
    pub fn view(&self) -> View<F> {
        self.view.clone()
    }

    /// How many connections there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.totals().map_or(0, Totals::connections)
    }

    /// How many of them are half-open.
    #[must_use]
    pub fn count_half_open(&self) -> u64 {
        self.totals().map_or(0, Totals::half_open)
    }

    /// How many connections that were over were replaced by packets so far.
    #[must_use]
    pub fn count_replaced(&self) -> u64 {
        self.totals().map_or(0, |totals| totals.replaced.get())
    }

    /// Every flow.
    pub fn flows(&self) -> impl Iterator<Item = &Flow<F>> {
        let lines = if self.count() == 0 {
            &[]
        } else {
            &self.view.lines[..]
        };
        lines.iter().filter(|line| line.meta().is_visible())
    }

    /// Every connection.
    pub fn connections(&self) -> impl Iterator<Item = Connection<'_, F>> {
        let originals = self.flows().filter(|flow| !flow.is_reply());
        originals.map(|original| self.connection(original))
    }

    fn connection<'a>(&'a self, original: &'a Flow<F>) -> Connection<'a, F> {
        Connection {
            original,
            reply: find(self, &original.peer()),
        }
    }

    /// Adds how many connections each backend has, by its id, those that are closing left out.
    pub fn count_active(&self, counts: &mut HashMap<u32, u64>) {
        const ENDING: u8 = State::FIN | State::RST;
        for flow in self.flows() {
            // Only what ends is looked at in pairs: it is little, and its phase depends on both directions. If both show
            // that it ends, it is the original that counts.
            let ends = flow.meta().state().0 & ENDING != 0;
            let closing = if flow.is_reply() {
                ends && find(self, &flow.peer()).is_some_and(|original| {
                    original.meta().state().0 & ENDING == 0
                        && self.connection(original).phase().is_over()
                })
            } else {
                *counts.entry(flow.backend()).or_default() += 1;
                ends && self.connection(flow).phase().is_over()
            };
            if closing && let Some(count) = counts.get_mut(&flow.backend()) {
                *count = count.saturating_sub(1);
            }
        }
        counts.retain(|_, count| *count > 0);
    }

    /// Removes the connections to backends that `wanted` picks by their id; they are to be [freed](FlowTable::free).
    pub fn flush(&mut self, wanted: impl Fn(u32) -> bool) -> Pass {
        const TRIES: u32 = 100;
        // What packets have replaced since the last pass waits for the next, also when nothing is left.
        self.is_bare = false;
        let mut pass = Pass {
            next: u32::MAX,
            ..Pass::default()
        };
        for index in 0..self.geometry().lines() {
            let Some(line) = self.line(index) else {
                continue;
            };
            // It fails when a packet comes meanwhile.
            for _ in 0..TRIES {
                let meta = line.meta();
                if !meta.is_visible() || line.is_reply() || !wanted(line.backend()) {
                    break;
                }
                if self.remove(index, line, &mut pass, |_| true) {
                    break;
                }
            }
        }
        pass
    }

    /// Removes a connection if `is_over`, and notes both its lines.
    fn remove(
        &self,
        index: u32,
        original: &Flow<F>,
        pass: &mut Pass,
        is_over: impl Fn(&Prospect) -> bool,
    ) -> bool {
        let reply = find(self, &original.peer());
        if !condemn(self, original, is_over) {
            return false;
        }
        pass.removed += 1;
        pass.dead.push(index);
        // To a reply that is further on the pass comes by itself.
        if let Some(reply) = reply.and_then(|reply| self.index_of(reply))
            && reply < pass.next
        {
            pass.dead.push(reply);
        }
        true
    }

    fn index_of(&self, line: &Flow<F>) -> Option<u32> {
        let distance = std::ptr::from_ref(line)
            .addr()
            .checked_sub(self.view.lines.as_ptr().addr())?;
        Some((distance / size_of::<Flow<F>>()) as u32)
    }

    /// Goes on with a pass: removes the connections that were idle for too long, and collects what is gone. Says whether
    /// there is more.
    pub fn look(&mut self, pass: &mut Pass, timeouts: &Timeouts, now: Tick) -> bool {
        let lines = self.geometry().lines();
        if self.is_bare && self.count() == 0 && pass.next == 0 {
            return false;
        }
        let shortest = [protocol::TCP, protocol::UDP].map(|number| Shortest::of(timeouts, number));
        let end = lines.min(pass.next + SOME);
        while pass.next < end {
            let index = pass.next;
            pass.next += 1;
            let Some(line) = self.line(index) else {
                continue;
            };
            let meta = line.meta();
            if meta.is(Stage::Free) {
                continue;
            }
            pass.used += 1;
            if meta.is(Stage::Dead) {
                pass.dead.push(index);
                continue;
            }
            if !meta.is_visible() {
                continue;
            }
            let shortest = shortest[usize::from(line.protocol() != protocol::TCP)];
            let is_idle = idle(meta.last_seen(), now) >= shortest.by(meta.state());
            if line.is_reply() {
                pass.hops.insert(line.hop().number);
                if is_idle && orphaned(self, line) {
                    pass.orphans.push(index);
                }
            } else if is_idle {
                self.remove(index, line, pass, |prospect| {
                    let limit = timeout(timeouts, prospect.protocol, prospect.phase);
                    idle(prospect.last_seen, now) >= limit
                });
            }
        }
        if end == lines {
            self.is_bare = pass.used == 0;
        }
        end < lines
    }

    /// Ends a pass, after a grace period: gives back the lines of what is gone.
    pub fn free(&mut self, pass: &Pass) {
        for &index in &pass.dead {
            free(self, index);
        }
        for &index in &pass.orphans {
            if let Some(reply) = self.line(index)
                && orphaned(self, reply)
            {
                kill(reply);
            }
        }
    }

    /// Empties the table, which nobody else may be using.
    pub fn clear(&mut self) {
        for line in self.view.lines.iter() {
            kill(line);
        }
        for index in 0..self.geometry().lines() {
            free(self, index);
        }
    }
}
