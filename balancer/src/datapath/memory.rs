//! The pipeline's tables in user space.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use balancer_common::abi::{BackendStats, Path, ServiceStats};
use balancer_common::family::{Family, V4, V6};
use balancer_common::flow::{Flow, Tick};
use balancer_common::hop::Hop;
use balancer_common::image::{Cell, Image};
use balancer_common::tables::{Refused, Tables};
use balancer_common::tuple::Tuple;
use balancer_common::verdict::Drop;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

/// The flows and half-open connections of one family.
#[derive(Debug)]
pub struct FamilyTables<F: Family> {
    /// Tuple to flow.
    pub flows: DashMap<Tuple<F>, Arc<Flow<F>>>,
    /// Original tuples of half-open connections.
    pub half_open: DashMap<Tuple<F>, u32>,
}

impl<F: Family> Default for FamilyTables<F> {
    fn default() -> Self {
        Self {
            flows: DashMap::new(),
            half_open: DashMap::new(),
        }
    }
}

/// The tables of both families. Time, chance and routes are those that its owner sets.
#[derive(Debug)]
pub struct Memory {
    /// IPv4.
    pub v4: FamilyTables<V4>,
    /// IPv6.
    pub v6: FamilyTables<V6>,
    /// How many flows a family may have, two a connection.
    pub max_flows: usize,
    /// How many half-open connections a family may have.
    pub max_half_open: usize,
    /// The current image.
    pub image: Arc<[Cell]>,
    /// By backend id.
    pub paths: Vec<Path>,
    /// The way to any client; `None`: the kernel has no route.
    pub route: Option<Hop>,
    /// The generation of next hops.
    pub hop_generation: AtomicU32,
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
    /// Empty tables around an image, for backend and service ids below `ids`.
    #[must_use]
    pub fn new(image: Vec<Cell>, ids: usize) -> Self {
        Self {
            v4: FamilyTables::default(),
            v6: FamilyTables::default(),
            max_flows: usize::MAX,
            max_half_open: usize::MAX,
            image: image.into(),
            paths: vec![Path::default(); ids],
            route: None,
            hop_generation: AtomicU32::new(1),
            clock: AtomicU64::new(0),
            seed: AtomicU64::new(1),
            tickets: DashMap::new(),
            backends: Mutex::new(vec![BackendStats::default(); ids]),
            services: Mutex::new(vec![ServiceStats::default(); ids]),
        }
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
    /// It.
    fn of(memory: &Memory) -> &FamilyTables<Self>;
}

impl InMemory for V4 {
    fn of(memory: &Memory) -> &FamilyTables<V4> {
        &memory.v4
    }
}

impl InMemory for V6 {
    fn of(memory: &Memory) -> &FamilyTables<V6> {
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

/// Enters a key only if it is free and there is room.
fn enter<K: Eq + std::hash::Hash, V>(
    map: &DashMap<K, V>,
    key: K,
    value: V,
    max: usize,
) -> Result<(), Refused> {
    // Like the kernel's map, which looks for the key before it looks for room.
    let full = map.len() >= max;
    match map.entry(key) {
        Entry::Occupied(_) => Err(Refused::Exists),
        Entry::Vacant(_) if full => Err(Refused::Full),
        Entry::Vacant(entry) => {
            entry.insert(value);
            Ok(())
        }
    }
}

impl<F: InMemory> Tables<F> for Memory {
    type FlowRef<'a> = Arc<Flow<F>>;
    type Image = Generation;

    fn flow(&self, tuple: &Tuple<F>) -> Option<Arc<Flow<F>>> {
        F::of(self).flows.get(tuple).map(|flow| Arc::clone(&flow))
    }

    fn enter(&self, tuple: &Tuple<F>, flow: Flow<F>) -> Result<(), Refused> {
        enter(&F::of(self).flows, *tuple, Arc::new(flow), self.max_flows)
    }

    fn remove(&self, tuple: &Tuple<F>) {
        F::of(self).flows.remove(tuple);
    }

    fn enter_half_open(&self, tuple: &Tuple<F>) -> Result<(), Refused> {
        let now = Tables::<F>::now(self).0;
        enter(&F::of(self).half_open, *tuple, now, self.max_half_open)
    }

    fn remove_half_open(&self, tuple: &Tuple<F>) {
        F::of(self).half_open.remove(tuple);
    }

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

    fn hop_generation(&self) -> u32 {
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
