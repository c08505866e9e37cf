//! Numbers that nobody foresees.

use std::hash::{BuildHasher as _, RandomState};

/// Numbers by a keyed hash of how many there were; the kernel has made the key by chance.
#[derive(Debug, Default)]
pub struct Chance {
    key: RandomState,
    given: u64,
}

impl Chance {
    /// One of them.
    pub fn number(&mut self) -> u32 {
        self.given = self.given.wrapping_add(1);
        self.key.hash_one(self.given) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_even() {
        let mut chance = Chance::default();
        let ones: u32 = (0..100_000).map(|_| chance.number().count_ones()).sum();
        assert!((1_590_000..1_610_000).contains(&ones), "{ones}");
    }

    #[test]
    fn each_has_numbers_of_its_own() {
        let ten = |mut chance: Chance| -> Vec<u32> { (0..10).map(|_| chance.number()).collect() };
        assert_ne!(ten(Chance::default()), ten(Chance::default()));
    }
}
