//! The index of a flow table: a hash of the kernel's.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{HashMap, MapData};
use balancer_common::family::Family;
use balancer_common::table::index::{Index, key_ports};
use balancer_common::tuple::Tuple;

use super::raw::Record;

/// `BPF_NOEXIST`.
const NOEXIST: u64 = 1;

type Entries<F> = HashMap<MapData, Record<Tuple<F>>, u32>;

/// The index as the daemon has it: each operation is a system call.
pub struct KernelIndex<F: Family>(Mutex<Entries<F>>);

impl<F: Family> KernelIndex<F> {
    /// That of a map.
    pub(super) const fn new(entries: Entries<F>) -> Self {
        Self(Mutex::new(entries))
    }

    fn entries(&self) -> MutexGuard<'_, Entries<F>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Family> fmt::Debug for KernelIndex<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelIndex").finish_non_exhaustive()
    }
}

/// The key of an entry.
fn key<F: Family>(tuple: &Tuple<F>, slot: u64) -> Record<Tuple<F>> {
    Record(Tuple {
        addresses: tuple.addresses,
        ports: key_ports(tuple.ports, slot),
    })
}

impl<F: Family> Index<F> for KernelIndex<F> {
    fn get(&self, tuple: &Tuple<F>, slot: u64) -> Option<u32> {
        self.entries().get(&key(tuple, slot), 0).ok()
    }

    fn insert(&self, tuple: &Tuple<F>, slot: u64, line: u32) -> bool {
        let key = key(tuple, slot);
        self.entries().insert(key, line, NOEXIST).is_ok()
    }

    fn remove(&self, tuple: &Tuple<F>, slot: u64) {
        // Its only error here is that there is none.
        let _ = self.entries().remove(&key(tuple, slot));
    }
}
