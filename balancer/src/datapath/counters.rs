//! What workers of engine `userspace` count. Each writes its own alone; anybody may read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use balancer_common::abi::{BackendStats, MAX_BACKENDS, MAX_SERVICES, ServiceStats, Stats};
use balancer_common::verdict::{Drop, VERDICTS};

/// A number that one thread raises, and of which another keeps a part elsewhere.
#[derive(Debug, Default)]
struct Own {
    all: AtomicU64,
    kept: AtomicU64,
}

impl Own {
    /// What is not kept.
    fn get(&self) -> u64 {
        self.all.load(Ordering::Relaxed) - self.kept.load(Ordering::Relaxed)
    }

    fn add(&self, more: u64) {
        let all = self.all.load(Ordering::Relaxed);
        self.all.store(all + more, Ordering::Relaxed);
    }

    /// It is kept from now on. Gives what was not.
    fn keep(&self) -> u64 {
        let all = self.all.load(Ordering::Relaxed);
        all - self.kept.swap(all, Ordering::Relaxed)
    }
}

/// Those of all workers.
#[derive(Debug, Default)]
pub struct AllCounters(RwLock<Vec<Arc<Counters>>>);

impl AllCounters {
    /// Another worker has these.
    pub fn add(&self, counters: Arc<Counters>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.push(counters);
    }

    /// Each worker's.
    pub fn all(&self) -> RwLockReadGuard<'_, Vec<Arc<Counters>>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker's counters.
#[derive(Debug)]
pub struct Counters {
    verdicts: [Own; VERDICTS],
    /// By backend id, in the order of [`BackendStats`].
    backends: Box<[[Own; 5]]>,
    /// By service id, in the order of [`ServiceStats`].
    services: Box<[[Own; 3]]>,
}

fn zeros<const N: usize>(length: u32) -> Box<[[Own; N]]> {
    std::iter::repeat_with(|| std::array::from_fn(|_| Own::default()))
        .take(length as usize)
        .collect()
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            verdicts: std::array::from_fn(|_| Own::default()),
            backends: zeros(MAX_BACKENDS),
            services: zeros(MAX_SERVICES),
        }
    }
}

impl Counters {
    /// Counts so many more frames under the counter of what they got.
    pub fn count(&self, counter: usize, more: u64) {
        if let Some(own) = self.verdicts.get(counter) {
            own.add(more);
        }
    }

    /// Counts a packet of `length` bytes of a backend.
    pub fn count_packet(&self, backend: u32, reply: bool, length: u16) {
        if let Some([_, to, to_bytes, from, from_bytes]) = self.backends.get(backend as usize) {
            let (packets, bytes) = if reply {
                (from, from_bytes)
            } else {
                (to, to_bytes)
            };
            packets.add(1);
            bytes.add(length.into());
        }
    }

    /// Counts a connection opened to a backend.
    pub fn count_connection(&self, backend: u32) {
        if let Some([connections, ..]) = self.backends.get(backend as usize) {
            connections.add(1);
        }
    }

    /// Counts a connection that a service refused.
    pub fn count_refused(&self, service: u32, reason: Drop) {
        let Some(counters) = self.services.get(service as usize) else {
            return;
        };
        let mut more = ServiceStats::default();
        more.count(reason);
        let more = [more.no_backend, more.ports_exhausted, more.table_full];
        for (own, more) in counters.iter().zip(more) {
            own.add(more);
        }
    }

    /// Those of verdicts that are not kept elsewhere.
    #[must_use]
    pub fn verdicts(&self) -> Stats {
        Stats {
            verdicts: self.verdicts.each_ref().map(Own::get),
        }
    }

    /// Those of a backend.
    #[must_use]
    pub fn backend(&self, backend: u32) -> BackendStats {
        let counters = self.backends.get(backend as usize);
        counters.map_or_else(BackendStats::default, |it| {
            BackendStats::of(it.each_ref().map(Own::get))
        })
    }

    /// Those of a service.
    #[must_use]
    pub fn service(&self, service: u32) -> ServiceStats {
        let counters = self.services.get(service as usize);
        counters.map_or_else(ServiceStats::default, |it| {
            ServiceStats::of(it.each_ref().map(Own::get))
        })
    }

    /// They are kept elsewhere from now on. Gives what was not.
    #[must_use]
    pub fn keep_verdicts(&self) -> Stats {
        Stats {
            verdicts: self.verdicts.each_ref().map(Own::keep),
        }
    }

    /// The same of backends, with their ids; those that have not changed are not among them.
    pub fn keep_backends(&self) -> impl Iterator<Item = (u32, BackendStats)> {
        let kept = (0..)
            .zip(&self.backends)
            .map(|(id, counters)| (id, BackendStats::of(counters.each_ref().map(Own::keep))));
        kept.filter(|(_, stats)| *stats != BackendStats::default())
    }

    /// The same of services.
    pub fn keep_services(&self) -> impl Iterator<Item = (u32, ServiceStats)> {
        let kept = (0..)
            .zip(&self.services)
            .map(|(id, counters)| (id, ServiceStats::of(counters.each_ref().map(Own::keep))));
        kept.filter(|(_, stats)| *stats != ServiceStats::default())
    }
}
