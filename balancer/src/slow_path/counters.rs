//! What the slow path has done.

use std::sync::atomic::{AtomicU64, Ordering};

use balancer_common::verdict::{Drop, Punt};

/// A counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts so many more.
    pub fn add_many(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Frames by what became of them.
#[derive(Debug, Default)]
pub struct Counters {
    /// Dropped by the program and handed over, so that the sender is told: by the reason, in the order of [`Drop::ALL`].
    pub dropped: [Counter; Drop::ALL.len()],
    /// Of these: the sender was told.
    pub told: Counter,
    /// It was not: there were too many.
    pub limited: Counter,
    /// It was not: nobody is told of such a packet, such as a RST.
    pub untold: Counter,
    /// It was not: the answer could not be sent.
    pub unsent: Counter,
    /// Handed over to wait: by the reason, in the order of [`Punt::ALL`]. Each is then one of the following, or waits.
    pub punted: [Counter; Punt::ALL.len()],
    /// Given to the program again.
    pub resumed: Counter,
    /// They have waited too long.
    pub expired: Counter,
    /// There were too many.
    pub overflowed: Counter,
    /// The program could not be given them; or what it had noted could not be read, and these are in none of the others.
    pub failed: Counter,
}
