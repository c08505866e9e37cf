//! The flow table against a model that is too simple to be wrong: one thread, random operations.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test that fails here has failed")]

mod chance;

use std::collections::HashMap;
use std::sync::Mutex;

use balancer_common::family::{Family, V4, V6};
use balancer_common::table::enter::{Connection, Refused, SourcePorts, enter};
use balancer_common::table::flow::{Flow, HopId, Stage};
use balancer_common::table::index::Index;
use balancer_common::table::retire::{Prospect, condemn, free, kill, orphaned};
use balancer_common::table::segment::Segment;
use balancer_common::table::state::{Phase, State};
use balancer_common::table::tick::Tick;
use balancer_common::table::touch::{Touched, touch};
use balancer_common::table::{Geometry, Lines, Totals, find};
use balancer_common::tuple::{PortsProtocol, Tuple};
use balancer_common::wire::protocol::{TCP, UDP};
use balancer_common::wire::tcp::flags::{ACK, FIN, RST, SYN};
use chance::Chance;

struct Memory<F: Family> {
    geometry: Geometry,
    lines: Vec<Flow<F>>,
    totals: Totals,
    index: Option<Map<F>>,
}

/// An index.
struct Map<F: Family>(Mutex<HashMap<(Tuple<F>, u64), u32>>);

impl<F: Family> Index<F> for Map<F> {
    fn get(&self, tuple: &Tuple<F>, slot: u64) -> Option<u32> {
        self.0.lock().unwrap().get(&(*tuple, slot)).copied()
    }

    fn insert(&self, tuple: &Tuple<F>, slot: u64, line: u32) -> bool {
        let (mut map, key) = (self.0.lock().unwrap(), (*tuple, slot));
        let is_new = !map.contains_key(&key);
        if is_new {
            map.insert(key, line);
        }
        is_new
    }

    fn remove(&self, tuple: &Tuple<F>, slot: u64) {
        self.0.lock().unwrap().remove(&(*tuple, slot)).unwrap();
    }
}

/// How flows are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lookup {
    Home,
    Index,
}

const LOOKUPS: [Lookup; 2] = [Lookup::Home, Lookup::Index];

impl<F: Family> Memory<F> {
    fn new(lookup: Lookup, max_connections: u32, max_half_open: u32) -> Self {
        let geometry = Geometry::new(
            [
                0x9216_d5d9_8979_fb1b,
                0xd131_0ba6_98df_b5ad,
                0x2ffd_72db_d01a_dfb7,
                0xb8e1_afed_6a26_7e97,
                0xba7c_9045_f12c_7f99,
            ],
            max_connections,
            max_half_open,
        );
        Self {
            geometry,
            lines: (0..geometry.lines()).map(|_| Flow::default()).collect(),
            totals: Totals::default(),
            index: (lookup == Lookup::Index).then(|| Map(Mutex::default())),
        }
    }

    fn visible(&self) -> usize {
        let lines = self.lines.iter();
        lines.filter(|line| line.meta().is_visible()).count()
    }

    /// Each line that is in use has an entry, if there is an index, and no other has.
    fn check_index(&self) {
        let Some(Map(map)) = &self.index else {
            return;
        };
        let mut indexed: Vec<_> = map.lock().unwrap().values().copied().collect();
        indexed.sort_unstable();
        let used = |index: &u32| !self.lines[*index as usize].meta().is(Stage::Free);
        let used: Vec<_> = (0..self.geometry.lines()).filter(used).collect();
        assert_eq!(indexed, used);
    }

    /// A whole pass of the daemon.
    fn sweep(&self, is_over: impl Fn(Phase) -> bool) {
        for line in &self.lines {
            condemn(self, line, |prospect| is_over(prospect.phase));
        }
        for index in 0..self.geometry.lines() {
            free(self, index);
        }
        for line in &self.lines {
            if orphaned(self, line) {
                kill(line);
            }
        }
    }
}

impl<F: Family> Lines<F> for Memory<F> {
    type Index = Map<F>;

    fn index(&self) -> Option<&Map<F>> {
        self.index.as_ref()
    }

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn line(&self, index: u32) -> Option<&Flow<F>> {
        self.lines.get(index as usize)
    }

    fn totals(&self) -> Option<&Totals> {
        Some(&self.totals)
    }
}

/// An address for a number.
trait Numbered: Family {
    fn address(number: u32) -> Self::Address;
}

impl Numbered for V4 {
    fn address(number: u32) -> u32 {
        number.to_be()
    }
}

impl Numbered for V6 {
    fn address(number: u32) -> [u64; 2] {
        [0x20, u64::from(number)]
    }
}

fn tuple<F: Numbered>(client: u32, server: u32, ports: (u16, u16), protocol: u8) -> Tuple<F> {
    Tuple {
        addresses: F::pair(F::address(client), F::address(server)),
        ports: PortsProtocol::new(ports.0, ports.1, protocol),
    }
}

fn connection<F: Family>(tuple: Tuple<F>, reply: Tuple<F>, now: u32) -> Connection<F> {
    Connection {
        tuple,
        reply,
        source_ports: SourcePorts {
            first: reply.ports.destination(),
            last: reply.ports.destination() + 7,
        },
        service: 3,
        backend: 7,
        tagged: false,
        segment: segment(tuple.ports.protocol(), SYN),
        back: HopId {
            number: 3,
            generation: 1,
        },
        now: Tick(now),
    }
}

/// A segment with these control bits, of a connection whose numbers begin with 0 both ways.
fn segment(protocol: u8, flags: u8) -> Segment {
    match protocol {
        TCP => Segment::new(flags, u32::from(flags & SYN == 0), 1),
        _ => Segment::DATAGRAM,
    }
}

const BOX: u32 = 1000;
const BACKEND: u32 = 2000;

/// Enters a connection of `client` with its reply to a port from `port` on.
fn open<F: Numbered>(
    memory: &Memory<F>,
    tuple: Tuple<F>,
    port: u16,
    now: u32,
) -> Result<(), Refused> {
    let reply = self::tuple(BACKEND, BOX, (80, port), tuple.ports.protocol());
    let mut connection = connection(tuple, reply, now);
    // From the last one on.
    enter(memory, &mut connection, || u32::MAX)
}

fn random_operations<F: Numbered>(lookup: Lookup, seed: u64) {
    let (max, max_half) = (40, 25);
    let memory = Memory::<F>::new(lookup, max, max_half);
    let mut chance = Chance(seed);
    // Original tuple to reply tuple and whether it is established.
    let mut model: HashMap<Tuple<F>, (Tuple<F>, bool)> = HashMap::new();
    for step in 0..20_000_u32 {
        let now = step * 200;
        let client = chance.below(60) as u32;
        let protocol = if client.is_multiple_of(2) { TCP } else { UDP };
        let original = tuple(client, BOX, (4000, 80), protocol);
        let half = model
            .values()
            .filter(|(_, established)| !established)
            .count();
        match chance.below(10) {
            0..=4 => {
                let port = 1000 + chance.below(50) as u16;
                let result = open(&memory, original, port, now);
                let known = model.contains_key(&original);
                let taken = |reply: &Tuple<F>| model.values().any(|(other, _)| other == reply);
                let free = [0, 7, 2, 5, 3, 6, 1, 4]
                    .into_iter()
                    .map(|attempt| tuple(BACKEND, BOX, (80, port + attempt), protocol))
                    .find(|reply| !taken(reply));
                let expected = if known {
                    Err(Refused::Exists)
                } else if model.len() as u32 >= max {
                    Err(Refused::Full)
                } else if half as u32 >= max_half {
                    Err(Refused::HalfOpenFull)
                } else {
                    free.map(|_| ()).ok_or(Refused::Taken)
                };
                assert_eq!(result, expected, "step {step}");
                if result.is_ok() {
                    model.insert(original, (free.unwrap(), false));
                }
            }
            5..=7 => {
                // The connection becomes established.
                let Some((reply, established)) = model.get_mut(&original) else {
                    assert!(find(&memory, &original).is_none());
                    continue;
                };
                let flow = find(&memory, &original).unwrap();
                assert_eq!(flow.peer(), *reply);
                let answer = find(&memory, reply).unwrap();
                assert_eq!((answer.peer(), answer.is_reply()), (original, true));
                for (flow, flags) in [(answer, SYN | ACK), (flow, ACK)] {
                    let touched = touch(&memory, flow, segment(protocol, flags), Tick(now));
                    assert_eq!(touched, Touched::Alive);
                }
                *established = true;
            }
            8 => {
                let established = chance.below(2) == 0;
                let doomed = |phase| (phase == Phase::Established) == established;
                memory.sweep(doomed);
                model.retain(|_, (_, of)| *of != established);
            }
            _ => {
                // Nothing is removed that a packet has touched since it was looked at.
                memory.sweep(|_| false);
            }
        }
        assert_eq!(memory.visible(), 2 * model.len(), "step {step}");
        assert_eq!(memory.totals.connections(), model.len() as u64);
        let half = model
            .values()
            .filter(|(_, established)| !established)
            .count();
        assert_eq!(memory.totals.half_open(), half as u64, "step {step}");
        memory.check_index();
    }
}

#[test]
fn random_operations_agree_with_a_model() {
    for seed in 0..4 {
        for lookup in LOOKUPS {
            random_operations::<V4>(lookup, seed);
            random_operations::<V6>(lookup, seed);
        }
    }
}

#[test]
fn every_connection_finds_room_up_to_the_bound_and_no_further() {
    let every = |lookup| [1, 2, 3, 64, 1000, 50_000].map(|max| (lookup, max));
    for (lookup, max) in LOOKUPS.into_iter().flat_map(every) {
        let memory = Memory::<V4>::new(lookup, max, max);
        for client in 0..max {
            let port = 1 + (client % 60_000) as u16;
            let reply = tuple(BACKEND + client / 60_000, BOX, (80, port), TCP);
            let mut connection = connection(tuple(client, BOX, (4000, 80), TCP), reply, 0);
            assert_eq!(
                enter(&memory, &mut connection, || unreachable!()),
                Ok(()),
                "{client} of {max}"
            );
        }
        let refused = open(&memory, tuple(max, BOX, (4000, 80), TCP), 1, 0);
        assert_eq!(refused, Err(Refused::Full));
        assert_eq!(memory.visible(), 2 * max as usize);
        memory.sweep(|_| true);
        assert!(memory.lines.iter().all(|line| line.meta().is(Stage::Free)));
        assert_eq!(memory.totals.connections(), 0);
        assert_eq!(
            open(&memory, tuple(max, BOX, (4000, 80), TCP), 1, 0),
            Ok(())
        );
    }
}

#[test]
fn a_syn_puts_a_new_connection_in_the_place_of_one_that_is_over() {
    LOOKUPS.into_iter().for_each(replaced);
}

fn replaced(lookup: Lookup) {
    let memory = Memory::<V4>::new(lookup, 10, 10);
    let original = tuple(1, BOX, (4000, 80), TCP);
    open(&memory, original, 1000, 0).unwrap();
    let flow = find(&memory, &original).unwrap();
    let reply = find(&memory, &flow.peer()).unwrap();
    for (flow, flags) in [
        (reply, SYN | ACK),
        (flow, ACK),
        (flow, SYN),
        (flow, FIN | ACK),
        (reply, FIN | ACK),
    ] {
        assert_eq!(
            touch(&memory, flow, segment(TCP, flags), Tick(1)),
            Touched::Alive,
            "{flags}"
        );
    }
    assert_eq!(
        touch(&memory, flow, segment(TCP, SYN), Tick(2)),
        Touched::Over
    );
    open(&memory, original, 1000, 2).unwrap();
    let second = find(&memory, &original).unwrap();
    // The port of the old one is free at once.
    assert_eq!(second.peer().ports.destination(), 1000);
    assert_eq!(second.meta().state(), State(0));
    assert_eq!(
        touch(&memory, flow, segment(TCP, ACK), Tick(3)),
        Touched::Gone
    );
    for _ in 0..2 {
        assert_eq!((memory.visible(), memory.totals.connections()), (2, 1));
        assert_eq!(memory.totals.half_open(), 1);
        memory.check_index();
        memory.sweep(|_| false);
    }
    memory.check_index();
    let free = |line: &&Flow<V4>| line.meta().is(Stage::Free);
    assert_eq!(
        memory.lines.iter().filter(free).count(),
        memory.lines.len() - 2
    );
}

#[test]
fn what_cannot_be_right_is_no_sign_of_life() {
    let memory = Memory::<V4>::new(Lookup::Home, 10, 10);
    let original = tuple(1, BOX, (4000, 80), TCP);
    open(&memory, original, 1000, 0).unwrap();
    let flow = find(&memory, &original).unwrap();
    let reply = find(&memory, &flow.peer()).unwrap();
    for (flow, flags) in [(reply, SYN | ACK), (flow, ACK), (reply, ACK)] {
        touch(&memory, flow, segment(TCP, flags), Tick(1));
    }
    for flow in [flow, reply] {
        let before = (flow.meta(), flow.side(flow.meta()));
        assert!(before.0.is_established());
        for flags in [ACK, FIN | ACK, RST, RST | ACK, SYN, SYN | ACK, 0] {
            let forged = Segment::new(flags, 1 << 30, 1 << 30);
            assert_eq!(touch(&memory, flow, forged, Tick(9000)), Touched::Alive);
            assert_eq!((flow.meta(), flow.side(flow.meta())), before, "{flags}");
        }
        // One that is right by either number is; the last puts right what the one before it has led astray.
        for (now, sequence, acknowledgement) in [
            (9000, 1, 1),
            (9001, 1 << 30, 1),
            (9002, 1, 1 << 30),
            (9003, 1, 1),
        ] {
            let right = Segment::new(ACK, sequence, acknowledgement);
            touch(&memory, flow, right, Tick(now));
            assert_eq!(flow.meta().last_seen(), Tick(now));
        }
    }
    // Nor does it keep the daemon from removing the connection.
    assert!(condemn(&memory, flow, |_: &Prospect| {
        let forged = Segment::new(ACK, 1 << 30, 1 << 30);
        touch(&memory, flow, forged, Tick(19_000)) == Touched::Alive
    }));
}

#[test]
fn no_connection_answers_itself() {
    for lookup in LOOKUPS {
        let memory = Memory::<V4>::new(lookup, 10, 10);
        // A backend asks, from the port that it listens on, the address that it would be answered from.
        let original = tuple(BACKEND, BOX, (80, 1000), UDP);
        let mut own = connection(original, original, 0);
        own.source_ports = SourcePorts::NONE;
        assert_eq!(enter(&memory, &mut own, || 0), Err(Refused::Taken));
        memory.check_index();
        open(&memory, original, 1000, 0).unwrap();
        let flow = find(&memory, &original).unwrap();
        assert_ne!(flow.peer(), original);
        assert_eq!(memory.visible(), 2);
        memory.sweep(|_| true);
        assert_eq!((memory.visible(), memory.totals.connections()), (0, 0));
    }
}
