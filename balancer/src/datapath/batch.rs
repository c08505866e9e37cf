//! Reading a hash map many entries at a time: `BPF_MAP_LOOKUP_BATCH`, which aya has no call for.

#![expect(
    unsafe_code,
    reason = "a system call with pointers into our own buffers"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::Pod;
use aya::maps::MapData;

use super::kernel::KernelError;

/// Entries a call.
const BATCH: usize = 4096;
/// The command's number in `enum bpf_cmd`.
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;

/// The part of `union bpf_attr` for batches.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Calls `each` for every entry of a hash map with keys `K` and values `V`.
///
/// Entries that come or go meanwhile may be seen or not; those that stay are seen once, as the kernel goes bucket by
/// bucket.
///
/// # Errors
/// [`KernelError::Io`].
pub fn for_each<K: Pod, V: Pod>(
    map: &MapData,
    mut each: impl FnMut(K, V),
) -> Result<(), KernelError> {
    let mut keys: Vec<MaybeUninit<K>> = vec![MaybeUninit::uninit(); BATCH];
    let mut values: Vec<MaybeUninit<V>> = vec![MaybeUninit::uninit(); BATCH];
    // The kernel's place in the map: a bucket number.
    let mut place = [0_u64; 2];
    let mut begun = false;
    loop {
        let mut attributes = Attributes {
            in_batch: if begun { place.as_ptr() as u64 } else { 0 },
            out_batch: place.as_mut_ptr() as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: BATCH as u32,
            map_fd: map.fd().as_fd().as_raw_fd().unsigned_abs(),
            ..Attributes::default()
        };
        // SAFETY: the attributes are those of the command; the buffers hold `count` keys and values and a place, and
        // outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut attributes,
                size_of::<Attributes>(),
            )
        };
        let error = (result < 0).then(io::Error::last_os_error);
        let ended = match &error {
            None => false,
            Some(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            // No bucket holds so many entries, unless somebody breaks the hash.
            Some(_) => return error.map_or(Ok(()), |error| Err(error.into())),
        };
        let count = attributes.count as usize;
        for (key, value) in keys.iter().zip(&values).take(count) {
            // SAFETY: the kernel wrote `count` keys and values, and any bytes are a `Pod`.
            each(unsafe { key.assume_init() }, unsafe { value.assume_init() });
        }
        if ended {
            return Ok(());
        }
        begun = true;
    }
}
