//! Giving frames to the program as if they had just been received.

use aya::programs::{ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use aya_obj::programs::XdpAttachType;

/// The program, for whoever has frames for it.
#[derive(Debug)]
pub struct Injector {
    program: Xdp,
}

impl Injector {
    /// For this program.
    ///
    /// # Errors
    /// It is not loaded, or there are too many descriptors.
    pub(super) fn of(program: &Xdp) -> Result<Self, ProgramError> {
        let kind = XdpAttachType::Interface;
        let program = Xdp::from_program_info(program.info()?, super::PROGRAM.into(), kind)?;
        Ok(Self { program })
    }

    /// Runs the program on a frame that came in by a queue of an interface. What the program decides is done: the frame is
    /// sent on, handed to the kernel, or dropped, and counted.
    ///
    /// # Errors
    /// The interface is gone, or the frame is too long: the kernel takes one page, its own room included.
    pub fn inject(&self, interface: u32, queue: u32, frame: &[u8]) -> Result<(), ProgramError> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, frame.len() as u32, 0, interface, queue, 0].map(u32::to_ne_bytes);
        self.program.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(context.as_flattened()),
            attrs: TestRunAttrs::new().xdp_live_frames(1),
            ..TestRunOptions::default()
        })?;
        Ok(())
    }
}
