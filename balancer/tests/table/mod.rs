//! The table of packet vectors. Each file has those of one subject.

mod fragments;
mod icmp;
mod life;
mod malformed;
mod refused;
mod rewrite;
mod services;
mod tcp;
mod too_big;
mod ways;

use crate::support::vector::Vector;

/// Three web servers over IPv4. Backend ids 0 to 2.
const WEB: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
backend = [{ address = "10.0.0.3:8080" }, { address = "10.0.0.4:8080" }, { address = "10.0.0.5:8080" }]
"#;

/// Two web servers over IPv6.
const WEB6: &str = r#"
[[service]]
name = "web6"
listen = "[2001:db8::10]:80"
backend = [{ address = "[2001:db8:1::3]:8080" }, { address = "[2001:db8:1::4]:8080" }]
"#;

/// Two name servers over IPv4.
const DNS: &str = r#"
[[service]]
name = "dns"
listen = "192.0.2.10:53"
protocol = "udp"
backend = [{ address = "10.0.0.6:5353" }, { address = "10.0.0.7:5353" }]
"#;

/// A name server over IPv6.
const DNS6: &str = r#"
[[service]]
name = "dns6"
listen = "[2001:db8::10]:53"
protocol = "udp"
backend = [{ address = "[2001:db8:1::6]:5353" }]
"#;

/// How many half-open connections the box takes.
pub const HALF_OPEN: u32 = 4096;

/// A client, the services as it sees them, and the box as the backends see it on its behalf.
const CLIENT: &str = "198.51.100.7:4000";
const WEB_AT: &str = "192.0.2.10:80";
const DNS_AT: &str = "192.0.2.10:53";
const BOX: &str = "10.0.0.1:4000";
/// The first three web servers, in the order of nth.
const ONE: &str = "10.0.0.3:8080";
const TWO: &str = "10.0.0.4:8080";
const THREE: &str = "10.0.0.5:8080";
/// The first name server.
const NAMES: &str = "10.0.0.6:5353";

/// The same over IPv6.
const CLIENT6: &str = "[2001:db8::7]:4000";
const WEB6_AT: &str = "[2001:db8::10]:80";
const DNS6_AT: &str = "[2001:db8::10]:53";
const BOX6: &str = "[2001:db8:1::1]:4000";
const ONE6: &str = "[2001:db8:1::3]:8080";
const TWO6: &str = "[2001:db8:1::4]:8080";
const NAMES6: &str = "[2001:db8:1::6]:5353";

/// All of them.
pub fn all() -> Vec<Vector> {
    [
        fragments::table(),
        too_big::table(),
        icmp::table(),
        life::table(),
        rewrite::table(),
        services::table(),
        tcp::table(),
        ways::table(),
        refused::table(),
        malformed::table(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
