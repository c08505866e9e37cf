//! When a worker has nothing of before any more.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::Duration;

/// Whether a worker is at work: whoever sees that it is not, or has begun anew, knows that it has nothing of before.
#[derive(Debug, Default)]
pub struct Epoch(AtomicU64);

impl Epoch {
    /// It is at work from now on.
    pub fn begin(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// It is not.
    pub fn end(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// There is no worker any more, wherever it was.
    pub fn leave(&self) {
        self.0.fetch_or(1, Ordering::SeqCst);
        self.end();
    }

    /// Waits until what it is at, if anything, is done.
    pub fn pass(&self) {
        const A_WHILE: Duration = Duration::from_micros(20);
        let seen = self.0.load(Ordering::SeqCst);
        while seen % 2 == 1 && self.0.load(Ordering::SeqCst) == seen {
            sleep(A_WHILE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn nobody_waits_for_who_is_idle_or_gone() {
        let epoch = Epoch::default();
        epoch.pass();
        epoch.begin();
        epoch.end();
        epoch.pass();
        epoch.begin();
        epoch.leave();
        epoch.pass();
        epoch.leave();
        epoch.pass();
    }

    #[test]
    fn what_was_begun_is_waited_for() {
        let epoch = Epoch::default();
        let is_done = AtomicUsize::new(0);
        epoch.begin();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                sleep(Duration::from_millis(20));
                is_done.store(1, Ordering::SeqCst);
                epoch.end();
                // Not to be waited for.
                epoch.begin();
            });
            epoch.pass();
            assert_eq!(is_done.load(Ordering::SeqCst), 1);
        });
    }
}
