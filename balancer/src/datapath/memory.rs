//! The pipeline's tables in user space.

use std::io;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use balancer_common::abi::{BackendStats, Path, ServiceStats};
use balancer_common::family::{Family, V4, V6};
use balancer_common::hop::{HOPS, Hop, HopCell, Hops};
use balancer_common::image::{Cell, Image};
use balancer_common::table::flow::Flow;
use balancer_common::table::tick::Tick;
use balancer_common::table::{Geometry, Lines, Totals};
use balancer_common::tables::Tables;
use balancer_common::verdict::Drop;
use dashmap::DashMap;

use super::flows::FlowTable;
use super::kernel::Sizes;
use super::mapped::Mapped;

/// The tables of both families. Time, chance and routes are those that its owner sets.
#[derive(Debug)]
pub struct Memory {
    /// The flow table of IPv4.
    pub v4: FlowTable<V4>,
    /// The flow table of IPv6.
    pub v6: FlowTable<V6>,
    /// The next hops of clients, by number.
    pub hops: Mapped<HopCell>,
    /// The current image.
    pub image: Arc<[Cell]>,
    /// By backend id.
    pub paths: Vec<Path>,
    /// The way to any client; `None`: the kernel has no route.
    pub route: Option<Hop>,
    /// The generation of next hops.
    pub hop_generation: AtomicU16,
    /// The time, in nanoseconds.
    pub clock: AtomicU64,
    /// The state of the random numbers.
    pub seed: AtomicU64,
    /// Tickets by service id.
    pub tickets: DashMap<u32, u64>,
    /// Counters by backend id.
    pub backends: Mutex<Vec<BackendStats>>,
    /// Counters by service id.
    pub services: Mutex<Vec<ServiceStats>>,
}

impl Memory {
    /// Empty tables of these sizes around an image, for backend and service ids below `ids`.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new(image: Vec<Cell>, ids: usize, sizes: Sizes) -> io::Result<Self> {
        let geometry = sizes.geometry([1, 2]);
        Ok(Self {
            v4: FlowTable::anonymous(geometry)?,
            v6: FlowTable::anonymous(geometry)?,
            hops: Mapped::anonymous(HOPS as usize)?,
            image: image.into(),
            paths: vec![Path::default(); ids],
            route: None,
            hop_generation: AtomicU16::new(1),
            clock: AtomicU64::new(0),
            seed: AtomicU64::new(1),
            tickets: DashMap::new(),
            backends: Mutex::new(vec![BackendStats::default(); ids]),
            services: Mutex::new(vec![ServiceStats::default(); ids]),
        })
    }

    fn count(&self, backend: u32, change: impl FnOnce(&mut BackendStats)) {
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stats) = backends.get_mut(backend as usize) {
            change(stats);
        }
    }
}

/// A family's part of the tables.
pub trait InMemory: Family {
    /// Its flow table.
    fn of(memory: &Memory) -> &FlowTable<Self>;
}

impl InMemory for V4 {
    fn of(memory: &Memory) -> &FlowTable<V4> {
        &memory.v4
    }
}

impl InMemory for V6 {
    fn of(memory: &Memory) -> &FlowTable<V6> {
        &memory.v6
    }
}

/// A generation of the config, held for the time of one packet.
#[derive(Debug)]
pub struct Generation(Arc<[Cell]>);

impl Image for Generation {
    fn cell(&self, index: u32) -> Option<&Cell> {
        self.0.get(index as usize)
    }
}

impl<F: InMemory> Lines<F> for Memory {
    fn geometry(&self) -> &Geometry {
        F::of(self).geometry()
    }

    fn line(&self, index: u32) -> Option<&Flow<F>> {
        F::of(self).line(index)
    }

    fn totals(&self) -> Option<&Totals> {
        F::of(self).totals()
    }
}

impl Hops for Memory {
    fn hop_cell(&self, number: u16) -> Option<&HopCell> {
        self.hops.get(usize::from(number))
    }
}

impl<F: InMemory> Tables<F> for Memory {
    type Image = Generation;

    fn image(&self) -> Option<Generation> {
        Some(Generation(Arc::clone(&self.image)))
    }

    fn ticket(&self, service: u32) -> u64 {
        let mut ticket = self.tickets.entry(service).or_default();
        let number = *ticket;
        *ticket += 1;
        number
    }

    fn random(&self) -> u32 {
        // SplitMix64: even, and the same for the same seed.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut word = self
            .seed
            .fetch_add(STEP, Ordering::Relaxed)
            .wrapping_add(STEP);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) as u32
    }

    fn now(&self) -> Tick {
        Tick::from_nanoseconds(self.clock.load(Ordering::Relaxed))
    }

    fn hop_generation(&self) -> u16 {
        self.hop_generation.load(Ordering::Relaxed)
    }

    fn path(&self, backend: u32) -> Option<Path> {
        self.paths.get(backend as usize).copied()
    }

    fn route(&self, _: &F::Pair, _: u32) -> Option<Hop> {
        self.route
    }

    fn count_packet(&self, backend: u32, reply: bool, length: u16) {
        self.count(backend, |stats| {
            if reply {
                stats.reply_packets += 1;
                stats.reply_bytes += u64::from(length);
            } else {
                stats.forward_packets += 1;
                stats.forward_bytes += u64::from(length);
            }
        });
    }

    fn count_connection(&self, backend: u32) {
        self.count(backend, |stats| stats.connections += 1);
    }

    fn count_refused(&self, service: u32, reason: Drop) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stats) = services.get_mut(service as usize) else {
            return;
        };
        match reason {
            Drop::NoBackend => stats.no_backend += 1,
            Drop::PortsExhausted => stats.ports_exhausted += 1,
            Drop::TableFull | Drop::HalfOpenFull => stats.table_full += 1,
            _ => {}
        }
    }
}
