//! The XDP program and its tables, from user space.

pub mod attach;
pub mod compile;
pub mod flows;
pub mod hops;
pub mod ids;
pub mod index;
pub mod injector;
pub mod kernel;
pub mod mapped;
pub mod memory;
pub mod netlink;
pub mod notes;
pub mod pins;
pub mod raw;
pub mod schedule;

/// The compiled XDP program.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("BALANCER_EBPF_OBJECT"));
