//! The frame of an `xdp_md`: the only packet memory that the program touches.

use core::arch::asm;
use core::ptr::NonNull;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use balancer_common::packet::Packet;
use balancer_common::parse;

/// The frame between `data` and `data_end`.
///
/// The two are loaded once: the program never calls a helper that moves them.
pub struct Frame {
    context: *mut xdp_md,
    start: usize,
    end: usize,
}

impl Frame {
    /// The frame of a context.
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        Self {
            context: context.ctx,
            start: context.data(),
            end: context.data_end(),
        }
    }

    /// The address of `length` bytes at `offset`, when they are all inside.
    #[inline(always)]
    fn inside(&self, offset: usize, length: usize) -> Option<NonNull<u8>> {
        let start = self.start + offset;
        if start + length > opaque(self.end) {
            return None;
        }
        // SAFETY: no frame is at address 0. (Left to check that, the compiler does so for each window.)
        Some(unsafe { NonNull::new_unchecked(start as *mut u8) })
    }
}

/// The same value, of which the compiler knows nothing: it would take `N` off the end of the frame once, outside
/// of a loop, but the verifier lets nobody calculate with `data_end`.
#[inline(always)]
pub fn opaque(mut value: usize) -> usize {
    // SAFETY: a move of a register to itself. (Of no instruction at all the kernel refuses the line information.)
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
    value
}

impl Packet for Frame {
    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let start = self.inside(offset, N)?;
        // SAFETY: the bytes from `start` to `start + N` lie between data and data_end, as compared above; the
        // verifier holds us to it. They are readable while the program runs, and an array of bytes is aligned
        // anywhere. The lifetime is that of the borrow of `self`, so no window for writing lives beside it.
        Some(unsafe { start.cast().as_ref() })
    }

    #[inline(always)]
    fn window_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let start = self.inside(offset, N)?;
        // SAFETY: as above, and the frame is writable and this CPU's alone.
        Some(unsafe { start.cast().as_mut() })
    }

    #[inline(always)]
    fn reaches(&self, end: usize) -> bool {
        end <= self.end - self.start
    }

    #[inline(always)]
    fn forget(&self, offset: usize) -> usize {
        // A number less itself, when the verifier does not see that it is the same, is any number.
        let length = self.end - self.start;
        offset.wrapping_add(length.wrapping_sub(opaque(length))) & 63
    }

    #[inline(always)]
    fn options(&self, start: usize, end: usize) -> u64 {
        let (start, end) = (start as u32, end as u32);
        options_sum(self.context, start, end) | options_found(self.context, start, end) << 32
    }

    #[inline(always)]
    fn option(&self, offset: usize) -> u32 {
        option(self.context, offset as u32 - 1)
    }

    #[inline(always)]
    fn window_scale(&self, start: usize, end: usize) -> u32 {
        window_scale(self.context, start as u32 - 1, end as u32 - 1)
    }

    #[inline(always)]
    fn segment(&self, start: usize, end: usize) -> u64 {
        segment(self.context, start as u32, end as u32)
    }

    #[inline(always)]
    fn extensions(&self, start: usize, next: u8, payload: u16) -> u64 {
        extensions(self.context, start as u32, next, payload)
    }
}

/// Adds up IPv4 options. A global function: the verifier proves it once and for all, not anew for each way that leads
/// to it. Of its arguments it then knows only that the first is the context; the others are bounded here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn options_sum(context: *mut xdp_md, start: u32, end: u32) -> u64 {
    let frame = Frame::new(&XdpContext::new(context));
    parse::options_sum(&frame, start as usize & 63, end as usize & 127)
}

/// Walks IPv4 options; a global function likewise, of its own, since the ways out of the one are so many ways into
/// the other.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn options_found(context: *mut xdp_md, start: u32, end: u32) -> u64 {
    let frame = Frame::new(&XdpContext::new(context));
    parse::options_found(&frame, start as usize & 63, end as usize & 127)
}

/// Reads the option behind the byte at `before`; a global function likewise: what it finds is then one number of which
/// the walk knows nothing, not a way of its own for each kind of option.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn option(context: *mut xdp_md, before: u32) -> u32 {
    let frame = Frame::new(&XdpContext::new(context));
    parse::option(&frame, (before as usize & 0x7fff) + 1)
}

/// Looks for the window scale among TCP options; a global function likewise.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn window_scale(context: *mut xdp_md, before: u32, last: u32) -> u32 {
    let frame = Frame::new(&XdpContext::new(context));
    // Behind extension headers options begin further on.
    parse::window_scale(
        &frame,
        (before as usize & 0x7fff) + 1,
        (last as usize & 0xffff) + 1,
    )
}

/// Reads a segment; a global function likewise.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn segment(context: *mut xdp_md, start: u32, end: u32) -> u64 {
    let frame = Frame::new(&XdpContext::new(context));
    parse::segment(&frame, start as usize & 0x7fff, end as usize)
}

/// Walks the extension headers of IPv6; a global function likewise.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn extensions(context: *mut xdp_md, start: u32, next: u8, payload: u16) -> u64 {
    let frame = Frame::new(&XdpContext::new(context));
    // Those of a packet that an error quotes begin further on.
    parse::extensions(&frame, start as usize & 0x7fff, next, payload)
}
