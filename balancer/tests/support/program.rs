//! The compiled program.

use aya::programs::{TestRun as _, TestRunOptions, Xdp};

/// What became of a frame.
pub struct Ran {
    /// `XDP_PASS` and the like.
    pub action: u32,
    /// The frame as the program left it, with metadata before it.
    pub output: Vec<u8>,
}

/// Gives the program a frame that came in by an interface.
pub fn run(program: &Xdp, interface: u32, frame: &[u8]) -> Ran {
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [0, frame.len() as u32, 0, interface, 0, 0].map(u32::to_ne_bytes);
    let mut output = vec![0; frame.len() + 64];
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut output),
            ctx_in: Some(context.as_flattened()),
            ..TestRunOptions::default()
        })
        .unwrap();
    output.truncate(result.data_size_out as usize);
    Ran {
        action: result.return_value,
        output,
    }
}
