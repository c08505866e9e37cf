//! Needs root.
//!
//! Two CPUs at one moment, in the compiled program: the same new connection on both, also while first packets have to come again, and
//! two connections that want the same source port. Whoever is first, afterwards there is one connection for each tuple, whole, and one
//! tuple for each connection.
//!
//! `BALANCER_RACES` says how many races of each kind there are, with each way to find flows and of each family.

#![allow(clippy::unwrap_used, reason = "a test that fails here has failed")]

mod support;

use std::collections::HashSet;
use std::hint::spin_loop;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use aya::programs::Xdp;
use balancer::config::{self, FlowLookup};
use balancer::datapath::compile::{compile, words};
use balancer::datapath::flows::{FlowTable, now};
use balancer::datapath::kernel::{Back, Kernel, Sizes, Work};
use balancer::datapath::notes::Notes;
use balancer_common::abi::{BackendStats, Link, Path};
use balancer_common::family::{Family, V4, V6};
use balancer_common::hop::Hop;
use balancer_common::search::{self, Search};
use balancer_common::table::enter::SourcePorts;
use balancer_common::table::flow::Flow;
use balancer_common::table::retire::{condemn, free};
use balancer_common::table::{Lines as _, find};
use balancer_common::tuple::Tuple;
use balancer_common::verdict::{Drop, Verdict};
use balancer_common::wire::protocol;
use support::cpus::on_both;
use support::flows::{connections, tuple, visible};
use support::frame::{tcp, udp};
use support::ids::in_order;
use support::place::in_the_box;
use support::properties::ends;
use support::variable::number;
use support::{BACKEND_MAC, BACKEND_SIDE, BOX_MAC, CLIENT_SIDE, program, source};

/// How many races there are unless `BALANCER_RACES` says otherwise: of connections, and for ports, which take longer.
const SAME: usize = 100_000;
const FOR_PORTS: usize = 20_000;

/// How many connections the table takes, and how many half-open ones.
const ROOM: u32 = 1024;

const LOOKUPS: [FlowLookup; 2] = [FlowLookup::Table, FlowLookup::Hash];

/// TCP and UDP over IPv4, then over IPv6, each with so many backends, which take turns: two packets that are scheduled at once get
/// different ones.
fn services(backends: usize) -> String {
    let service = |protocol: &str, listen: &str, addresses: [&str; 2]| {
        let family = if listen.starts_with('[') { 6 } else { 4 };
        let backend = |address: &&str| format!("{{ address = \"{address}\" }},");
        let backends: String = addresses[..backends].iter().map(backend).collect();
        format!(
            "[[service]]\nname = \"{protocol}{family}\"\nlisten = \"{listen}\"\nprotocol = \"{protocol}\"\n\
             scheduler = \"nth\"\nbackend = [{backends}]\n"
        )
    };
    let [tcp, udp] = V4::SERVICES;
    let [tcp6, udp6] = V6::SERVICES;
    [
        service("tcp", tcp, ["10.0.0.2:8080", "10.0.0.3:8080"]),
        service("udp", udp, ["10.0.0.4:5353", "10.0.0.5:5353"]),
        service(
            "tcp",
            tcp6,
            ["[2001:db8:1::2]:8080", "[2001:db8:1::3]:8080"],
        ),
        service(
            "udp",
            udp6,
            ["[2001:db8:1::4]:5353", "[2001:db8:1::5]:5353"],
        ),
    ]
    .concat()
}

/// The source ports where each service has one backend: so many, from this one on.
const PORTS: u16 = 200;
const FIRST_PORT: u16 = 40_000;

/// The program with these services, and the addresses of the backends by their ids.
struct Loaded {
    kernel: Kernel,
    backends: Vec<SocketAddr>,
}

impl Loaded {
    fn new(lookup: FlowLookup, services: &str, ports: &str) -> Self {
        let mut kernel = Kernel::load(
            Sizes {
                connections: ROOM,
                half_open: ROOM,
                lookup,
            },
            Work::Kernel(Back::Transmit),
            None,
        )
        .unwrap();
        let text = format!("[datapath]\ninterfaces = [\"eth0\", \"eth1\"]\n{ports}\n{services}");
        let config = config::parse("races.toml", &text).unwrap();
        let backends: Vec<SocketAddr> = config
            .services
            .iter()
            .flat_map(|service| &service.backends)
            .map(|backend| SocketAddr::new(backend.address, backend.port.unwrap()))
            .collect();
        let ids = in_order(&config.services);
        for (id, backend) in (0..).zip(&backends) {
            let path = Path {
                hop: Hop::new(BACKEND_SIDE, BACKEND_MAC, BOX_MAC),
                source: words(source(backend.is_ipv4())),
            };
            kernel.set_path(id, path).unwrap();
        }
        let ports = config.datapath.source_ports;
        let index = |name: &str| {
            Some(if name == "eth0" {
                CLIENT_SIDE
            } else {
                BACKEND_SIDE
            })
        };
        let image = compile(1, &config.services, &ids, ports, index);
        kernel.set_image(&image).unwrap();
        let link = Link {
            mtu: 1500,
            ..Link::default()
        };
        kernel
            .set_links([CLIENT_SIDE, BACKEND_SIDE].map(|index| (index, link)))
            .unwrap();
        Self { kernel, backends }
    }

    fn counters(&self) -> Counters {
        let backend = |id: usize| self.kernel.backend_stats(id as u32).unwrap();
        Counters {
            verdicts: self.kernel.stats().unwrap().verdicts.to_vec(),
            backends: (0..self.backends.len()).map(backend).collect(),
        }
    }

    /// The numbers that the services have given out so far.
    fn tickets(&self) -> u64 {
        let services = 0..4;
        services.map(|id| self.kernel.tickets(id).unwrap()).sum()
    }
}

struct Counters {
    verdicts: Vec<u64>,
    backends: Vec<BackendStats>,
}

impl Counters {
    /// How many frames got a verdict since.
    fn since(&self, before: &Self, verdict: Verdict) -> u64 {
        self.verdicts[verdict.counter()] - before.verdicts[verdict.counter()]
    }

    /// Frames since.
    fn received_since(&self, before: &Self) -> u64 {
        self.verdicts.iter().sum::<u64>() - before.verdicts.iter().sum::<u64>()
    }

    /// Connections and packets from clients of each backend since.
    fn backends_since(&self, before: &Self) -> Vec<[u64; 2]> {
        let pairs = self.backends.iter().zip(&before.backends);
        pairs
            .map(|(after, before)| {
                [
                    after.connections - before.connections,
                    after.forward_packets - before.forward_packets,
                ]
            })
            .collect()
    }
}

/// What differs between the families beside the packets.
trait Side: Family {
    fn table(kernel: &Kernel) -> &FlowTable<Self>;
    fn notes(kernel: &Kernel) -> &Notes<Self>;
    /// The address of a client.
    fn client(number: u32) -> IpAddr;
    /// The services, TCP first.
    const SERVICES: [&str; 2];
}

impl Side for V4 {
    fn table(kernel: &Kernel) -> &FlowTable<V4> {
        &kernel.v4
    }

    fn notes(kernel: &Kernel) -> &Notes<V4> {
        &kernel.notes.v4
    }

    fn client(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0xc612_0000 + number).into()
    }

    const SERVICES: [&str; 2] = ["192.0.2.10:80", "192.0.2.10:53"];
}

impl Side for V6 {
    fn table(kernel: &Kernel) -> &FlowTable<V6> {
        &kernel.v6
    }

    fn notes(kernel: &Kernel) -> &Notes<V6> {
        &kernel.notes.v6
    }

    fn client(number: u32) -> IpAddr {
        Ipv6Addr::from_bits(0x2001_0db8_0002 << 80 | u128::from(number)).into()
    }

    const SERVICES: [&str; 2] = ["[2001:db8::10]:80", "[2001:db8::10]:53"];
}

/// A first packet: its tuple, and the frame.
struct Opening<F: Family> {
    tuple: Tuple<F>,
    frame: Vec<u8>,
}

/// That of a client from a port to one of the two services.
fn opening<F: Side>(client: u32, port: u16, service: usize) -> Opening<F> {
    let from = SocketAddr::new(F::client(client), port);
    let to = F::SERVICES[service];
    let (protocol, frame) = if service == 0 {
        (protocol::TCP, tcp("S", &from.to_string(), to))
    } else {
        (protocol::UDP, udp(&from.to_string(), to))
    };
    Opening {
        tuple: tuple(from, to.parse().unwrap(), protocol),
        frame: frame.build(),
    }
}

/// Gives a frame to the program: what it has sent on.
fn run(program: &Xdp, frame: &[u8]) -> Option<Vec<u8>> {
    const XDP_REDIRECT: u32 = 4;
    let ran = program::run(program, CLIENT_SIDE, frame);
    (ran.action == XDP_REDIRECT).then_some(ran.output)
}

/// What both CPUs have sent on of each pair.
type Outcome = [Option<Vec<u8>>; 2];

/// Gives the two frames of each pair to the program at the same moment, the one on CPU 0, the other on CPU 1.
///
/// One of them waits for somewhat longer, from pair to pair another while, that of `first` to begin with: so they meet at every point.
fn race(kernel: &mut Kernel, first: usize, pairs: &[[&[u8]; 2]]) -> Vec<Outcome> {
    const SKEWS: usize = 64;
    let program: &Xdp = kernel.program().unwrap();
    let arrived = AtomicUsize::new(0);
    let [first, second] = on_both(|cpu| {
        let one = |(number, pair): (usize, &[&[u8]; 2])| {
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < 2 * (number + 1) {
                spin_loop();
            }
            let skew = (first + number) % (2 * SKEWS);
            let is_later = (skew < SKEWS) == (cpu == 0);
            for _ in 0..if is_later { skew % SKEWS } else { 0 } {
                spin_loop();
            }
            run(program, pair[cpu])
        };
        pairs.iter().enumerate().map(one).collect::<Vec<_>>()
    });
    first.into_iter().zip(second).map(<[_; 2]>::from).collect()
}

/// Asserts that the table is whole, and that of each backend there are so many connections.
fn check_table<F: Family>(table: &FlowTable<F>, expected: &[u64]) {
    let mut found = vec![0; expected.len()];
    for [original, _] in connections(table) {
        found[original.backend() as usize] += 1;
    }
    assert_eq!(found, expected, "connections of each backend");
    let total: u64 = expected.iter().sum();
    assert_eq!(
        (table.count(), table.count_half_open()),
        (total, total),
        "connections, half-open ones"
    );
}

/// Asserts that a frame that was sent on went where the connection of its tuple says: the backend's id, and the source port.
fn check_sent<F: Side>(racers: &Loaded, opening: &Opening<F>, output: &[u8]) -> (u32, u16) {
    let table = F::table(&racers.kernel);
    let flow = find(table, &opening.tuple).expect("what was sent on has a connection");
    let (from, to) = ends(output);
    assert!(!flow.is_reply());
    assert_eq!(
        flow.new_tuple(),
        tuple(from, to, opening.tuple.ports.protocol())
    );
    assert_eq!(from.ip(), source(from.is_ipv4()));
    assert_eq!(to, racers.backends[flow.backend() as usize]);
    (flow.backend(), from.port())
}

/// Removes the connections that are not kept. No packet is under way.
fn remove<F: Family>(table: &FlowTable<F>, is_kept: impl Fn(&Flow<F>) -> bool) {
    for flow in visible(table).filter(|flow| !flow.is_reply()) {
        assert!(is_kept(flow) || condemn(table, flow, |_| true));
    }
    for index in 0..table.geometry().lines() {
        free(table, index);
    }
}

/// One at a time: each takes both CPUs.
static CPUS: Mutex<()> = Mutex::new(());

fn on_both_cpus(name: &str, work: impl Fn(FlowLookup) + Send + Copy) {
    let _alone = CPUS.lock().unwrap_or_else(PoisonError::into_inner);
    for lookup in LOOKUPS {
        in_the_box(name, move || work(lookup));
    }
}

fn races(otherwise: usize) -> usize {
    number("BALANCER_RACES").map_or(otherwise, |number| number as usize)
}

#[test]
fn one_connection_on_two_cpus_has_one_backend_and_one_pair_of_flows() {
    on_both_cpus("races", |lookup| {
        same_tuple::<V4>(lookup);
        same_tuple::<V6>(lookup);
    });
}

fn same_tuple<F: Side>(lookup: FlowLookup) {
    const BATCH: usize = 500;
    let start = Instant::now();
    let mut racers = Loaded::new(lookup, &services(2), "");
    let (mut contended, mut lost) = (0, 0);
    let batches = races(SAME).div_ceil(BATCH);
    for batch in 0..batches {
        let openings: Vec<Opening<F>> = (0..BATCH)
            .map(|number| {
                let client = (batch * BATCH + number) as u32;
                opening(client % 0xffff, 2000 + number as u16, number % 2)
            })
            .collect();
        let pairs: Vec<_> = openings.iter().map(|it| [&it.frame[..]; 2]).collect();
        let (before, tickets) = (racers.counters(), racers.tickets());
        let outcomes = race(&mut racers.kernel, batch, &pairs);
        let after = racers.counters();

        let sent = outcomes.iter().map(|outcome| outcome.iter().flatten());
        let expected = one_each(&racers, &openings, sent);
        assert_eq!(after.backends_since(&before), expected);
        let total = BATCH as u64;
        // What does not get the lock of a home in time has to come again; nothing else is dropped.
        let refused = after.since(&before, Drop::Contended.into());
        let forwarded = after.since(&before, Verdict::Redirect(BACKEND_SIDE));
        assert_eq!(forwarded + refused, 2 * total);
        assert_eq!(after.received_since(&before), 2 * total);
        contended += refused;
        // Who is second is so only if the first has not ended when it looks; then it has a turn of its own, for nothing.
        lost += racers.tickets() - tickets - total;
        remove(F::table(&racers.kernel), |_| false);
        assert_eq!(visible(F::table(&racers.kernel)).count(), 0);
    }
    println!(
        "{lookup:?}, IPv{}: {} connections on two CPUs, {lost} opened by both at once, {contended} packets to come again; {:.1} s",
        F::VERSION,
        batches * BATCH,
        start.elapsed().as_secs_f32()
    );
    assert!(lost > 0, "the CPUs never met: nothing was shown");
}

/// Asserts that each first packet that was sent on, once or several times, has opened one connection, and that there are no others. Gives
/// connections and packets of each backend.
fn one_each<'a, F: Side>(
    racers: &Loaded,
    openings: &[Opening<F>],
    sent: impl Iterator<Item = impl Iterator<Item = &'a Vec<u8>>>,
) -> Vec<[u64; 2]> {
    let table = F::table(&racers.kernel);
    let mut expected = vec![[0; 2]; racers.backends.len()];
    for (opening, sent) in openings.iter().zip(sent) {
        let sent: Vec<_> = sent.collect();
        assert!(!sent.is_empty(), "nobody has opened it");
        for output in &sent {
            let (backend, _) = check_sent(racers, opening, output);
            expected[backend as usize][1] += 1;
        }
        // The same frame went in.
        assert!(sent.iter().all(|output| output == &sent[0]));
        let flow = find(table, &opening.tuple).unwrap();
        expected[flow.backend() as usize][0] += 1;
    }
    let connections = expected.iter().map(|[connections, _]| *connections);
    let connections: Vec<_> = connections.collect();
    check_table(table, &connections);
    assert_eq!(connections.iter().sum::<u64>(), openings.len() as u64);
    expected
}

/// So many half-open connections more, that no frame has entered.
fn occupy<F: Side>(racers: &Loaded, more: u64) {
    F::table(&racers.kernel).totals().unwrap().opened.add(more);
}

#[test]
fn a_first_packet_that_two_cpus_note_at_once_opens_one_connection_when_it_comes_again() {
    on_both_cpus("again", |lookup| {
        come_again::<V4>(lookup);
        come_again::<V6>(lookup);
    });
}

/// While many connections are half-open each first packet comes to both CPUs, then again to both: one of the first two at most is sent
/// on, and none of the others is dropped as the first.
fn come_again<F: Side>(lookup: FlowLookup) {
    const BATCH: usize = 200;
    const HALF_OPEN: u64 = ROOM as u64 / 2 + 1;
    let start = Instant::now();
    let mut racers = Loaded::new(lookup, &services(2), "");
    let (mut noted_by_both, mut opened_at_once, mut lost, mut contended) = (0, 0, 0, 0);
    let batches = races(SAME).div_ceil(BATCH);
    for batch in 0..batches {
        let openings: Vec<Opening<F>> = (batch * BATCH..(batch + 1) * BATCH)
            .map(|number| {
                // None that has been noted before.
                let (client, port) = (number % 0xffff, 2000 + number / 0xffff);
                opening(client as u32, port as u16, number % 2)
            })
            .collect();
        let pairs: Vec<_> = openings.iter().map(|it| [&it.frame[..]; 2]).collect();
        let (before, tickets) = (racers.counters(), racers.tickets());
        occupy::<F>(&racers, HALF_OPEN);
        let first = race(&mut racers.kernel, batch, &pairs);
        let between = racers.counters();
        let again = race(&mut racers.kernel, batch, &pairs);
        occupy::<F>(&racers, HALF_OPEN.wrapping_neg());
        let after = racers.counters();

        let at_once = first.iter().map(|outcome| outcome.iter().flatten().count());
        assert!(at_once.clone().all(|sent| sent < 2), "nobody has noted it");
        let at_once = at_once.sum::<usize>() as u64;
        let sent = first.iter().zip(&again);
        let sent = sent.map(|(first, again)| first.iter().chain(again).flatten());
        let expected = one_each(&racers, &openings, sent);
        assert_eq!(after.backends_since(&before), expected);
        let total = BATCH as u64;
        let got = |verdict: Verdict| {
            let first = between.since(&before, verdict);
            [first, after.since(&between, verdict)]
        };
        let refused = got(Drop::Contended.into());
        let forwarded = got(Verdict::Redirect(BACKEND_SIDE));
        let noted = got(Drop::FirstPacket.into());
        assert_eq!(forwarded[0], at_once);
        assert_eq!(noted, [2 * total - at_once - refused[0], 0]);
        assert_eq!(forwarded[1] + refused[1], 2 * total);
        assert_eq!(after.received_since(&before), 4 * total);
        noted_by_both += total - at_once;
        opened_at_once += at_once;
        contended += refused[0] + refused[1];
        lost += racers.tickets() - tickets - total;
        remove(F::table(&racers.kernel), |_| false);
    }
    println!(
        "{lookup:?}, IPv{}: {noted_by_both} first packets noted on two CPUs, of which both opened {lost} when they came again, {opened_at_once} noted \
         by one and sent on by the other, {contended} packets to come again; {:.1} s",
        F::VERSION,
        start.elapsed().as_secs_f32()
    );
    assert!(noted_by_both > 0 && opened_at_once > 0 && lost > 0);
}

#[test]
fn two_connections_never_share_a_source_port() {
    on_both_cpus("ports", |lookup| {
        last_ports::<V4>(lookup);
        last_ports::<V6>(lookup);
    });
}

/// Whether a client is one of those that are there before the race.
fn is_settled<F: Side>(flow: &Flow<F>) -> bool {
    let client = F::source(flow.tuple().addresses);
    client == F::unmapped(words(F::client(0)))
}

/// Connections of one client from all source ports but those: it keeps its own.
fn settle<F: Side>(racers: &mut Loaded, service: usize, is_free: impl Fn(u16) -> bool) {
    for port in (FIRST_PORT..FIRST_PORT + PORTS).filter(|&port| !is_free(port)) {
        let opening = opening::<F>(0, port, service);
        if find(F::table(&racers.kernel), &opening.tuple).is_none() {
            let output = run(racers.kernel.program().unwrap(), &opening.frame).unwrap();
            assert_eq!(ends(&output).0.port(), port);
        }
    }
}

/// Nineteen of twenty ports are taken. For each of the others two clients race that both have it as their own, then they look
/// for another, until there are none.
fn last_ports<F: Side>(lookup: FlowLookup) {
    const EVERY: u16 = 20;
    const FREE: usize = (PORTS / EVERY) as usize;
    const TAKEN: u64 = PORTS as u64 - FREE as u64;
    let start = Instant::now();
    let mut racers = Loaded::new(lookup, &services(1), "source_ports = \"40000-40199\"");
    let (mut won, mut exhausted, mut contended) = (0, 0, 0);
    let batches = races(FOR_PORTS).div_ceil(2 * FREE);
    for batch in 0..2 * batches {
        let (service, is_first) = (batch / batches, batch % batches == 0);
        if is_first {
            remove(F::table(&racers.kernel), |_| false);
            settle::<F>(&mut racers, service, |port| port % EVERY == 0);
        }
        let openings: Vec<[Opening<F>; 2]> = (0..FREE)
            .map(|number| {
                let port = FIRST_PORT + ((number + batch) % FREE) as u16 * EVERY;
                [1, 2].map(|client| {
                    let client = client + 2 * (batch * FREE + number) as u32 % 0xfff0;
                    opening(client, port, service)
                })
            })
            .collect();
        let pairs: Vec<_> = openings
            .iter()
            .map(|[a, b]| [&a.frame[..], &b.frame])
            .collect();
        let before = racers.counters();
        let outcomes = race(&mut racers.kernel, batch, &pairs);
        let after = racers.counters();

        let mut ports = HashSet::new();
        let racing = openings.iter().flatten();
        for (opening, outcome) in racing.zip(outcomes.iter().flatten()) {
            if let Some(output) = outcome {
                let (_, port) = check_sent(&racers, opening, output);
                assert!(ports.insert(port), "port {port} twice");
                assert!((FIRST_PORT..FIRST_PORT + PORTS).contains(&port));
            } else {
                assert!(find(F::table(&racers.kernel), &opening.tuple).is_none());
            }
        }
        let entered = ports.len() as u64;
        // The backend's id is the service's, which has one; those of IPv6 follow.
        let id = service + if F::VERSION == 4 { 0 } else { 2 };
        let mut expected = vec![[0; 2]; racers.backends.len()];
        expected[id] = [entered; 2];
        assert_eq!(after.backends_since(&before), expected);
        let mut connections = vec![0; racers.backends.len()];
        connections[id] = TAKEN + entered;
        check_table(F::table(&racers.kernel), &connections);
        let is_taken = |flow: &Flow<F>| flow.is_reply().then(|| flow.tuple().ports.destination());
        let taken: HashSet<u16> = visible(F::table(&racers.kernel))
            .filter_map(is_taken)
            .collect();
        assert_eq!(taken.len() as u64, TAKEN + entered, "ports that are taken");
        let refused = [Drop::PortsExhausted, Drop::Contended]
            .map(|reason| after.since(&before, reason.into()));
        let forwarded = after.since(&before, Verdict::Redirect(BACKEND_SIDE));
        assert_eq!(forwarded, entered);
        assert_eq!(
            forwarded + refused[0] + refused[1],
            after.received_since(&before)
        );
        won += entered;
        exhausted += refused[0];
        contended += refused[1];
        remove(F::table(&racers.kernel), is_settled);
    }
    println!(
        "{lookup:?}, IPv{}: {} races for source ports of which 95 % are taken, {won} packets have got one, {exhausted} none, {contended} are to come again; {:.1} s",
        F::VERSION,
        2 * batches * FREE,
        start.elapsed().as_secs_f32()
    );
    assert!(won > 0 && exhausted > 0);
    found_for_both::<F>(&mut racers, lookup);
}

/// The slow path has found the last free port for two connections at once: one gets it.
fn found_for_both<F: Side>(racers: &mut Loaded, lookup: FlowLookup) {
    let count = races(FOR_PORTS) / 10;
    remove(F::table(&racers.kernel), |_| false);
    settle::<F>(racers, 0, |port| port == FIRST_PORT);
    // Of the backend and of the service.
    let id = if F::VERSION == 4 { 0 } else { 2 };
    let backend = racers.backends[id];
    let before = racers.counters();
    for number in 0..count {
        // Their own port is taken.
        let clients = [1, 2].map(|client| {
            let client = client + 2 * number as u32 % 0xfff0;
            opening::<F>(client, FIRST_PORT + 1, 0)
        });
        let answer_to = SocketAddr::new(source(backend.is_ipv4()), FIRST_PORT);
        let ports = SourcePorts {
            first: FIRST_PORT,
            last: FIRST_PORT + PORTS - 1,
        };
        for client in &clients {
            let found = Search {
                reply: tuple(backend, answer_to, protocol::TCP),
                ports,
                backend: id as u16,
                state: search::state::FOUND,
                since: now().unwrap(),
                service: id as u32,
            };
            let searches = &F::notes(&racers.kernel).searches;
            searches.set(&client.tuple, found).unwrap();
        }
        let [a, b] = &clients;
        let outcomes = race(&mut racers.kernel, number, &[[&a.frame, &b.frame]]);
        let sent: Vec<_> = clients.iter().zip(&outcomes[0]).collect();
        let winners = sent.iter().filter_map(|(opening, output)| {
            let output = output.as_ref()?;
            Some(check_sent(racers, opening, output).1)
        });
        assert_eq!(winners.collect::<Vec<_>>(), [FIRST_PORT], "race {number}");
        let mut connections = vec![0; racers.backends.len()];
        connections[id] = u64::from(PORTS);
        check_table(F::table(&racers.kernel), &connections);
        remove(F::table(&racers.kernel), is_settled);
    }
    let after = racers.counters();
    let [exhausted, contended] =
        [Drop::PortsExhausted, Drop::Contended].map(|reason| after.since(&before, reason.into()));
    assert_eq!(exhausted + contended, count as u64);
    println!(
        "{lookup:?}, IPv{}: {count} races for the last port, which was found for both, {contended} packets to come again",
        F::VERSION
    );
}
