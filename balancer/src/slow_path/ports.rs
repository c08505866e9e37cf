//! The search for a source port that is free: every one is looked at.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use balancer_common::family::Family;
use balancer_common::search::Search;
use balancer_common::table::{Lines, find};
use balancer_common::tuple::Tuple;

/// How long nobody looks again where no port was free: a search through all of them takes milliseconds.
const BARREN: Duration = Duration::from_millis(500);

/// How many such places are remembered.
const PLACES: usize = 4096;

/// The searches of one family.
#[derive(Debug)]
pub struct Searcher<F: Family> {
    /// Where no port was free: reply tuples without their destination port, and until when.
    barren: HashMap<Tuple<F>, Instant>,
    /// Where searches begin: by chance, so that nobody guesses which port is found.
    starts: RandomState,
    /// How many there were.
    count: u64,
}

impl<F: Family> Searcher<F> {
    /// One that has found nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            barren: HashMap::new(),
            starts: RandomState::new(),
            count: 0,
        }
    }

    /// A port that no reply to the same address from the same backend has.
    pub fn find<L: Lines<F>>(
        &mut self,
        lines: &L,
        search: &Search<F>,
        now: Instant,
    ) -> Option<u16> {
        let at = |port| Tuple {
            addresses: search.reply.addresses,
            ports: search.reply.ports.to(port),
        };
        let place = at(0);
        if self.barren.get(&place).is_some_and(|&until| now < until) {
            return None;
        }
        let span = u32::from(search.ports.last - search.ports.first) + 1;
        self.count += 1;
        let start = self.starts.hash_one(self.count) as u32;
        for further in 0..span {
            let index = start.wrapping_add(further) % span;
            let port = search.ports.first + index as u16;
            if find(lines, &at(port)).is_none() {
                return Some(port);
            }
        }
        if self.barren.len() >= PLACES {
            self.barren.retain(|_, &mut until| now < until);
        }
        if self.barren.len() < PLACES {
            self.barren.insert(place, now + BARREN);
        }
        None
    }
}

impl<F: Family> Default for Searcher<F> {
    fn default() -> Self {
        Self::new()
    }
}
