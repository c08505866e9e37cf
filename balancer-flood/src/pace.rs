//! The rate.

use std::num::NonZeroU64;
use std::time::Duration;

/// How many frames one test run sends at first, and with a rate at most: a few milliseconds of work.
const STEP: u64 = 16_384;

/// How long a test run lasts without a rate: an end is soon seen. Before each the kernel waits for a grace period of RCU, some 10 ms in
/// which nothing is sent; so shorter ones would send bursts, with more idle time between them than they last.
const LONG: Duration = Duration::from_millis(200);

/// How long to wait at least, with a rate: a test run has a cost of its own.
const PAUSE: Duration = Duration::from_millis(1);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send so many frames; at least one.
    Send(u32),
    /// Wait.
    Wait(Duration),
}

/// How many frames may be sent, and when.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Frames a second.
    pub rate: Option<NonZeroU64>,
}

impl Pace {
    /// What to do after `elapsed`, when `sent` frames have been sent and `left` are left, at least one.
    pub fn next(self, elapsed: Duration, sent: u64, left: u64) -> Next {
        let Some(rate) = self.rate else {
            let due = u128::from(sent) * LONG.as_nanos() / elapsed.as_nanos().max(1);
            let due = due.clamp(STEP.into(), u32::MAX.into()) as u64;
            return Next::Send(left.min(due) as u32);
        };
        let rate = u128::from(rate.get());
        // The first frame is due at once.
        let due = elapsed.as_nanos() * rate / 1_000_000_000 + 1;
        let due = u64::try_from(due).unwrap_or(u64::MAX).saturating_sub(sent);
        if due > 0 {
            return Next::Send(due.min(left).min(STEP) as u32);
        }
        let at = (u128::from(sent) * 1_000_000_000).div_ceil(rate);
        let wait = Duration::from_nanos(u64::try_from(at).unwrap_or(u64::MAX));
        Next::Wait(wait.saturating_sub(elapsed).max(PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn milliseconds(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    #[test]
    fn without_a_rate_frames_are_sent_in_large_steps() {
        let pace = Pace { rate: None };
        assert_eq!(pace.next(milliseconds(0), 0, 100_000), Next::Send(16_384));
        assert_eq!(pace.next(milliseconds(9), 98_304, 1_696), Next::Send(1_696));
        // As many as take so long, by what has been sent.
        let next = pace.next(milliseconds(20), 32_768, u64::MAX);
        assert_eq!(next, Next::Send(327_680));
        let next = pace.next(milliseconds(400), 100, u64::MAX);
        assert_eq!(next, Next::Send(16_384));
        let next = pace.next(milliseconds(1), u64::MAX >> 8, u64::MAX);
        assert_eq!(next, Next::Send(u32::MAX));
    }

    #[test]
    fn a_rate_is_kept_up_and_not_exceeded() {
        let pace = Pace {
            rate: NonZeroU64::new(100),
        };
        assert_eq!(pace.next(milliseconds(0), 0, 50), Next::Send(1));
        assert_eq!(
            pace.next(milliseconds(0), 1, 49),
            Next::Wait(milliseconds(10))
        );
        assert_eq!(
            pace.next(milliseconds(8), 1, 49),
            Next::Wait(milliseconds(2))
        );
        assert_eq!(pace.next(milliseconds(10), 1, 49), Next::Send(1));
        // Late: what is due is made up for.
        assert_eq!(pace.next(milliseconds(100), 2, 48), Next::Send(9));
        assert_eq!(pace.next(milliseconds(100), 2, 3), Next::Send(3));
    }

    #[test]
    fn a_high_rate_waits_a_millisecond_at_a_time() {
        let pace = Pace {
            rate: NonZeroU64::new(1_000_000),
        };
        assert_eq!(pace.next(milliseconds(1), 1_001, 9), Next::Wait(PAUSE));
        assert_eq!(
            pace.next(milliseconds(2), 1_001, u64::MAX),
            Next::Send(1_000)
        );
    }
}
