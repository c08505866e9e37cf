//! The wrapper that a program is measured in.
//!
//! A test run of the kernel gives a program the same buffer again and again, so a program that rewrites packets
//! would see its own output. `restore_v4` and `restore_v6` hand a fresh packet to the program in [`TARGET`]: the
//! buffer is [`SLOTS`] frames side by side; each run makes the frame of the last run new, for its next turn, and
//! goes on to the one behind it. `reply` is the target that does nothing: with it, the wrapper costs only itself.
//!
//! - A frame is written seven runs before it is read, so that no load of the program has to wait for narrower
//!   stores.
//! - Where the next frame is follows from what the last run wrote (its value is masked out, which the processor
//!   does not see): runs do not overlap more than those of a driver's batch would.
#![no_std]
#![no_main]
#![expect(
    clippy::needless_pass_by_value,
    reason = "the signature of a program is that of the macro"
)]
#![feature(asm_experimental_arch)]

use core::arch::asm;

use aya_ebpf::bindings::xdp_action::{XDP_ABORTED, XDP_TX};
use aya_ebpf::btf_maps::{Array, ProgramArray};
use aya_ebpf::helpers::generated::bpf_xdp_adjust_head;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// The size of a slot in bytes.
const SLOT: u16 = 128;
/// How many slots the buffer has.
const SLOTS: u16 = 8;
/// What is written anew: the first bytes of a frame, in words, up to the end of TCP over IPv6.
const WORDS: usize = 10;

/// The program under test.
#[btf_map]
static TARGET: ProgramArray<1> = ProgramArray::new();
/// The first bytes of every frame.
#[btf_map]
static TEMPLATE: Array<[u64; WORDS], 1> = Array::new();
/// What is different in each flow, in the order in which they come: the last four bytes of the source address and
/// the ports; then the checksums of IPv4 and of the transport, 16 bits each. Its size is set by the loader.
#[btf_map]
static FLOWS: Array<[u64; 2], 1> = Array::new();
/// The flow that is written next, and how many there are.
#[btf_map]
static NEXT: Array<[u32; 2], 1> = Array::new();

/// Ethernet, IPv4, TCP.
#[xdp]
fn restore_v4(context: XdpContext) -> u32 {
    restore::<26, 26, 24, 34>(&context)
}

/// Ethernet, IPv6, TCP.
#[xdp]
fn restore_v6(context: XdpContext) -> u32 {
    restore::<30, 34, 0, 54>(&context)
}

/// Sends the frame back, as it is.
#[xdp]
fn reply(_: XdpContext) -> u32 {
    XDP_TX
}

/// Where things are in a frame: `WORD` is eight bytes of addresses that a program writes at once; `SOURCE`, `CHECKSUM`
/// (0: none) and `L4` are the last four bytes of the source address, the network header's checksum and the transport
/// header.
#[inline(always)]
fn restore<const WORD: usize, const SOURCE: usize, const CHECKSUM: usize, const L4: usize>(
    context: &XdpContext,
) -> u32 {
    let (start, end) = (context.data(), context.data_end());
    if start + WORDS * 8 > end {
        return XDP_ABORTED;
    }
    // SAFETY: the bytes of the frame up to the end of the last word lie before `end`; anything may be unaligned,
    // which no instruction of BPF minds.
    let written = unsafe { ((start + WORD) as *const u64).read_unaligned() };
    let Some(next) = NEXT.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: a value of the map; one test run at a time uses it.
    let flow = unsafe {
        let [flow, flows] = *next;
        (*next)[0] = if flow + 1 < flows { flow + 1 } else { 0 };
        flow
    };
    let (Some(template), Some([words, checksums])) = (TEMPLATE.get(0), FLOWS.get(flow)) else {
        return XDP_ABORTED;
    };
    // SAFETY: as for `written`: the fields lie in the words that were compared with `end`.
    unsafe {
        // Volatile, or the compiler makes it one copy, which is a loop over bytes.
        for (index, word) in template.iter().enumerate() {
            let word = (&raw const *word).read_volatile();
            (start as *mut u64).add(index).write_unaligned(word);
        }
        ((start + SOURCE) as *mut u32).write_unaligned(*words as u32);
        ((start + L4) as *mut u32).write_unaligned((*words >> 32) as u32);
        if CHECKSUM != 0 {
            ((start + CHECKSUM) as *mut u16).write_unaligned(*checksums as u16);
        }
        ((start + L4 + 16) as *mut u16).write_unaligned((*checksums >> 16) as u16);
    }
    // Behind the last slot comes the first.
    let forward = if end - start > usize::from(SLOT) {
        i32::from(SLOT)
    } else {
        -i32::from(SLOT * (SLOTS - 1))
    };
    // SAFETY: the context is the program's; no pointer into the frame is used from here on. The target ends the
    // run, and nothing here waits to be dropped.
    unsafe {
        if bpf_xdp_adjust_head(context.ctx, forward + zero(written) as i32) != 0 {
            return XDP_ABORTED;
        }
        TARGET.tail_call(context, 0);
    }
    XDP_ABORTED
}

/// 0, as the verifier knows but neither compiler nor processor: it is there when `value` is.
#[inline(always)]
fn zero(mut value: u64) -> u64 {
    // SAFETY: calculates in one register.
    unsafe { asm!("{0} &= 0", inout(reg) value, options(pure, nomem, nostack)) };
    value
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
