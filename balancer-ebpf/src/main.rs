//! The XDP programs: the frame in, the pipeline's verdict out.
#![no_std]
#![no_main]
#![expect(
    internal_features,
    reason = "BPF has no other way to an atomic that returns a value"
)]
#![feature(core_intrinsics, asm_experimental_arch)]

mod functions;
mod maps;
mod packet;
mod slow;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::ProgramArray;
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use balancer_common::abi::Question;
use balancer_common::family::{V4, V6};
use balancer_common::fragment::Fragments;
use balancer_common::icmp::Errors;
use balancer_common::pipeline::{self, Part, Stage, Whole};
use balancer_common::steer;
use balancer_common::tables::Tables;
use balancer_common::verdict::{Exit, Way};

use crate::maps::Maps;
use crate::packet::Frame;

/// The entry point, once for each frame that an interface received.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature is that of the macro"
)]
#[xdp]
fn balancer(context: XdpContext) -> u32 {
    let decision = decide::<Whole>(&context);
    if let Err(exit) = decision
        && let Some(part) = Part::after(exit)
    {
        // It does not come back, unless there is no such program: then the kernel has the packet.
        // SAFETY: nothing of this program is used when another has taken its place.
        unsafe { PROGRAMS.tail_call(&context, part as u32) };
    }
    act(&context, decision)
}

/// [`Part::Fragments`].
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature is that of the macro"
)]
#[xdp]
fn fragments(context: XdpContext) -> u32 {
    act(&context, decide::<Fragments>(&context))
}

/// [`Part::Errors`].
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature is that of the macro"
)]
#[xdp]
fn errors(context: XdpContext) -> u32 {
    act(&context, decide::<Errors>(&context))
}

/// The entry point of engine `userspace`: hands to the daemon what is for the pipeline.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature is that of the macro"
)]
#[xdp]
fn steer(context: XdpContext) -> u32 {
    if slow::is_given_back(&context) {
        // The daemon has decided that it is the kernel's, and counted it.
        return XDP_PASS;
    }
    let tables = Maps {
        context: context.as_ptr(),
    };
    let interface = context.ingress_ifindex() as u32;
    match steer::wants(&Frame::new(&context), &tables, interface) {
        Ok(claim) => slow::steer(&context, claim),
        Err(exit) => {
            maps::count(exit.counter());
            if exit.is_drop() { XDP_DROP } else { XDP_PASS }
        }
    }
}

/// Not for frames: answers a [`Question`], for engine `userspace`.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature is that of the macro"
)]
#[xdp]
fn route(context: XdpContext) -> u32 {
    let tables = Maps {
        context: context.as_ptr(),
    };
    let (start, end) = (context.data(), context.data_end());
    if start + size_of::<Question>() > end {
        return XDP_DROP;
    }
    let question = start as *mut Question;
    // SAFETY: the bytes are there, as was just compared; a frame begins at a multiple of 8.
    unsafe {
        let interface = (*question).interface;
        let addresses = (*question).addresses;
        let hop = if (*question).version == 6 {
            Tables::<V6>::route(&tables, &addresses, interface)
        } else {
            Tables::<V4>::route(&tables, &addresses[0], interface)
        };
        (*question).hop = hop.unwrap_or_default();
    }
    XDP_PASS
}

/// What the frame gets from one stage.
#[inline(always)]
fn decide<S: Stage>(context: &XdpContext) -> Result<Way, Exit> {
    let tables = Maps {
        context: context.as_ptr(),
    };
    let interface = context.ingress_ifindex() as u32;
    pipeline::decide::<S, _, _>(&mut Frame::new(context), &tables, interface)
}

#[btf_map]
static PROGRAMS: ProgramArray<{ Part::ALL.len() }> = ProgramArray::new();

/// Counts a packet and turns what it gets into an action.
#[inline(always)]
fn act(context: &XdpContext, decision: Result<Way, Exit>) -> u32 {
    maps::count(match decision {
        Ok(way) => way.counter(),
        Err(exit) => exit.counter(),
    });
    match decision {
        Ok(Way::Transmit) if redirects_back() => redirect(context.ingress_ifindex() as u32),
        Ok(Way::Transmit) => XDP_TX,
        Ok(Way::Redirect(interface)) => redirect(interface),
        Err(exit) if exit.is_punt() => slow::punt(context.ctx, exit.counter() as u32),
        Err(exit) if exit.is_told() => slow::tell(context.ctx, exit.counter() as u32),
        Err(exit) if exit.is_drop() => XDP_DROP,
        Err(_) => XDP_PASS,
    }
}

/// [`balancer_common::abi::REDIRECTS_BACK`]. The verifier knows it when it sees the program, and cuts off the other branch.
#[unsafe(no_mangle)]
static REDIRECTS_BACK: u8 = 0;

/// Whether to send frames back by a redirect.
#[inline(always)]
fn redirects_back() -> bool {
    // SAFETY: a static may be read; volatile, since the compiler must not take what stands here for what it is.
    unsafe { (&raw const REDIRECTS_BACK).read_volatile() != 0 }
}

/// Sends the frame out of an interface.
#[inline(always)]
fn redirect(interface: u32) -> u32 {
    // SAFETY: the helper takes any index; of one that is gone the kernel drops the frame.
    unsafe { bpf_redirect(interface, 0) }.unsigned_abs() as u32
}

/// Never reached in a program that the verifier took; a loop without an end is refused where it could be.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

// SAFETY: the name belongs to no other symbol; the kernel reads the section by its name.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
