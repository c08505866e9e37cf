//! What an answer has to know of the interface that it leaves by, and of the box that has it.

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use nix::sys::socket::SockaddrIn6;

/// It.
#[derive(Debug, Default)]
pub struct Interface {
    /// Its link-layer address.
    pub mac: Option<[u8; 6]>,
    /// The first address of it, IPv4 and IPv6, that other links know too.
    addresses: [Option<IpAddr>; 2],
    /// The IPv6 addresses of all interfaces.
    ours: Vec<Ipv6Addr>,
}

impl Interface {
    /// That of this index, in the network namespace of this thread.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(index: u32) -> io::Result<Self> {
        let name = nix::net::if_::if_indextoname(index)?;
        let name = name.to_string_lossy();
        let mut found = Self::default();
        for entry in nix::ifaddrs::getifaddrs()? {
            let Some(address) = entry.address else {
                continue;
            };
            let v6 = address.as_sockaddr_in6().map(SockaddrIn6::ip);
            found.ours.extend(v6);
            if entry.interface_name != name {
                continue;
            }
            if let Some(link) = address.as_link_addr() {
                found.mac = link.addr();
            } else if let Some(v4) = address.as_sockaddr_in() {
                found.addresses[0].get_or_insert(v4.ip().into());
            } else if let Some(v6) = v6
                && !v6.is_unicast_link_local()
            {
                found.addresses[1].get_or_insert(v6.into());
            }
        }
        Ok(found)
    }

    /// Where an error that the box itself has about a packet to `destination` comes from: an address of the interface that it
    /// leaves by (RFC 1812, section 4.3.2.4), but over IPv6 the destination if that is the box's own (RFC 4443, section 2.2).
    pub fn own(&self, destination: IpAddr) -> Option<IpAddr> {
        match destination {
            IpAddr::V4(_) => self.addresses[0],
            IpAddr::V6(address) if self.ours.contains(&address) => Some(destination),
            IpAddr::V6(_) => self.addresses[1],
        }
    }
}
