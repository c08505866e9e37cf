//! What the pipeline asks for: flows, the image, the way, the time, chance; and where it counts.

use crate::abi::Path;
use crate::family::Family;
use crate::fragment::{self, Datagram, Key, Room};
use crate::hop::{Hop, Hops};
use crate::image::Image;
use crate::open::{self, Opening};
use crate::packet::Packet;
use crate::parse;
use crate::pipeline;
use crate::ports::Ports;
use crate::screen::Screen;
use crate::search::{self, Search};
use crate::table::Lines;
use crate::table::enter::Connection;
use crate::table::flow::Flow;
use crate::table::tick::Tick;
use crate::table::touch::{Touched, touch};
use crate::tuple::Tuple;
use crate::verdict::{Drop, Exit, Punt, Way};

/// What becomes of a packet that is offered to the slow path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Reception {
    /// There is none.
    #[default]
    Nobody,
    /// It has had all that it takes for now.
    Full,
    /// It takes it.
    Taken,
}

/// The tables of one engine, for one address family: BPF maps in the XDP program, memory in user space.
///
/// Any method may be called on several CPUs at once.
pub trait Tables<F: Family>: Lines<F> + Hops + Ports + Screen + Sized {
    /// One generation of the config.
    type Image: Image;

    /// The current generation. A packet asks once, so that it sees one whole.
    fn image(&self) -> Option<Self::Image>;

    /// The next number of a service's scheduler: each is given out exactly once.
    fn ticket(&self, service: u32) -> u64;

    /// An even random number.
    fn random(&self) -> u32;

    /// The time.
    fn now(&self) -> Tick;

    /// The generation of next hops.
    fn hop_generation(&self) -> u16;

    /// The way to a backend.
    fn path(&self, backend: u32) -> Option<Path>;

    /// The kernel's route for a packet that came in by `interface` with these addresses; `None` when there is
    /// none, or no link-layer address for it.
    fn route(&self, addresses: &F::Pair, interface: u32) -> Option<Hop>;

    /// The datagram of a fragment, if its first one has come.
    fn datagram(&self, key: &Key<F>) -> Option<Datagram<F>>;

    /// Remembers a datagram.
    fn note_datagram(&self, key: &Key<F>, datagram: &Datagram<F>);

    /// Exchanges the [progress](Datagram::progress) of a datagram, if it is still `old`. Says whether it was.
    fn advance_datagram(&self, key: &Key<F>, old: u64, new: u64) -> bool;

    /// How long a datagram is remembered, in ticks.
    fn fragment_timeout(&self) -> u32;

    /// The search for a source port for the connection of a first packet.
    fn search(&self, tuple: &Tuple<F>) -> Option<Search<F>>;

    /// Notes such a search.
    fn note_search(&self, tuple: &Tuple<F>, search: &Search<F>);

    /// Whether a packet of `length` bytes may leave by an interface.
    fn fits(&self, interface: u32, length: u32) -> bool;

    /// Offers a packet to the slow path. One that is taken is to get this verdict.
    fn offer(&self, reason: Punt) -> Reception;

    /// Counts a packet of `length` bytes of a backend.
    fn count_packet(&self, backend: u32, reply: bool, length: u16);

    /// Counts a connection opened to a backend.
    fn count_connection(&self, backend: u32);

    /// Opens a connection: [`open::open`]. An engine may keep this and what follows in functions of their own.
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    fn open(&self, tuple: Tuple<F>, opening: Opening) -> Result<(), Exit> {
        open::open(self, &opening, &mut Connection::of(tuple))
    }

    /// [`open::plan`].
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    fn plan(&self, opening: &Opening, connection: &mut Connection<F>) -> Result<(), Exit> {
        open::plan(self, opening, connection)
    }

    /// [`open::enter`].
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    fn enter(&self, connection: &mut Connection<F>) -> Result<(), Exit> {
        open::enter(self, connection)
    }

    /// [`search::ask`].
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    fn search_port(&self, connection: &mut Connection<F>) -> Result<(), Exit> {
        search::ask(self, connection)
    }

    /// [`touch`] by a packet whose transport header begins at `start`, and which ends at `end`.
    #[inline(always)]
    fn touch<P: Packet>(
        &self,
        packet: &P,
        flow: &Flow<F>,
        start: usize,
        end: usize,
        now: Tick,
    ) -> Touched {
        let segment = parse::segment_of(packet, flow.protocol(), start, end);
        touch(self, flow, segment, now)
    }

    /// [`pipeline::ask`].
    #[inline(always)]
    fn ask(&self, flow: &Flow<F>, interface: u32) -> Hop {
        pipeline::ask(self, flow, interface)
    }

    /// [`fragment::forward`].
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    fn forward_fragment<P: Packet>(
        &self,
        packet: &mut P,
        interface: u32,
        l3: usize,
    ) -> Result<Way, Exit> {
        let mut room = Room::NONE;
        fragment::forward(packet, self, interface, l3, &mut room)
    }

    /// Counts a connection that a service refused.
    fn count_refused(&self, service: u32, reason: Drop);
}
