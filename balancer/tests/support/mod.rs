//! What tests of the pipeline share: a box with services, frames, and the two engines.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses its part; a helper that fails has failed its test"
)]

use std::net::IpAddr;

pub mod chance;
pub mod cpus;
pub mod engines;
pub mod flows;
pub mod frame;
pub mod ids;
pub mod place;
pub mod program;
pub mod properties;
pub mod small;
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

/// The address that backends see.
pub fn source(is_ipv4: bool) -> IpAddr {
    if is_ipv4 { "10.0.0.1" } else { "2001:db8:1::1" }
        .parse()
        .unwrap()
}

/// Clients that the kernel has a route to, in the box of test runs: by a router on [`OTHER_SIDE`]. To all others
/// there is none.
pub const ROUTED: &str = "203.0.113.7:4000";
pub const ROUTED6: &str = "[2001:db8:203::7]:4000";

/// Services of every kind.
pub const SERVICES: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
protocol = "tcp"
scheduler = "nth"
  [[service.backend]]
  address = "10.0.0.3:8080"
  weight = 3
  [[service.backend]]
  address = "10.0.0.4:8080"
  weight = 2
[[service]]
name = "transparent"
listen = "192.0.2.10:8000-8003"
protocol = "tcp"
scheduler = "nth"
source_nat = "none"
  [[service.backend]]
  address = "10.0.0.5"
[[service]]
name = "dns"
listen = "*:53"
protocol = "udp"
scheduler = "nth"
  [[service.backend]]
  address = "10.0.0.6:5353"
  [[service.backend]]
  address = "10.0.0.7"
[[service]]
name = "web6"
listen = "[2001:db8::10]:80"
protocol = "tcp"
scheduler = "nth"
  [[service.backend]]
  address = "[2001:db8:1::3]:8080"
[[service]]
name = "dns6"
listen = "[2001:db8::10]:53"
protocol = "udp"
  [[service.backend]]
  address = "[2001:db8:1::6]:5353"
[[service]]
name = "empty"
listen = "192.0.2.10:81"
protocol = "tcp"
scheduler = "nth"
  [[service.backend]]
  address = "10.0.0.8:81"
  weight = 0
[[service]]
name = "inside"
listen = "*:8001"
protocol = "tcp"
interface = "eth1"
  [[service.backend]]
  address = "10.0.0.9"
"#;
