//! Schedules: in which order, or with which chance, a service's backends are chosen.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use balancer_common::image::Column;

/// How many slots an nth schedule has at most, but for rounding. Weights whose smallest common cycle is longer are rounded
/// to it, each to the next slot.
pub const MAX_SLOTS: u64 = 1 << 20;

/// The order of an nth schedule: each backend as often as its weight says (divided by what all weights have in
/// common), spread evenly.
///
/// The j-th turn of a backend with weight w is due at (2j + 1) / 2w of the cycle; turns are taken as they fall
/// due, at the same moment in the order of the config. Equal weights give plain rotation.
#[must_use]
pub fn nth(weights: &[u16]) -> Vec<u32> {
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, u64::from(b)));
    if divisor == 0 {
        return Vec::new();
    }
    let mut turns: Vec<u64> = weights
        .iter()
        .map(|&weight| u64::from(weight) / divisor)
        .collect();
    let total: u64 = turns.iter().sum();
    if total > MAX_SLOTS {
        for turn in turns.iter_mut().filter(|turn| **turn > 0) {
            *turn = ((*turn * MAX_SLOTS + total / 2) / total).max(1);
        }
    }
    let slots = turns.iter().sum::<u64>() as usize;
    // Due times as exact fractions, compared by cross-multiplication.
    let mut due: BinaryHeap<Reverse<Turn>> = turns
        .iter()
        .enumerate()
        .filter(|&(_, &turns)| turns > 0)
        .map(|(backend, &turns)| {
            Reverse(Turn {
                odd: 1,
                turns,
                backend: backend as u32,
            })
        })
        .collect();
    let mut order = Vec::with_capacity(slots);
    while let Some(Reverse(turn)) = due.pop() {
        order.push(turn.backend);
        if turn.odd + 2 < 2 * turn.turns {
            due.push(Reverse(Turn {
                odd: turn.odd + 2,
                ..turn
            }));
        }
    }
    order
}

/// A turn that is due at `odd / (2 * turns)` of the cycle.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Turn {
    odd: u64,
    turns: u64,
    backend: u32,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.odd * other.turns)
            .cmp(&(other.odd * self.turns))
            .then(self.backend.cmp(&other.backend))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The alias table of a random schedule (Vose's method) for shares of any sum; empty when all are 0.
///
/// A column that is whole has itself for its alias, so that the lost 2⁻³² of its threshold changes nothing.
#[must_use]
pub fn random(shares: &[f64]) -> Vec<Column> {
    let total: f64 = shares.iter().sum();
    if total <= 0.0 {
        return Vec::new();
    }
    let count = f64::from(shares.len() as u32);
    let mut scaled: Vec<f64> = shares.iter().map(|share| share * count / total).collect();
    let mut columns: Vec<Column> = (0..shares.len() as u16)
        .map(|backend| Column {
            threshold: u32::MAX,
            backend,
            alias: backend,
        })
        .collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..scaled.len()).partition(|&index| scaled[index] < 1.0);
    while let (Some(&less), Some(&more)) = (small.last(), large.last()) {
        small.pop();
        columns[less].threshold = threshold(scaled[less]);
        columns[less].alias = more as u16;
        scaled[more] -= 1.0 - scaled[less];
        if scaled[more] < 1.0 {
            large.pop();
            small.push(more);
        }
    }
    columns
}

/// A chance as a threshold for an even 32-bit number.
#[expect(clippy::cast_sign_loss, reason = "a chance is not below 0")]
fn threshold(chance: f64) -> u32 {
    (chance * 4_294_967_296.0).round().min(f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(order: &[u32], backends: usize) -> Vec<usize> {
        (0..backends as u32)
            .map(|backend| order.iter().filter(|&&slot| slot == backend).count())
            .collect()
    }

    #[test]
    fn equal_weights_rotate() {
        assert_eq!(nth(&[1, 1, 1]), [0, 1, 2]);
        assert_eq!(nth(&[7, 7, 7]), [0, 1, 2]);
    }

    #[test]
    fn weights_are_exact_and_interleaved() {
        let order = nth(&[5, 3, 1]);
        assert_eq!(counts(&order, 3), [5, 3, 1]);
        assert_eq!(order, [0, 1, 0, 0, 1, 2, 0, 1, 0]);
    }

    #[test]
    fn weight_zero_gets_nothing() {
        assert_eq!(nth(&[0, 2, 0]), [1]);
        assert_eq!(nth(&[0, 0]), [0; 0]);
        assert_eq!(random(&[0.0]), []);
    }

    #[test]
    fn a_long_cycle_is_rounded_and_keeps_everyone() {
        let weights: Vec<u16> = (0..200).map(|index| 65_521 - index).chain([1]).collect();
        let order = nth(&weights);
        assert!(order.len() as u64 <= MAX_SLOTS + 201);
        assert!(counts(&order, 201).iter().all(|&count| count > 0));
        // 1.9 slots, were there parts of them.
        let weights: Vec<u16> = (0..160).map(|index| 65_500 - index).chain([19]).collect();
        assert_eq!(counts(&nth(&weights), 161)[160], 2);
    }

    #[test]
    fn alias_tables_give_each_share() {
        let cases: [&[f64]; 5] = [
            &[0.5, 0.3, 0.2],
            &[1.0],
            &[0.0, 1.0],
            &[5.0, 3.0, 1.0, 0.0],
            &[0.25; 4],
        ];
        for shares in cases {
            let columns = random(shares);
            let mut given = vec![0.0; shares.len()];
            for column in &columns {
                let chance = f64::from(column.threshold) / 4_294_967_296.0;
                given[usize::from(column.backend)] += chance;
                given[usize::from(column.alias)] += 1.0 - chance;
            }
            let total: f64 = shares.iter().sum();
            for (share, given) in shares.iter().zip(given) {
                let given = given / f64::from(columns.len() as u32);
                assert!(
                    (share / total - given).abs() < 1e-9,
                    "{shares:?}: {given} for {share}"
                );
            }
        }
    }
}
