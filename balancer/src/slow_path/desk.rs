//! Where frames of the slow path are looked at.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balancer_common::abi::Note;
use balancer_common::family::{Family, V4, V6};
use balancer_common::fragment::{Datagram, Key};
use balancer_common::parse;
use balancer_common::search::state;
use balancer_common::table::tick::Tick;
use balancer_common::verdict::{Drop, Exit, Punt, Verdict, Way};
use balancer_common::wire::ethertype;

use super::Program;
use super::answer::Complaint;
use super::counters::Counters;
use super::cut::cut;
use super::held::{Frame, Held, MOST};
use super::interface::Interface;
use super::limit::Limits;
use super::ports::Searcher;
use crate::datapath::flows::{View, now};
use crate::datapath::notes::Notes;

/// How long a packet waits for a way.
const PATIENCE: Duration = Duration::from_secs(1);

/// For how long after a way has come packets may be under way that it came too late for.
const RECENT: Duration = Duration::from_millis(20);

/// When to look whether a fragment can go on: most come early by less.
const SOON: Duration = Duration::from_millis(1);

/// How long an interface's address is taken for what it was.
const REMEMBERED: Duration = Duration::from_secs(1);

/// What a frame may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wanted {
    /// The earlier fragments of an IPv4 datagram.
    V4(Key<V4>),
    /// Those of an IPv6 one.
    V6(Key<V6>),
    /// A way; the number is its own.
    Way(u64),
}

/// Where frames are looked at, one after the other.
pub struct Desk {
    program: Program,
    pub counters: Arc<Counters>,
    /// How long fragments wait for those before them.
    pub fragment_timeout: Duration,
    limits: Limits,
    held: Held<Wanted>,
    /// Those of IPv4 and IPv6.
    searchers: (Searcher<V4>, Searcher<V6>),
    /// How many frames have waited for a way.
    waits: u64,
    /// When a way has come.
    way_came: Option<Instant>,
    /// How long the fragments of datagrams may be that were cut, and until when that is remembered.
    narrow: HashMap<Wanted, (u32, Instant)>,
    /// What interfaces are, and when that was asked.
    interfaces: HashMap<u32, (Interface, Instant)>,
}

impl Desk {
    /// Nothing has come yet.
    pub fn new(program: Program, counters: Arc<Counters>) -> Self {
        Self {
            program,
            counters,
            fragment_timeout: Duration::from_secs(2),
            limits: Limits::new(Instant::now()),
            held: Held::default(),
            searchers: (Searcher::new(), Searcher::new()),
            waits: 0,
            way_came: None,
            narrow: HashMap::new(),
            interfaces: HashMap::new(),
        }
    }

    /// Takes a frame that came in by a queue of an interface, with a note of the program. Gives what is to be sent back.
    pub fn take(
        &mut self,
        interface: u32,
        queue: u32,
        note: Note,
        frame: &[u8],
    ) -> Option<Vec<u8>> {
        let exit = Exit::of_counter(note.verdict);
        match Verdict::from(exit) {
            Verdict::Drop(reason) if exit.is_told() => {
                self.answer(interface, reason, note.mtu, frame)
            }
            Verdict::Punt(reason) if exit.is_punt() => {
                self.counters.punted[reason as usize].add();
                match reason {
                    Punt::Fragment => self.keep_fragment(interface, queue, frame),
                    Punt::Ports => return self.find_port(interface, queue, frame),
                    Punt::NextHop => self.keep_for_way(interface, queue, frame),
                    Punt::TooBig => self.cut(interface, queue, note.mtu, frame),
                }
                None
            }
            _ => {
                self.counters.failed.add();
                None
            }
        }
    }

    /// The answer to a frame that was dropped.
    fn answer(&mut self, interface: u32, reason: Drop, mtu: u32, frame: &[u8]) -> Option<Vec<u8>> {
        let counters = Arc::clone(&self.counters);
        counters.dropped[reason as usize].add();
        let now = Instant::now();
        // What was sent to another box with the same service is not ours to answer.
        let mac = self.interface(interface, now).mac;
        let is_ours = mac.is_none_or(|mac| frame.starts_with(&mac));
        let complaint = Complaint::of(reason, mtu, frame).filter(|_| is_ours);
        let Some(complaint) = complaint else {
            counters.untold.add();
            return None;
        };
        if !self.limits.allow(complaint.source, now) {
            counters.limited.add();
            return None;
        }
        let own = self.interface(interface, now).own(complaint.destination);
        let answer = complaint.answer(own);
        match answer {
            Some(_) => counters.told.add(),
            None => counters.untold.add(),
        }
        answer
    }

    /// Keeps a fragment until those before it have gone on.
    fn keep_fragment(&mut self, interface: u32, queue: u32, bytes: &[u8]) {
        let Some((wanted, position)) = wanted(bytes) else {
            self.counters.failed.add();
            return;
        };
        let frame = Frame {
            interface,
            queue,
            bytes: bytes.to_vec(),
            position,
        };
        let now = Instant::now();
        let until = now + self.fragment_timeout;
        let lost = self.held.keep(wanted, frame, now, until, SOON);
        self.counters.overflowed.add_many(lost);
        self.program.budgets.lost(lost);
        self.release(wanted);
    }

    /// Finds a source port for the connection that a packet opens, which goes through the program again. Gives what is to be
    /// sent back when there is none.
    fn find_port(&mut self, interface: u32, queue: u32, frame: &[u8]) -> Option<Vec<u8>> {
        let (notes, now) = (&self.program.notes, Instant::now());
        let (v4, v6) = &mut self.searchers;
        let found = match parse::ethernet(&frame).map(|l2| (l2.ethertype, l2.l3)) {
            Ok((ethertype::IPV4, l3)) => note_port(&notes.v4, &self.program.v4, v4, frame, l3, now),
            Ok((ethertype::IPV6, l3)) => note_port(&notes.v6, &self.program.v6, v6, frame, l3, now),
            _ => None,
        };
        let Some(found) = found else {
            self.counters.failed.add();
            return None;
        };
        // If there is none, it counts the refusal.
        self.resume(interface, queue, frame);
        if found {
            None
        } else {
            self.answer(interface, Drop::PortsExhausted, 0, frame)
        }
    }

    /// Gives a frame to the program again.
    fn resume(&self, interface: u32, queue: u32, frame: &[u8]) {
        match self.program.others.resume(interface, queue, frame) {
            Ok(()) => self.counters.resumed.add(),
            Err(error) => {
                tracing::debug!(%error, "a frame that waited is lost");
                self.counters.failed.add();
            }
        }
    }

    /// Cuts a packet into fragments, which go through the program one after the other.
    fn cut(&mut self, interface: u32, queue: u32, mtu: u32, bytes: &[u8]) {
        self.resume_cut(interface, queue, mtu, bytes);
        // It may have been a fragment itself, and others wait for it, which are as long.
        if let Some((wanted, _)) = wanted(bytes) {
            let now = Instant::now();
            if self.narrow.len() >= MOST {
                self.narrow.retain(|_, (_, until)| now < *until);
            }
            if self.narrow.len() < MOST {
                self.narrow
                    .insert(wanted, (mtu, now + self.fragment_timeout));
            }
            self.release(wanted);
        }
    }

    fn resume_cut(&self, interface: u32, queue: u32, mtu: u32, bytes: &[u8]) {
        let Some(fragments) = cut(bytes, mtu) else {
            self.counters.failed.add();
            return;
        };
        for fragment in &fragments {
            if let Err(error) = self.program.others.resume(interface, queue, fragment) {
                tracing::debug!(%error, "a packet that was cut is lost");
                self.counters.failed.add();
                return;
            }
        }
        self.counters.resumed.add();
    }

    /// Keeps a frame until there is a way for it.
    fn keep_for_way(&mut self, interface: u32, queue: u32, bytes: &[u8]) {
        let now = Instant::now();
        if (self.way_came).is_some_and(|at| now.saturating_duration_since(at) < RECENT) {
            self.resume(interface, queue, bytes);
            return;
        }
        self.waits += 1;
        let frame = Frame {
            interface,
            queue,
            bytes: bytes.to_vec(),
            position: 0,
        };
        let (wanted, until) = (Wanted::Way(self.waits), now + PATIENCE);
        let lost = self.held.keep(wanted, frame, now, until, PATIENCE);
        self.counters.overflowed.add_many(lost);
    }

    /// There is a way that was not there before.
    pub fn way_has_come(&mut self) {
        self.way_came = Some(Instant::now());
        let is_way = |wanted: &Wanted| matches!(wanted, Wanted::Way(_));
        for frame in self.held.release_all(is_way) {
            self.resume(frame.interface, frame.queue, &frame.bytes);
        }
    }

    /// Has a frame sent by who has the sockets, if it is not the slow path itself. Says whether there was room.
    pub fn transmit(&self, interface: u32, frame: &[u8]) -> bool {
        self.program.others.transmit(interface, frame)
    }

    /// When to [look](Desk::look) again.
    pub fn next(&self) -> Option<Instant> {
        let others = self.program.budgets.next();
        self.held.next().into_iter().chain(others).min()
    }

    /// Looks what of that which waits can go on. Gives what is to be sent back, and by which interface.
    pub fn look(&mut self, now: Instant) -> Vec<(u32, Vec<u8>)> {
        let (due, expired) = self.held.due(now);
        for wanted in due {
            self.release(wanted);
        }
        let mut answers = Vec::new();
        for (wanted, frame) in expired {
            self.counters.expired.add();
            if let Wanted::Way(_) = wanted {
                let (reason, bytes) = (Drop::NoNextHop, &frame.bytes);
                let answer = self.answer(frame.interface, reason, 0, bytes);
                answers.extend(answer.map(|answer| (frame.interface, answer)));
            } else {
                self.program.budgets.lost(1);
            }
        }
        self.program.budgets.look(now);
        answers
    }

    /// Lets those go on whose time has come.
    fn release(&mut self, wanted: Wanted) {
        // Up to where they have gone on; whoever takes them may not have noted it yet.
        let mut reached = 0;
        loop {
            let notes = &self.program.notes;
            let fresh = Freshness::now(self.fragment_timeout);
            let end = match wanted {
                Wanted::V4(key) => notes.v4.datagrams.get(&key).and_then(|it| fresh.end(&it)),
                Wanted::V6(key) => notes.v6.datagrams.get(&key).and_then(|it| fresh.end(&it)),
                // Whoever knows says so: `way_has_come`.
                Wanted::Way(_) => None,
            };
            let Some(end) = end else {
                return;
            };
            let end = end.max(reached);
            let Some(frame) = self.held.release(&wanted, |start| start <= end) else {
                return;
            };
            reached = end_of(&frame.bytes).unwrap_or_default();
            self.program.budgets.went_on();
            let (interface, queue, bytes) = (frame.interface, frame.queue, &frame.bytes);
            match self.narrow.get(&wanted) {
                Some(&(mtu, _)) if is_longer(bytes, mtu) => {
                    self.resume_cut(interface, queue, mtu, bytes);
                }
                _ => self.resume(interface, queue, bytes),
            }
        }
    }

    /// What an interface is.
    fn interface(&mut self, index: u32, now: Instant) -> &Interface {
        let read = || (Interface::read(index).unwrap_or_default(), now);
        let (interface, at) = self.interfaces.entry(index).or_insert_with(read);
        if now.saturating_duration_since(*at) >= REMEMBERED {
            (*interface, *at) = read();
        }
        interface
    }
}

/// Whether a packet is longer than an interface takes.
fn is_longer(frame: &[u8], mtu: u32) -> bool {
    parse::ethernet(&frame).is_ok_and(|l2| frame.len() - l2.l3 > mtu as usize)
}

/// Searches a port as the program has noted, and notes what was found: whether there was one.
fn note_port<F: Family>(
    notes: &Notes<F>,
    flows: &View<F>,
    searcher: &mut Searcher<F>,
    frame: &[u8],
    l3: usize,
    now: Instant,
) -> Option<bool> {
    let tuple = parse::tuple(&frame, l3).ok()?;
    let mut search = notes.searches.get(&tuple)?;
    search.state = match searcher.find(flows, &search, now) {
        Some(port) => {
            search.reply.ports = search.reply.ports.to(port);
            state::FOUND
        }
        None => state::NONE,
    };
    notes.searches.set(&tuple, search).ok()?;
    Some(search.state == state::FOUND)
}

/// Which datagrams the program still knows.
struct Freshness {
    now: Tick,
    timeout: u32,
}

impl Freshness {
    fn now(timeout: Duration) -> Self {
        Self {
            // It is there on Linux.
            now: now().unwrap_or_default(),
            timeout: Tick::count(timeout),
        }
    }

    /// Up to where a datagram's fragments may go on: `None` when it is not known any more, or complete. Of one that does not
    /// go on, all get the same.
    fn end<F: Family>(&self, datagram: &Datagram<F>) -> Option<u32> {
        if datagram.is_stale(self.now, self.timeout) {
            None
        } else if !Way::is_counter(datagram.fate) {
            Some(u32::MAX)
        } else if datagram.is_complete() {
            None
        } else {
            Some(datagram.end())
        }
    }
}

/// Where a fragment's data ends.
fn end_of(frame: &[u8]) -> Option<u32> {
    let l2 = parse::ethernet(&frame).ok()?;
    match l2.ethertype {
        ethertype::IPV4 => Some(V4::fragment(&frame, l2.l3).ok()?.end()),
        ethertype::IPV6 => Some(V6::fragment(&frame, l2.l3).ok()?.end()),
        _ => None,
    }
}

/// What a fragment waits for, and where its data begins.
fn wanted(frame: &[u8]) -> Option<(Wanted, u32)> {
    let l2 = parse::ethernet(&frame).ok()?;
    match l2.ethertype {
        ethertype::IPV4 => {
            let fragment = V4::fragment(&frame, l2.l3).ok()?;
            Some((Wanted::V4(fragment.key), fragment.start))
        }
        ethertype::IPV6 => {
            let fragment = V6::fragment(&frame, l2.l3).ok()?;
            Some((Wanted::V6(fragment.key), fragment.start))
        }
        _ => None,
    }
}
