//! What an answer has to know of the interface that it leaves by.

use std::io;
use std::net::IpAddr;

/// It.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interface {
    /// Its link-layer address.
    pub mac: Option<[u8; 6]>,
    /// The first address of it, IPv4 and IPv6, that other links know too.
    pub addresses: [Option<IpAddr>; 2],
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
        let entries = nix::ifaddrs::getifaddrs()?;
        for entry in entries.filter(|entry| entry.interface_name == name) {
            let Some(address) = entry.address else {
                continue;
            };
            if let Some(link) = address.as_link_addr() {
                found.mac = link.addr();
            } else if let Some(v4) = address.as_sockaddr_in() {
                found.addresses[0].get_or_insert(IpAddr::from(v4.ip()));
            } else if let Some(v6) = address.as_sockaddr_in6()
                && !v6.ip().is_unicast_link_local()
            {
                found.addresses[1].get_or_insert(IpAddr::from(v6.ip()));
            }
        }
        Ok(found)
    }
}
