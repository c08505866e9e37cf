//! Giving frames to the program as if they had just been received.

#![expect(
    unsafe_code,
    reason = "aya runs only programs that it has loaded itself or found by their id, and to look for an id takes CAP_SYS_ADMIN"
)]

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use aya::programs::{ProgramError, Xdp};
use aya_obj::generated::{BPF_F_TEST_XDP_LIVE_FRAMES, bpf_attr, bpf_cmd};

/// The length of the metadata, in bytes; a multiple of 4.
const METADATA: u32 = 4;

/// The program, for whoever has frames for it.
#[derive(Debug)]
pub struct Injector {
    program: OwnedFd,
}

impl Injector {
    /// For this program.
    ///
    /// # Errors
    /// It is not loaded, or there are too many descriptors.
    pub(super) fn of(program: &Xdp) -> Result<Self, ProgramError> {
        let program = program.fd()?.as_fd().try_clone_to_owned();
        Ok(Self {
            program: program.map_err(ProgramError::IOError)?,
        })
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
        let length = frame.len() as u32;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [METADATA, length, 0, interface, queue, 0_u32];
        // SAFETY: it is made of integers, so zeros are one.
        let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: a member of a union of integers that are all zero.
        let test = unsafe { &mut attributes.test };
        test.prog_fd = self.program.as_raw_fd().cast_unsigned();
        test.data_in = frame.as_ptr().addr() as u64;
        test.data_size_in = length;
        test.ctx_in = context.as_ptr().addr() as u64;
        test.ctx_size_in = size_of_val(&context) as u32;
        test.repeat = 1;
        test.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
        test.batch_size = 1;
        let (command, size) = (bpf_cmd::BPF_PROG_TEST_RUN, size_of::<bpf_attr>());
        // SAFETY: frame and context are where the attributes say, as long as the call takes.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
