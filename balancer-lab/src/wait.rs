//! Waiting for a condition, always with a bound.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{Error, Result};

const FIRST_PAUSE: Duration = Duration::from_micros(500);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Asks `condition` again and again until it is true.
///
/// `what` completes the error: "`what`: not within 2s".
pub fn eventually(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    eventually_some(what, timeout, || condition().then_some(()))
}

/// Asks `probe` again and again until it finds something, and returns that.
pub fn eventually_some<T>(
    what: &str,
    timeout: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> Result<T> {
    let end = Instant::now() + timeout;
    let mut pause = FIRST_PAUSE;
    loop {
        // Asked once more after the end, so that a probe that takes long is not cut short by the clock alone.
        let last = Instant::now() >= end;
        if let Some(found) = probe() {
            return Ok(found);
        }
        if last {
            return Err(Error::TimedOut {
                what: what.to_owned(),
                within: timeout,
                output: String::new(),
            });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
