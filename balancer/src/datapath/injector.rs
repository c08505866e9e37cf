//! Giving frames to the program as if they had just been received.

use std::io;

use aya::programs::{ProgramError, Xdp};

use super::test_run::{Run, Runnable};

/// The length of the metadata, in bytes; a multiple of 4.
const METADATA: u32 = 4;

/// The program, for whoever has frames for it.
#[derive(Debug)]
pub struct Injector(Runnable);

impl Injector {
    /// For this program.
    ///
    /// # Errors
    /// It is not loaded, or there are too many descriptors.
    pub(super) fn of(program: &Xdp) -> Result<Self, ProgramError> {
        Runnable::of(program).map(Self)
    }

    /// Runs the program on a frame that came in by a queue of an interface. What the program decides is done: the frame is
    /// sent on, handed to the kernel, or dropped, and counted; but it is not handed to a socket: the kernel would do that from
    /// this CPU, while the queue's own may be at it.
    ///
    /// # Errors
    /// The interface is gone, or the frame is too long: the kernel takes one page, its own room included.
    pub fn inject(&self, interface: u32, queue: u32, frame: &[u8]) -> io::Result<()> {
        // With metadata before it, by which the program tells it from one that was received: such a one is not handed over.
        let frame = [&[0; METADATA as usize], frame].concat();
        self.0.live(Run {
            frame: &frame,
            metadata: METADATA,
            interface,
            queue,
        })
    }
}
