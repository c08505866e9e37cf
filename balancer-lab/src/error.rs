//! What can go wrong in a lab, told so that a failed test needs no second run.

use std::{fmt, io, process::ExitStatus, time::Duration};

/// What a lab's calls answer with.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call of the lab failed. `Debug` prints the same text as `Display`, so that `unwrap` in a test reads well.
#[derive(thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done, and on which host.
        what: String,
        /// The system's own error.
        source: io::Error,
    },
    /// A command ended with another status than 0.
    #[error("{command}: {status}\n{output}")]
    Command {
        /// The host and the command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to both its streams.
        output: String,
    },
    /// What was waited for did not come.
    #[error("{what}: not within {within:?}\n{output}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// The bound.
        within: Duration,
        /// What the process waited for has written, empty where there is none.
        output: String,
    },
    /// The lab was asked for something that it cannot give, or a peer answered nonsense.
    #[error("{0}")]
    Invalid(String),
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Says what was being done when a system call failed.
pub(crate) trait Context<T> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error::System {
            what: what(),
            source: error.into(),
        })
    }
}
