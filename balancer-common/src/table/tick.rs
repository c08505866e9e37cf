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

    /// By how many units a CPU may be behind what another has noted: a minute. It is a jiffy at most, for which the program takes
    /// the clock for what it was; the more this is, the more of what is 52 days old is taken for new.
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

    /// The same in milliseconds.
    #[must_use]
    pub const fn milliseconds_since(self, earlier: Self) -> u64 {
        (self.units_since(earlier) as u64 * 1_048_576) / 1_000_000
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
            // A minute, and more.
            (7_u32.wrapping_sub(1 << 16), 0),
            (7_u32.wrapping_sub(1 + (1 << 16)), u32::MAX - (1 << 16)),
            (8 + (1 << 31), 1 + (1 << 31)),
        ];
        for (now, age) in ages {
            assert_eq!(Tick(now).units_since(noted), age, "{now}");
        }
    }

    #[test]
    fn a_time_is_one_unit_at_least() {
        assert_eq!(Tick::count(Duration::ZERO), 1);
        assert_eq!(Tick::count(Duration::from_secs(2)), 1907);
    }

    #[test]
    fn ticks_wrap() {
        assert_eq!(Tick(5).milliseconds_since(Tick(u32::MAX - 4)), 10);
        assert_eq!(Tick(4).milliseconds_since(Tick(5)), 0);
    }
}
