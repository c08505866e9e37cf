//! Gross, wrapper, net.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The time that this thread has spent on a CPU: what other processes do does not count.
///
/// # Errors
/// Never on Linux.
pub fn thread_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// What some runs took, once with the target and once without.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// How many runs these were, each time.
    pub runs: u32,
    /// With the target.
    pub gross: Duration,
    /// The wrapper alone.
    pub wrapper: Duration,
}

impl Sample {
    /// What one run of the target took, in nanoseconds. Never nothing, which the statistics would not take.
    #[must_use]
    pub fn net(&self) -> f64 {
        self.per_run(self.gross.saturating_sub(self.wrapper))
            .max(0.001)
    }

    fn per_run(&self, time: Duration) -> f64 {
        time.as_secs_f64() * 1e9 / f64::from(self.runs.max(1))
    }
}

/// The samples of one bench.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Sample>);

/// Nanoseconds a run.
#[derive(Clone, Copy, Debug)]
pub struct Summary {
    /// The net of the quickest samples: what disturbs a sample makes it longer, so these were disturbed least.
    pub least: f64,
    /// The median of the net.
    pub median: f64,
    /// The median of the wrapper alone.
    pub wrapper: f64,
}

impl Samples {
    /// Notes one.
    pub fn push(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// How many runs of the target all of them were.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.0.iter().map(|sample| u64::from(sample.runs)).sum()
    }

    /// `None` without any.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        let sorted = |value: fn(&Sample) -> f64| {
            let mut values: Vec<_> = self.0.iter().map(value).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let net = sorted(Sample::net);
        let gross = sorted(|sample| sample.per_run(sample.gross));
        let wrapper = sorted(|sample| sample.per_run(sample.wrapper));
        Some(Summary {
            least: gross.first()? - wrapper.first()?,
            median: *net.get(net.len() / 2)?,
            wrapper: *wrapper.get(wrapper.len() / 2)?,
        })
    }
}
