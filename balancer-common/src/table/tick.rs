//! Time as the packet path knows it.

use core::time::Duration;

/// A moment, in units of 2²⁰ ns (about 1.05 ms) of the monotonic clock, modulo 2³² (52 days).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tick(pub u32);

impl Tick {
    /// From nanoseconds of `CLOCK_MONOTONIC`.
    #[inline(always)]
    #[must_use]
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self((nanoseconds >> 20) as u32)
    }

    /// How many of these units a time is, one at least.
    #[must_use]
    pub const fn count(time: Duration) -> u32 {
        let Self(units) = Self::from_nanoseconds(time.as_nanos() as u64);
        if units == 0 { 1 } else { units }
    }

    /// By how many units the clock of a CPU may be behind another's at most. Mostly it is none: the program reads the clock once
    /// a jiffy, and when that begins, one CPU may read what the clock was before, for as long as the jiffy lasts.
    const LAG: u32 = 1 << 16;

    /// Units from `earlier` to here; 0 when another CPU, whose clock is ahead, has noted `earlier`.
    #[inline(always)]
    #[must_use]
    pub const fn units_since(self, earlier: Self) -> u32 {
        let units = self.0.wrapping_sub(earlier.0);
        if units > u32::MAX - Self::LAG {
            0
        } else {
            units
        }
    }

    /// Milliseconds from `earlier` to here; 0 when `earlier` is later, as the clocks of two CPUs may differ by a
    /// unit.
    #[must_use]
    pub const fn milliseconds_since(self, earlier: Self) -> u64 {
        let ticks = self.0.wrapping_sub(earlier.0);
        if ticks > u32::MAX / 2 {
            0
        } else {
            (ticks as u64 * 1_048_576) / 1_000_000
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_behind_makes_nothing_old() {
        let noted = Tick(7);
        let ages = [
            (7, 0),
            (8, 1),
            (6, 0),
            (u32::MAX, 0),
            (8 + (1 << 31), 1 + (1 << 31)),
        ];
        for (now, age) in ages {
            assert_eq!(Tick(now).units_since(noted), age, "{now}");
        }
    }

    #[test]
    fn ticks_wrap() {
        assert_eq!(Tick(5).milliseconds_since(Tick(u32::MAX - 4)), 10);
        assert_eq!(Tick(4).milliseconds_since(Tick(5)), 0);
    }
}
