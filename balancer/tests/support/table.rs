//! What holds of a flow table between any two packets.

use std::collections::HashSet;

use balancer::datapath::flows::FlowTable;
use balancer_common::checksum::fold;
use balancer_common::family::Family;
use balancer_common::table::state::State;
use balancer_common::table::{Lines as _, find};

use super::engines::visible;

/// How many connections there are, each of which has both its flows; those that are half-open are added to `half_open`. All
/// is counted as it is.
pub fn connections<F: Family>(table: &FlowTable<F>, half_open: &mut u64) -> usize {
    let mut tuples = HashSet::new();
    let mut originals = 0;
    for flow in visible(table) {
        assert!(tuples.insert(flow.tuple()), "two flows: {flow:?}");
        assert!(std::ptr::eq(find(table, &flow.tuple()).unwrap(), flow));
        let peer = find(table, &flow.peer()).unwrap_or_else(|| panic!("half: {flow:?}"));
        assert_eq!(
            (peer.is_reply(), peer.backend()),
            (!flow.is_reply(), flow.backend())
        );
        // There and back again: the tuples, and what is added to transport checksums.
        assert_eq!(peer.new_tuple().reversed(), flow.tuple());
        let deltas = [flow, peer].map(|flow| u64::from(flow.new_ports().2));
        assert_eq!(fold(deltas[0] + deltas[1]) % 0xffff, 0);
        if flow.is_reply() {
            continue;
        }
        originals += 1;
        let (own, other) = (flow.meta().state(), peer.meta().state());
        let is_half = !own.has(State::ESTABLISHED) && !other.has(State::ESTABLISHED);
        *half_open += u64::from(is_half);
    }
    assert_eq!(tuples.len(), 2 * originals);
    assert_eq!(table.count(), originals as u64, "connections");
    // One that was refused and that its client has replaced counts until its lines are given back.
    let replaced = (0..table.geometry().lines()).filter_map(|index| table.line(index));
    let replaced = replaced.filter(|line| {
        let meta = line.meta();
        meta.is_replaced() && !line.is_reply() && !meta.state().has(State::ESTABLISHED)
    });
    *half_open += replaced.count() as u64;
    assert_eq!(table.count_half_open(), *half_open, "half-open ones");
    originals
}
