//! Running a program by `BPF_PROG_TEST_RUN`.

#![expect(
    unsafe_code,
    reason = "aya runs only programs that it has loaded itself or found by their id, and to look for an id takes CAP_SYS_ADMIN"
)]

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use aya::programs::{ProgramError, Xdp};
use aya_obj::generated::{BPF_F_TEST_XDP_LIVE_FRAMES, bpf_attr, bpf_cmd};

/// A program that may be run, without what loaded it.
#[derive(Debug)]
pub struct Runnable(OwnedFd);

/// The frame of a run.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// It, its metadata before it.
    pub frame: &'a [u8],
    /// How much of it is metadata, in bytes; a multiple of 4.
    pub metadata: u32,
    /// The index of the interface that it comes in by.
    pub interface: u32,
    /// The receive queue.
    pub queue: u32,
}

impl Runnable {
    /// This program.
    ///
    /// # Errors
    /// It is not loaded, or there are too many descriptors.
    pub(super) fn of(program: &Xdp) -> Result<Self, ProgramError> {
        let program = program.fd()?.as_fd().try_clone_to_owned();
        Ok(Self(program.map_err(ProgramError::IOError)?))
    }

    /// Runs it on a frame, and has the kernel do what it decides.
    ///
    /// # Errors
    /// The interface is gone, or the frame is too long: the kernel takes one page, its own room included.
    pub fn live(&self, run: Run<'_>) -> io::Result<()> {
        self.call(run, &mut [], true)
    }

    /// Runs it on a frame, which it may change: `output` is as long, and has what became of it afterwards.
    ///
    /// # Errors
    /// As above.
    pub fn ask(&self, run: Run<'_>, output: &mut [u8]) -> io::Result<()> {
        self.call(run, output, false)
    }

    fn call(&self, run: Run<'_>, output: &mut [u8], is_live: bool) -> io::Result<()> {
        let length = run.frame.len() as u32;
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [run.metadata, length, 0, run.interface, run.queue, 0_u32];
        // SAFETY: it is made of integers, so zeros are one.
        let mut attributes: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: a member of a union of integers that are all zero.
        let test = unsafe { &mut attributes.test };
        test.prog_fd = self.0.as_raw_fd().cast_unsigned();
        test.data_in = run.frame.as_ptr().addr() as u64;
        test.data_size_in = length;
        test.ctx_in = context.as_ptr().addr() as u64;
        test.ctx_size_in = size_of_val(&context) as u32;
        test.repeat = 1;
        if is_live {
            test.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
            test.batch_size = 1;
        } else {
            test.data_out = output.as_mut_ptr().addr() as u64;
            test.data_size_out = output.len() as u32;
        }
        let (command, size) = (bpf_cmd::BPF_PROG_TEST_RUN, size_of::<bpf_attr>());
        // SAFETY: frames and context are where the attributes say, as long as the call takes.
        let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attributes, size) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
