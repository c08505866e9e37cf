//! The XDP program and its tables, from user space.

pub mod attach;
pub mod batch;
pub mod compile;
pub mod counters;
pub mod flows;
pub mod hops;
pub mod ids;
pub mod index;
pub mod injector;
pub mod kernel;
pub mod mapped;
pub mod maps;
pub mod memory;
pub mod netlink;
pub mod notes;
pub mod pins;
pub mod queues;
pub mod raw;
pub mod router;
pub mod schedule;
pub mod socket;
mod test_run;

/// The compiled XDP program.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("BALANCER_EBPF_OBJECT"));
