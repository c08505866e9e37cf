//! Records of maps as the kernel hands them out.

#![expect(
    unsafe_code,
    reason = "what the maps hold are the records of `balancer-common`, byte for byte"
)]

use aya::Pod;

/// A record without padding that is copied to and from a map.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record<T>(pub T);

// SAFETY: only made of the records of `balancer-common`'s `abi`, `image` and `table`, all of which are made of integers,
// without padding (their sizes are asserted there), so that any bytes are a record.
unsafe impl<T: Copy + 'static> Pod for Record<T> {}
