//! Asking the kernel for a route as the program's packets do, from user space: by a run of a program that asks.

use aya::programs::{ProgramError, Xdp};
use balancer_common::hop::Hop;

use super::test_run::{Run, Runnable};

/// Who knows routes.
#[derive(Debug)]
pub struct Router(Runnable);

/// A [`Question`](balancer_common::abi::Question), in words of 32 bits: the addresses, the hop, the interface, the version.
const WORDS: usize = size_of::<balancer_common::abi::Question>() / 8;

impl Router {
    /// By this program.
    ///
    /// # Errors
    /// It is not loaded, or there are too many descriptors.
    pub(super) fn of(program: &Xdp) -> Result<Self, ProgramError> {
        Runnable::of(program).map(Self)
    }

    /// The way for packets between these addresses, by the routes of an interface's; `None` when there is none, or it leads to
    /// an interface that nothing may leave by.
    #[must_use]
    pub fn ask(&self, version: u32, addresses: [u64; 4], interface: u32) -> Option<Hop> {
        let mut question = [0_u64; WORDS];
        question[..4].copy_from_slice(&addresses);
        let last = [interface.to_ne_bytes(), version.to_ne_bytes()];
        question[6] = u64::from_ne_bytes(last.as_flattened().try_into().ok()?);
        let bytes = question.map(u64::to_ne_bytes);
        let mut answer = [[0; 8]; WORDS];
        let run = Run {
            frame: bytes.as_flattened(),
            metadata: 0,
            interface,
            queue: 0,
        };
        self.0.ask(run, answer.as_flattened_mut()).ok()?;
        let hop = Hop::of_memory([answer[4], answer[5]].map(u64::from_ne_bytes));
        hop.is_known().then_some(hop)
    }
}
