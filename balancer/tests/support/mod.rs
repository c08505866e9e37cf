//! What tests of the pipeline share: a box with services, frames, and the two engines.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part; a helper that fails has failed its test"
)]

pub mod chance;
pub mod cpus;
pub mod engines;
pub mod flows;
pub mod frame;
pub mod ids;
pub mod place;
pub mod program;
pub mod properties;
pub mod variable;
pub mod vector;

/// The interfaces of the box. Not the first numbers: a new network namespace may have devices of its own.
pub const CLIENT_SIDE: u32 = 1002;
pub const BACKEND_SIDE: u32 = 1003;
/// Another way to clients, by a router.
pub const OTHER_SIDE: u32 = 1004;

pub const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const BOX_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
pub const OTHER_BOX_MAC: [u8; 6] = [2, 0, 0, 0, 0, 4];
pub const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 5];

/// Clients that the kernel has a route to, in the box of test runs: by a router on [`OTHER_SIDE`]. To all others
/// there is none.
pub const ROUTED: &str = "203.0.113.7:4000";
pub const ROUTED6: &str = "[2001:db8:203::7]:4000";
