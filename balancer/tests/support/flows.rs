//! What is in a flow table.

use std::collections::HashSet;

use balancer::datapath::flows::FlowTable;
use balancer_common::family::Family;
use balancer_common::table::flow::Flow;
use balancer_common::table::{Lines as _, find};

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
