//! A word that several CPUs share.

#![expect(
    unsafe_code,
    reason = "BPF has no atomic loads and stores of its own before instruction set v4"
)]

use core::cell::UnsafeCell;

/// 64 bits that are read and written whole, by anyone at any time.
///
/// Reads and writes of words keep their order among each other: who sees a word sees those that were written
/// before it. In user space they are acquiring loads and releasing stores. In BPF they are volatile accesses,
/// which the compiler neither splits nor reorders; the machine orders loads among loads and stores among stores
/// by itself on x86-64, and where it does not (arm64), a reader can take a next hop for current that is one
/// generation old, for one packet.
#[repr(transparent)]
#[derive(Debug, Default)]
pub struct Word(UnsafeCell<u64>);

// SAFETY: all access is by `get` and `set`, which take and give whole words.
unsafe impl Sync for Word {}

impl Word {
    /// A word that holds `value`.
    #[inline(always)]
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// What it holds.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        #[cfg(target_arch = "bpf")]
        // SAFETY: the pointer is that of the cell: aligned and readable.
        unsafe {
            self.0.get().read_volatile()
        }
        #[cfg(not(target_arch = "bpf"))]
        // SAFETY: the pointer is that of the cell, aligned, and nobody accesses it but by atomics.
        unsafe {
            core::sync::atomic::AtomicU64::from_ptr(self.0.get())
                .load(core::sync::atomic::Ordering::Acquire)
        }
    }

    /// Makes it hold `value`.
    #[inline(always)]
    pub fn set(&self, value: u64) {
        #[cfg(target_arch = "bpf")]
        // SAFETY: the pointer is that of the cell: aligned and writable.
        unsafe {
            self.0.get().write_volatile(value);
        }
        #[cfg(not(target_arch = "bpf"))]
        // SAFETY: as for `get`.
        unsafe {
            core::sync::atomic::AtomicU64::from_ptr(self.0.get())
                .store(value, core::sync::atomic::Ordering::Release);
        }
    }
}
