//! The pipeline's tables in user space.

use std::io;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use balancer_common::abi::{BackendStats, DATAGRAMS, Path, SEARCHES, ServiceStats};
use balancer_common::family::{Family, V4, V6};
use balancer_common::fragment::{Datagram, Key};
use balancer_common::hop::{HOPS, Hop, HopCell, Hops};
use balancer_common::image::{self, Cell};
use balancer_common::ports::Ports;
use balancer_common::screen::{ROWS, Row, Screen};
use balancer_common::search::Search;
use balancer_common::table::flow::Flow;
use balancer_common::table::index::NoIndex;
use balancer_common::table::tick::Tick;
use balancer_common::table::{Geometry, Lines, Totals};
use balancer_common::tables::{Reception, Tables};
use balancer_common::tuple::Tuple;
use balancer_common::verdict::{Drop, Punt};
use balancer_common::word::Word;
use dashmap::DashMap;

use super::compile::Image;
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
    image: Arc<[Cell]>,
    /// The table of ports.
    ports: Vec<Word>,
    /// The rows of the screen.
    screen: Mapped<Row>,
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
    /// The datagrams of fragments of IPv4.
    pub datagrams_v4: DashMap<Key<V4>, Datagram<V4>>,
    /// Those of IPv6.
    pub datagrams_v6: DashMap<Key<V6>, Datagram<V6>>,
    /// The searches for source ports of IPv4.
    pub searches_v4: DashMap<Tuple<V4>, Search<V4>>,
    /// Those of IPv6.
    pub searches_v6: DashMap<Tuple<V6>, Search<V6>>,
    /// How long datagrams are remembered, in ticks.
    pub fragment_timeout: u32,
    /// What the slow path says to any packet.
    pub slow_path: Reception,
    /// The longest packet that any interface takes, in bytes from the network header on.
    pub mtu: u32,
}

impl Memory {
    /// Empty tables of these sizes around an image, for backend and service ids below `ids`.
    ///
    /// # Errors
    /// There is not so much memory.
    pub fn new(image: Image, ids: usize, sizes: Sizes) -> io::Result<Self> {
        let geometry = sizes.geometry([
            0x9216_d5d9_8979_fb1b,
            0xd131_0ba6_98df_b5ad,
            0x2ffd_72db_d01a_dfb7,
            0xb8e1_afed_6a26_7e97,
            0xba7c_9045_f12c_7f99,
        ]);
        Ok(Self {
            v4: FlowTable::anonymous(geometry)?,
            v6: FlowTable::anonymous(geometry)?,
            hops: Mapped::anonymous(HOPS as usize)?,
            image: image.cells.into(),
            ports: image.ports.into_iter().map(Word::new).collect(),
            screen: Mapped::anonymous(ROWS as usize)?,
            paths: vec![Path::default(); ids],
            route: None,
            hop_generation: AtomicU16::new(1),
            clock: AtomicU64::new(0),
            seed: AtomicU64::new(1),
            tickets: DashMap::new(),
            backends: Mutex::new(vec![BackendStats::default(); ids]),
            services: Mutex::new(vec![ServiceStats::default(); ids]),
            datagrams_v4: DashMap::new(),
            datagrams_v6: DashMap::new(),
            searches_v4: DashMap::new(),
            searches_v6: DashMap::new(),
            fragment_timeout: Tick::count(Duration::from_secs(2)),
            slow_path: Reception::Nobody,
            mtu: u16::MAX.into(),
        })
    }

    /// Swaps in an image.
    pub fn set_image(&mut self, image: Image) {
        self.image = image.cells.into();
        self.ports = image.ports.into_iter().map(Word::new).collect();
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
    /// Its datagrams.
    fn datagrams(memory: &Memory) -> &DashMap<Key<Self>, Datagram<Self>>;
    /// Its searches.
    fn searches(memory: &Memory) -> &DashMap<Tuple<Self>, Search<Self>>;
}

impl InMemory for V4 {
    fn of(memory: &Memory) -> &FlowTable<V4> {
        &memory.v4
    }

    fn datagrams(memory: &Memory) -> &DashMap<Key<V4>, Datagram<V4>> {
        &memory.datagrams_v4
    }

    fn searches(memory: &Memory) -> &DashMap<Tuple<V4>, Search<V4>> {
        &memory.searches_v4
    }
}

impl InMemory for V6 {
    fn of(memory: &Memory) -> &FlowTable<V6> {
        &memory.v6
    }

    fn datagrams(memory: &Memory) -> &DashMap<Key<V6>, Datagram<V6>> {
        &memory.datagrams_v6
    }

    fn searches(memory: &Memory) -> &DashMap<Tuple<V6>, Search<V6>> {
        &memory.searches_v6
    }
}

/// A generation of the config, held for the time of one packet.
#[derive(Debug)]
pub struct Generation(Arc<[Cell]>);

impl image::Image for Generation {
    fn cell(&self, index: u32) -> Option<&Cell> {
        self.0.get(index as usize)
    }
}

impl<F: InMemory> Lines<F> for Memory {
    type Index = NoIndex;

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

impl Ports for Memory {
    fn port_word(&self, index: u32) -> Option<&Word> {
        self.ports.get(index as usize)
    }
}

impl Screen for Memory {
    fn screen_row(&self, index: u32) -> Option<&Row> {
        self.screen.get(index as usize)
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

    fn datagram(&self, key: &Key<F>) -> Option<Datagram<F>> {
        F::datagrams(self).get(key).map(|datagram| *datagram)
    }

    fn note_datagram(&self, key: &Key<F>, datagram: &Datagram<F>) {
        let datagrams = F::datagrams(self);
        if datagrams.len() >= DATAGRAMS as usize {
            let timeout = self.fragment_timeout;
            let now = Tables::<F>::now(self);
            datagrams.retain(|_, known| !known.is_stale(now, timeout));
            if datagrams.len() >= DATAGRAMS as usize {
                return;
            }
        }
        datagrams.insert(*key, *datagram);
    }

    fn advance_datagram(&self, key: &Key<F>, old: u64, new: u64) -> bool {
        let datagram = F::datagrams(self).get_mut(key);
        let Some(mut datagram) = datagram.filter(|datagram| datagram.progress == old) else {
            return false;
        };
        datagram.progress = new;
        true
    }

    fn fragment_timeout(&self) -> u32 {
        self.fragment_timeout
    }

    fn search(&self, tuple: &Tuple<F>) -> Option<Search<F>> {
        F::searches(self).get(tuple).map(|search| *search)
    }

    fn note_search(&self, tuple: &Tuple<F>, search: &Search<F>) {
        let searches = F::searches(self);
        if searches.len() >= SEARCHES as usize {
            searches.clear();
        }
        searches.insert(*tuple, *search);
    }

    fn fits(&self, _: u32, length: u32) -> bool {
        length <= self.mtu
    }

    fn offer(&self, _: Punt) -> Reception {
        self.slow_path
    }

    fn count_packet(&self, backend: u32, reply: bool, length: u16) {
        self.count(backend, |stats| stats.count_packet(reply, length));
    }

    fn count_connection(&self, backend: u32) {
        self.count(backend, |stats| stats.connections += 1);
    }

    fn count_refused(&self, service: u32, reason: Drop) {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stats) = services.get_mut(service as usize) {
            stats.count(reason);
        }
    }
}
