//! The flow table's own code under a model checker: every order in which CPUs and the daemon can interleave (with so
//! many preemptions), and the daemon killed after each of its writes.
//!
//! `cargo xtask test model`, or `RUSTFLAGS="--cfg loom" cargo test --release --test table_model`.
#![cfg(loom)]
#![allow(clippy::unwrap_used, reason = "a test that fails here has failed")]

use balancer_common::family::{Family, V4};
use balancer_common::table::enter::{Connection, Refused, SourcePorts, enter};
use balancer_common::table::flow::{Flow, HopId, Stage};
use balancer_common::table::index::NoIndex;
use balancer_common::table::retire::{Prospect, condemn, free, kill, orphaned, recover};
use balancer_common::table::segment::Segment;
use balancer_common::table::tick::Tick;
use balancer_common::table::touch::{Touched, touch};
use balancer_common::table::{Geometry, Lines, Totals, find};
use balancer_common::tuple::{PortsProtocol, Tuple};
use balancer_common::wire::protocol::{TCP, UDP};
use balancer_common::wire::tcp::flags::{ACK, FIN, SYN};
use balancer_common::word::kill::after;
use loom::sync::{Arc, RwLock};
use loom::thread;

/// Few homes, and lines enough for what a model enters.
struct Memory {
    geometry: Geometry,
    lines: Vec<Flow<V4>>,
    totals: Totals,
    /// Stands for RCU: packets hold it for reading, a grace period is to have held it for writing.
    rcu: RwLock<()>,
}

impl Memory {
    fn new(lines: usize) -> Arc<Self> {
        Self::with_homes(lines, 2)
    }

    fn with_homes(lines: usize, homes: u32) -> Arc<Self> {
        Arc::new(Self {
            geometry: Geometry {
                keys: [
                    0x9216_d5d9_8979_fb1b,
                    0xd131_0ba6_98df_b5ad,
                    0x2ffd_72db_d01a_dfb7,
                    0xb8e1_afed_6a26_7e97,
                    0xba7c_9045_f12c_7f99,
                ],
                homes,
                overflows: 1,
                max_connections: 2,
                max_half_open: 2,
            },
            lines: (0..lines).map(|_| Flow::default()).collect(),
            totals: Totals::default(),
            rcu: RwLock::new(()),
        })
    }

    /// A packet's time.
    fn packet<T>(&self, work: impl FnOnce(&Self) -> T) -> T {
        let _reading = self.rcu.read().unwrap();
        work(self)
    }

    /// All packets that were under way have ended.
    fn grace(&self) {
        drop(self.rcu.write().unwrap());
    }

    /// A pass of the daemon, which removes what `is_over` says.
    fn sweep(&self, is_over: impl Fn(&Prospect) -> bool) {
        for line in &self.lines {
            condemn(self, line, &is_over);
        }
        let lines = || (0..).zip(&self.lines);
        let dead: Vec<u32> = lines()
            .filter(|(_, line)| line.meta().is(Stage::Dead))
            .map(|(index, _)| index)
            .collect();
        let orphans: Vec<&Flow<V4>> = lines()
            .map(|(_, line)| line)
            .filter(|line| orphaned(self, line))
            .collect();
        self.grace();
        for index in dead {
            free(self, index);
        }
        for reply in orphans {
            if orphaned(self, reply) {
                kill(reply);
            }
        }
    }

    /// What must hold when nobody is at work: `pairs` connections, of which `half` are half-open, and nothing else.
    fn check(&self, pairs: usize, half: u64) {
        let visible: Vec<&Flow<V4>> = self
            .lines
            .iter()
            .filter(|line| line.meta().is_visible())
            .collect();
        for flow in &visible {
            let found = find(self, &flow.tuple()).expect("a visible flow is found");
            assert!(std::ptr::eq(found, *flow), "a tuple has one flow");
            let peer = find(self, &flow.peer()).expect("both or none");
            assert_eq!(peer.peer(), flow.tuple());
            assert_ne!(peer.is_reply(), flow.is_reply());
        }
        assert_eq!(visible.len(), 2 * pairs);
        assert_eq!(self.totals.connections(), pairs as u64);
        assert_eq!(self.totals.half_open(), half);
        let free = self
            .lines
            .iter()
            .filter(|line| line.meta().is(Stage::Free))
            .count();
        assert_eq!(free + visible.len(), self.lines.len(), "no line is lost");
    }
}

impl Lines<V4> for Memory {
    type Index = NoIndex;

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn line(&self, index: u32) -> Option<&Flow<V4>> {
        self.lines.get(index as usize)
    }

    fn totals(&self) -> Option<&Totals> {
        Some(&self.totals)
    }
}

fn tuple(source: u32, destination: u32, ports: (u16, u16), protocol: u8) -> Tuple<V4> {
    Tuple {
        addresses: V4::pair(source, destination),
        ports: PortsProtocol::new(ports.0, ports.1, protocol),
    }
}

/// The first packet of a client.
fn original(client: u32, protocol: u8) -> Tuple<V4> {
    tuple(client, 9, (4000, 80), protocol)
}

fn reply(port: u16, protocol: u8) -> Tuple<V4> {
    tuple(8, 7, (80, port), protocol)
}

/// Opens a connection of a client, with a reply to one of the ports from `port` on.
fn open(memory: &Memory, client: u32, port: u16, protocol: u8, now: u32) -> Result<(), Refused> {
    let mut connection = Connection {
        tuple: original(client, protocol),
        reply: reply(port, protocol),
        source_ports: SourcePorts {
            first: port,
            last: port + 1,
        },
        service: 1,
        backend: 1,
        tagged: false,
        segment: segment(protocol, SYN),
        back: HopId {
            number: 1,
            generation: 1,
        },
        now: Tick(now),
    };
    // The other one first.
    enter(memory, &mut connection, || 1 << 31)
}

/// A segment with these control bits, of a connection whose numbers begin with 0 both ways.
fn segment(protocol: u8, flags: u8) -> Segment {
    match protocol {
        TCP => Segment::new(flags, u32::from(flags & SYN == 0), 1),
        _ => Segment::DATAGRAM,
    }
}

/// A packet of the tuple, as the pipeline treats it. Says whether it was forwarded.
fn packet(memory: &Memory, tuple: &Tuple<V4>, flags: u8, now: u32) -> bool {
    let segment = segment(tuple.ports.protocol(), flags);
    find(memory, tuple)
        .is_some_and(|flow| touch(memory, flow, segment, Tick(now)) == Touched::Alive)
}

const OLD: u32 = 0;
const NOW: u32 = 10_000;

fn idle(prospect: &Prospect) -> bool {
    NOW.wrapping_sub(prospect.last_seen.0) > 1000
}

/// How often a thread is interrupted at most: `BALANCER_PREEMPTIONS`, else what is quick.
fn preemptions() -> usize {
    std::env::var("BALANCER_PREEMPTIONS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2)
}

fn model(work: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions());
    model.max_branches = 10_000;
    model.check(work);
}

/// Two threads, and who waits for both: so neither is ahead of the other for nothing.
fn both<A: 'static, B: 'static>(
    memory: &Arc<Memory>,
    one: impl FnOnce(&Memory) -> A + 'static,
    other: impl FnOnce(&Memory) -> B + 'static,
) -> (A, B) {
    let (first, second) = (Arc::clone(memory), Arc::clone(memory));
    let one = thread::spawn(move || one(&first));
    let other = thread::spawn(move || other(&second));
    (one.join().unwrap(), other.join().unwrap())
}

#[test]
fn two_cpus_open_one_connection() {
    model(|| {
        let memory = Memory::new(4);
        let (theirs, ours) = both(
            &memory,
            |memory| memory.packet(|memory| open(memory, 1, 10, TCP, NOW)),
            |memory| memory.packet(|memory| open(memory, 1, 20, TCP, NOW)),
        );
        let opened = usize::from(ours.is_ok()) + usize::from(theirs.is_ok());
        for result in [ours, theirs] {
            assert!(matches!(
                result,
                Ok(()) | Err(Refused::Exists | Refused::Busy | Refused::Full)
            ));
        }
        assert!(opened == 1, "{ours:?} {theirs:?}");
        memory.check(1, 1);
    });
}

#[test]
fn two_connections_want_one_port() {
    model(|| {
        // Three homes: neither original's lock is the reply's.
        let memory = Memory::with_homes(8, 3);
        let home = |tuple| memory.geometry.home(&tuple);
        let port = (10..100).find(|&port| home(reply(port, TCP)) == 2).unwrap();
        let client = |wanted| {
            (1..100)
                .find(|&client| home(original(client, TCP)) == wanted)
                .unwrap()
        };
        let (first, second) = (client(0), client(1));
        let (theirs, ours) = both(
            &memory,
            move |memory| memory.packet(|memory| open(memory, first, port, TCP, NOW)),
            move |memory| memory.packet(|memory| open(memory, second, port, TCP, NOW)),
        );
        let opened = usize::from(ours.is_ok()) + usize::from(theirs.is_ok());
        for result in [ours, theirs] {
            assert!(matches!(
                result,
                Ok(()) | Err(Refused::Busy | Refused::Taken)
            ));
        }
        assert!(opened >= 1, "{ours:?} {theirs:?}");
        memory.check(opened, opened as u64);
    });
}

#[test]
fn a_visible_original_has_its_reply() {
    model(|| {
        let memory = Memory::new(4);
        let (opened, ()) = both(
            &memory,
            |memory| memory.packet(|memory| open(memory, 1, 10, UDP, NOW)),
            |memory| {
                memory.packet(|memory| {
                    if let Some(flow) = find(memory, &original(1, UDP)) {
                        let reply = find(memory, &flow.peer()).expect("its reply is there");
                        assert_eq!(reply.peer(), original(1, UDP));
                        assert_eq!(flow.backend(), 1);
                    }
                });
            },
        );
        opened.unwrap();
        memory.check(1, 1);
    });
}

/// A packet of an idle connection comes while the daemon, killed after each of its writes, removes it: the connection
/// is whole or gone, the packet knows which, and the next daemon makes everything right.
fn idle_connection_and(
    prepare: impl Fn(&Memory) + Sync + Send + Copy + 'static,
    arriving: impl Fn(&Memory) -> bool + Sync + Send + Copy + 'static,
) {
    for writes in 0..16 {
        model(move || {
            let memory = Memory::new(5);
            prepare(&memory);
            let (_, forwarded) = both(
                &memory,
                move |memory| after(writes, || memory.sweep(idle)),
                move |memory| memory.packet(arriving),
            );
            recover(&*memory);
            memory.grace();
            let alive = find(&*memory, &original(1, TCP))
                .or_else(|| find(&*memory, &original(1, UDP)))
                .is_some();
            assert!(
                alive || !forwarded,
                "a packet was forwarded, and its connection removed (daemon killed after {writes} writes): {:x?}",
                memory
                    .lines
                    .iter()
                    .map(|line| (line.meta(), line.is_reply()))
                    .collect::<Vec<_>>()
            );
            // The backend has something left to say.
            let protocol = if find(&*memory, &reply(10, TCP)).is_some() {
                TCP
            } else {
                UDP
            };
            let late = memory.packet(|memory| packet(memory, &reply(10, protocol), ACK, NOW));
            assert!(
                late == alive,
                "a reply goes by its original: {late}, {alive}"
            );
            memory.sweep(idle);
            memory.sweep(idle);
            if alive {
                memory.check(1, 0);
            } else {
                memory.check(0, 0);
            }
        });
    }
}

#[test]
fn the_client_speaks_while_the_daemon_removes_the_connection() {
    idle_connection_and(
        |memory| {
            open(memory, 1, 10, TCP, OLD).unwrap();
            assert!(packet(memory, &reply(10, TCP), SYN | ACK, OLD));
            assert!(packet(memory, &original(1, TCP), ACK, OLD));
            assert!(packet(memory, &reply(10, TCP), ACK, OLD));
        },
        |memory| packet(memory, &original(1, TCP), ACK, NOW),
    );
}

#[test]
fn the_backend_speaks_while_the_daemon_removes_the_connection() {
    idle_connection_and(
        |memory| {
            open(memory, 1, 10, TCP, OLD).unwrap();
            assert!(packet(memory, &reply(10, TCP), SYN | ACK, OLD));
            assert!(packet(memory, &original(1, TCP), ACK, OLD));
            assert!(packet(memory, &reply(10, TCP), ACK, OLD));
        },
        |memory| packet(memory, &reply(10, TCP), ACK, NOW),
    );
}

#[test]
fn an_answer_completes_a_connection_while_the_daemon_removes_it() {
    idle_connection_and(
        |memory| open(memory, 1, 10, UDP, OLD).unwrap(),
        |memory| packet(memory, &reply(10, UDP), 0, NOW),
    );
}

#[test]
fn a_client_returns_while_the_daemon_removes_its_old_connection() {
    for writes in 0..16 {
        model(move || {
            let memory = Memory::new(5);
            open(&memory, 1, 10, TCP, OLD).unwrap();
            for (tuple, flags) in [
                (reply(10, TCP), SYN | ACK),
                (original(1, TCP), ACK),
                (original(1, TCP), FIN | ACK),
                (reply(10, TCP), FIN | ACK),
            ] {
                assert!(packet(&memory, &tuple, flags, OLD));
            }
            let (_, opened) = both(
                &memory,
                move |memory| after(writes, || memory.sweep(idle)),
                |memory| memory.packet(|memory| open(memory, 1, 10, TCP, NOW)),
            );
            recover(&*memory);
            memory.grace();
            assert!(
                matches!(opened, Ok(()) | Err(Refused::Exists)),
                "{opened:?}"
            );
            for _ in 0..3 {
                memory.sweep(idle);
            }
            let pairs = usize::from(opened.is_ok());
            memory.check(pairs, pairs as u64);
        });
    }
}

/// The datagram of a client opens another connection, which has another port since the old reply is there still; to that
/// one an answer comes late.
#[test]
fn a_client_returns_before_the_answer_to_its_old_connection() {
    for writes in 0..16 {
        model(move || {
            let memory = Memory::new(8);
            open(&memory, 1, 10, UDP, OLD).unwrap();
            let (_, (opened, late)) = both(
                &memory,
                move |memory| after(writes, || memory.sweep(idle)),
                |memory| {
                    let opened = memory.packet(|memory| open(memory, 1, 20, UDP, NOW));
                    let late = memory.packet(|memory| packet(memory, &reply(10, UDP), 0, NOW));
                    (opened, late)
                },
            );
            recover(&*memory);
            memory.grace();
            match opened {
                Ok(()) => assert!(!late, "the old connection is gone"),
                Err(refused) => assert_eq!(refused, Refused::Exists),
            }
            for _ in 0..3 {
                memory.sweep(idle);
            }
            match (opened, late) {
                (Ok(()), _) => memory.check(1, 1),
                (_, true) => memory.check(1, 0),
                (_, false) => memory.check(0, 0),
            }
        });
    }
}

/// As a flush does, the daemon tries again at once when a packet was faster.
#[test]
fn an_answer_comes_while_the_daemon_tries_twice() {
    model(|| {
        let memory = Memory::new(5);
        open(&memory, 1, 10, UDP, OLD).unwrap();
        both(
            &memory,
            |memory| {
                let line = find(memory, &original(1, UDP)).unwrap();
                let _ = condemn(memory, line, |_| true) || condemn(memory, line, |_| true);
            },
            |memory| memory.packet(|memory| packet(memory, &reply(10, UDP), 0, NOW)),
        );
        let alive = find(&*memory, &original(1, UDP)).is_some();
        memory.sweep(|_| false);
        memory.sweep(|_| false);
        memory.check(usize::from(alive), 0);
    });
}

#[test]
fn a_line_is_given_to_another_while_a_packet_of_the_first_is_under_way() {
    model(|| {
        // Room for one pair: the second connection gets the lines of the first.
        let memory = Memory::new(3);
        open(&memory, 1, 10, UDP, OLD).unwrap();
        let (_, ()) = both(
            &memory,
            |memory| {
                memory.sweep(idle);
                memory.packet(|memory| open(memory, 2, 20, UDP, NOW))
            },
            |memory| {
                memory.packet(|memory| {
                    if let Some(flow) = find(memory, &original(1, UDP)) {
                        assert_eq!(flow.tuple(), original(1, UDP));
                        if touch(memory, flow, Segment::DATAGRAM, Tick(NOW)) == Touched::Alive {
                            assert_eq!(flow.peer(), reply(10, UDP));
                        }
                    }
                });
            },
        );
        for flow in memory.lines.iter().filter(|line| line.meta().is_visible()) {
            assert!(find(&*memory, &flow.peer()).is_some());
        }
    });
}
