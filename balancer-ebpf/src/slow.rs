//! The way to the slow path: `AF_XDP` sockets of the daemon, one for each receive queue.
//!
//! Without a daemon, and beyond the budget that it gives, a packet gets what it would get anyway.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::{PerCpuArray, XskMap};
use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_xdp_adjust_meta};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{MAX_SOCKETS, Note, budget};
use balancer_common::steer::Claim;
use balancer_common::tables::Reception;
use balancer_common::word::Word;

use balancer_common::verdict::{Drop, Exit, Pass};

use crate::maps::{self, LINKS, Shared};

#[btf_map]
static SOCKETS: XskMap<{ MAX_SOCKETS as usize }> = XskMap::new();
#[btf_map]
static BUDGETS: Shared<Word, { budget::KINDS }> = Shared::new();
#[btf_map]
static USED: PerCpuArray<Used, { budget::KINDS }> = PerCpuArray::new();

/// How many packets of a kind this CPU has handed over in a span of time.
#[repr(C)]
pub struct Used {
    span: u64,
    count: u64,
}

/// What a packet that was too big may have: see [`Note`].
#[btf_map]
static MTU: PerCpuArray<u32, 1> = PerCpuArray::new();

/// Whether a packet of `length` bytes may leave by an interface. If not, how long it may be is noted. 0: no.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fits(interface: u32, length: u32) -> u32 {
    let (Some(link), Some(noted)) = (LINKS.get_ptr(interface), MTU.get_ptr_mut(0)) else {
        return 1;
    };
    // SAFETY: the pointers are to values of maps, the second to this CPU's own.
    let mtu = unsafe { (*link).mtu };
    if length <= mtu {
        return 1;
    }
    // SAFETY: as above.
    unsafe { *noted = mtu };
    0
}

/// Hands a dropped packet to the daemon, who tells the sender, with the number of its counter. Gives the action.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell(context: *mut xdp_md, verdict: u32) -> u32 {
    let context = XdpContext::new(context);
    match socket(&context) {
        Some(socket) if is_within(budget::TOLD) => hand_over(&context, socket, verdict),
        _ => XDP_DROP,
    }
}

/// Offers a packet to the daemon for this reason (a [`Punt`](balancer_common::verdict::Punt)); it is counted if it is taken. Gives
/// the number of a [`Reception`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn offer(context: *mut xdp_md, reason: u32) -> u32 {
    (if socket(&XdpContext::new(context)).is_none() {
        Reception::Nobody
    } else if is_within(budget::PUNTED + reason) {
        Reception::Taken
    } else {
        Reception::Full
    }) as u32
}

/// Hands a packet to the daemon that takes it. Gives the action.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn punt(context: *mut xdp_md, verdict: u32) -> u32 {
    let context = XdpContext::new(context);
    match socket(&context) {
        Some(socket) => hand_over(&context, socket, verdict),
        None => XDP_DROP,
    }
}

/// [`balancer_common::abi::DROPS_ON_LOSS`].
#[unsafe(no_mangle)]
static DROPS_ON_LOSS: u8 = 0;

/// Hands a packet to the daemon, which runs the pipeline. Gives the action.
#[inline(always)]
pub fn steer(context: &XdpContext, claim: Claim) -> u32 {
    let drops = match claim {
        // The kernel knows no such connection and would reset it; the next daemon knows it.
        Claim::Connection => true,
        // SAFETY: a static may be read; volatile, since the compiler must not take what stands here for what it is.
        Claim::Opening => unsafe { (&raw const DROPS_ON_LOSS).read_volatile() != 0 },
        // Most likely it is the box's own.
        Claim::Fragment => false,
    };
    let (lost, action) = if drops {
        (Drop::NoDaemon.into(), XDP_DROP)
    } else {
        (Exit::from(Pass::NoDaemon), XDP_PASS)
    };
    let taken = socket(context).map(|socket| SOCKETS.redirect(socket, action.into()));
    if let Some(Ok(taken)) = taken {
        return taken;
    }
    maps::count(lost.counter());
    action
}

#[inline(always)]
fn hand_over(context: &XdpContext, socket: u32, verdict: u32) -> u32 {
    // SAFETY: the pointer is to this CPU's own value.
    let mtu = MTU.get_ptr(0).map_or(0, |mtu| unsafe { *mtu });
    if !note(context, Note { verdict, mtu }) {
        return XDP_DROP;
    }
    SOCKETS
        .redirect(socket, XDP_DROP.into())
        .unwrap_or_else(|action| action)
}

/// The socket of the queue that the packet came by; `None` when there is nobody, or the daemon has given it back.
#[inline(always)]
fn socket(context: &XdpContext) -> Option<u32> {
    if is_given_back(context) {
        return None;
    }
    let link = LINKS.get_ptr(context.ingress_ifindex() as u32)?;
    // SAFETY: the pointer is to a value of the map.
    let link = unsafe { &*link };
    let queue = context.rx_queue_index();
    let socket = link.first_socket.wrapping_add(queue);
    (queue < link.sockets && SOCKETS.get(socket).is_some()).then_some(socket)
}

/// Whether the daemon has given a frame back: with metadata, which packets from elsewhere have not.
#[inline(always)]
pub fn is_given_back(context: &XdpContext) -> bool {
    context.metadata() < context.data()
}

#[inline(always)]
fn is_within(kind: u32) -> bool {
    let (Some(most), Some(used)) = (BUDGETS.get(kind), USED.get_ptr_mut(kind)) else {
        return false;
    };
    // SAFETY: this CPU's own value; the helper takes nothing.
    let (used, span) = unsafe { (&mut *used, bpf_ktime_get_coarse_ns() >> budget::SPAN_BITS) };
    if used.span != span {
        used.span = span;
        used.count = 0;
    }
    used.count += 1;
    used.count <= most.get()
}

/// The length of a note.
const NOTE: i32 = size_of::<Note>().cast_signed() as i32;

/// Puts a note before the frame; `false` when the driver has no room for it.
#[inline(always)]
fn note(context: &XdpContext, note: Note) -> bool {
    // SAFETY: the context is that of the program.
    if unsafe { bpf_xdp_adjust_meta(context.as_ptr().cast(), -NOTE) } != 0 {
        return false;
    }
    let (start, end) = (context.metadata(), context.metadata_end());
    if start + size_of::<Note>() > end {
        return false;
    }
    // SAFETY: the bytes from `start` on are there, as was just compared.
    unsafe { (start as *mut Note).write_unaligned(note) };
    true
}
