//! The XDP program: counts the packets it sees and passes them to the kernel.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::PerCpuArray,
    macros::{btf_map, xdp},
    programs::XdpContext,
};

/// Packets seen, by CPU.
#[btf_map]
static PACKETS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The entry point, once for each packet that an interface received.
#[xdp]
fn balancer(_ctx: XdpContext) -> u32 {
    if let Some(packets) = PACKETS.get_ptr_mut(0) {
        // SAFETY: the pointer is to this CPU's own slot, and the program is not preempted by another run of itself.
        unsafe { *packets += 1 };
    }
    xdp_action::XDP_PASS
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
