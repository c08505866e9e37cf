//! A packet vector: services, frames in, and for each what is expected of it; then the counters and tables.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use balancer_common::abi::{BackendStats, ServiceStats};
use balancer_common::hop::Hop;
use balancer_common::table::state::Phase;
use balancer_common::tables::Reception;
use balancer_common::verdict::{Drop, Pass, Punt, Verdict};
use balancer_common::wire::protocol;

use super::engines::{Engines, SHORTEST, Setting};
use super::flows::tuple;
use super::frame::{Frame, quote};
use super::{BACKEND_MAC, BACKEND_SIDE, BOX_MAC, CLIENT_MAC, CLIENT_SIDE};

/// What becomes of a frame. All that is not said here comes out as it went in, but for one hop less and checksums
/// to match.
#[derive(Clone, Debug)]
pub enum Expected {
    /// It is sent on with other MAC addresses and between other ends.
    Sent {
        verdict: Verdict,
        /// Destination, then source.
        macs: [[u8; 6]; 2],
        source: String,
        destination: String,
        /// What it carries then, if that changes.
        payload: Option<Vec<u8>>,
    },
    /// It stays as it is.
    Untouched(Verdict),
}

impl Expected {
    /// The same by another interface, with other MAC addresses: destination, then source.
    #[must_use]
    pub fn by(self, new: Verdict, new_macs: [[u8; 6]; 2]) -> Self {
        match self {
            Self::Sent {
                source,
                destination,
                payload,
                ..
            } => Self::Sent {
                verdict: new,
                macs: new_macs,
                source,
                destination,
                payload,
            },
            Self::Untouched(_) => panic!("an untouched frame goes nowhere"),
        }
    }

    /// The same of an error, which then quotes so many bytes of this packet.
    #[must_use]
    pub fn quoting(mut self, quoted: &Frame, length: usize) -> Self {
        match &mut self {
            Self::Sent { payload, .. } => *payload = Some(quote(quoted, length)),
            Self::Untouched(_) => panic!("an untouched frame quotes what it has quoted"),
        }
        self
    }

    /// The verdict.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Sent { verdict, .. } | Self::Untouched(verdict) => *verdict,
        }
    }
}

/// Sent to a backend, between these ends.
pub fn to_backend(source: &str, destination: &str) -> Expected {
    Expected::Sent {
        verdict: Verdict::Redirect(BACKEND_SIDE),
        macs: [BACKEND_MAC, BOX_MAC],
        source: source.to_owned(),
        destination: destination.to_owned(),
        payload: None,
    }
}

/// Sent to the client, between these ends.
pub fn to_client(source: &str, destination: &str) -> Expected {
    to_backend(source, destination).by(Verdict::Redirect(CLIENT_SIDE), [CLIENT_MAC, BOX_MAC])
}

/// Left to the kernel.
pub fn passed(reason: Pass) -> Expected {
    Expected::Untouched(reason.into())
}

/// Dropped.
pub fn dropped(reason: Drop) -> Expected {
    Expected::Untouched(reason.into())
}

/// Handed over.
pub fn punted(reason: Punt) -> Expected {
    Expected::Untouched(reason.into())
}

enum Step {
    Frame {
        interface: u32,
        input: Box<Frame>,
        expected: Expected,
    },
    Behind(u64),
    Reload(&'static str),
    Phase(Phase),
    Ways {
        hop: Hop,
        route: Option<Hop>,
    },
    Forget {
        source: &'static str,
        destination: &'static str,
    },
}

/// A packet vector.
pub struct Vector {
    /// What it shows.
    pub name: &'static str,
    setting: Setting,
    steps: Vec<Step>,
    backends: Vec<(u32, BackendStats)>,
    services: Vec<(u32, ServiceStats)>,
    flows: usize,
    half_open: usize,
}

impl Vector {
    /// One that shows what `name` says, in a box with these services.
    pub fn new(name: &'static str, services: &str) -> Self {
        Self {
            name,
            setting: Setting {
                services: services.to_owned(),
                ..Setting::default()
            },
            steps: Vec::new(),
            backends: Vec::new(),
            services: Vec::new(),
            flows: 0,
            half_open: 0,
        }
    }

    /// Source NAT has only these ports: `"FIRST-LAST"`, as a key of the config.
    pub fn source_ports(mut self, key: &'static str) -> Self {
        self.setting.datapath = key;
        self
    }

    /// Another way to every backend.
    pub fn hop(mut self, hop: Hop) -> Self {
        self.setting.hop = hop;
        self
    }

    /// The kernel has this route to every client.
    pub fn route(mut self, hop: Hop) -> Self {
        self.setting.route = Some(hop);
        self
    }

    /// The first backend has this id.
    pub fn first_backend(mut self, id: u32) -> Self {
        self.setting.first_backend = id;
        self
    }

    /// The flow table has room for so many connections.
    pub fn free_connections(mut self, connections: u32) -> Self {
        self.setting.free_connections = Some(connections);
        self
    }

    /// There is room for so many half-open connections.
    pub fn free_half_open(mut self, connections: u32) -> Self {
        self.setting.free_half_open = Some(connections);
        self
    }

    /// Somebody takes what is handed over.
    pub fn slow_path(mut self) -> Self {
        self.setting.slow_path = Reception::Taken;
        self
    }

    /// There is a slow path, and it takes no more.
    pub fn full_slow_path(mut self) -> Self {
        self.setting.slow_path = Reception::Full;
        self
    }

    /// Every interface has this MTU.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.setting.mtu = mtu;
        self
    }

    /// A frame comes in.
    pub fn frame(mut self, interface: u32, input: Frame, expected: Expected) -> Self {
        self.steps.push(Step::Frame {
            interface,
            input: Box::new(input),
            expected,
        });
        self
    }

    /// A frame comes in from a client.
    pub fn client(self, input: Frame, expected: Expected) -> Self {
        self.frame(CLIENT_SIDE, input, expected)
    }

    /// A frame comes in from a backend.
    pub fn backend(self, input: Frame, expected: Expected) -> Self {
        self.frame(BACKEND_SIDE, input.macs(BOX_MAC, BACKEND_MAC), expected)
    }

    /// What follows comes to a CPU whose clock is behind by so many milliseconds. Of the kernel the clock is its own.
    pub fn behind(mut self, milliseconds: u64) -> Self {
        self.steps.push(Step::Behind(milliseconds));
        self
    }

    /// The services become these.
    pub fn reload(mut self, services: &'static str) -> Self {
        self.steps.push(Step::Reload(services));
        self
    }

    /// There is one connection, which stands there now.
    pub fn stands(mut self, phase: Phase) -> Self {
        self.steps.push(Step::Phase(phase));
        self
    }

    /// The ways to backends and clients become these, and flows ask for them again.
    pub fn ways(mut self, hop: Hop, route: Option<Hop>) -> Self {
        self.steps.push(Step::Ways { hop, route });
        self
    }

    /// A TCP flow over IPv4 is gone, and the other direction's is not.
    pub fn forget(mut self, source: &'static str, destination: &'static str) -> Self {
        self.steps.push(Step::Forget {
            source,
            destination,
        });
        self
    }

    /// What is counted for a backend in the end: connections, then packets and bytes from and to clients. Of
    /// backends that are not named, nothing is.
    pub fn counts(mut self, id: u32, connections: u64, forward: [u64; 2], reply: [u64; 2]) -> Self {
        let stats = BackendStats {
            connections,
            forward_packets: forward[0],
            forward_bytes: forward[1],
            reply_packets: reply[0],
            reply_bytes: reply[1],
        };
        self.backends.push((id, stats));
        self
    }

    /// What a service has refused in the end. Those that are not named have refused nothing.
    pub fn refused(mut self, id: u32, stats: ServiceStats) -> Self {
        self.services.push((id, stats));
        self
    }

    /// How many flows, and among them how many half-open connections, frames have entered in the end.
    pub fn leaves(mut self, flows: usize, half_open: usize) -> Self {
        (self.flows, self.half_open) = (flows, half_open);
        self
    }

    /// The verdicts that it expects.
    pub fn verdicts(&self) -> impl Iterator<Item = Verdict> {
        self.steps.iter().filter_map(|step| match step {
            Step::Frame { expected, .. } => Some(expected.verdict()),
            _ => None,
        })
    }

    /// The frames that come in, with the interface that they come by.
    pub fn frames(&self) -> impl Iterator<Item = (u32, Vec<u8>)> {
        self.steps.iter().filter_map(|step| match step {
            Step::Frame {
                interface, input, ..
            } => Some((*interface, input.build())),
            _ => None,
        })
    }

    /// Runs it, on both engines if both are there.
    fn run(&self, engines: &mut Engines) -> usize {
        engines.about = format!("{}: at the start", self.name);
        engines.set_up(&self.setting);
        let mut not_in_kernel = 0;
        for (number, step) in (1..).zip(&self.steps) {
            engines.about = format!("{}: step {number}", self.name);
            match step {
                Step::Frame {
                    interface,
                    input,
                    expected,
                } => not_in_kernel += usize::from(!run_frame(engines, *interface, input, expected)),
                Step::Behind(milliseconds) => {
                    let clock = &engines.memory.clock;
                    clock.fetch_sub(milliseconds * 1_000_000, Ordering::Relaxed);
                }
                Step::Reload(services) => engines.load(services, self.setting.datapath),
                Step::Phase(phase) => engines.expect_phase(*phase),
                Step::Ways { hop, route } => {
                    engines.set_hop(*hop);
                    engines.memory.route = *route;
                    engines.invalidate_hops();
                }
                Step::Forget {
                    source,
                    destination,
                } => {
                    let [from, to] = [source, destination].map(|end| end.parse().unwrap());
                    engines.forget(&tuple(from, to, protocol::TCP));
                }
            }
            engines.compare();
        }
        engines.about = format!("{}: in the end", self.name);
        self.check_counters(engines);
        not_in_kernel
    }

    fn check_counters(&self, engines: &Engines) {
        let about = &engines.about;
        for (id, found) in (0..).zip(engines.memory.backends.lock().unwrap().iter()) {
            assert_eq!(*found, entry(&self.backends, id), "{about}: backend {id}");
        }
        for (id, found) in (0..).zip(engines.memory.services.lock().unwrap().iter()) {
            assert_eq!(*found, entry(&self.services, id), "{about}: service {id}");
        }
        assert_eq!(
            engines.entered(),
            [self.flows, self.half_open],
            "{about}: flows and half-open connections"
        );
        // As long as no flow was removed, what they count is what the backends count.
        let counted = self.backends.iter().fold([0; 5], |sum, (_, stats)| {
            [
                sum[0] + stats.connections,
                sum[1] + stats.forward_packets,
                sum[2] + stats.forward_bytes,
                sum[3] + stats.reply_packets,
                sum[4] + stats.reply_bytes,
            ]
        });
        if counted[0] * 2 == self.flows as u64 {
            assert_eq!(engines.flow_counters(), counted[1..], "{about}: flows");
        }
    }
}

/// Runs a frame. Says whether the kernel took it too, if it is there.
fn run_frame(engines: &mut Engines, interface: u32, input: &Frame, expected: &Expected) -> bool {
    let bytes = input.build();
    let (verdict, output) = engines.run(interface, &bytes);
    assert_eq!(verdict, expected.verdict(), "{}", engines.about);
    let right = match expected {
        Expected::Untouched(_) => bytes.clone(),
        Expected::Sent {
            macs,
            source,
            destination,
            payload,
            ..
        } => {
            let [to, from] = *macs;
            let mut output = input.clone().macs(to, from).forwarded();
            if let Some(payload) = payload {
                output = output.payload(payload);
            }
            output.between(source, destination).build()
        }
    };
    let about = &engines.about;
    assert_eq!(output, right, "{about}: out, and expected, of {bytes:02x?}");
    bytes.len() >= SHORTEST || !engines.has_kernel()
}

fn entry<T: Copy + Default>(expected: &[(u32, T)], id: u32) -> T {
    let entry = expected.iter().find(|(its, _)| *its == id);
    entry.map_or_else(T::default, |(_, stats)| *stats)
}

/// Runs all vectors of a table, and fails with the names of those that failed.
pub fn run_all(table: &[Vector], engines: &mut Engines) {
    let mut not_in_kernel = 0;
    let mut failed = Vec::new();
    for vector in table {
        match catch_unwind(AssertUnwindSafe(|| vector.run(engines))) {
            Ok(frames) => not_in_kernel += frames,
            Err(_) => failed.push(vector.name),
        }
    }
    let frames: usize = table.iter().map(|vector| vector.verdicts().count()).sum();
    let where_run = if engines.has_kernel() {
        format!(
            "in user space and, but for {not_in_kernel} that BPF_PROG_TEST_RUN takes for too short, in the kernel"
        )
    } else {
        "in user space; in the kernel: test `vectors_kernel`, as root".to_owned()
    };
    println!("{} vectors, {frames} frames {where_run}", table.len());
    assert!(
        failed.is_empty(),
        "{} of {} vectors failed:\n  {}",
        failed.len(),
        table.len(),
        failed.join("\n  ")
    );
}
