//! What the XDP program and the daemon both know: the names, sizes and records of the maps.

use crate::family::KEYS;
use crate::hop::Hop;
use crate::verdict::{Drop, VERDICTS};

/// The version of everything that is pinned. A daemon that finds another one refuses; it never misreads.
pub const SCHEMA: u32 = 6;

/// How many services can have an id: twice as many as a configuration may have, so that one may replace all of another.
pub const MAX_SERVICES: u32 = 8192;

/// How many backends can have an id: likewise.
pub const MAX_BACKENDS: u32 = 32_768;

/// How many interfaces can be attached to.
pub const MAX_LINKS: u32 = 1024;

/// How many sockets of the slow path there can be: one for each receive queue of each interface.
pub const MAX_SOCKETS: u32 = 1 << 16;

/// How many searches for source ports are known.
pub const SEARCHES: u32 = 1 << 12;

/// How many datagrams are known of which a fragment has come.
pub const DATAGRAMS: u32 = 1 << 14;

/// The names of the programs: that of interfaces, and those of the [parts](crate::pipeline::Part) it goes on to.
pub mod program {
    use crate::pipeline::Part;

    /// The one that interfaces have.
    pub const BALANCER: &str = "balancer";

    /// The one that interfaces have with engine `userspace`.
    pub const STEER: &str = "steer";

    /// What the daemon asks for a route, with engine `userspace`.
    pub const ROUTE: &str = "route";

    /// All of engine `kernel`.
    pub const ALL: [&str; 1 + Part::ALL.len()] = [BALANCER, of(Part::Fragments), of(Part::Errors)];

    /// That of a part.
    #[must_use]
    pub const fn of(part: Part) -> &'static str {
        match part {
            Part::Fragments => "fragments",
            Part::Errors => "errors",
        }
    }
}

/// The name of a constant of the object, a byte that the loader sets. Not 0: a frame is sent out of the interface that it
/// came in by as out of any other, by a redirect. A veth wakes its peer for frames transmitted from within the program
/// (`XDP_TX`) only if there is an XDP program on the peer too.
pub const REDIRECTS_BACK: &str = "REDIRECTS_BACK";

/// The name of a constant of the same kind. Not 0: with engine `userspace` and no daemon packets for it are dropped.
pub const DROPS_ON_LOSS: &str = "DROPS_ON_LOSS";

/// The name of another constant, the [`crate::table::Geometry`] of the flow tables.
pub const GEOMETRY: &str = "GEOMETRY";

/// The name of a third constant, a byte. Not 0: flows are found by the [index](crate::table::index).
pub const INDEXED: &str = "INDEXED";

/// The names of the maps, as in the object and under the pin path.
pub mod map {
    /// The flow table of IPv4: [`crate::table::flow::Flow`] by line.
    pub const FLOWS_V4: &str = "FLOWS_V4";
    /// The flow table of IPv6.
    pub const FLOWS_V6: &str = "FLOWS_V6";
    /// The [index](crate::table::index) of IPv4: lines by tuple.
    pub const INDEX_V4: &str = "INDEX_V4";
    /// The index of IPv6.
    pub const INDEX_V6: &str = "INDEX_V6";
    /// [`crate::table::Totals`] of IPv4, then of IPv6.
    pub const TOTALS: &str = "TOTALS";
    /// [`super::Link`] of the interfaces that the program is attached to, by their index: packets leave by no others.
    pub const LINKS: &str = "LINKS";
    /// [`crate::fragment::Datagram`] of IPv4 by [`crate::fragment::Key`].
    pub const DATAGRAMS_V4: &str = "DATAGRAMS_V4";
    /// The same of IPv6.
    pub const DATAGRAMS_V6: &str = "DATAGRAMS_V6";
    /// [`crate::search::Search`] of IPv4 by the tuple of a first packet. Not pinned, as the next.
    pub const SEARCHES_V4: &str = "SEARCHES_V4";
    /// The same of IPv6.
    pub const SEARCHES_V6: &str = "SEARCHES_V6";
    /// The programs that the first one goes on to, by the number of their [part](crate::pipeline::Part).
    pub const PROGRAMS: &str = "PROGRAMS";
    /// The sockets of the slow path. Not pinned: they end with the daemon.
    pub const SOCKETS: &str = "SOCKETS";
    /// How many packets of a [kind](super::budget) the program may hand over in a span on each CPU. Not pinned.
    pub const BUDGETS: &str = "BUDGETS";
    /// The rows of the [screen](crate::screen). Not pinned.
    pub const SCREEN: &str = "SCREEN";
    /// [`crate::hop::HopCell`] by number.
    pub const HOPS: &str = "HOPS";
    /// The current [`crate::image`], an array in an array of one.
    pub const IMAGE: &str = "IMAGE";
    /// The [table of ports](crate::ports), in words.
    pub const PORTS: &str = "PORTS";
    /// [`super::Globals`], one.
    pub const GLOBALS: &str = "GLOBALS";
    /// [`super::Path`] by backend id.
    pub const PATHS: &str = "PATHS";
    /// Tickets of scheduler nth by service id.
    pub const TICKETS: &str = "TICKETS";
    /// [`super::Stats`] per CPU, one.
    pub const STATS: &str = "STATS";
    /// [`super::Stats`] of the workers of engine `userspace`, one; the program does not use it.
    pub const WORKERS_STATS: &str = "WORKERS_STATS";
    /// [`super::BackendStats`] per CPU, by backend id.
    pub const BACKEND_STATS: &str = "BACKEND_STATS";
    /// [`super::ServiceStats`] per CPU, by service id.
    pub const SERVICE_STATS: &str = "SERVICE_STATS";
    /// [`super::Identity`] of services by id; the program does not use it.
    pub const SERVICES: &str = "SERVICES";
    /// [`super::Identity`] of backends by id; the program does not use it.
    pub const BACKENDS: &str = "BACKENDS";
    /// All that are pinned.
    pub const ALL: [&str; 21] = [
        DATAGRAMS_V4,
        DATAGRAMS_V6,
        PROGRAMS,
        FLOWS_V4,
        FLOWS_V6,
        INDEX_V4,
        INDEX_V6,
        TOTALS,
        LINKS,
        HOPS,
        IMAGE,
        PORTS,
        GLOBALS,
        PATHS,
        TICKETS,
        STATS,
        WORKERS_STATS,
        BACKEND_STATS,
        SERVICE_STATS,
        SERVICES,
        BACKENDS,
    ];
}

/// What every packet may have to know. Written by the daemon only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Globals {
    /// [`SCHEMA`].
    pub schema: u64,
    /// Raised whenever a neighbour, a link or a route changed: flows then look for their next hop again. They keep its
    /// lower 16 bits.
    pub hop_generation: u64,
    /// The keys of the flow tables' hash.
    pub keys: [u64; KEYS],
    /// How long a datagram is remembered after its first fragment, in [ticks](crate::table::tick::Tick).
    pub fragment_timeout: u64,
    /// The least of the interfaces' [`Link::mtu`]; 0: not known.
    pub least_mtu: u64,
}

/// An interface that the program is attached to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The number of its first queue's socket; those of the others follow.
    pub first_socket: u32,
    /// How many sockets it has: one for each of its receive queues, or none.
    pub sockets: u32,
    /// The longest packet that may leave by it, from the network header on, in bytes.
    pub mtu: u32,
}

/// A question for a route, and its answer: the frame that the program is run on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Source and destination of what is to be sent, as a [`Family::Pair`](crate::family::Family::Pair).
    pub addresses: [u64; 4],
    /// The way; not known when there is none.
    pub hop: Hop,
    /// The interface whose tables are asked.
    pub interface: u32,
    /// 4 or 6.
    pub version: u32,
}

/// What stands before a frame that is handed to the slow path.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// What the packet got: the number of its [counter](crate::verdict::Verdict::counter).
    pub verdict: u32,
    /// Of one that is too big: how big it may be, in bytes from the network header on.
    pub mtu: u32,
}

/// How many packets go to the slow path: so many of a kind on each CPU within a span of time.
pub mod budget {
    use crate::verdict::Punt;

    /// The kind of those whose senders are told.
    pub const TOLD: u32 = 0;
    /// The first of the kinds of those that are handed over for a [`Punt`], in the order of [`Punt::ALL`].
    pub const PUNTED: u32 = 1;
    /// How many kinds there are.
    pub const KINDS: usize = PUNTED as usize + Punt::ALL.len();
    /// The length of the span, in bits of nanoseconds: 134 milliseconds.
    pub const SPAN_BITS: u32 = 27;
}

/// The way to a backend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// Its link and link-layer address, or its router's.
    pub hop: Hop,
    /// The box's own address towards it, IPv4 as IPv4-mapped: what masquerade uses.
    pub source: [u64; 2],
}

/// The counters of verdicts, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Frames by their verdict, as [`crate::verdict::Verdict::counter`] numbers them.
    pub verdicts: [u64; VERDICTS],
}

impl Stats {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        for (sum, count) in self.verdicts.iter_mut().zip(other.verdicts) {
            *sum += count;
        }
    }

    /// Frames that the program was given. Each has one verdict, so they need no counter of their own.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.verdicts.iter().sum()
    }
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            verdicts: [0; VERDICTS],
        }
    }
}

/// The counters of a backend, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendStats {
    /// Connections opened.
    pub connections: u64,
    /// Packets from clients.
    pub forward_packets: u64,
    /// Their bytes, from the network header on.
    pub forward_bytes: u64,
    /// Packets to clients.
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
}

impl BackendStats {
    /// Those of numbers in the order of the fields.
    #[must_use]
    pub const fn of([connections, to, to_bytes, from, from_bytes]: [u64; 5]) -> Self {
        Self {
            connections,
            forward_packets: to,
            forward_bytes: to_bytes,
            reply_packets: from,
            reply_bytes: from_bytes,
        }
    }

    /// Adds another's.
    pub const fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.forward_packets += other.forward_packets;
        self.forward_bytes += other.forward_bytes;
        self.reply_packets += other.reply_packets;
        self.reply_bytes += other.reply_bytes;
    }

    /// Counts a packet of `length` bytes.
    #[inline(always)]
    pub const fn count_packet(&mut self, reply: bool, length: u16) {
        if reply {
            self.reply_packets += 1;
            self.reply_bytes += length as u64;
        } else {
            self.forward_packets += 1;
            self.forward_bytes += length as u64;
        }
    }
}

/// New connections that a service refused, per CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceStats {
    /// It had no backend that takes connections.
    pub no_backend: u64,
    /// No source port was found.
    pub ports_exhausted: u64,
    /// The connection table, or the half-open part of it, was full.
    pub table_full: u64,
}

impl ServiceStats {
    /// Those of numbers in the order of the fields.
    #[must_use]
    pub const fn of([no_backend, ports_exhausted, table_full]: [u64; 3]) -> Self {
        Self {
            no_backend,
            ports_exhausted,
            table_full,
        }
    }

    /// Adds another's.
    pub const fn add(&mut self, other: &Self) {
        self.no_backend += other.no_backend;
        self.ports_exhausted += other.ports_exhausted;
        self.table_full += other.table_full;
    }

    /// Counts a connection that was refused, if it is for one of these reasons.
    #[inline(always)]
    pub const fn count(&mut self, reason: Drop) {
        match reason {
            Drop::NoBackend => self.no_backend += 1,
            Drop::PortsExhausted => self.ports_exhausted += 1,
            Drop::TableFull | Drop::HalfOpenFull => self.table_full += 1,
            _ => {}
        }
    }
}

/// Whose id it is: what makes ids and counters outlive the daemon.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The service's name, UTF-8, padded with zeros; all zero: the id is free.
    pub service: [u8; 64],
    /// A backend's address, IPv4 as IPv4-mapped. Zero in a service's identity.
    pub address: [u8; 16],
    /// A backend's port in host order; 0: that of the packet.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            service: [0; 64],
            address: [0; 16],
            port: 0,
            protocol: 0,
            reserved: [0; 5],
        }
    }
}

const _: () = {
    assert!(size_of::<Globals>() == 72);
    assert!(size_of::<Link>() == 12);
    assert!(size_of::<Question>() == 56);
    // The kernel wants a multiple of 4, 32 at most.
    assert!(size_of::<Note>() == 8);
    assert!(size_of::<Path>() == 32);
    assert!(size_of::<Stats>() == 8 * VERDICTS);
    assert!(size_of::<BackendStats>() == 40);
    assert!(size_of::<ServiceStats>() == 24);
    assert!(size_of::<Identity>() == 88);
};
