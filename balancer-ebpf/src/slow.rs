//! The way to the slow path: AF_XDP sockets of the daemon, one for each receive queue.
//!
//! Without a daemon, and beyond its budget, a packet gets what it would get anyway.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_action::XDP_DROP;
use aya_ebpf::bindings::xdp_md;
use aya_ebpf::btf_maps::{PerCpuArray, XskMap};
use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_xdp_adjust_meta};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::{MAX_SOCKETS, Note};

use crate::maps::LINKS;

#[btf_map]
static SOCKETS: XskMap<{ MAX_SOCKETS as usize }> = XskMap::new();
#[btf_map]
static BUDGET: PerCpuArray<Budget, 1> = PerCpuArray::new();

/// How many packets this CPU has handed over in a span of time.
#[repr(C)]
pub struct Budget {
    span: u64,
    used: u64,
}

/// The length of that span, in bits of jiffies: 32 of them, an eighth of a second or less.
const SPAN: u32 = 5;

/// How many there may be. What a flood makes of it costs the CPU less than one per cent of its time.
const USED: u64 = 256;

/// Hands a dropped packet to the daemon, who tells the sender, with the number of its counter. Gives the action.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tell(context: *mut xdp_md, verdict: u32) -> u32 {
    let context = XdpContext::new(context);
    hand_over(&context, verdict, XDP_DROP)
}

#[inline(always)]
fn hand_over(context: &XdpContext, verdict: u32, otherwise: u32) -> u32 {
    let Some(socket) = socket(context) else {
        return otherwise;
    };
    if !is_within_budget() || !note(context, Note { verdict }) {
        return otherwise;
    }
    SOCKETS
        .redirect(socket, otherwise.into())
        .unwrap_or_else(|action| action)
}

/// The socket of the queue that the packet came by; `None` when there is nobody.
#[inline(always)]
fn socket(context: &XdpContext) -> Option<u32> {
    let link = LINKS.get_ptr(context.ingress_ifindex() as u32)?;
    // SAFETY: the pointer is to a value of the map.
    let link = unsafe { &*link };
    let queue = context.rx_queue_index();
    let socket = link.first_socket.wrapping_add(queue);
    (queue < link.sockets && SOCKETS.get(socket).is_some()).then_some(socket)
}

#[inline(always)]
fn is_within_budget() -> bool {
    let Some(budget) = BUDGET.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: this CPU's own value; the helper takes nothing.
    let (budget, span) = unsafe { (&mut *budget, bpf_jiffies64() >> SPAN) };
    if budget.span != span {
        budget.span = span;
        budget.used = 0;
    }
    budget.used += 1;
    budget.used <= USED
}

/// Puts a note before the frame; `false` when the driver has no room for it.
#[inline(always)]
fn note(context: &XdpContext, note: Note) -> bool {
    // SAFETY: the context is that of the program.
    if unsafe { bpf_xdp_adjust_meta(context.as_ptr().cast(), -(size_of::<Note>() as i32)) } != 0 {
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
