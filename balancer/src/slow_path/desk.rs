//! Where frames of the slow path are looked at.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use balancer_common::abi::Note;
use balancer_common::family::{Family, V4, V6};
use balancer_common::fragment::{Datagram, Key};
use balancer_common::parse;
use balancer_common::search::state;
use balancer_common::verdict::{Drop, Exit, Punt, Verdict, Way};
use balancer_common::wire::ethertype;

use super::Program;
use super::answer::Complaint;
use super::counters::Counters;
use super::cut::cut;
use super::held::{Frame, Held};
use super::limit::Limits;
use super::ports::Searcher;
use crate::datapath::flows::View;
use crate::datapath::notes::Notes;

/// How long an interface's address is taken for what it was.
const REMEMBERED: Duration = Duration::from_secs(1);

/// What a frame may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wanted {
    /// The earlier fragments of an IPv4 datagram.
    V4(Key<V4>),
    /// Those of an IPv6 one.
    V6(Key<V6>),
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
    /// The addresses of interfaces, IPv4 and IPv6, and when they were asked for.
    addresses: HashMap<u32, ([Option<IpAddr>; 2], Instant)>,
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
            addresses: HashMap::new(),
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
                    Punt::Ports => self.find_port(interface, queue, frame),
                    Punt::TooBig => self.cut(interface, queue, note.mtu, frame),
                }
                None
            }
            _ => {
                self.counters.unknown.add();
                None
            }
        }
    }

    /// The answer to a frame that was dropped.
    fn answer(&mut self, interface: u32, reason: Drop, mtu: u32, frame: &[u8]) -> Option<Vec<u8>> {
        let counters = Arc::clone(&self.counters);
        counters.dropped[reason as usize].add();
        let now = Instant::now();
        let Some(complaint) = Complaint::of(reason, mtu, frame) else {
            counters.untold.add();
            return None;
        };
        if !self.limits.allow(complaint.source, now) {
            counters.limited.add();
            return None;
        }
        let is_ipv6 = complaint.source.is_ipv6();
        let answer = complaint.answer(|| self.address(interface, is_ipv6, now));
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
        let lost = self.held.keep(wanted, frame, now, until);
        self.counters.overflowed.add_many(lost);
        self.release(wanted);
    }

    /// Finds a source port for the connection that a packet opens, which goes through the program again.
    fn find_port(&mut self, interface: u32, queue: u32, frame: &[u8]) {
        let (notes, now) = (&self.program.notes, Instant::now());
        let (v4, v6) = &mut self.searchers;
        let done = match parse::ethernet(&frame).map(|l2| (l2.ethertype, l2.l3)) {
            Ok((ethertype::IPV4, l3)) => note_port(&notes.v4, &self.program.v4, v4, frame, l3, now),
            Ok((ethertype::IPV6, l3)) => note_port(&notes.v6, &self.program.v6, v6, frame, l3, now),
            _ => None,
        };
        match done {
            Some(()) => self.resume(interface, queue, frame),
            None => self.counters.failed.add(),
        }
    }

    /// Gives a frame to the program again.
    fn resume(&self, interface: u32, queue: u32, frame: &[u8]) {
        match self.program.injector.inject(interface, queue, frame) {
            Ok(()) => self.counters.resumed.add(),
            Err(error) => {
                tracing::debug!(%error, "a frame that waited is lost");
                self.counters.failed.add();
            }
        }
    }

    /// Cuts a packet into fragments, which go through the program one after the other.
    fn cut(&mut self, interface: u32, queue: u32, mtu: u32, bytes: &[u8]) {
        let Some(fragments) = cut(bytes, mtu) else {
            self.counters.failed.add();
            return;
        };
        for fragment in &fragments {
            if let Err(error) = self.program.injector.inject(interface, queue, fragment) {
                tracing::debug!(%error, "a packet that was cut is lost");
                self.counters.failed.add();
                return;
            }
        }
        self.counters.resumed.add();
        // It may have been a fragment itself, and others wait for it.
        if let Some((wanted, _)) = wanted(bytes) {
            self.release(wanted);
        }
    }

    /// When to [look](Desk::look) again.
    pub fn next(&self) -> Option<Instant> {
        self.held.next()
    }

    /// Looks what of that which waits can go on.
    pub fn look(&mut self, now: Instant) {
        let (due, expired) = self.held.due(now);
        self.counters.expired.add_many(expired);
        for wanted in due {
            self.release(wanted);
        }
    }

    /// Lets those go on whose time has come.
    fn release(&mut self, wanted: Wanted) {
        loop {
            let end = match wanted {
                Wanted::V4(key) => self.program.notes.v4.datagrams.get(&key).map(|it| end(&it)),
                Wanted::V6(key) => self.program.notes.v6.datagrams.get(&key).map(|it| end(&it)),
            };
            let Some(end) = end else {
                return;
            };
            let Some(frame) = self.held.release(&wanted, |start| start <= end) else {
                return;
            };
            self.resume(frame.interface, frame.queue, &frame.bytes);
        }
    }

    /// The box's own address on an interface.
    fn address(&mut self, interface: u32, is_ipv6: bool, now: Instant) -> Option<IpAddr> {
        let (addresses, _) = match self.addresses.get(&interface) {
            Some(known) if now.saturating_duration_since(known.1) < REMEMBERED => *known,
            _ => {
                let addresses = (addresses(interface).unwrap_or_default(), now);
                self.addresses.insert(interface, addresses);
                addresses
            }
        };
        addresses[usize::from(is_ipv6)]
    }
}

/// The first address of an interface in either family that other links know too.
fn addresses(interface: u32) -> io::Result<[Option<IpAddr>; 2]> {
    let name = nix::net::if_::if_indextoname(interface)?;
    let name = name.to_string_lossy();
    let mut found = [None; 2];
    for entry in nix::ifaddrs::getifaddrs()? {
        let address = entry.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|it| IpAddr::from(it.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::from(it.ip())))
        });
        if let Some(address) = address
            && entry.interface_name == name
            && !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
        {
            found[usize::from(address.is_ipv6())].get_or_insert(address);
        }
    }
    Ok(found)
}

/// Searches a port as the program has noted, and notes what was found.
fn note_port<F: Family>(
    notes: &Notes<F>,
    flows: &View<F>,
    searcher: &mut Searcher<F>,
    frame: &[u8],
    l3: usize,
    now: Instant,
) -> Option<()> {
    let tuple = parse::tuple(&frame, l3).ok()?;
    let mut search = notes.searches.get(&tuple)?;
    search.state = match searcher.find(flows, &search, now) {
        Some(port) => {
            search.reply.ports = search.reply.ports.to(port);
            state::FOUND
        }
        None => state::NONE,
    };
    notes.searches.set(&tuple, search).ok()
}

/// Up to where a datagram's fragments may go on. Of one that does not go on, all get the same.
fn end<F: Family>(datagram: &Datagram<F>) -> u32 {
    if Way::is_counter(datagram.fate) {
        datagram.end
    } else {
        u32::MAX
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
