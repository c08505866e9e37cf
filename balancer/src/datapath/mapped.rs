//! Memory that is shared with the kernel's packet path, or like it.

#![expect(
    unsafe_code,
    reason = "a mapping is a pointer and a length; what it holds is made of atomics, and any bits are a value of it"
)]

use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use super::maps::PathCell;
use balancer_common::family::Family;
use balancer_common::hop::HopCell;
use balancer_common::screen::Row;
use balancer_common::table::Totals;
use balancer_common::table::flow::Flow;
use balancer_common::word::Word;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A record that may be read and written from anywhere at any time.
///
/// # Safety
/// It is made of [`balancer_common::word`]s alone, so that any bits are a value of it.
pub unsafe trait Cell: Sync {}

// SAFETY: words, of both families.
unsafe impl<F: Family> Cell for Flow<F> {}
// SAFETY: a word.
unsafe impl Cell for Word {}
// SAFETY: words.
unsafe impl Cell for Totals {}
// SAFETY: words.
unsafe impl Cell for HopCell {}
// SAFETY: as above.
unsafe impl Cell for Row {}

// SAFETY: words.
unsafe impl Cell for PathCell {}

/// A mapping of such records.
#[derive(Debug)]
pub struct Mapped<T: Cell> {
    start: NonNull<T>,
    length: usize,
}

// SAFETY: it is a slice of what is Sync, and the mapping is not bound to a thread.
unsafe impl<T: Cell> Send for Mapped<T> {}
// SAFETY: likewise.
unsafe impl<T: Cell> Sync for Mapped<T> {}

impl<T: Cell> Mapped<T> {
    /// The values of an array of the kernel that was made with `BPF_F_MMAPABLE` and has `length` values.
    ///
    /// # Errors
    /// The kernel refused: it is no such array, or a shorter one.
    pub fn array(map: impl AsFd, length: usize) -> io::Result<Self> {
        let bytes = Self::bytes(length)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: nothing is mapped over, and the kernel keeps the memory as long as it is mapped.
        let start = unsafe { mmap(None, bytes, access, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self {
            start: start.cast(),
            length,
        })
    }

    /// Memory of our own, all of it zero.
    ///
    /// # Errors
    /// There is not so much.
    pub fn anonymous(length: usize) -> io::Result<Self> {
        let bytes = Self::bytes(length)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: nothing is mapped over.
        let start = unsafe { mmap_anonymous(None, bytes, access, MapFlags::MAP_PRIVATE) }?;
        Ok(Self {
            start: start.cast(),
            length,
        })
    }

    fn bytes(length: usize) -> io::Result<NonZeroUsize> {
        let bytes = length.checked_mul(size_of::<T>());
        bytes
            .and_then(NonZeroUsize::new)
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }
}

impl<T: Cell> Deref for Mapped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping begins at a page, so that it is aligned, has `length` values, and lives as long as this.
        // Others change the values meanwhile, which are atomics.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl<T: Cell> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: it is our mapping, and nobody has a reference into it any more. It does not fail then.
        let _ = unsafe { munmap(self.start.cast(), self.length * size_of::<T>()) };
    }
}
