//! A network interface, and what it has sent.

use std::fs;
use std::io;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};

use crate::Error;

/// The counters of the calling thread's network namespace.
const COUNTERS: &str = "/proc/thread-self/net/dev";

/// A network interface of the calling thread's namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its Ethernet address, if it has one.
    pub mac: Option<[u8; 6]>,
}

/// What an interface has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that left.
    pub sent: u64,
    /// Frames that did not.
    pub dropped: u64,
}

impl Interface {
    /// The interface of that name, which must be up.
    ///
    /// # Errors
    /// There is none, or it is down.
    pub fn find(name: &str) -> Result<Self, Error> {
        let index = if_nametoindex(name).map_err(|_| Error::NoInterface(name.to_owned()))?;
        let system = |error: nix::Error| Error::System("interfaces".to_owned(), error.into());
        let mut mac = None;
        let mut flags = InterfaceFlags::empty();
        for entry in getifaddrs().map_err(system)? {
            if entry.interface_name == name {
                flags |= entry.flags;
                let link = entry
                    .address
                    .as_ref()
                    .and_then(|address| address.as_link_addr());
                mac = mac.or(link.and_then(nix::sys::socket::LinkAddr::addr));
            }
        }
        if !flags.contains(InterfaceFlags::IFF_UP) {
            return Err(Error::Down(name.to_owned()));
        }
        Ok(Self {
            name: name.to_owned(),
            index,
            mac: mac.filter(|mac| *mac != [0; 6]),
        })
    }

    /// What it has sent so far, whoever's frames these were.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn counters(&self) -> Result<Counters, Error> {
        let text = fs::read_to_string(COUNTERS)
            .map_err(|error| Error::System(COUNTERS.to_owned(), error))?;
        counters(&text, &self.name).ok_or_else(|| {
            let error = io::Error::new(io::ErrorKind::InvalidData, "not as expected");
            Error::System(format!("{COUNTERS}: {}", self.name), error)
        })
    }
}

/// `NAME: ` and sixteen numbers, eight received, eight sent: bytes, packets, errors, drops, and others.
fn counters(text: &str, name: &str) -> Option<Counters> {
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'))?;
    let numbers: Vec<u64> = line
        .split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect();
    let [_, sent, errors, drops, ..] = numbers.get(8..)? else {
        return None;
    };
    Some(Counters {
        sent: *sent,
        dropped: errors + drops,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counters_of_an_interface_are_found() {
        let text = "Inter-|   Receive                            |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0: 4294967296      3    0    5    0     0          0         0    60000    1000    7   11    0     0       0          0
";
        let eth0 = Counters {
            sent: 1000,
            dropped: 18,
        };
        assert_eq!(counters(text, "eth0"), Some(eth0));
        assert_eq!(counters(text, "eth"), None);
    }
}
