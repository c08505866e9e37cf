//! The pipeline's tables as one worker has them: the maps, and what is its own.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use balancer_common::abi::{Path, budget};
use balancer_common::fragment::{Datagram, Key};
use balancer_common::hop::{Hop, HopCell, Hops};
use balancer_common::image;
use balancer_common::ports::Ports;
use balancer_common::screen::{Row, Screen};
use balancer_common::search::Search;
use balancer_common::table::flow::Flow;
use balancer_common::table::tick::Tick;
use balancer_common::table::{Geometry, Lines, Totals};
use balancer_common::tables::{Reception, Tables};
use balancer_common::tuple::Tuple;
use balancer_common::verdict::{Drop, Punt};
use balancer_common::word::Word;

use super::chance::Chance;
use crate::datapath::counters::Counters;
use crate::datapath::index::KernelIndex;
use crate::datapath::maps::{InMaps, Maps, PathCell};

/// How many frames a worker gives back to the kernel in a [span](budget::SPAN_BITS): 7,600 a second, each of which takes some 10 µs.
const GIVEN_BACK: u64 = 1024;

/// What one worker works with.
#[derive(Debug)]
pub struct Lane {
    maps: Arc<Maps>,
    counters: Arc<Counters>,
    /// The time, and the span of budgets that it is in.
    now: Cell<(Tick, u64)>,
    chance: RefCell<Chance>,
    /// How much of each budget is used.
    used: [Cell<u64>; budget::KINDS],
    /// How many frames the kernel was given back.
    given_back: Cell<u64>,
    /// Whether somebody takes what is offered: nobody does what has been taken already.
    pub has_slow_path: Cell<bool>,
    /// How long a packet may be that was too long.
    pub mtu: Cell<u32>,
}

impl Lane {
    /// That of a worker with these counters.
    pub fn new(maps: Arc<Maps>, counters: Arc<Counters>) -> Self {
        Self {
            maps,
            counters,
            now: Cell::default(),
            chance: RefCell::default(),
            used: Default::default(),
            given_back: Cell::default(),
            has_slow_path: Cell::default(),
            mtu: Cell::default(),
        }
    }

    /// It is that late, in nanoseconds. Says whether budgets begin anew.
    pub fn set_time(&self, nanoseconds: u64) -> bool {
        let span = nanoseconds >> budget::SPAN_BITS;
        let is_new = span != self.now.get().1;
        if is_new {
            self.used.iter().for_each(|used| used.set(0));
            self.given_back.set(0);
        }
        self.now.set((Tick::from_nanoseconds(nanoseconds), span));
        is_new
    }

    /// Counts so many more frames under the counter of what they got.
    pub fn count(&self, counter: usize, more: u64) {
        self.counters.count(counter, more);
    }

    /// Whether one more frame may be given back to the kernel; it is counted.
    pub fn may_give_back(&self) -> bool {
        let before = self.given_back.get();
        self.given_back.set(before + 1);
        before < GIVEN_BACK
    }

    /// Whether one more packet of a kind may go to the slow path; it is counted.
    pub fn is_within(&self, kind: u32) -> bool {
        let (Some(most), Some(used)) = (
            self.maps.budgets.get(kind as usize),
            self.used.get(kind as usize),
        ) else {
            return false;
        };
        used.set(used.get() + 1);
        used.get() <= most.get()
    }
}

/// A generation of the config, held for the time of one packet.
#[derive(Debug)]
pub struct Generation(Arc<Vec<image::Cell>>);

impl image::Image for Generation {
    fn cell(&self, index: u32) -> Option<&image::Cell> {
        self.0.get(index as usize)
    }
}

impl<F: InMaps> Lines<F> for Lane {
    type Index = KernelIndex<F>;

    #[inline(always)]
    fn index(&self) -> Option<&KernelIndex<F>> {
        F::flows(&self.maps).index()
    }

    #[inline(always)]
    fn geometry(&self) -> &Geometry {
        F::flows(&self.maps).geometry()
    }

    #[inline(always)]
    fn line(&self, index: u32) -> Option<&Flow<F>> {
        F::flows(&self.maps).line(index)
    }

    #[inline(always)]
    fn totals(&self) -> Option<&Totals> {
        F::flows(&self.maps).totals()
    }
}

impl Hops for Lane {
    fn hop_cell(&self, number: u16) -> Option<&HopCell> {
        self.maps.hops.get(usize::from(number))
    }
}

impl Ports for Lane {
    fn port_word(&self, index: u32) -> Option<&Word> {
        self.maps.ports.get(index as usize)
    }
}

impl Screen for Lane {
    fn screen_row(&self, index: u32) -> Option<&Row> {
        self.maps.screen.get(index as usize)
    }
}

impl<F: InMaps> Tables<F> for Lane {
    type Image = Generation;

    fn image(&self) -> Option<Generation> {
        Some(Generation(self.maps.image.load_full()))
    }

    fn ticket(&self, service: u32) -> u64 {
        let ticket = self.maps.tickets.get(service as usize);
        ticket.map_or(0, |ticket| ticket.add(1))
    }

    fn random(&self) -> u32 {
        self.chance.borrow_mut().number()
    }

    fn now(&self) -> Tick {
        self.now.get().0
    }

    fn hop_generation(&self) -> u16 {
        self.maps.globals.hop_generation()
    }

    fn path(&self, backend: u32) -> Option<Path> {
        self.maps.paths.get(backend as usize).map(PathCell::get)
    }

    fn route(&self, addresses: &F::Pair, interface: u32) -> Option<Hop> {
        let addresses = F::addresses(addresses);
        self.maps
            .router
            .ask(F::VERSION.into(), addresses, interface)
    }

    fn datagram(&self, key: &Key<F>) -> Option<Datagram<F>> {
        F::datagrams(&self.maps).get(key)
    }

    fn note_datagram(&self, key: &Key<F>, datagram: &Datagram<F>) {
        // Without memory for it the other fragments are lost.
        let _ = F::datagrams(&self.maps).set(key, *datagram);
    }

    fn advance_datagram(&self, key: &Key<F>, old: u64, new: u64) -> bool {
        let advance = |datagram: &mut Datagram<F>| {
            let is_as_it_was = datagram.progress == old;
            datagram.progress = new;
            is_as_it_was
        };
        F::datagrams(&self.maps).change(key, advance)
    }

    fn fragment_timeout(&self) -> u32 {
        self.maps.globals.fragment_timeout()
    }

    fn search(&self, tuple: &Tuple<F>) -> Option<Search<F>> {
        F::searches(&self.maps).get(tuple)
    }

    fn note_search(&self, tuple: &Tuple<F>, search: &Search<F>) {
        // Without memory for it the connection is refused.
        let _ = F::searches(&self.maps).set(tuple, *search);
    }

    fn fits(&self, interface: u32, length: u32) -> bool {
        if self.maps.globals.least_mtu() >= length.into() {
            return true;
        }
        match self.maps.links.load().get(&interface) {
            Some(link) if length > link.mtu => {
                self.mtu.set(link.mtu);
                false
            }
            _ => true,
        }
    }

    fn offer(&self, reason: Punt) -> Reception {
        if !self.has_slow_path.get() {
            Reception::Nobody
        } else if self.is_within(budget::PUNTED + reason as u32) {
            Reception::Taken
        } else {
            Reception::Full
        }
    }

    fn count_packet(&self, backend: u32, reply: bool, length: u16) {
        self.counters.count_packet(backend, reply, length);
    }

    fn count_connection(&self, backend: u32) {
        self.counters.count_connection(backend);
    }

    fn count_refused(&self, service: u32, reason: Drop) {
        self.counters.count_refused(service, reason);
    }
}
