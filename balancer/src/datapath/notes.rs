//! What the program notes for the slow path, and it for the program. Each operation is a system call.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aya::maps::{HashMap, Map, MapData, MapError};
use balancer_common::family::{Family, V4, V6};
use balancer_common::fragment::{Datagram, Key};
use balancer_common::search::Search;
use balancer_common::tuple::Tuple;

use super::raw::Record;

type Hash<K, V> = HashMap<MapData, Record<K>, Record<V>>;

/// Notes of one kind.
pub struct Entries<K: Copy + 'static, V: Copy + 'static>(Mutex<Hash<K, V>>);

impl<K: Copy + 'static, V: Copy + 'static> Entries<K, V> {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        Ok(Self(Mutex::new(map.try_into()?)))
    }

    fn hash(&self) -> MutexGuard<'_, Hash<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A note; `None` when there is none, or it was forgotten.
    pub fn get(&self, key: &K) -> Option<V> {
        self.hash().get(&Record(*key), 0).ok().map(|Record(it)| it)
    }

    /// Notes something.
    ///
    /// # Errors
    /// The kernel has no memory for it.
    pub fn set(&self, key: &K, value: V) -> Result<(), MapError> {
        self.hash().insert(Record(*key), Record(value), 0)
    }

    /// Changes a note, as one step among all of this process. What `change` says is the answer: whether to keep what it made of it;
    /// `false` also when there is no note.
    pub fn change(&self, key: &K, change: impl FnOnce(&mut V) -> bool) -> bool {
        let mut hash = self.hash();
        let Ok(Record(mut value)) = hash.get(&Record(*key), 0) else {
            return false;
        };
        change(&mut value) && hash.insert(Record(*key), Record(value), 0).is_ok()
    }

    /// Forgets all.
    pub fn clear(&self) {
        let mut hash = self.hash();
        let keys: Vec<_> = hash.keys().filter_map(Result::ok).collect();
        for key in keys {
            // It may be gone already.
            let _ = hash.remove(&key);
        }
    }
}

/// The notes of one family.
pub struct Notes<F: Family> {
    /// The datagrams of which fragments have come.
    pub datagrams: Entries<Key<F>, Datagram<F>>,
    /// The searches for source ports, by the tuple of the connection's first packet.
    pub searches: Entries<Tuple<F>, Search<F>>,
}

impl<F: Family> fmt::Debug for Notes<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notes").finish_non_exhaustive()
    }
}

/// Those of both families.
#[derive(Debug)]
pub struct AllNotes {
    /// IPv4.
    pub v4: Notes<V4>,
    /// IPv6.
    pub v6: Notes<V6>,
}

impl AllNotes {
    /// Forgets all.
    pub fn clear(&self) {
        self.v4.datagrams.clear();
        self.v4.searches.clear();
        self.v6.datagrams.clear();
        self.v6.searches.clear();
    }
}
