//! The generator's programs: `send_…` make a frame of a test run one of the next flow and redirect it out of an
//! interface; `receive` counts frames and drops them.
//!
//! A test run with live frames uses its frames again, as the last receiver left them. So the headers are written whole,
//! every time; what lies behind them nobody is expected to change.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the signature of a program is that of the macro"
)]

mod plan;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS};
use aya_ebpf::btf_maps::{Array, PerCpuArray};
use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_redirect};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

use crate::plan::{Plan, Progress, Tally, WORDS_V4, WORDS_V6};

/// What is sent.
#[btf_map]
static PLAN: Array<Plan, 1> = Array::new();
/// Where the sender is: one at a time.
#[btf_map]
static PROGRESS: Array<Progress, 1> = Array::new();
/// What the receiver has counted.
#[btf_map]
static TALLY: PerCpuArray<Tally, 1> = PerCpuArray::new();
/// The destination port that the receiver counts; 0: all.
#[btf_map]
static PORT: Array<u32, 1> = Array::new();

/// Ethernet's type of IPv4, as it lies in a frame.
const IPV4: u16 = 0x0800_u16.to_be();
/// Ethernet's type of IPv6, as it lies in a frame.
const IPV6: u16 = 0x86dd_u16.to_be();
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Ethernet, IPv4, TCP.
#[xdp]
fn send_v4_tcp(context: XdpContext) -> u32 {
    send::<WORDS_V4, 26, 24, 34, 50, false>(&context).unwrap_or(XDP_ABORTED)
}

/// Ethernet, IPv4, UDP.
#[xdp]
fn send_v4_udp(context: XdpContext) -> u32 {
    send::<WORDS_V4, 26, 24, 34, 40, true>(&context).unwrap_or(XDP_ABORTED)
}

/// Ethernet, IPv6, TCP.
#[xdp]
fn send_v6_tcp(context: XdpContext) -> u32 {
    send::<WORDS_V6, 34, 0, 54, 70, false>(&context).unwrap_or(XDP_ABORTED)
}

/// Ethernet, IPv6, UDP.
#[xdp]
fn send_v6_udp(context: XdpContext) -> u32 {
    send::<WORDS_V6, 34, 0, 54, 60, true>(&context).unwrap_or(XDP_ABORTED)
}

/// Counts the frames of TCP and UDP, of one destination port or all, and drops them. What else comes, passes.
#[xdp]
fn receive(context: XdpContext) -> u32 {
    if is_counted(&context) != Some(true) {
        return XDP_PASS;
    }
    let Some(tally) = TALLY.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: this CPU's own value.
    unsafe {
        (*tally).packets += 1;
        (*tally).bytes += (context.data_end() - context.data()) as u64;
    }
    XDP_DROP
}

/// `SOURCE`, `HEADER` (0: none), `PORT` and `TRANSPORT` are where the last four bytes of the source address, the network
/// header's checksum, the source port and the transport's checksum are in a frame.
#[inline(always)]
fn send<
    const WORDS: usize,
    const SOURCE: usize,
    const HEADER: usize,
    const PORT: usize,
    const TRANSPORT: usize,
    const IS_UDP: bool,
>(
    context: &XdpContext,
) -> Option<u32> {
    let (start, end) = (context.data(), context.data_end());
    if start + WORDS * 8 > end {
        return None;
    }
    let plan = PLAN.get(0)?;
    let progress = PROGRESS.get_ptr_mut(0)?;
    // SAFETY: a value of the map; one test run at a time uses it.
    let flow = unsafe {
        let turn = (*progress).next;
        let after = turn + 1;
        (*progress).next = if after < u64::from(plan.flows) {
            after
        } else {
            0
        };
        (*progress).sent += 1;
        turn as u32
    };
    let flow = if plan.random == 0 {
        flow
    } else {
        // SAFETY: the helper takes nothing.
        let chance = unsafe { bpf_get_prandom_u32() };
        ((u64::from(chance as u32) * u64::from(plan.flows)) >> 32) as u32
    };
    let patch = plan.patch(flow);
    let transport = match patch.transport {
        // RFC 768: all ones, since 0 says that there is none.
        0 if IS_UDP => 0xffff,
        sum => sum,
    };
    // SAFETY: all these bytes lie in the words that were compared with `end`; anything may be unaligned, which no
    // instruction of BPF minds.
    unsafe {
        // Volatile, or the compiler makes it one copy, which is a loop over bytes.
        for (index, word) in plan.template.iter().take(WORDS).enumerate() {
            let word = (&raw const *word).read_volatile();
            (start as *mut u64).add(index).write_unaligned(word);
        }
        ((start + SOURCE) as *mut u32).write_unaligned(patch.source.to_be());
        ((start + PORT) as *mut u16).write_unaligned(patch.port.to_be());
        if HEADER != 0 {
            ((start + HEADER) as *mut u16).write_unaligned(patch.header.to_be());
        }
        ((start + TRANSPORT) as *mut u16).write_unaligned(transport.to_be());
        Some(bpf_redirect(plan.interface, 0).unsigned_abs() as u32)
    }
}

/// Whether the receiver counts a frame; `None` when it is too short to tell.
#[inline(always)]
fn is_counted(context: &XdpContext) -> Option<bool> {
    let (protocol, transport) = match read::<u16>(context, 12)? {
        IPV4 => (
            read::<u8>(context, 23)?,
            14 + usize::from(read::<u8>(context, 14)? & 15) * 4,
        ),
        IPV6 => (read::<u8>(context, 20)?, 54),
        _ => return Some(false),
    };
    if protocol != TCP && protocol != UDP {
        return Some(false);
    }
    let wanted = *PORT.get(0)?;
    if wanted == 0 {
        return Some(true);
    }
    let port = read::<u16>(context, transport + 2)?;
    Some(u32::from(u16::from_be(port)) == wanted)
}

/// A number that lies in the frame.
#[inline(always)]
fn read<T: Copy>(context: &XdpContext, offset: usize) -> Option<T> {
    let start = context.data() + offset;
    if start + size_of::<T>() > context.data_end() {
        return None;
    }
    // SAFETY: the bytes lie before the frame's end, and every pattern of them is an integer.
    Some(unsafe { (start as *const T).read_unaligned() })
}

/// Never reached.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// SAFETY: the name belongs to no other symbol; the kernel reads the section by its name.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
