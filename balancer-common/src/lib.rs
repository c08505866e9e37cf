//! The packet pipeline of balancerd.
//!
//! Everything that decides what a packet gets is here, once: it is compiled into the XDP program and into the
//! daemon, generic over the [`packet::Packet`] it reads, the [`tables::Tables`] it asks, and the
//! [`family::Family`] of its addresses. Nothing here allocates, blocks, panics or knows a clock of its own.
//!
//! [`pipeline`] tells the whole story.
#![no_std]
#![cfg_attr(
    target_arch = "bpf",
    feature(core_intrinsics),
    expect(
        internal_features,
        reason = "BPF has no other way to an atomic that returns a value"
    )
)]
#![deny(unsafe_code)]

pub mod abi;
pub mod checksum;
pub mod family;
pub mod fragment;
pub mod hop;
pub mod icmp;
pub mod image;
pub mod nat;
pub mod open;
pub mod packet;
pub mod parse;
pub mod pipeline;
pub mod ports;
pub mod screen;
pub mod search;
pub mod steer;
pub mod table;
pub mod tables;
pub mod tuple;
pub mod verdict;
pub mod wire;
pub mod word;
