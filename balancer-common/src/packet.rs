//! The frame under work.

use crate::parse;

/// Bounds-checked windows over an Ethernet frame.
///
/// Two implementations: `xdp_md` in the XDP program, a byte slice in user space. A window is an array, so its
/// fields are read at constant offsets that the compiler has checked; no access can panic.
pub trait Packet {
    /// The `N` bytes at `offset`; `None` when they are not all inside the frame.
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]>;

    /// The same for writing.
    fn window_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]>;

    /// Whether the frame reaches up to `end` (an offset; `end` itself need not be inside).
    fn reaches(&self, end: usize) -> bool;

    /// The same offset, at most 63, of which a prover that follows each path through the program shall forget all
    /// but the bound: else it follows what comes after once for each value.
    #[inline(always)]
    fn forget(&self, offset: usize) -> usize {
        offset
    }

    /// [`parse::options`], which an engine may keep in a function of its own.
    #[inline(always)]
    fn options(&self, start: usize, end: usize) -> u64
    where
        Self: Sized,
    {
        parse::options(self, start, end)
    }

    /// [`parse::option`] likewise.
    #[inline(always)]
    fn option(&self, offset: usize) -> u32
    where
        Self: Sized,
    {
        parse::option(self, offset)
    }

    /// [`parse::window_scale`] likewise.
    #[inline(always)]
    fn window_scale(&self, start: usize, end: usize) -> u32
    where
        Self: Sized,
    {
        parse::window_scale(self, start, end)
    }

    /// [`parse::segment`] likewise.
    #[inline(always)]
    fn segment(&self, start: usize, end: usize) -> u64
    where
        Self: Sized,
    {
        parse::segment(self, start, end)
    }

    /// [`parse::extensions`] likewise.
    #[inline(always)]
    fn extensions(&self, start: usize, next: u8, payload: u16) -> u64
    where
        Self: Sized,
    {
        parse::extensions(self, start, next, payload)
    }
}

/// A frame in user space that is only read.
impl Packet for &[u8] {
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.get(offset..)?.first_chunk()
    }

    /// None: it cannot be written to.
    fn window_mut<const N: usize>(&mut self, _: usize) -> Option<&mut [u8; N]> {
        None
    }

    fn reaches(&self, end: usize) -> bool {
        end <= self.len()
    }
}

/// A frame in user space.
impl Packet for &mut [u8] {
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        self.get(offset..)?.first_chunk()
    }

    fn window_mut<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        self.get_mut(offset..)?.first_chunk_mut()
    }

    fn reaches(&self, end: usize) -> bool {
        end <= self.len()
    }
}
