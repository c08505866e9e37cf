//! What the pipeline asks for: flows, the image, the way, the time, chance; and where it counts.

use core::ops::Deref;

use crate::abi::Path;
use crate::family::Family;
use crate::flow::{Flow, Tick};
use crate::hop::Hop;
use crate::image::Image;
use crate::open::{self, Opening};
use crate::tuple::Tuple;
use crate::verdict::Exit;

/// Why a flow was not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The tuple is taken.
    Exists,
    /// There is no room.
    Full,
}

/// The tables of one engine, for one address family: BPF maps in the XDP program, memory in user space.
///
/// Any method may be called on several CPUs at once.
pub trait Tables<F: Family>: Sized {
    /// A flow found; it stays readable as long as this lives, also when the flow is removed meanwhile.
    type FlowRef<'a>: Deref<Target = Flow<F>>
    where
        Self: 'a;
    /// One generation of the config.
    type Image: Image;

    /// The flow of a tuple.
    fn flow(&self, tuple: &Tuple<F>) -> Option<Self::FlowRef<'_>>;

    /// Enters a flow, only if its tuple is free.
    ///
    /// # Errors
    /// [`Refused`]; nothing was entered.
    fn enter(&self, tuple: &Tuple<F>, flow: Flow<F>) -> Result<(), Refused>;

    /// Removes the flow of a tuple, if there is one.
    fn remove(&self, tuple: &Tuple<F>);

    /// Counts a connection in as half-open, by its original tuple.
    ///
    /// # Errors
    /// [`Refused::Full`] when the bound is reached; [`Refused::Exists`] when it is counted in already.
    fn enter_half_open(&self, tuple: &Tuple<F>) -> Result<(), Refused>;

    /// Counts it out.
    fn remove_half_open(&self, tuple: &Tuple<F>);

    /// The current generation. A packet asks once, so that it sees one whole.
    fn image(&self) -> Option<Self::Image>;

    /// The next number of a service's scheduler: each is given out exactly once.
    fn ticket(&self, service: u32) -> u64;

    /// An even random number.
    fn random(&self) -> u32;

    /// The time.
    fn now(&self) -> Tick;

    /// The generation of next hops, never 0.
    fn hop_generation(&self) -> u32;

    /// The way to a backend.
    fn path(&self, backend: u32) -> Option<Path>;

    /// The kernel's route for a packet that came in by `interface` with these addresses; `None` when there is
    /// none, or no link-layer address for it.
    fn route(&self, addresses: &F::Pair, interface: u32) -> Option<Hop>;

    /// Counts a packet of `length` bytes of a backend.
    fn count_packet(&self, backend: u32, reply: bool, length: u16);

    /// Counts a connection opened to a backend.
    fn count_connection(&self, backend: u32);

    /// Opens a connection: [`open::open`], which an engine may keep in a function of its own.
    ///
    /// # Errors
    /// As for [`open::open`].
    #[inline(always)]
    fn open(&self, opening: Opening<F>) -> Result<(), Exit> {
        open::open(self, &opening)
    }

    /// Counts a connection that a service refused.
    fn count_refused(&self, service: u32, reason: crate::verdict::Drop);
}
