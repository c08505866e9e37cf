//! The maps, and the pipeline's tables made of them.
//!
//! Sizes marked "set by the loader" are those of the config; here stands the least that the verifier accepts.

use core::ffi::c_void;
use core::intrinsics::{AtomicOrdering, atomic_xadd};
use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::bindings::{BPF_F_INNER_MAP, BPF_NOEXIST, bpf_fib_lookup as FibParameters};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, PerCpuArray};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup, bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_coarse_ns,
};
use aya_ebpf::macros::btf_map;
use balancer_common::abi::{
    BackendStats, Globals, Identity, MAX_BACKENDS, MAX_SERVICES, Path, ServiceStats, Stats,
};
use balancer_common::family::{Family, V4, V6};
use balancer_common::flow::{Flow, Tick};
use balancer_common::hop::Hop;
use balancer_common::image::{Cell, Image};
use balancer_common::open::{self, Opening};
use balancer_common::tables::{Refused, Tables};
use balancer_common::tuple::Tuple;
use balancer_common::verdict::{Drop, Exit};

use crate::packet::opaque;

type Flows<F> = HashMap<Tuple<F>, Flow<F>, 1>;
type HalfOpen<F> = HashMap<Tuple<F>, u32, 1>;
type Cells = Array<Cell, 1, { BPF_F_INNER_MAP as usize }>;

#[btf_map]
static FLOWS_V4: Flows<V4> = Flows::new(); // set by the loader
#[btf_map]
static FLOWS_V6: Flows<V6> = Flows::new(); // set by the loader
#[btf_map]
static HALF_OPEN_V4: HalfOpen<V4> = HalfOpen::new(); // set by the loader
#[btf_map]
static HALF_OPEN_V6: HalfOpen<V6> = HalfOpen::new(); // set by the loader
#[btf_map]
static IMAGE: ArrayOfMaps<Cells, 1> = ArrayOfMaps::new();
#[btf_map]
static GLOBALS: Array<Globals, 1> = Array::new();
#[btf_map]
static PATHS: Array<Path, { MAX_BACKENDS as usize }> = Array::new();
#[btf_map]
static TICKETS: Array<u64, { MAX_SERVICES as usize }> = Array::new();
#[btf_map]
static STATS: PerCpuArray<Stats, 1> = PerCpuArray::new();
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
    opening: Opening<F>,
    flow: Flow<F>,
}

/// The maps of a family.
pub trait FamilyMaps: Family {
    /// Tuple to flow.
    fn flows() -> &'static Flows<Self>;
    /// Original tuples of half-open connections.
    fn half_open() -> &'static HalfOpen<Self>;
    /// This CPU's room for what the stack has none for.
    fn scratch() -> Option<*mut Scratch<Self>>;
    /// [`open::open`] in a function of its own.
    fn open(opening: &Opening<Self>) -> u32;
    /// Fills in a FIB query.
    fn query(parameters: &mut FibParameters, addresses: &Self::Pair);
}

/// Opens a connection over IPv4. A global function: the verifier proves it once and for all, not anew for each
/// way that leads to it. It knows nothing of its argument then, not even that there is one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn open_v4(opening: *const Opening<V4>) -> u32 {
    // SAFETY: null, or what a caller of this program has as a reference.
    open(unsafe { opening.as_ref() })
}

/// The same over IPv6.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn open_v6(opening: *const Opening<V6>) -> u32 {
    // SAFETY: null, or what a caller of this program has as a reference.
    open(unsafe { opening.as_ref() })
}

#[inline(always)]
fn open<F: FamilyMaps>(opening: Option<&Opening<F>>) -> u32 {
    let result = match opening {
        Some(opening) => open::open(
            &Maps {
                context: ptr::null_mut(),
            },
            opening,
        ),
        None => Err(Drop::NotReady.into()),
    };
    Exit::encode(result)
}

/// The size of a FIB query, as the helper wants it.
const FIB_PARAMETERS: i32 = 64;
const _: () = assert!(size_of::<FibParameters>() == 64);

/// `AF_INET` and `AF_INET6` of Linux.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

impl FamilyMaps for V4 {
    #[inline(always)]
    fn flows() -> &'static Flows<V4> {
        &FLOWS_V4
    }

    #[inline(always)]
    fn open(opening: &Opening<V4>) -> u32 {
        open_v4(opening)
    }

    #[inline(always)]
    fn scratch() -> Option<*mut Scratch<V4>> {
        SCRATCH_V4.get_ptr_mut(0)
    }

    #[inline(always)]
    fn half_open() -> &'static HalfOpen<V4> {
        &HALF_OPEN_V4
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
    fn flows() -> &'static Flows<V6> {
        &FLOWS_V6
    }

    #[inline(always)]
    fn open(opening: &Opening<V6>) -> u32 {
        open_v6(opening)
    }

    #[inline(always)]
    fn scratch() -> Option<*mut Scratch<V6>> {
        SCRATCH_V6.get_ptr_mut(0)
    }

    #[inline(always)]
    fn half_open() -> &'static HalfOpen<V6> {
        &HALF_OPEN_V6
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
        self.0.get(index)
    }
}

/// The maps as the pipeline's tables.
pub struct Maps {
    /// The context of the packet, which the FIB helper wants to see.
    pub context: *mut c_void,
}

impl<F: FamilyMaps> Tables<F> for Maps {
    /// The kernel frees an element that was removed only after a grace period, and may hand it to another tuple
    /// at once (preallocated elements): what a late reader counts then lands in the wrong flow's counter or state.
    /// It takes a removal and an insertion within the few nanoseconds that a packet holds its flow.
    type FlowRef<'a> = &'static Flow<F>;
    type Image = Generation;

    #[inline(always)]
    fn flow(&self, tuple: &Tuple<F>) -> Option<&'static Flow<F>> {
        // SAFETY: see FlowRef; all fields that change are atomics.
        unsafe { F::flows().get(tuple) }
    }

    #[inline(always)]
    fn enter(&self, tuple: &Tuple<F>, flow: Flow<F>) -> Result<(), Refused> {
        let scratch = F::scratch().ok_or(Refused::Full)?;
        // SAFETY: this CPU's own value, and nothing else uses the flow in it until this function ends.
        let flow = unsafe {
            (&raw mut (*scratch).flow).write(flow);
            &(*scratch).flow
        };
        refused(F::flows().insert(tuple, flow, BPF_NOEXIST.into()))
    }

    #[inline(always)]
    fn remove(&self, tuple: &Tuple<F>) {
        // Not there is as good as removed.
        let _ = F::flows().remove(tuple);
    }

    #[inline(always)]
    fn enter_half_open(&self, tuple: &Tuple<F>) -> Result<(), Refused> {
        let now = Tables::<F>::now(self);
        refused(F::half_open().insert(tuple, now.0, BPF_NOEXIST.into()))
    }

    #[inline(always)]
    fn remove_half_open(&self, tuple: &Tuple<F>) {
        let _ = F::half_open().remove(tuple);
    }

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
    fn hop_generation(&self) -> u32 {
        let Some(globals) = GLOBALS.get_ptr(0) else {
            return 0;
        };
        // SAFETY: the pointer is to a value of the map. The daemon writes the word while we read it: volatile.
        unsafe { (&raw const (*globals).hop_generation).read_volatile() as u32 }
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
        Some(Hop::from_words(
            interface,
            seven >> 16,
            six >> 32 | seven << 32,
        ))
    }

    #[inline(always)]
    fn count_packet(&self, backend: u32, reply: bool, length: u16) {
        if let Some(stats) = BACKEND_STATS.get_ptr_mut(backend) {
            // SAFETY: this CPU's own value.
            let stats = unsafe { &mut *stats };
            if reply {
                stats.reply_packets += 1;
                stats.reply_bytes += u64::from(length);
            } else {
                stats.forward_packets += 1;
                stats.forward_bytes += u64::from(length);
            }
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
    fn open(&self, opening: Opening<F>) -> Result<(), Exit> {
        let scratch = F::scratch().ok_or(Drop::NotReady)?;
        // SAFETY: this CPU's own value, and nothing else uses the opening in it until this function ends.
        let opening = unsafe {
            (&raw mut (*scratch).opening).write(opening);
            &(*scratch).opening
        };
        // Opaque: the compiler, which sees what the function returns, would leave out the check of the counter's
        // number that the verifier, which does not, wants to see.
        Exit::decode(opaque(F::open(opening) as usize) as u32)
    }

    #[inline(always)]
    fn count_refused(&self, service: u32, reason: Drop) {
        let Some(stats) = SERVICE_STATS.get_ptr_mut(service) else {
            return;
        };
        // SAFETY: this CPU's own value.
        let stats = unsafe { &mut *stats };
        match reason {
            Drop::NoBackend => stats.no_backend += 1,
            Drop::PortsExhausted => stats.ports_exhausted += 1,
            Drop::TableFull | Drop::HalfOpenFull => stats.table_full += 1,
            _ => {}
        }
    }
}

#[inline(always)]
fn refused(result: Result<(), i32>) -> Result<(), Refused> {
    const EEXIST: i32 = -17;
    match result {
        Ok(()) => Ok(()),
        Err(EEXIST) => Err(Refused::Exists),
        Err(_) => Err(Refused::Full),
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
