//! Next hops of clients that no flow has any more, given up so that others find a place.
//!
//! In two passes of the sweeper. What no flow had in the first is *reserved*: no packet takes it for its flow from then on,
//! and no other next hop can have its number. A packet that had found it before may still have given its flow the number:
//! if a flow has it in the second pass it is restored, else the place is free.

use std::collections::HashMap;

use balancer_common::hop::HopCell;

use super::flows::Numbers;

/// The places that are reserved, and what was there.
#[derive(Debug, Default)]
pub struct HopKeeper {
    reserved: HashMap<u16, u64>,
}

impl HopKeeper {
    /// Ends a pass over all flow tables, which has found these `used` numbers.
    pub fn retain(&mut self, cells: &[HopCell], used: [&Numbers; 2]) {
        let is_used = |number| used.iter().any(|used| used.has(number));
        let mut reserved = HashMap::new();
        for (number, cell) in (0..).zip(cells).skip(1) {
            match self.reserved.remove(&number) {
                Some(word) if is_used(number) => cell.restore(word),
                Some(_) => cell.clear(),
                None if cell.is_reserved() => {
                    // By a daemon that was killed; or a packet is just filling it, and it is restored in a moment.
                    reserved.insert(number, 0);
                }
                None if cell.get().is_known() && !is_used(number) => {
                    reserved.insert(number, cell.reserve());
                }
                None => {}
            }
        }
        self.reserved = reserved;
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
            assert!(!cells.hop(two).is_known());
        }
        // The place is free again.
        assert_eq!(note(&cells, &hop(2)), two);
    }

    #[test]
    fn a_flow_that_got_a_number_late_keeps_it() {
        let cells = cells();
        let mut keeper = HopKeeper::default();
        let number = note(&cells, &hop(1));
        keeper.retain(&cells.0, [&used(&[]), &used(&[])]);
        assert!(!cells.hop(number).is_known());
        // Nobody else gets the place meanwhile.
        assert_ne!(note(&cells, &hop(1)), number);
        keeper.retain(&cells.0, [&used(&[]), &used(&[number])]);
        assert_eq!(cells.hop(number), hop(1));
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
