//! Addresses and ports: all private or set aside for tests, and none is used outside of the namespaces.

use std::net::Ipv4Addr;

/// The client's own address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The box, on the clients' side: the services' address.
pub const SERVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The box, on the backends' side: the source of what it masquerades.
pub const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The server, the gateway to all backends.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// The network of the clients whose frames circulate, and its prefix length.
pub const CLIENTS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
/// See [`CLIENTS`].
pub const CLIENTS_PREFIX: u32 = 15;
/// The network of the backends, and its prefix length. A backend's number is what is behind the prefix.
pub const BACKENDS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 0);
/// See [`BACKENDS`].
pub const BACKENDS_PREFIX: u32 = 17;
/// The port of the UDP service and of its backends.
pub const PORT: u16 = 7000;
/// The port of the web service and of its backends.
pub const WEB_PORT: u16 = 80;
/// The first port of the clients.
pub const FIRST_PORT: u16 = 1024;
/// How many ports a client uses before the next client begins.
pub const PORTS: u16 = 63_000;
/// The first and the last source port towards backends.
pub const SOURCE_PORTS: (u16, u16) = (1024, 64_999);

/// The address of the backend `number`, from 1.
#[must_use]
pub fn backend(number: u32) -> Ipv4Addr {
    (u32::from(BACKENDS) + number).into()
}

/// The mask of a prefix length.
#[must_use]
pub fn mask(prefix: u32) -> u32 {
    u32::MAX.checked_shl(32 - prefix).unwrap_or(0)
}
