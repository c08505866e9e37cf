//! Any life of a few connections, on the pipeline in user space: clients and backends send what they like, the services change, time
//! passes, the sweeper comes. Beside it is a model that knows no more than who was given which backend and when.
//!
//! After each step:
//! - a connection has the backend and the source port that it was given, until it was idle for too long or its client has
//!   begun anew;
//! - a first packet is refused when it must be, and only then: while many connections are half-open, until it comes again;
//! - no two flows have one tuple; of a connection there are both flows, or none;
//! - each packet has one verdict, and backends, services and the table have counted what the verdicts say;
//! - what goes to the backend and is answered comes to the client between the ends that it knows.

#![allow(clippy::unwrap_used, reason = "a test that fails here has failed")]

mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use balancer::datapath::compile::words;
use balancer::datapath::flows::{FlowTable, timeout};
use balancer::datapath::memory::{InMemory, Memory};
use balancer_common::family::{Family, V4, V6};
use balancer_common::table::find;
use balancer_common::table::flow::PRECISION;
use balancer_common::table::state::Phase;
use balancer_common::tables::Reception;
use balancer_common::tuple::{PortsProtocol, Tuple};
use balancer_common::verdict::{Drop, Pass, Punt, Verdict};
use balancer_common::wire::protocol;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::engines::{Engines, Setting};
use support::flows::counted;
use support::frame::{Frame, SYN, tcp, udp};
use support::properties::ends;
use support::small::{SIZES, TIMEOUTS, sweep};
use support::{BACKEND_MAC, BACKEND_SIDE, BOX_MAC, CLIENT_SIDE};

const CASES: u32 = 10_000;

/// A service, and where its backends are but for the last digit of the address, 3 to 5.
struct Service {
    name: &'static str,
    listen: &'static str,
    protocol: u8,
    more: &'static str,
    backends: (&'static str, &'static str),
}

/// The two transparent ones share their backends: one client may want one tuple twice.
const SERVICES: [Service; 6] = [
    Service {
        name: "web",
        listen: "192.0.2.10:80",
        protocol: protocol::TCP,
        more: "scheduler = \"nth\"",
        backends: ("10.0.0.", ":8080"),
    },
    Service {
        name: "transparent",
        listen: "192.0.2.10:81",
        protocol: protocol::TCP,
        more: "scheduler = \"random\"\nsource_nat = \"none\"",
        backends: ("10.0.1.", ":8081"),
    },
    Service {
        name: "another",
        listen: "192.0.2.10:82",
        protocol: protocol::TCP,
        more: "scheduler = \"nth\"\nsource_nat = \"none\"",
        backends: ("10.0.1.", ":8081"),
    },
    Service {
        name: "dns",
        listen: "192.0.2.10:53",
        protocol: protocol::UDP,
        more: "scheduler = \"random\"",
        backends: ("10.0.2.", ":5353"),
    },
    Service {
        name: "web6",
        listen: "[2001:db8::10]:80",
        protocol: protocol::TCP,
        more: "scheduler = \"nth\"",
        backends: ("[2001:db8:1::", "]:8080"),
    },
    Service {
        name: "dns6",
        listen: "[2001:db8::10]:53",
        protocol: protocol::UDP,
        more: "scheduler = \"random\"",
        backends: ("[2001:db8:2::", "]:5353"),
    },
];

/// The weights of each service's backends: 0 drains one, [`ABSENT`] leaves it out.
type Weights = [u8; 3];
const ABSENT: u8 = 4;

/// Fewer source ports than clients.
const SOURCE_PORTS: &str = "source_ports = \"3000-3002\"";

fn services(weights: Weights) -> String {
    // A service has one at least.
    let weights = if weights == [ABSENT; 3] {
        [0, ABSENT, ABSENT]
    } else {
        weights
    };
    let mut text = String::new();
    for service in &SERVICES {
        let word = if service.protocol == protocol::TCP {
            "tcp"
        } else {
            "udp"
        };
        let (before, behind) = service.backends;
        writeln!(
            text,
            "[[service]]\nname = \"{}\"\nlisten = \"{}\"\nprotocol = \"{word}\"\n{}",
            service.name, service.listen, service.more
        )
        .unwrap();
        for (digit, weight) in (3..).zip(weights).filter(|(_, weight)| *weight != ABSENT) {
            writeln!(
                text,
                "  [[service.backend]]\n  address = \"{before}{digit}{behind}\"\n  weight = {weight}"
            )
            .unwrap();
        }
    }
    text
}

/// Which client talks to which service: each has two ports, which are the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Who {
    client: u8,
    port: u8,
    service: usize,
}

impl Who {
    fn is_ipv4(self) -> bool {
        self.service < 4
    }

    fn is_tcp(self) -> bool {
        SERVICES[self.service].protocol == protocol::TCP
    }

    fn from(self) -> SocketAddr {
        let (number, port) = (1 + self.client, 3000 + u16::from(self.port));
        if self.is_ipv4() {
            format!("198.51.100.{number}:{port}")
        } else {
            format!("[2001:db8:100::{number}]:{port}")
        }
        .parse()
        .unwrap()
    }

    fn to(self) -> SocketAddr {
        SERVICES[self.service].listen.parse().unwrap()
    }
}

/// The number of the SYN of who begins anew.
const OTHER_SYN: u32 = SYN + (1 << 29);

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// SYN, or the backend's answer to it.
    Open,
    /// The same of [`OTHER_SYN`].
    Anew,
    Data,
    Fin,
    Reset,
    /// A RST of which the numbers are guessed.
    Forged,
}

#[derive(Clone, Debug)]
enum Step {
    Client(Who, Kind),
    /// The backend of the connection, or of the last one that there was, answers.
    Backend(Who, Kind),
    Reload(Weights),
    /// Milliseconds.
    Wait(u64),
    Sweep,
}

fn who() -> impl Strategy<Value = Who> {
    (0..6_u8, 0..2_u8, 0..SERVICES.len()).prop_map(|(client, port, service)| Who {
        client,
        port,
        service,
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        5 => Just(Kind::Open),
        2 => Just(Kind::Anew),
        5 => Just(Kind::Data),
        2 => Just(Kind::Fin),
        1 => Just(Kind::Reset),
        1 => Just(Kind::Forged),
    ]
}

/// One step, or a handshake, or its end: by chance alone few connections would get so far.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Kind::{Data, Fin, Open};
    let several = |kinds: Vec<(bool, Kind)>| {
        who().prop_map(move |who| {
            let step = |&(is_client, kind): &(bool, Kind)| {
                if is_client {
                    Step::Client(who, kind)
                } else {
                    Step::Backend(who, kind)
                }
            };
            kinds.iter().map(step).collect::<Vec<_>>()
        })
    };
    let one = |step: Step| vec![step];
    let weight = prop_oneof![1 => Just(0), 4 => 1..ABSENT, 1 => Just(ABSENT)];
    let time = prop_oneof![4 => 0..300_u64, 3 => 300..3000_u64, 1 => 3000..25_000_u64];
    let some = prop_oneof![
        8 => (who(), kind()).prop_map(move |(who, kind)| one(Step::Client(who, kind))),
        8 => (who(), kind()).prop_map(move |(who, kind)| one(Step::Backend(who, kind))),
        5 => several(vec![(true, Open), (false, Open), (true, Data)]),
        2 => several(vec![(true, Fin), (false, Fin), (true, Data)]),
        1 => several(vec![(true, Fin), (false, Fin), (true, Open)]),
        1 => prop::array::uniform3(weight).prop_map(move |weights| one(Step::Reload(weights))),
        3 => time.prop_map(move |time| one(Step::Wait(time))),
        2 => Just(one(Step::Sweep)),
    ];
    prop::collection::vec(some, 1..120).prop_map(|some| some.concat())
}

/// What the model knows of a connection.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The ends of what goes to the backend.
    from: SocketAddr,
    to: SocketAddr,
    /// The number of the SYN that opened it.
    syn: u32,
    /// When a packet came that certainly counts, and when any did, in nanoseconds.
    alive: u64,
    seen: u64,
}

/// How many packets got what.
#[derive(Debug, Default)]
struct Tally {
    received: u64,
    to_backends: u64,
    to_clients: u64,
    passed: u64,
    dropped: BTreeMap<Drop, u64>,
    held: u64,
    opened: u64,
    replaced: u64,
    expired: u64,
    /// Connections that a packet has opened that was dropped when it came first.
    let_in: u64,
    /// First packets that were dropped though one of another number had come.
    other_numbers: u64,
}

struct World {
    engines: Engines,
    known: BTreeMap<Who, Known>,
    /// Of connections that are over too.
    last: BTreeMap<Who, Known>,
    /// The first packets that were dropped as such, with their numbers.
    noted: BTreeSet<(Who, u32)>,
    weights: Weights,
    tally: Tally,
}

fn tuple<F: Family>(from: SocketAddr, to: SocketAddr, protocol: u8) -> Tuple<F> {
    let address = |end: SocketAddr| F::unmapped(words(end.ip()));
    Tuple {
        addresses: F::pair(address(from), address(to)),
        ports: PortsProtocol::new(from.port(), to.port(), protocol),
    }
}

impl World {
    fn new(slow_path: bool) -> Self {
        let mut engines = Engines::in_memory(SIZES);
        engines.about = String::from("at the start");
        let weights = [1; 3];
        engines.set_up(&Setting {
            services: services(weights),
            datapath: SOURCE_PORTS,
            slow_path: if slow_path {
                Reception::Taken
            } else {
                Reception::Nobody
            },
            ..Setting::default()
        });
        Self {
            engines,
            known: BTreeMap::new(),
            last: BTreeMap::new(),
            noted: BTreeSet::new(),
            weights,
            tally: Tally::default(),
        }
    }

    fn now(&self) -> u64 {
        self.engines.memory.clock.load(Ordering::Relaxed)
    }

    /// Where the connection stands, by the table.
    fn phase(&self, who: Who) -> Option<Phase> {
        fn of<F: InMemory>(memory: &Memory, who: Who) -> Option<Phase> {
            let table = F::of(memory);
            let ip_protocol = SERVICES[who.service].protocol;
            let original = find(table, &tuple(who.from(), who.to(), ip_protocol))?;
            let reply = find(table, &original.peer()).expect("both flows, or none");
            Some(Phase::of(original.meta().state(), reply.meta().state()))
        }
        if who.is_ipv4() {
            of::<V4>(&self.engines.memory, who)
        } else {
            of::<V6>(&self.engines.memory, who)
        }
    }

    fn send(&mut self, interface: u32, frame: &Frame) -> (Verdict, Vec<u8>) {
        let input = frame.build();
        let (verdict, output) = self.engines.run_in_memory(interface, &input);
        let tally = &mut self.tally;
        tally.received += 1;
        match verdict {
            Verdict::Redirect(BACKEND_SIDE) => tally.to_backends += 1,
            Verdict::Redirect(CLIENT_SIDE) => tally.to_clients += 1,
            Verdict::Pass(_) => tally.passed += 1,
            Verdict::Drop(reason) => *tally.dropped.entry(reason).or_default() += 1,
            Verdict::Punt(_) => tally.held += 1,
            other => panic!("{other:?}"),
        }
        if !matches!(verdict, Verdict::Redirect(_)) {
            assert_eq!(output, input, "{verdict:?} leaves the frame as it is");
        }
        (verdict, output)
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Client(who, kind) => self.client(who, kind),
            Step::Backend(who, kind) => self.backend(who, kind),
            Step::Reload(weights) => {
                self.engines.load(&services(weights), SOURCE_PORTS);
                self.weights = weights;
            }
            Step::Wait(milliseconds) => {
                let clock = &self.engines.memory.clock;
                clock.fetch_add(milliseconds * 1_000_000, Ordering::Relaxed);
            }
            Step::Sweep => self.sweep(),
        }
    }

    /// Notes a packet of a connection, which was in a phase before it.
    fn note(&mut self, who: Who, kind: Kind, before: Phase) {
        let (now, after) = (self.now(), self.phase(who).unwrap());
        if kind == Kind::Forged && who.is_tcp() {
            assert_eq!(after, before, "by a forged segment");
        }
        // Whether a segment that changes nothing counts depends on its numbers; of an open connection data does.
        let is_data = kind == Kind::Data && before == Phase::Established;
        let known = self.known.get_mut(&who).unwrap();
        known.seen = now;
        if !who.is_tcp() || is_data || after != before {
            known.alive = now;
        }
        self.last.insert(who, *known);
    }

    /// The number of the SYN that the segments of a client follow, and those that answer it.
    fn syn(&self, who: Who) -> u32 {
        self.last.get(&who).map_or(SYN, |last| last.syn)
    }

    fn client(&mut self, who: Who, kind: Kind) {
        let (from, to) = (who.from().to_string(), who.to().to_string());
        let syn = match kind {
            Kind::Open => SYN,
            Kind::Anew => OTHER_SYN,
            _ => self.syn(who),
        };
        let frame = if who.is_tcp() {
            let next = |flags| tcp(flags, &from, &to).numbers(syn + 1, SYN + 1);
            match kind {
                Kind::Open | Kind::Anew => tcp("S", &from, &to).numbers(syn, 0),
                Kind::Data => next("A").payload(b"data"),
                Kind::Fin => next("FA"),
                Kind::Reset => next("R"),
                Kind::Forged => forged(next("R")),
            }
        } else {
            udp(&from, &to).payload(b"question")
        };
        let is_opening = !who.is_tcp() || matches!(kind, Kind::Open | Kind::Anew);
        let before = self.phase(who);
        let begins_anew = who.is_tcp() && is_opening && before.is_some_and(Phase::is_over);
        if let Some(known) = self.known.get(&who).copied()
            && !begins_anew
        {
            let (verdict, output) = self.send(CLIENT_SIDE, &frame);
            assert_eq!(verdict, Verdict::Redirect(BACKEND_SIDE));
            assert_eq!(
                ends(&output),
                (known.from, known.to),
                "it stays where it was"
            );
            self.note(who, kind, before.unwrap());
            return;
        }
        // Of UDP there is no number.
        let first = (who, if who.is_tcp() { syn } else { 0 });
        let is_screened = is_opening && self.counts(who).1 > u64::from(SIZES.half_open / 2);
        let is_known = self.noted.contains(&first);
        let refusal = if !is_opening {
            Some(Drop::NoConnection)
        } else if is_screened && !is_known {
            Some(Drop::FirstPacket)
        } else {
            self.refusal(who, begins_anew)
        };
        let (verdict, output) = self.send(CLIENT_SIDE, &frame);
        if let Some(reason) = refusal {
            assert_eq!(verdict, reason.into());
        }
        if refusal == Some(Drop::FirstPacket) {
            let other = (who, first.1 ^ SYN ^ OTHER_SYN);
            self.tally.other_numbers += u64::from(self.noted.contains(&other));
            self.noted.insert(first);
        }
        if verdict == Verdict::Redirect(BACKEND_SIDE) {
            let (from, to) = ends(&output);
            self.check_choice(who, from, to);
            let now = self.now();
            let known = Known {
                from,
                to,
                syn,
                alive: now,
                seen: now,
            };
            self.tally.replaced += u64::from(self.known.insert(who, known).is_some());
            self.last.insert(who, known);
            self.tally.opened += 1;
            self.tally.let_in += u64::from(is_screened);
        } else {
            // The connection that was over may have gone for it.
            if self.phase(who).is_none() {
                self.known.remove(&who);
            }
            if refusal.is_none() {
                self.check_no_tuple(who, verdict);
            }
        }
    }

    /// How many connections, and how many half-open ones, there are of a client's family, by the table: see [`World::check`].
    fn counts(&self, who: Who) -> (u64, u64) {
        let memory = &self.engines.memory;
        if who.is_ipv4() {
            (memory.v4.count(), memory.v4.count_half_open())
        } else {
            (memory.v6.count(), memory.v6.count_half_open())
        }
    }

    /// The ends of the backends that take connections of a service.
    fn takers(&self, service: usize) -> impl Iterator<Item = SocketAddr> {
        let (before, behind) = SERVICES[service].backends;
        let digits = (3..).zip(self.weights);
        digits
            .filter(|(_, weight)| (1..ABSENT).contains(weight))
            .map(move |(digit, _)| format!("{before}{digit}{behind}").parse().unwrap())
    }

    /// Why a connection cannot be opened, whichever backend's turn it is. One that is over makes room for the next of its tuple.
    fn refusal(&self, who: Who, begins_anew: bool) -> Option<Drop> {
        let (connections, half_open) = self.counts(who);
        if self.takers(who.service).next().is_none() {
            Some(Drop::NoBackend)
        } else if connections - u64::from(begins_anew) >= SIZES.connections.into() {
            Some(Drop::TableFull)
        } else if half_open >= SIZES.half_open.into() {
            Some(Drop::HalfOpenFull)
        } else {
            None
        }
    }

    /// From which ends the backends of a service see a client: one of these.
    fn sources(who: Who) -> Vec<SocketAddr> {
        if matches!(who.service, 1 | 2) {
            return vec![who.from()];
        }
        let end = |port| SocketAddr::new(support::source(who.is_ipv4()), port);
        (3000..3003).map(end).collect()
    }

    /// A new connection goes to a backend that takes some, from an address and port that it may have.
    fn check_choice(&self, who: Who, from: SocketAddr, to: SocketAddr) {
        assert!(self.takers(who.service).any(|taker| taker == to), "{to}");
        assert!(Self::sources(who).contains(&from), "{from}");
    }

    /// A connection that nothing else kept from being opened: all that some backend may have of it is another's.
    fn check_no_tuple(&self, who: Who, verdict: Verdict) {
        let is_taken = |from: &SocketAddr, to: SocketAddr| {
            let mut known = self.known.iter();
            known.any(|(its, known)| {
                its.is_tcp() == who.is_tcp() && (known.from, known.to) == (*from, to)
            })
        };
        let sources = Self::sources(who);
        let mut takers = self.takers(who.service);
        assert!(
            takers.any(|to| sources.iter().all(|from| is_taken(from, to))),
            "{verdict:?} though every backend has a tuple for {who:?}"
        );
        let expected = if sources.len() == 1 {
            Drop::TupleInUse.into()
        } else if self.engines.memory.slow_path == Reception::Taken {
            Punt::Ports.into()
        } else {
            Drop::PortsExhausted.into()
        };
        assert_eq!(verdict, expected);
    }

    fn backend(&mut self, who: Who, kind: Kind) {
        let Some(&Known { from, to, .. }) = self.last.get(&who) else {
            return;
        };
        // The port may be another connection's by now.
        let is_of = |known: &Known| (known.from, known.to) == (from, to);
        let mut owners = self
            .known
            .iter()
            .filter(|(its, known)| its.is_tcp() == who.is_tcp() && is_of(known));
        let owner = owners.next().map(|(&owner, _)| owner);
        assert!(
            owners.next().is_none(),
            "two connections from {from} to {to}"
        );
        let (source, destination) = (to.to_string(), from.to_string());
        let frame = if who.is_tcp() {
            let syn = self.syn(owner.unwrap_or(who));
            let answer = |flags: &'static str| {
                let number = SYN + u32::from(!flags.contains('S'));
                tcp(flags, &source, &destination).numbers(number, syn + 1)
            };
            match kind {
                Kind::Open | Kind::Anew => answer("SA"),
                Kind::Data => answer("A").payload(b"answer"),
                Kind::Fin => answer("FA"),
                Kind::Reset => answer("RA"),
                Kind::Forged => forged(answer("R")),
            }
        } else {
            udp(&source, &destination).payload(b"answer")
        };
        let before = owner.and_then(|owner| self.phase(owner));
        let (verdict, output) = self.send(BACKEND_SIDE, &frame.macs(BOX_MAC, BACKEND_MAC));
        match owner {
            Some(owner) => {
                assert_eq!(verdict, Verdict::Redirect(CLIENT_SIDE));
                // To the client and back to the client: the ends that it knows.
                assert_eq!(ends(&output), (owner.to(), owner.from()));
                self.note(owner, kind, before.unwrap());
            }
            None => assert_eq!(verdict, Verdict::Pass(Pass::NoService)),
        }
    }

    /// A pass of the sweeper: who was idle for too long is gone, and nobody else.
    fn sweep(&mut self) {
        /// A packet is noted to so many nanoseconds, and what is idle is so rather for less.
        const BLUR: u64 = (PRECISION as u64 + 2) << 20;
        let now = self.now();
        let phases: BTreeMap<Who, Phase> = self
            .known
            .keys()
            .map(|&who| (who, self.phase(who).unwrap()))
            .collect();
        sweep(&mut self.engines.memory);
        for (who, phase) in phases {
            let known = self.known[&who];
            let limit = timeout(&TIMEOUTS, SERVICES[who.service].protocol, phase).as_nanos() as u64;
            let is_there = self.phase(who).is_some();
            if now - known.alive < limit {
                assert!(is_there, "{who:?} was not idle for so long: {phase:?}");
            }
            if now - known.seen > limit + 2 * BLUR {
                assert!(!is_there, "{who:?} was idle for longer: {phase:?}");
            }
            if !is_there {
                self.known.remove(&who);
                self.tally.expired += 1;
            }
        }
    }

    fn check(&self) {
        let memory = &self.engines.memory;
        let mut half_open = [0; 2];
        let v4 = self.check_table::<V4>(&memory.v4, &mut half_open[0]);
        let v6 = self.check_table::<V6>(&memory.v6, &mut half_open[1]);
        assert_eq!(v4 + v6, self.known.len(), "the model's connections");
        let tally = &self.tally;
        let dropped: u64 = tally.dropped.values().sum();
        assert_eq!(
            tally.received,
            tally.to_backends + tally.to_clients + tally.passed + dropped + tally.held
        );
        let mut sums = [0; 3];
        for stats in memory.backends.lock().unwrap().iter() {
            sums[0] += stats.connections;
            sums[1] += stats.forward_packets;
            sums[2] += stats.reply_packets;
        }
        assert_eq!(
            sums,
            [tally.opened, tally.to_backends, tally.to_clients],
            "connections, packets to and from backends"
        );
        let mut refused = [0; 3];
        for stats in memory.services.lock().unwrap().iter() {
            refused[0] += stats.no_backend;
            refused[1] += stats.ports_exhausted;
            refused[2] += stats.table_full;
        }
        let drops = |reason| tally.dropped.get(&reason).copied().unwrap_or(0);
        assert_eq!(
            refused,
            [
                drops(Drop::NoBackend),
                drops(Drop::PortsExhausted),
                drops(Drop::TableFull) + drops(Drop::HalfOpenFull)
            ],
            "what services have refused"
        );
    }

    /// How many connections a table has, each of which the model knows.
    fn check_table<F: InMemory>(&self, table: &FlowTable<F>, half_open: &mut u64) -> usize {
        let originals = counted(table, half_open);
        for (who, known) in &self.known {
            if who.is_ipv4() == (F::VERSION == 4) {
                let ip_protocol = SERVICES[who.service].protocol;
                let flow = find(table, &tuple(who.from(), who.to(), ip_protocol));
                let new = flow
                    .unwrap_or_else(|| panic!("{who:?} is lost"))
                    .new_tuple();
                assert_eq!(new, tuple(known.from, known.to, ip_protocol), "{who:?}");
            }
        }
        assert!(table.count() <= SIZES.connections.into());
        assert!(table.count_half_open() <= SIZES.half_open.into());
        originals
    }
}

fn forged(frame: Frame) -> Frame {
    let far = SYN.wrapping_add(0x7000_0000);
    frame.numbers(far, far)
}

/// That all of it happens to some.
#[derive(Debug, Default)]
struct Sum {
    received: u64,
    steps: usize,
    opened: u64,
    replaced: u64,
    expired: u64,
    let_in: u64,
    other_numbers: u64,
    held: u64,
    passed: u64,
    dropped: BTreeMap<&'static str, u64>,
}

impl Sum {
    fn add(&mut self, steps: usize, tally: &Tally) {
        self.steps += steps;
        self.received += tally.received;
        self.opened += tally.opened;
        self.replaced += tally.replaced;
        self.expired += tally.expired;
        self.let_in += tally.let_in;
        self.other_numbers += tally.other_numbers;
        self.held += tally.held;
        self.passed += tally.passed;
        for (reason, count) in &tally.dropped {
            *self.dropped.entry(reason.name()).or_default() += count;
        }
    }

    fn check(&self) {
        println!("{self:?}");
        let reasons = [
            Drop::FirstPacket,
            Drop::HalfOpenFull,
            Drop::NoBackend,
            Drop::NoConnection,
            Drop::PortsExhausted,
            Drop::TableFull,
            Drop::TupleInUse,
        ];
        for reason in reasons {
            let count = self.dropped.get(reason.name());
            assert!(count.is_some_and(|count| *count > 0), "never {reason:?}");
        }
        let counts = [
            self.opened,
            self.replaced,
            self.expired,
            self.let_in,
            self.other_numbers,
            self.held,
            self.passed,
        ];
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    }
}

#[test]
fn connections_keep_what_they_were_given() {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(CASES)
    };
    let sum = RefCell::new(Sum::default());
    let result = TestRunner::new(config).run(&(steps(), any::<bool>()), |(steps, slow_path)| {
        let mut world = World::new(slow_path);
        for (number, step) in steps.iter().enumerate() {
            world.engines.about = format!("step {number}, {step:?}");
            world.step(step);
            world.check();
        }
        sum.borrow_mut().add(steps.len(), &world.tally);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    sum.borrow().check();
}
