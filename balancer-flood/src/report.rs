//! What was sent, and what came.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// Why the sender ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// All packets were sent.
    Count,
    /// The time was over.
    Duration,
    /// There was no other new flow.
    Flows,
    /// Somebody wanted it to end.
    Signal,
}

/// What was sent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Sent {
    /// The scenario.
    pub name: String,
    /// The frames that the interface was given.
    pub sent: u64,
    /// How many frames the interface counts as dropped meanwhile.
    pub dropped: u64,
    /// How long it took.
    pub seconds: f64,
    /// Packets sent a second.
    pub pps: f64,
    /// Why it ended.
    pub ended: Ended,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Received {
    /// Frames that were counted.
    pub received: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The time from the first to the last, to 10 ms.
    pub seconds: f64,
    /// Packets received a second in that time; 0 when it is too short to tell.
    pub pps: f64,
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: sent {}, dropped {}, seconds {:.3}, pps {:.0}",
            self.name, self.sent, self.dropped, self.seconds, self.pps
        )?;
        match self.ended {
            Ended::Count | Ended::Duration => Ok(()),
            Ended::Flows => f.write_str(" (no more flows)"),
            Ended::Signal => f.write_str(" (interrupted)"),
        }
    }
}

impl fmt::Display for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "received {}, bytes {}, seconds {:.3}, pps {:.0}",
            self.received, self.bytes, self.seconds, self.pps
        )
    }
}

/// Packets a second.
#[expect(
    clippy::cast_precision_loss,
    reason = "a rate needs no more than 53 bits"
)]
pub fn per_second(packets: u64, time: Duration) -> f64 {
    if time.is_zero() {
        return 0.0;
    }
    packets as f64 / time.as_secs_f64()
}
