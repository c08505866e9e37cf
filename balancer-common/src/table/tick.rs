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
    fn ticks_wrap() {
        assert_eq!(Tick(5).milliseconds_since(Tick(u32::MAX - 4)), 10);
        assert_eq!(Tick(4).milliseconds_since(Tick(5)), 0);
    }
}
