//! Frames that were taken from a socket.

use xdp::Packet;
use xdp::slab::{HeapSlab, Slab};

/// Frames that were taken from a socket, the first first.
pub struct Batch(HeapSlab);

impl Batch {
    /// With room for so many.
    #[must_use]
    pub fn with_capacity(frames: usize) -> Self {
        Self(HeapSlab::with_capacity(frames))
    }
}

impl Slab for Batch {
    fn available(&self) -> usize {
        self.0.available()
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push_front(&mut self, packet: Packet) -> Option<Packet> {
        // The CPU that received it has written it: its headers are on their way while those before it are worked on.
        prefetch(&packet);
        self.0.push_front(packet)
    }

    fn pop_back(&mut self) -> Option<Packet> {
        self.0.pop_back()
    }
}

/// Has the beginning of a frame brought near.
fn prefetch(frame: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: it reads nothing; any address will do.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(frame.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = frame;
}
