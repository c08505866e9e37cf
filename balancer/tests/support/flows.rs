//! What is in a flow table.

use std::collections::HashSet;
use std::net::SocketAddr;

use balancer::datapath::compile::words;
use balancer::datapath::flows::FlowTable;
use balancer_common::checksum::fold;
use balancer_common::family::Family;
use balancer_common::table::flow::Flow;
use balancer_common::table::state::State;
use balancer_common::table::{Lines as _, find};
use balancer_common::tuple::{PortsProtocol, Tuple};

/// The tuple of packets between two ends.
pub fn tuple<F: Family>(from: SocketAddr, to: SocketAddr, protocol: u8) -> Tuple<F> {
    let address = |end: SocketAddr| F::unmapped(words(end.ip()));
    Tuple {
        addresses: F::pair(address(from), address(to)),
        ports: PortsProtocol::new(from.port(), to.port(), protocol),
    }
}

/// Every flow, also when the number of connections is not that of these.
pub fn visible<F: Family>(table: &FlowTable<F>) -> impl Iterator<Item = &Flow<F>> {
    (0..table.geometry().lines())
        .filter_map(|index| table.line(index))
        .filter(|line| line.meta().is_visible())
}

/// The flows of every connection, the original's first. The table must be whole: every tuple has one flow, and every flow the one that
/// answers it, which points back.
pub fn connections<F: Family>(table: &FlowTable<F>) -> Vec<[&Flow<F>; 2]> {
    let mut tuples = HashSet::new();
    let mut connections = Vec::new();
    for flow in visible(table) {
        assert!(tuples.insert(flow.tuple()), "two flows: {flow:?}");
        assert!(std::ptr::eq(find(table, &flow.tuple()).unwrap(), flow));
        let peer = find(table, &flow.peer()).unwrap_or_else(|| panic!("half: {flow:?}"));
        assert_eq!(peer.peer(), flow.tuple());
        assert_eq!(
            (peer.is_reply(), peer.backend()),
            (!flow.is_reply(), flow.backend())
        );
        if !flow.is_reply() {
            connections.push([flow, peer]);
        }
    }
    assert_eq!(tuples.len(), 2 * connections.len(), "two flows each");
    connections
}

/// How many connections there are; those that are half-open are added to `half_open`. The table must be whole, count itself as it
/// is, and take back what it does to packets.
pub fn counted<F: Family>(table: &FlowTable<F>, half_open: &mut u64) -> usize {
    let connections = connections(table);
    for [original, reply] in &connections {
        // There and back again: the tuples, and what is added to transport checksums.
        assert_eq!(reply.new_tuple().reversed(), original.tuple());
        let deltas = [original, reply].map(|flow| u64::from(flow.new_ports().2));
        assert_eq!(fold(deltas[0] + deltas[1]) % 0xffff, 0);
        let (own, other) = (original.meta().state(), reply.meta().state());
        let is_half = !own.has(State::ESTABLISHED) && !other.has(State::ESTABLISHED);
        *half_open += u64::from(is_half);
    }
    assert_eq!(table.count(), connections.len() as u64, "connections");
    // One that was refused and that its client has replaced counts until its lines are given back.
    let replaced = (0..table.geometry().lines()).filter_map(|index| table.line(index));
    let replaced = replaced.filter(|line| {
        let meta = line.meta();
        meta.is_replaced() && !line.is_reply() && !meta.state().has(State::ESTABLISHED)
    });
    *half_open += replaced.count() as u64;
    assert_eq!(table.count_half_open(), *half_open, "half-open ones");
    connections.len()
}
