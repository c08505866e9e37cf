//! The maps as packets in user space see them: the same memory that the program's packets see.

use std::collections::HashMap;
use std::mem::offset_of;
use std::sync::Arc;

use arc_swap::ArcSwap;
use balancer_common::abi::{Globals, Link, Path};
use balancer_common::family::{Family, V4, V6};
use balancer_common::fragment::{Datagram, Key};
use balancer_common::hop::{Hop, HopCell};
use balancer_common::image::Cell;
use balancer_common::screen::Row;
use balancer_common::search::Search;
use balancer_common::tuple::Tuple;
use balancer_common::word::Word;

use super::counters::AllCounters;
use super::flows::View;
use super::mapped::Mapped;
use super::notes::{AllNotes, Entries};
use super::router::Router;

/// [`Path`] in memory that is shared. Like the program's packets, ours may see a path that is half written; the next
/// generation of next hops puts that right.
#[derive(Debug)]
#[repr(C)]
pub struct PathCell([Word; size_of::<Path>() / 8]);

impl PathCell {
    /// The path.
    pub fn get(&self) -> Path {
        let [low, high, first, second] = self.0.each_ref().map(Word::get);
        Path {
            hop: Hop::of_memory([low, high]),
            source: [first, second],
        }
    }
}

/// The globals in memory that is shared.
#[derive(Debug)]
pub struct GlobalsCell(pub(super) Mapped<Word>);

/// How many words they are.
pub(super) const GLOBALS: u32 = (size_of::<Globals>() / 8) as u32;

impl GlobalsCell {
    fn word(&self, offset: usize) -> u64 {
        self.0.get(offset / 8).map_or(0, Word::get)
    }

    /// [`Globals::hop_generation`], of which flows keep so much.
    #[must_use]
    pub fn hop_generation(&self) -> u16 {
        self.word(offset_of!(Globals, hop_generation)) as u16
    }

    /// [`Globals::fragment_timeout`].
    #[must_use]
    pub fn fragment_timeout(&self) -> u32 {
        self.word(offset_of!(Globals, fragment_timeout)) as u32
    }

    /// [`Globals::least_mtu`].
    #[must_use]
    pub fn least_mtu(&self) -> u64 {
        self.word(offset_of!(Globals, least_mtu))
    }
}

/// What packets share. Whoever has this removes nothing.
#[derive(Debug)]
pub struct Maps {
    /// The flow table of IPv4.
    pub v4: View<V4>,
    /// That of IPv6.
    pub v6: View<V6>,
    /// The next hops of clients, by number.
    pub hops: Arc<Mapped<HopCell>>,
    /// The table of ports.
    pub ports: Arc<Mapped<Word>>,
    /// The rows of the screen.
    pub screen: Mapped<Row>,
    /// By backend id.
    pub paths: Mapped<PathCell>,
    /// By service id.
    pub tickets: Mapped<Word>,
    /// One.
    pub globals: GlobalsCell,
    /// The budgets of what goes to the slow path.
    pub budgets: Arc<Mapped<Word>>,
    /// The current image.
    pub image: ArcSwap<Vec<Cell>>,
    /// The interfaces that packets may leave by, by their index.
    pub links: ArcSwap<HashMap<u32, Link>>,
    /// The notes that have no place in shared memory.
    pub notes: Arc<AllNotes>,
    /// Who knows routes.
    pub router: Router,
    /// What workers count.
    pub counters: AllCounters,
}

/// A family's part of them.
pub trait InMaps: Family {
    /// Its flow table.
    fn flows(maps: &Maps) -> &View<Self>;
    /// The datagrams of fragments.
    fn datagrams(maps: &Maps) -> &Entries<Key<Self>, Datagram<Self>>;
    /// The searches for source ports.
    fn searches(maps: &Maps) -> &Entries<Tuple<Self>, Search<Self>>;
    /// A pair of addresses as the router takes it.
    fn addresses(pair: &Self::Pair) -> [u64; 4];
}

impl InMaps for V4 {
    fn flows(maps: &Maps) -> &View<V4> {
        &maps.v4
    }

    fn datagrams(maps: &Maps) -> &Entries<Key<V4>, Datagram<V4>> {
        &maps.notes.v4.datagrams
    }

    fn searches(maps: &Maps) -> &Entries<Tuple<V4>, Search<V4>> {
        &maps.notes.v4.searches
    }

    fn addresses(&pair: &u64) -> [u64; 4] {
        [pair, 0, 0, 0]
    }
}

impl InMaps for V6 {
    fn flows(maps: &Maps) -> &View<V6> {
        &maps.v6
    }

    fn datagrams(maps: &Maps) -> &Entries<Key<V6>, Datagram<V6>> {
        &maps.notes.v6.datagrams
    }

    fn searches(maps: &Maps) -> &Entries<Tuple<V6>, Search<V6>> {
        &maps.notes.v6.searches
    }

    fn addresses(&pair: &[u64; 4]) -> [u64; 4] {
        pair
    }
}
