//! The frame of an `xdp_md`: the only packet memory that the program touches.

use core::arch::asm;

use aya_ebpf::programs::XdpContext;
use balancer_common::packet::Packet;

/// The frame between `data` and `data_end`.
///
/// The two are loaded once: the program never calls a helper that moves them.
pub struct Frame {
    start: usize,
    end: usize,
}

impl Frame {
    /// The frame of a context.
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        Self {
            start: context.data(),
            end: context.data_end(),
        }
    }
}

/// The same value, of which the compiler knows nothing: it would take `N` off the end of the frame once, outside
/// of a loop, but the verifier lets nobody calculate with `data_end`.
#[inline(always)]
fn opaque(mut value: usize) -> usize {
    // SAFETY: a move of a register to itself. (Of no instruction at all the kernel refuses the line information.)
    unsafe { asm!("{0} = {0}", inout(reg) value, options(pure, nomem, nostack, preserves_flags)) };
    value
}

impl Packet for Frame {
    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let start = self.start + offset;
        if start + N > opaque(self.end) {
            return None;
        }
        // SAFETY: the bytes from `start` to `start + N` lie between data and data_end, as compared above; the
        // verifier holds us to it. They are readable while the program runs, and an array of bytes is aligned
        // anywhere. The lifetime is that of the borrow of `self`, so no window for writing lives beside it.
        Some(unsafe { &*(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn window_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let start = self.start + offset;
        if start + N > opaque(self.end) {
            return None;
        }
        // SAFETY: as above, and the frame is writable and this CPU's alone.
        Some(unsafe { &mut *(start as *mut [u8; N]) })
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
}
