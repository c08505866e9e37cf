//! Words that several CPUs share.

#![cfg_attr(
    target_arch = "bpf",
    expect(
        unsafe_code,
        reason = "BPF has no atomic loads and stores of its own before instruction set v4"
    )
)]

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident($number:ident, $atomic:ident);)*) => { $(
        $(#[$doc])*
        ///
        /// Reads and writes of words keep their order among each other: who sees a word sees those that were
        /// written before it. In user space they are acquiring loads and releasing stores. In BPF they are
        /// volatile accesses, which the compiler neither splits nor reorders; the machine orders loads among loads
        /// and stores among stores by itself on x86-64, and where it does not (arm64), what must be ordered is
        /// ordered by the exchanges, which are full barriers.
        #[derive(Debug, Default)]
        #[repr(transparent)]
        pub struct $name(inner::$atomic);

        impl $name {
            /// A word that holds `value`.
            #[cfg(not(loom))]
            #[inline(always)]
            #[must_use]
            pub const fn new(value: $number) -> Self {
                Self(inner::$atomic::new(value))
            }

            /// A word that holds `value`.
            #[cfg(loom)]
            pub fn new(value: $number) -> Self {
                Self(inner::$atomic::new(value))
            }

            /// What it holds.
            #[inline(always)]
            pub fn get(&self) -> $number {
                self.0.get()
            }

            /// Makes it hold `value`.
            #[inline(always)]
            pub fn set(&self, value: $number) {
                self.0.set(value);
            }

            /// Makes it hold `new` if it holds `old`. Says whether it did.
            #[inline(always)]
            pub fn replace(&self, old: $number, new: $number) -> bool {
                self.0.replace(old, new)
            }

            /// Adds, wrapping around. Gives what it held before.
            #[inline(always)]
            pub fn add(&self, value: $number) -> $number {
                self.0.add(value)
            }
        }
    )* };
}

words! {
    /// 64 bits that are read and written whole, by anyone at any time.
    Word(u64, A64);
    /// 32 bits likewise.
    HalfWord(u32, A32);
}

/// The engine's own atomics.
#[cfg(target_arch = "bpf")]
mod inner {
    use core::cell::UnsafeCell;
    use core::intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd};

    const SEQ_CST: AtomicOrdering = AtomicOrdering::SeqCst;

    macro_rules! atomics {
        ($($name:ident($number:ident),)*) => { $(
            #[repr(transparent)]
            #[derive(Debug, Default)]
            pub(super) struct $name(UnsafeCell<$number>);

            // SAFETY: all access is by the methods below, which take and give whole words.
            unsafe impl Sync for $name {}

            impl $name {
                #[inline(always)]
                pub(super) const fn new(value: $number) -> Self {
                    Self(UnsafeCell::new(value))
                }

                #[inline(always)]
                pub(super) fn get(&self) -> $number {
                    // SAFETY: the pointer is that of the cell: aligned and readable.
                    unsafe { self.0.get().read_volatile() }
                }

                #[inline(always)]
                pub(super) fn set(&self, value: $number) {
                    // SAFETY: the pointer is that of the cell: aligned and writable.
                    unsafe { self.0.get().write_volatile(value) }
                }

                #[inline(always)]
                pub(super) fn replace(&self, old: $number, new: $number) -> bool {
                    // SAFETY: as above. The ordering is not a matter of taste: only with SeqCst the compiler emits
                    // the instructions that give back the old value.
                    unsafe { atomic_cxchg::<_, SEQ_CST, SEQ_CST>(self.0.get(), old, new).1 }
                }

                #[inline(always)]
                pub(super) fn add(&self, value: $number) -> $number {
                    // SAFETY: as above.
                    unsafe { atomic_xadd::<_, _, SEQ_CST>(self.0.get(), value) }
                }
            }
        )* };
    }

    atomics! { A64(u64), A32(u32), }
}

/// The machine's atomics; under a model checker, its own.
#[cfg(not(target_arch = "bpf"))]
mod inner {
    #[cfg(not(loom))]
    use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    #[cfg(loom)]
    use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    #[cfg(loom)]
    use super::kill::step;

    /// Where a model may kill the thread.
    #[cfg(not(loom))]
    fn step() {}

    macro_rules! atomics {
        ($($name:ident($number:ident, $atomic:ident),)*) => { $(
            #[repr(transparent)]
            #[derive(Debug, Default)]
            pub(super) struct $name($atomic);

            impl $name {
                #[cfg(not(loom))]
                pub(super) const fn new(value: $number) -> Self {
                    Self($atomic::new(value))
                }

                #[cfg(loom)]
                pub(super) fn new(value: $number) -> Self {
                    Self($atomic::new(value))
                }

                #[inline(always)]
                pub(super) fn get(&self) -> $number {
                    self.0.load(Ordering::Acquire)
                }

                #[inline(always)]
                pub(super) fn set(&self, value: $number) {
                    step();
                    self.0.store(value, Ordering::Release);
                }

                #[inline(always)]
                pub(super) fn replace(&self, old: $number, new: $number) -> bool {
                    step();
                    self.0
                        .compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst)
                        .is_ok()
                }

                #[inline(always)]
                pub(super) fn add(&self, value: $number) -> $number {
                    step();
                    self.0.fetch_add(value, Ordering::SeqCst)
                }
            }
        )* };
    }

    atomics! { A64(u64, AtomicU64), A32(u32, AtomicU32), }
}

/// Under a model checker: threads that are killed in the middle.
#[cfg(loom)]
pub mod kill {
    extern crate std;

    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    loom::thread_local! {
        static LEFT: Cell<u32> = Cell::new(u32::MAX);
    }

    /// What a killed thread unwinds with.
    struct Killed;

    /// A write is about to be done.
    pub(super) fn step() {
        let left = LEFT.with(|left| {
            left.set(left.get().saturating_sub(1));
            left.get()
        });
        if left == 0 {
            resume_unwind(std::boxed::Box::new(Killed));
        }
    }

    /// Does `work` up to its first `writes` writes, then nothing more. Says whether it came to its end.
    pub fn after(writes: u32, work: impl FnOnce()) -> bool {
        LEFT.with(|left| left.set(writes + 1));
        let result = catch_unwind(AssertUnwindSafe(work));
        LEFT.with(|left| left.set(u32::MAX));
        match result {
            Ok(()) => true,
            Err(payload) if payload.is::<Killed>() => false,
            Err(payload) => resume_unwind(payload),
        }
    }
}
