//! Next hops of clients that no flow has any more, given up so that others find a place.
//!
//! In two passes of the sweeper. What no flow had in the first is *closed*: flows that have its number keep it, and no more
//! flows get it. A packet that had found it before may still have given its flow the number, or a flow was entered behind
//! the pass's back: if a flow has it in the second pass it is opened again, else the place is free.

use std::collections::HashSet;

use balancer_common::hop::HopCell;

use super::flows::Numbers;

/// The places that were closed in the last pass.
#[derive(Debug, Default)]
pub struct HopKeeper {
    closed: HashSet<u16>,
}

impl HopKeeper {
    /// Ends a pass over all flow tables, which has found these `used` numbers. Says whether places were closed: then a grace
    /// period has to go by before the next pass begins.
    pub fn retain(&mut self, cells: &[HopCell], used: [&Numbers; 2]) -> bool {
        let is_used = |number| used.iter().any(|used| used.has(number));
        let mut closed = HashSet::new();
        for (number, cell) in (0..).zip(cells).skip(1) {
            if is_used(number) {
                cell.reopen();
            } else if self.closed.contains(&number) {
                cell.clear();
            } else if cell.get().is_known() || cell.is_closed() {
                // If it is closed already, or half cleared, by a daemon that was killed, since when nobody knows.
                cell.close();
                closed.insert(number);
            }
        }
        self.closed = closed;
        !self.closed.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use balancer_common::hop::{HOPS, Hop, Hops, note};

    use super::*;
    use crate::datapath::mapped::Mapped;

    struct Cells(Mapped<HopCell>);

    impl Hops for Cells {
        fn hop_cell(&self, number: u16) -> Option<&HopCell> {
            self.0.get(usize::from(number))
        }
    }

    fn hop(client: u8) -> Hop {
        Hop::new(7, [2, 0, 0, 0, 0, client], [2, 0, 0, 0, 0, 99])
    }

    fn cells() -> Cells {
        Cells(Mapped::anonymous(HOPS as usize).unwrap())
    }

    fn used(numbers: &[u16]) -> Numbers {
        let mut used = Numbers::default();
        for &number in numbers {
            used.insert(number);
        }
        used
    }

    #[test]
    fn a_next_hop_has_one_number_as_long_as_it_is_used() {
        let cells = cells();
        let mut keeper = HopKeeper::default();
        let (one, two) = (note(&cells, &hop(1)), note(&cells, &hop(2)));
        assert!(one != 0 && two != 0 && one != two);
        assert_eq!(note(&cells, &hop(1)), one);
        for _ in 0..3 {
            keeper.retain(&cells.0, [&used(&[one]), &used(&[])]);
            assert_eq!(cells.hop(one), hop(1));
        }
        assert!(!cells.hop(two).is_known());
        // The place is free again.
        assert_eq!(note(&cells, &hop(2)), two);
    }

    #[test]
    fn a_flow_that_got_a_number_late_keeps_it() {
        let cells = cells();
        let mut keeper = HopKeeper::default();
        let number = note(&cells, &hop(1));
        assert!(keeper.retain(&cells.0, [&used(&[]), &used(&[])]));
        // It loses nothing meanwhile, but no other flow gets the number.
        assert_eq!(cells.hop(number), hop(1));
        let other = note(&cells, &hop(1));
        assert!(other != number && cells.hop(other) == hop(1));
        assert!(keeper.retain(&cells.0, [&used(&[]), &used(&[number])]));
        assert_eq!(cells.hop(number), hop(1));
        assert_eq!(note(&cells, &hop(1)), number);
    }

    #[test]
    fn what_a_killed_daemon_had_closed_is_given_up_by_the_next() {
        let cells = cells();
        let number = note(&cells, &hop(1));
        HopKeeper::default().retain(&cells.0, [&used(&[]), &used(&[])]);
        let mut keeper = HopKeeper::default();
        keeper.retain(&cells.0, [&used(&[]), &used(&[])]);
        assert_eq!(cells.hop(number), hop(1));
        keeper.retain(&cells.0, [&used(&[]), &used(&[])]);
        assert!(!cells.hop(number).is_known());
        assert_eq!(note(&cells, &hop(1)), number);
    }

    #[test]
    fn without_a_place_left_there_is_no_number() {
        let cells = cells();
        let mut places = std::collections::HashSet::new();
        for low in 0..=u16::MAX {
            let [a, b] = low.to_be_bytes();
            let hop = Hop::new(7, [2, 0, 0, 0, a, b], [2, 0, 0, 0, 0, 99]);
            let number = note(&cells, &hop);
            if number != 0 {
                assert!(places.insert(number));
                assert_eq!(cells.hop(number), hop);
            }
        }
        assert!(places.len() > 16_000, "{}", places.len());
        let mut keeper = HopKeeper::default();
        for _ in 0..2 {
            keeper.retain(&cells.0, [&used(&[]), &used(&[])]);
        }
        assert_ne!(note(&cells, &hop(1)), 0);
    }
}
