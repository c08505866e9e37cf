//! Records of maps as the kernel hands them out: words.

#![expect(
    unsafe_code,
    reason = "what the maps hold are the records of `balancer-common`, byte for byte"
)]

use std::mem::{ManuallyDrop, size_of};

use aya::Pod;
use balancer_common::family::{V4, V6};
use balancer_common::flow::Flow;
use balancer_common::tuple::Tuple;

use super::memory::InMemory;

/// A record without padding that is copied to and from a map.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<T>(pub T);

// SAFETY: only made of the records of `balancer-common::abi` and of `image`, all of which are made of integers,
// without padding (their sizes are asserted there), so that any bytes are a record.
unsafe impl<T: Copy + 'static> Pod for Record<T> {}

/// A family as the kernel's maps hold it.
pub trait KernelFamily: InMemory {
    /// A tuple in words.
    type RawTuple: Pod + Send + Sync;
    /// A flow in words.
    type RawFlow: Pod + Send + Sync;
    /// The name of the map of flows.
    const FLOWS: &'static str;
    /// The name of the map of half-open connections.
    const HALF_OPEN: &'static str;
}

impl KernelFamily for V4 {
    type RawTuple = [u64; 2];
    type RawFlow = [u64; 9];
    const FLOWS: &'static str = balancer_common::abi::map::FLOWS_V4;
    const HALF_OPEN: &'static str = balancer_common::abi::map::HALF_OPEN_V4;
}

impl KernelFamily for V6 {
    type RawTuple = [u64; 5];
    type RawFlow = [u64; 12];
    const FLOWS: &'static str = balancer_common::abi::map::FLOWS_V6;
    const HALF_OPEN: &'static str = balancer_common::abi::map::HALF_OPEN_V6;
}

/// The same bits as another type.
///
/// # Safety
/// Both are made of integers without padding.
unsafe fn cast<A, B>(value: A) -> B {
    const { assert!(size_of::<A>() == size_of::<B>()) };
    let value = ManuallyDrop::new(value);
    // SAFETY: as the caller promises; the sizes are the same, and the read takes any alignment.
    unsafe { (&raw const value).cast::<B>().read_unaligned() }
}

/// A tuple as its map's key.
#[must_use]
pub fn tuple_to_raw<F: KernelFamily>(tuple: Tuple<F>) -> F::RawTuple {
    // SAFETY: a tuple is words.
    unsafe { cast(tuple) }
}

/// The inverse of [`tuple_to_raw`].
#[must_use]
pub fn tuple_from_raw<F: KernelFamily>(raw: F::RawTuple) -> Tuple<F> {
    // SAFETY: a tuple is words.
    unsafe { cast(raw) }
}

/// A flow as its map's value.
#[must_use]
pub fn flow_to_raw<F: KernelFamily>(flow: Flow<F>) -> F::RawFlow {
    // SAFETY: a flow is words, 32 and 16-bit numbers without padding.
    unsafe { cast(flow) }
}

/// The inverse of [`flow_to_raw`]: the flow as it was when it was copied.
#[must_use]
pub fn flow_from_raw<F: KernelFamily>(raw: F::RawFlow) -> Flow<F> {
    // SAFETY: as above.
    unsafe { cast(raw) }
}
