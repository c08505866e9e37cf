//! How many packets the program hands over.
//!
//! Early fragments are the one kind of which anyone can send any number that wait for nothing, and the daemon keeps each of
//! them for a while. While most of them come to nothing it takes only a few.

use std::sync::Arc;
use std::time::{Duration, Instant};

use balancer_common::abi::budget;
use balancer_common::verdict::Punt;
use balancer_common::word::Word;

use crate::datapath::mapped::Mapped;

/// How many packets there may be in a [span](budget::SPAN_BITS) whose senders are told: 2,000 a second on each CPU.
const TOLD: u64 = 256;

/// How many there may be of each other kind: 8,000 a second. Each costs the daemon some microseconds.
const PUNTED: u64 = 1024;

/// How many early fragments there may be while most of them come to nothing: 500 a second.
const FEW: u64 = 64;

/// How often it is decided anew, and how many have to have come to nothing till then.
const PERIOD: Duration = Duration::from_secs(1);
const MANY: usize = 1000;

/// The budgets, as the program sees them.
#[derive(Debug)]
pub struct Budgets {
    words: Arc<Mapped<Word>>,
    early: Early,
}

impl Budgets {
    /// All that there may be of each kind.
    pub fn new(words: Arc<Mapped<Word>>) -> Self {
        let budgets = Self {
            words,
            early: Early::new(Instant::now()),
        };
        budgets.set(budget::TOLD, TOLD);
        for &reason in Punt::ALL {
            budgets.set(budget::PUNTED + reason as u32, PUNTED);
        }
        budgets
    }

    fn set(&self, kind: u32, most: u64) {
        if let Some(word) = self.words.get(kind as usize) {
            word.set(most);
        }
    }

    /// An early fragment has gone on.
    pub fn went_on(&mut self) {
        self.early.went_on += 1;
    }

    /// So many have come to nothing.
    pub fn lost(&mut self, count: usize) {
        self.early.lost += count;
    }

    /// When to [look](Self::look) again, if nothing comes.
    pub fn next(&self) -> Option<Instant> {
        self.early.are_few.then(|| self.early.since + PERIOD)
    }

    /// Decides what there may be from now on, if it is time.
    pub fn look(&mut self, now: Instant) {
        if self.early.decide(now) {
            let most = if self.early.are_few { FEW } else { PUNTED };
            self.set(budget::PUNTED + Punt::Fragment as u32, most);
        }
    }
}

/// Whether early fragments come to something.
#[derive(Debug)]
struct Early {
    since: Instant,
    went_on: usize,
    lost: usize,
    are_few: bool,
}

impl Early {
    const fn new(since: Instant) -> Self {
        Self {
            since,
            went_on: 0,
            lost: 0,
            are_few: false,
        }
    }

    /// Decides whether there may be few only. Says whether that is another answer than before.
    fn decide(&mut self, now: Instant) -> bool {
        if now < self.since + PERIOD {
            return false;
        }
        let least = if self.are_few { FEW as usize } else { MANY };
        let are_few = self.lost >= least && self.lost > self.went_on;
        let is_new = are_few != self.are_few;
        *self = Self {
            are_few,
            ..Self::new(now)
        };
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_taken_while_most_are_lost() {
        let start = Instant::now();
        let mut early = Early::new(start);
        let mut time = start;
        let mut after = |went_on, lost| {
            early.went_on += went_on;
            early.lost += lost;
            assert!(!early.decide(time + PERIOD / 2));
            time += PERIOD;
            early.decide(time);
            early.are_few
        };
        assert!(!after(0, 0));
        // A network that loses a fragment now and then.
        assert!(!after(0, MANY - 1));
        assert!(!after(10_000, 10_000));
        assert!(after(999, MANY));
        // It goes on, with as many as are taken.
        assert!(after(10, 400));
        assert!(after(100, 100 + 1));
        // It has ended.
        assert!(!after(0, FEW as usize - 1));
        assert!(!after(0, 400));
    }
}
