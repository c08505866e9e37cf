//! A thing that several tasks use, one at a time, off the runtime's threads: system calls on maps block.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::spawn_blocking;

/// Shared ownership of a thing that blocks.
#[derive(Debug)]
pub struct Shared<T>(Arc<Mutex<T>>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Send + 'static> Shared<T> {
    /// Shares a thing.
    pub fn new(thing: T) -> Self {
        Self(Arc::new(Mutex::new(thing)))
    }

    /// Works on it, alone. Once begun, the work is done to its end even if the caller stops waiting.
    ///
    /// # Panics
    /// As `work` does.
    pub async fn with<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> R {
        let thing = Arc::clone(&self.0);
        let work = spawn_blocking(move || {
            let mut thing = thing.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut thing)
        });
        match work.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime is being taken down, and this task with it.
                Err(_) => std::future::pending().await,
            },
        }
    }

    /// The thing itself, when nobody else shares it any more.
    #[must_use]
    pub fn into_inner(self) -> Option<T> {
        let mutex = Arc::into_inner(self.0)?;
        Some(mutex.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}
