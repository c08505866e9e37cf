//! Which ports services listen on: most packets that no service wants are told by one byte.
//!
//! The table is beside the [`crate::image`] and not a part of it, so that it can be read without a helper call. What it
//! says is never too little: before an image comes into use its listeners are added, and those of the one before are
//! taken out afterwards. What is said too much for a moment costs a search that finds nothing.

use crate::tuple::PortsProtocol;
use crate::wire::protocol;
use crate::word::Word;

/// How many words the table has: eight ports each, a byte a port.
pub const PORT_WORDS: u32 = 8192;

/// Which kinds of listeners a port has: four bits a protocol, TCP's below UDP's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(pub u8);

impl Kinds {
    /// The kind of a listener: bit 0 set when it names an interface, bit 1 when it takes any address. In this
    /// order they are searched, from the last to the first: see [`crate::image::find`].
    #[must_use]
    pub const fn of(ip_protocol: u8, any_address: bool, interface: bool) -> Self {
        let kind = (any_address as u8) << 1 | (!interface as u8);
        Self(1 << kind << if ip_protocol == protocol::UDP { 4 } else { 0 })
    }

    /// Adds it to those of a port, in host order, in the words of a table.
    pub fn add(self, words: &mut [u64], port: u16) {
        if let Some(word) = words.get_mut(usize::from(port >> 3)) {
            *word |= u64::from(self.0) << (u32::from(port & 7) * 8);
        }
    }
}

/// The table.
pub trait Ports {
    /// One of its words; `None` behind the end.
    fn port_word(&self, index: u32) -> Option<&Word>;

    /// The kinds of listeners for the protocol and the destination port of a packet, a bit each; 0: none.
    #[inline(always)]
    fn kinds(&self, ports: PortsProtocol) -> u32 {
        let port = u32::from(ports.destination());
        let Some(word) = self.port_word(port >> 3) else {
            return 0;
        };
        let udp = if ports.protocol() == protocol::UDP {
            4
        } else {
            0
        };
        (word.get() >> ((port & 7) * 8 + udp)) as u32 & 15
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate alloc;

    use super::*;

    struct Table(alloc::vec::Vec<Word>);

    impl Ports for Table {
        fn port_word(&self, index: u32) -> Option<&Word> {
            self.0.get(index as usize)
        }
    }

    #[test]
    fn a_port_has_the_kinds_that_were_added_and_no_other_has() {
        let mut words = alloc::vec![0; PORT_WORDS as usize];
        Kinds::of(protocol::TCP, false, false).add(&mut words, 443);
        Kinds::of(protocol::UDP, true, false).add(&mut words, 443);
        Kinds::of(protocol::TCP, true, true).add(&mut words, 65_535);
        let table = Table(words.into_iter().map(Word::new).collect());
        for port in 0..=u16::MAX {
            let tcp = table.kinds(PortsProtocol::new(1, port, protocol::TCP));
            let udp = table.kinds(PortsProtocol::new(1, port, protocol::UDP));
            let expected = match port {
                443 => (0b0010, 0b1000),
                65_535 => (0b0100, 0),
                _ => (0, 0),
            };
            assert_eq!((tcp, udp), expected, "{port}");
        }
    }
}
