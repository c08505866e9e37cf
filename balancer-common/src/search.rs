//! The search for a free source port, when the ones that the packet path tries are all taken.
//!
//! The packet path tries some by chance ([`crate::table::enter`]): as long as a port in ten is free that is as good as certain to find
//! one. Beyond that it hands the packet to the slow path with a note of what is looked for; that looks at every port, notes
//! what it found, and gives the packet to the program again. So nobody is refused as long as a port is free.

use crate::family::{Family, V4, V6};
use crate::pipeline::takes;
use crate::table::enter::{Connection, SourcePorts};
use crate::table::tick::Tick;
use crate::tables::Tables;
use crate::tuple::Tuple;
use crate::verdict::{Drop, Exit, Punt};

/// How long what was found is taken for true, in ticks: a second.
const FRESH: u32 = 954;

/// How far a search is.
pub mod state {
    /// It is to be begun.
    pub const WANTED: u16 = 0;
    /// The reply's port was free.
    pub const FOUND: u16 = 1;
    /// No port was.
    pub const NONE: u16 = 2;
}

/// A search, by the tuple of the connection's first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Search<F: Family> {
    /// The tuple of the connection's answers; of its destination port only what was found counts.
    pub reply: Tuple<F>,
    /// The ports among which to search. (Before the others: two words of 16 bits are moved as one of 32, which has to be
    /// aligned on the stack of BPF.)
    pub ports: SourcePorts,
    /// The backend's id.
    pub backend: u16,
    /// See [`state`].
    pub state: u16,
    /// When it was noted.
    pub since: Tick,
    /// The service's id.
    pub service: u32,
}

const _: () = {
    assert!(size_of::<Search<V4>>() == 32);
    assert!(size_of::<Search<V6>>() == 56);
};

/// Looks what a search has found, or begins one. In an engine without a slow path there is none.
///
/// # Errors
/// [`Drop::PortsExhausted`], or the packet is for the slow path.
#[inline(always)]
pub fn ask<F: Family, T: Tables<F>>(
    tables: &T,
    connection: &mut Connection<F>,
) -> Result<(), Exit> {
    if let Some(search) = tables.search(&connection.tuple)
        && connection.now.units_since(search.since) < FRESH
        && search.state != state::WANTED
        && search.service == connection.service.into()
    {
        if search.state != state::FOUND {
            return Err(Drop::PortsExhausted.into());
        }
        let port = search.reply.ports.destination();
        connection.reply = search.reply;
        connection.backend = search.backend;
        connection.source_ports = SourcePorts {
            first: port,
            last: port,
        };
        return Ok(());
    }
    if !takes(tables, Punt::Ports) {
        return Err(Drop::PortsExhausted.into());
    }
    tables.note_search(
        &connection.tuple,
        &Search {
            reply: connection.reply,
            backend: connection.backend,
            ports: connection.source_ports,
            state: state::WANTED,
            since: connection.now,
            service: connection.service.into(),
        },
    );
    Err(Punt::Ports.into())
}
