//! The maps, and the pipeline's tables made of them.
//!
//! Sizes marked "set by the loader" are those of the config; here stands the least that the verifier accepts.

use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::bindings::{
    BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_NOEXIST, bpf_fib_lookup as FibParameters,
};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_coarse_ns,
};
use aya_ebpf::macros::btf_map;
use balancer_common::abi::{
    BackendStats, DATAGRAMS, Globals, Identity, Link, MAX_BACKENDS, MAX_LINKS, MAX_SERVICES, Path,
    SEARCHES, ServiceStats, Stats,
};
use balancer_common::family::{Family, KEYS, V4, V6};
use balancer_common::fragment::{self, Datagram, Key, Room};
use balancer_common::hop::{HOPS as HOP_CELLS, Hop, HopCell, Hops};
use balancer_common::image::{Cell, Image};
use balancer_common::open::{self, Opening};
use balancer_common::packet::Packet;
use balancer_common::ports::{PORT_WORDS, Ports};
use balancer_common::screen::{ROWS, Row, Screen};
use balancer_common::search::Search;
use balancer_common::table::enter::{Connection, Refused};
use balancer_common::table::flow::Flow;
use balancer_common::table::index::{self, Index};
use balancer_common::table::segment::{Advanced, Segment, Side};
use balancer_common::table::tick::Tick;
use balancer_common::table::touch::Touched;
use balancer_common::table::{Geometry, Lines, Totals};
use balancer_common::tables::{Reception, Tables};
use balancer_common::tuple::Tuple;
use balancer_common::verdict::{Drop, Exit, Punt, Way};
use balancer_common::word::Word;

use crate::functions::{self, Functions};
use crate::packet::opaque;
use crate::slow;

/// An array that the daemon maps into its memory.
pub type Shared<T, const N: usize> = Array<T, N, { BPF_F_MMAPABLE as usize }>;
/// The cells of an image, as plain words: before Linux 6.2 an array whose values BTF knows as a structure cannot be
/// replaced by one without BTF, as the daemon makes them (`timer_off` in the kernel's `bpf_map_meta_equal`).
type Cells = Array<[u64; size_of::<Cell>() / 8], 1, { BPF_F_INNER_MAP as usize }>;

#[btf_map]
static FLOWS_V4: Shared<Flow<V4>, 1> = Shared::new(); // set by the loader
#[btf_map]
static FLOWS_V6: Shared<Flow<V6>, 1> = Shared::new(); // set by the loader
#[btf_map]
static INDEX_V4: HashMap<Tuple<V4>, u32, 1> = HashMap::new(); // set by the loader
#[btf_map]
static INDEX_V6: HashMap<Tuple<V6>, u32, 1> = HashMap::new(); // set by the loader
#[btf_map]
static DATAGRAMS_V4: LruHashMap<Key<V4>, Datagram<V4>, { DATAGRAMS as usize }> = LruHashMap::new();
#[btf_map]
static DATAGRAMS_V6: LruHashMap<Key<V6>, Datagram<V6>, { DATAGRAMS as usize }> = LruHashMap::new();
#[btf_map]
static SEARCHES_V4: LruHashMap<Tuple<V4>, Search<V4>, { SEARCHES as usize }> = LruHashMap::new();
#[btf_map]
static SEARCHES_V6: LruHashMap<Tuple<V6>, Search<V6>, { SEARCHES as usize }> = LruHashMap::new();
#[btf_map]
static TOTALS: Shared<Totals, 2> = Shared::new();
#[btf_map]
pub static LINKS: HashMap<u32, Link, { MAX_LINKS as usize }> = HashMap::new();
#[btf_map]
static HOPS: Shared<HopCell, { HOP_CELLS as usize }> = Shared::new();
#[btf_map]
static IMAGE: ArrayOfMaps<Cells, 1> = ArrayOfMaps::new();
#[btf_map]
static PORTS: Shared<Word, { PORT_WORDS as usize }> = Shared::new();
#[btf_map]
static SCREEN: Shared<Row, { ROWS as usize }> = Shared::new(); // nobody maps it, but so a row is a line of the cache
#[btf_map]
static GLOBALS: Shared<Globals, 1> = Shared::new();
#[btf_map]
static PATHS: Shared<Path, { MAX_BACKENDS as usize }> = Shared::new();
#[btf_map]
static TICKETS: Shared<u64, { MAX_SERVICES as usize }> = Shared::new();
#[btf_map]
static STATS: PerCpuArray<Stats, 1> = PerCpuArray::new();
#[btf_map]
static WORKERS_STATS: Array<Stats, 1> = Array::new();
#[btf_map]
static BACKEND_STATS: PerCpuArray<BackendStats, { MAX_BACKENDS as usize }> = PerCpuArray::new();
#[btf_map]
static SERVICE_STATS: PerCpuArray<ServiceStats, { MAX_SERVICES as usize }> = PerCpuArray::new();
#[btf_map]
static CLOCK: PerCpuArray<Clock, 1> = PerCpuArray::new();
#[btf_map]
static SCRATCH_V4: PerCpuArray<Scratch<V4>, 1> = PerCpuArray::new();
#[btf_map]
static SCRATCH_V6: PerCpuArray<Scratch<V6>, 1> = PerCpuArray::new();
#[btf_map]
static SERVICES: Array<Identity, { MAX_SERVICES as usize }> = Array::new();
#[btf_map]
static BACKENDS: Array<Identity, { MAX_BACKENDS as usize }> = Array::new();

/// The time as it was last asked for. The coarse clock moves when jiffies do, and those can be read by one load, while
/// to ask the clock costs as much as a lookup in a hash. (On another CPU the one can be seen to move a little before
/// the other: a tick is then late by a jiffy.)
#[repr(C)]
pub struct Clock {
    jiffies: u64,
    nanoseconds: u64,
}

/// What one packet needs for a moment and the stack of 512 bytes has no room for.
#[repr(C)]
pub struct Scratch<F: Family> {
    opening: Opening,
    connection: Connection<F>,
    key: Tuple<F>,
    room: Room<F>,
}

/// [`balancer_common::abi::GEOMETRY`]: the same for both families.
#[unsafe(no_mangle)]
static GEOMETRY: Geometry = Geometry::new([0; KEYS], 0, 0);

/// [`balancer_common::abi::INDEXED`]. The verifier knows it when it sees the program, and cuts off the other branch.
#[unsafe(no_mangle)]
static INDEXED: u8 = 0;

/// The maps of a family.
pub trait FamilyMaps: Functions {
    /// The index of the flow table.
    fn index() -> &'static HashMap<Tuple<Self>, u32, 1>;
    /// A line of the flow table.
    fn line(index: u32) -> Option<&'static Flow<Self>>;
    /// The datagrams of fragments.
    fn datagrams() -> &'static LruHashMap<Key<Self>, Datagram<Self>, { DATAGRAMS as usize }>;
    /// The searches for source ports.
    fn searches() -> &'static LruHashMap<Tuple<Self>, Search<Self>, { SEARCHES as usize }>;
    /// The index of the table's totals.
    const TOTALS: u32;
    /// This CPU's room for what the stack has none for.
    fn scratch() -> Option<*mut Scratch<Self>>;
    /// Fills in a FIB query.
    fn query(parameters: &mut FibParameters, addresses: &Self::Pair);
}

/// The size of a FIB query, as the helper wants it.
const FIB_PARAMETERS: i32 = 64;
const _: () = assert!(size_of::<FibParameters>() == 64);

/// `AF_INET` and `AF_INET6` of Linux.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

impl FamilyMaps for V4 {
    #[inline(always)]
    fn index() -> &'static HashMap<Tuple<V4>, u32, 1> {
        &INDEX_V4
    }

    #[inline(always)]
    fn datagrams() -> &'static LruHashMap<Key<V4>, Datagram<V4>, { DATAGRAMS as usize }> {
        &DATAGRAMS_V4
    }

    #[inline(always)]
    fn searches() -> &'static LruHashMap<Tuple<V4>, Search<V4>, { SEARCHES as usize }> {
        &SEARCHES_V4
    }

    const TOTALS: u32 = 0;

    #[inline(always)]
    fn line(index: u32) -> Option<&'static Flow<V4>> {
        FLOWS_V4.get(index)
    }

    #[inline(always)]
    fn scratch() -> Option<*mut Scratch<V4>> {
        SCRATCH_V4.get_ptr_mut(0)
    }

    #[inline(always)]
    fn query(parameters: &mut FibParameters, addresses: &u64) {
        parameters.family = AF_INET;
        parameters.__bindgen_anon_3.ipv4_src = V4::source(*addresses);
        parameters.__bindgen_anon_4.ipv4_dst = V4::destination(*addresses);
    }
}

impl FamilyMaps for V6 {
    #[inline(always)]
    fn index() -> &'static HashMap<Tuple<V6>, u32, 1> {
        &INDEX_V6
    }

    #[inline(always)]
    fn datagrams() -> &'static LruHashMap<Key<V6>, Datagram<V6>, { DATAGRAMS as usize }> {
        &DATAGRAMS_V6
    }

    #[inline(always)]
    fn searches() -> &'static LruHashMap<Tuple<V6>, Search<V6>, { SEARCHES as usize }> {
        &SEARCHES_V6
    }

    const TOTALS: u32 = 1;

    #[inline(always)]
    fn line(index: u32) -> Option<&'static Flow<V6>> {
        FLOWS_V6.get(index)
    }

    #[inline(always)]
    fn scratch() -> Option<*mut Scratch<V6>> {
        SCRATCH_V6.get_ptr_mut(0)
    }

    #[inline(always)]
    fn query(parameters: &mut FibParameters, addresses: &[u64; 4]) {
        parameters.family = AF_INET6;
        parameters.__bindgen_anon_3.ipv6_src = words(V6::source(*addresses));
        parameters.__bindgen_anon_4.ipv6_dst = words(V6::destination(*addresses));
    }
}

/// An address as four words of 32 bits, as they lie in memory.
#[inline(always)]
fn words(address: [u64; 2]) -> [u32; 4] {
    let [a, b] = [address[0] as u32, (address[0] >> 32) as u32];
    let [c, d] = [address[1] as u32, (address[1] >> 32) as u32];
    if cfg!(target_endian = "little") {
        [a, b, c, d]
    } else {
        [b, a, d, c]
    }
}

/// A generation of the config, held for the time of one packet.
pub struct Generation(&'static Cells);

impl Image for Generation {
    #[inline(always)]
    fn cell(&self, index: u32) -> Option<&Cell> {
        // SAFETY: a cell is just so many words, and nobody writes those of an image that packets see.
        self.0
            .get(index)
            .map(|words| unsafe { &*ptr::from_ref(words).cast() })
    }
}

/// The maps as the pipeline's tables.
pub struct Maps {
    /// The context of the packet, which the FIB helper wants to see.
    pub context: *mut c_void,
}

/// A tuple as a key, where the stack has no room for it: what a global function was given is none for Linux 6.1.
#[inline(always)]
fn kept<F: FamilyMaps>(tuple: &Tuple<F>) -> Option<&'static Tuple<F>> {
    let scratch = F::scratch()?;
    // SAFETY: this CPU's own value; the key is used at once, and nothing else writes it meanwhile.
    unsafe {
        let key = &raw mut (*scratch).key;
        key.write(*tuple);
        Some(&*key)
    }
}

/// The key of an entry of the index likewise.
#[inline(always)]
fn key<F: FamilyMaps>(tuple: &Tuple<F>, slot: u64) -> Option<&'static Tuple<F>> {
    kept(&Tuple {
        addresses: tuple.addresses,
        ports: index::key_ports(tuple.ports, slot),
    })
}

impl<F: FamilyMaps> Index<F> for Maps {
    #[inline(always)]
    fn get(&self, tuple: &Tuple<F>, slot: u64) -> Option<u32> {
        // SAFETY: an element may be used again while it is read: the line that it names then is looked at like any.
        unsafe { F::index().get(key(tuple, slot)?).copied() }
    }

    #[inline(always)]
    fn insert(&self, tuple: &Tuple<F>, slot: u64, line: u32) -> bool {
        let insert = |key| F::index().insert(key, line, BPF_NOEXIST.into()).is_ok();
        key(tuple, slot).is_some_and(insert)
    }

    #[inline(always)]
    fn remove(&self, tuple: &Tuple<F>, slot: u64) {
        if let Some(key) = key(tuple, slot) {
            // There is one.
            let _ = F::index().remove(key);
        }
    }
}

impl<F: FamilyMaps> Lines<F> for Maps {
    type Index = Self;

    #[inline(always)]
    fn index(&self) -> Option<&Self> {
        // SAFETY: a static; volatile, since the compiler must not take what stands there for what the loader puts there.
        let is_indexed = unsafe { (&raw const INDEXED).read_volatile() != 0 };
        is_indexed.then_some(self)
    }

    #[inline(always)]
    fn geometry(&self) -> &Geometry {
        let geometry = opaque((&raw const GEOMETRY).addr()) as *const Geometry;
        // SAFETY: it is the address of a static. Opaque, since the compiler must not take what stands there for what the
        // loader will have put.
        unsafe { &*geometry }
    }

    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Flow<F>> {
        F::line(index)
    }

    #[inline(always)]
    fn totals(&self) -> Option<&Totals> {
        TOTALS.get(F::TOTALS)
    }

    #[inline(always)]
    fn find_displaced(&self, tuple: &Tuple<F>, home: u32, places: u32) -> Option<u32> {
        F::find_displaced(tuple, home, places)
    }

    #[inline(always)]
    fn try_touch(&self, flow: &Flow<F>, segment: Segment, now: Tick) -> Touched {
        F::try_touch(flow, segment, now)
    }

    #[inline(always)]
    fn advance(&self, reply: bool, own: Side, peer: Side, segment: Segment) -> Option<Advanced> {
        functions::advance_by_words(reply, own, peer, segment)
    }

    #[inline(always)]
    fn give_way(&self, old: &Flow<F>) -> bool {
        F::give_way(old)
    }

    #[inline(always)]
    fn claim(&self, home: u32) -> Option<u32> {
        F::claim(home)
    }

    #[inline(always)]
    fn enter_pair(&self, connection: &Connection<F>, place: u32) -> Result<(), Refused> {
        F::enter_pair(connection, place)
    }
}

impl Hops for Maps {
    #[inline(always)]
    fn hop_cell(&self, number: u16) -> Option<&HopCell> {
        HOPS.get(number.into())
    }
}

impl Ports for Maps {
    #[inline(always)]
    fn port_word(&self, index: u32) -> Option<&Word> {
        PORTS.get(index)
    }
}

impl Screen for Maps {
    #[inline(always)]
    fn screen_row(&self, index: u32) -> Option<&Row> {
        SCREEN.get(index)
    }
}

impl<F: FamilyMaps> Tables<F> for Maps {
    type Image = Generation;

    #[inline(always)]
    fn image(&self) -> Option<Generation> {
        IMAGE.get(0).map(|cells| {
            // SAFETY: an inner map lives until the programs that may have looked it up have ended (RCU).
            Generation(unsafe { &*core::ptr::from_ref(cells) })
        })
    }

    #[inline(always)]
    fn ticket(&self, service: u32) -> u64 {
        let Some(ticket) = TICKETS.get_ptr_mut(service) else {
            return 0;
        };
        // SAFETY: the pointer is to a value of the map, aligned to 8. The ordering is not a matter of taste: with
        // Relaxed the compiler emits an addition that does not return the old value.
        unsafe { atomic_xadd::<u64, u64, { AtomicOrdering::SeqCst }>(ticket, 1) }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper takes nothing.
        unsafe { bpf_get_prandom_u32() as u32 }
    }

    #[inline(always)]
    fn now(&self) -> Tick {
        let Some(clock) = CLOCK.get_ptr_mut(0) else {
            return Tick(0);
        };
        // SAFETY: this CPU's own value; the helpers take nothing.
        let nanoseconds = unsafe {
            let jiffies = bpf_jiffies64();
            if (*clock).jiffies != jiffies {
                (*clock).nanoseconds = bpf_ktime_get_coarse_ns();
                (*clock).jiffies = jiffies;
            }
            (*clock).nanoseconds
        };
        Tick::from_nanoseconds(nanoseconds)
    }

    #[inline(always)]
    fn hop_generation(&self) -> u16 {
        let Some(globals) = GLOBALS.get_ptr(0) else {
            return 0;
        };
        // SAFETY: the pointer is to a value of the map. The daemon writes the word while we read it: volatile.
        unsafe { (&raw const (*globals).hop_generation).read_volatile() as u16 }
    }

    #[inline(always)]
    fn path(&self, backend: u32) -> Option<Path> {
        PATHS.get(backend).copied()
    }

    #[inline(never)]
    fn route(&self, addresses: &F::Pair, interface: u32) -> Option<Hop> {
        let mut query = MaybeUninit::<[u64; size_of::<FibParameters>() / 8]>::uninit();
        let query = query.as_mut_ptr().cast::<u64>();
        for word in 0..size_of::<FibParameters>() / 8 {
            // SAFETY: inside the array. Volatile, that it be done by words: the compiler's own way is a loop over bytes.
            unsafe { query.add(word).write_volatile(0) };
        }
        // SAFETY: all fields are integers, so any words are parameters; they are no less aligned.
        let parameters = unsafe { &mut *query.cast::<FibParameters>() };
        F::query(parameters, addresses);
        parameters.ifindex = interface;
        // SAFETY: context and parameters are what the helper asks for, with the right size.
        let answer = unsafe { bpf_fib_lookup(self.context, parameters, FIB_PARAMETERS, 0) };
        if answer != 0 {
            return None;
        }
        // Taken out of whole words: the compiler would put byte loads together to words that are not aligned,
        // which the verifier takes for packets but not for the stack. smac is at 52, dmac at 58, ifindex at 8.
        // SAFETY: the array is on the stack and was written by the helper.
        let (one, six, seven) = unsafe {
            (
                query.add(1).read_volatile(),
                query.add(6).read_volatile(),
                query.add(7).read_volatile(),
            )
        };
        let (six, seven) = (u64::from_le(six), u64::from_le(seven));
        let interface = u64::from_le(one) as u32;
        // A bridge or a VLAN device cannot send what XDP hands it.
        LINKS.get_ptr(interface)?;
        Some(Hop::from_words(
            interface,
            seven >> 16,
            six >> 32 | seven << 32,
        ))
    }

    #[inline(always)]
    fn datagram(&self, key: &Key<F>) -> Option<Datagram<F>> {
        // SAFETY: an element may be used again while it is read: what it says then is of another datagram, whose fragments
        // are as likely to be lost.
        unsafe { F::datagrams().get(key).copied() }
    }

    #[inline(always)]
    fn note_datagram(&self, key: &Key<F>, datagram: &Datagram<F>) {
        // Without memory for it the other fragments are lost.
        let _ = F::datagrams().insert(key, datagram, 0);
    }

    #[inline(always)]
    fn advance_datagram(&self, key: &Key<F>, old: u64, new: u64) -> bool {
        let Some(datagram) = F::datagrams().get_ptr_mut(key) else {
            return false;
        };
        // SAFETY: the pointer is to a value of the map, in which the word is aligned to 8. That the element may be used
        // again meanwhile is as of `datagram`.
        let progress = unsafe { &*(&raw const (*datagram).progress).cast::<Word>() };
        progress.replace(old, new)
    }

    #[inline(always)]
    fn fragment_timeout(&self) -> u32 {
        let Some(globals) = GLOBALS.get_ptr(0) else {
            return 0;
        };
        // SAFETY: as of the generation of next hops.
        unsafe { (&raw const (*globals).fragment_timeout).read_volatile() as u32 }
    }

    #[inline(always)]
    fn search(&self, tuple: &Tuple<F>) -> Option<Search<F>> {
        // SAFETY: as of datagrams: what it says then is another port, which is looked at like any.
        unsafe { F::searches().get(kept(tuple)?).copied() }
    }

    #[inline(always)]
    fn note_search(&self, tuple: &Tuple<F>, search: &Search<F>) {
        // Without memory for it the connection is refused.
        let _ = kept(tuple).map(|key| F::searches().insert(key, search, 0));
    }

    #[inline(always)]
    fn fits(&self, interface: u32, length: u32) -> bool {
        let Some(globals) = GLOBALS.get_ptr(0) else {
            return true;
        };
        // SAFETY: as of the generation of next hops.
        let least = unsafe { (&raw const (*globals).least_mtu).read_volatile() };
        least >= length.into() || slow::fits(interface, length) != 0
    }

    #[inline(always)]
    fn offer(&self, reason: Punt) -> Reception {
        let answer = slow::offer(self.context.cast(), reason as u32);
        if answer == Reception::Taken as u32 {
            Reception::Taken
        } else if answer == Reception::Full as u32 {
            Reception::Full
        } else {
            Reception::Nobody
        }
    }

    #[inline(always)]
    fn count_packet(&self, backend: u32, reply: bool, length: u16) {
        if let Some(stats) = BACKEND_STATS.get_ptr_mut(backend) {
            // SAFETY: this CPU's own value.
            unsafe { (*stats).count_packet(reply, length) };
        }
    }

    #[inline(always)]
    fn count_connection(&self, backend: u32) {
        if let Some(stats) = BACKEND_STATS.get_ptr_mut(backend) {
            // SAFETY: this CPU's own value.
            unsafe { (*stats).connections += 1 };
        }
    }

    #[inline(always)]
    fn open(&self, tuple: Tuple<F>, opening: Opening) -> Result<(), Exit> {
        let scratch = F::scratch().ok_or(Drop::NotReady)?;
        // SAFETY: this CPU's own value, and nothing else uses it until this function ends. Any bits are a connection that
        // `plan` may write over.
        let (opening, connection) = unsafe {
            (&raw mut (*scratch).opening).write(opening);
            (&raw mut (*scratch).connection.tuple).write(tuple);
            (&(*scratch).opening, &mut (*scratch).connection)
        };
        open::open(self, opening, connection)
    }

    #[inline(always)]
    fn plan(&self, opening: &Opening, connection: &mut Connection<F>) -> Result<(), Exit> {
        F::plan(opening, connection)
    }

    #[inline(always)]
    fn enter(&self, connection: &mut Connection<F>) -> Result<(), Exit> {
        F::enter(connection)
    }

    #[inline(always)]
    fn search_port(&self, connection: &mut Connection<F>) -> Result<(), Exit> {
        F::search_port(self.context, connection)
    }

    #[inline(always)]
    fn ask(&self, flow: &Flow<F>, interface: u32) -> Hop {
        F::ask(self.context, flow, interface)
    }

    #[inline(always)]
    fn touch<P: Packet>(
        &self,
        _: &P,
        flow: &Flow<F>,
        start: usize,
        end: usize,
        now: Tick,
    ) -> Touched {
        F::touch(self.context, flow, start, end, now)
    }

    #[inline(always)]
    fn forward_fragment<P: Packet>(
        &self,
        packet: &mut P,
        interface: u32,
        l3: usize,
    ) -> Result<Way, Exit> {
        let scratch = F::scratch().ok_or(Drop::NotReady)?;
        // SAFETY: this CPU's own value, and nothing else uses this part of it until this function ends.
        let room = unsafe { &mut (*scratch).room };
        fragment::forward(packet, self, interface, l3, room)
    }

    #[inline(always)]
    fn count_refused(&self, service: u32, reason: Drop) {
        if let Some(stats) = SERVICE_STATS.get_ptr_mut(service) {
            // SAFETY: this CPU's own value.
            unsafe { (*stats).count(reason) };
        }
    }
}

/// Counts a frame under the counter of what it got.
#[inline(always)]
pub fn count(counter: usize) {
    if let Some(stats) = STATS.get_ptr_mut(0) {
        // SAFETY: this CPU's own value.
        let stats = unsafe { &mut *stats };
        if let Some(counter) = stats.verdicts.get_mut(counter) {
            *counter += 1;
        }
    }
}
