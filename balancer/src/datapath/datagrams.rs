//! The datagrams of which fragments have come, as the program notes them.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use aya::maps::{HashMap, Map, MapData, MapError};
use balancer_common::family::{Family, V4, V6};
use balancer_common::fragment::{Datagram, Key};

use super::raw::Record;

type Entries<F> = Mutex<HashMap<MapData, Record<Key<F>>, Record<Datagram<F>>>>;

/// Those of both families. Each operation is a system call.
pub struct Datagrams {
    v4: Entries<V4>,
    v6: Entries<V6>,
}

impl fmt::Debug for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datagrams").finish_non_exhaustive()
    }
}

/// A family's part.
pub trait OfFamily: Family {
    /// Its entries.
    #[doc(hidden)]
    fn entries(datagrams: &Datagrams) -> &Entries<Self>;
}

impl OfFamily for V4 {
    fn entries(datagrams: &Datagrams) -> &Entries<V4> {
        &datagrams.v4
    }
}

impl OfFamily for V6 {
    fn entries(datagrams: &Datagrams) -> &Entries<V6> {
        &datagrams.v6
    }
}

impl Datagrams {
    pub(super) fn new(v4: Map, v6: Map) -> Result<Self, MapError> {
        Ok(Self {
            v4: Mutex::new(v4.try_into()?),
            v6: Mutex::new(v6.try_into()?),
        })
    }

    /// A datagram; `None` when no fragment of it has come, or it was forgotten.
    pub fn get<F: OfFamily>(&self, key: &Key<F>) -> Option<Datagram<F>> {
        let entries = F::entries(self);
        let entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&Record(*key), 0).ok().map(|Record(it)| it)
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        clear(&self.v4);
        clear(&self.v6);
    }
}

fn clear<F: Family>(entries: &Entries<F>) {
    let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
    let keys: Vec<_> = entries.keys().filter_map(Result::ok).collect();
    for key in keys {
        // It may be gone already.
        let _ = entries.remove(&key);
    }
}
