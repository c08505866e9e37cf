//! Test runs of the XDP program on frames that are fresh at every run: user space's part of
//! `balancer-ebpf/src/bin/restore.rs`, which tells how it is done.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};

use crate::net::thread_time;
use crate::scene::Version;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("BALANCER_RESTORE_OBJECT"));

/// As in the wrapper: the size of a slot, their number, the words that are restored.
const SLOT: usize = 128;
const SLOTS: usize = 8;
const WORDS: usize = 10;
/// The wrapper goes to the second slot first and makes a frame new seven runs before its turn.
const AHEAD: usize = SLOTS - 1;

/// The wrapper around one target.
pub struct Wrapper {
    ebpf: Ebpf,
    program: &'static str,
    next: Array<MapData, [u32; 2]>,
    buffer: Vec<u8>,
    flows: u32,
    /// Holds the target; nobody else does.
    _targets: ProgramArray<MapData>,
}

/// What a test run ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The action of the last run.
    pub action: u32,
    /// Its frame and what else lies behind it in the buffer.
    pub output: Vec<u8>,
}

impl Wrapper {
    /// Around `target`, or around a program that only sends the frame back. The frames are one of each flow, in the
    /// order in which they come; they differ in nothing but the last four bytes of the source, ports and checksums.
    ///
    /// # Errors
    /// The wrapper cannot be loaded, or the frames differ in something else.
    pub fn new(
        target: Option<&ProgramFd>,
        version: Version,
        frames: &[Vec<u8>],
    ) -> anyhow::Result<Self> {
        let layout = Layout::of(version);
        let first = frames.first().context("no frames")?;
        let patches: Vec<_> = frames.iter().map(|frame| layout.patch(frame)).collect();
        for (frame, patch) in frames.iter().zip(&patches) {
            let mut made = first.clone();
            layout.apply(&mut made, *patch);
            ensure!(made == *frame, "the frames differ in too much");
        }
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("FLOWS", frames.len() as u32)
            .load(OBJECT)?;
        let mut take = |name| {
            ebpf.take_map(name)
                .with_context(|| format!("no map {name}"))
        };
        let mut template: Array<_, [u64; WORDS]> = take("TEMPLATE")?.try_into()?;
        let mut flows: Array<_, [u64; 2]> = take("FLOWS")?.try_into()?;
        let next = take("NEXT")?.try_into()?;
        let mut targets: ProgramArray<_> = take("TARGET")?.try_into()?;
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(first.as_chunks().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        template.set(0, words, 0)?;
        for (index, patch) in (0..).zip(&patches) {
            flows.set(index, patch, 0)?;
        }
        if let Some(target) = target {
            targets.set(0, target, 0)?;
        } else {
            let reply = load(&mut ebpf, "reply")?.fd()?.try_clone()?;
            targets.set(0, &reply, 0)?;
        }
        load(&mut ebpf, layout.program)?;
        let mut buffer = vec![0; SLOT * SLOTS];
        for (slot, bytes) in buffer.chunks_mut(SLOT).enumerate() {
            let frame = &frames[(slot + SLOTS - 1) % SLOTS % frames.len()];
            bytes
                .get_mut(..frame.len())
                .context("the frames are longer than a slot")?
                .copy_from_slice(frame);
        }
        Ok(Self {
            ebpf,
            program: layout.program,
            next,
            buffer,
            flows: frames.len() as u32,
            _targets: targets,
        })
    }

    /// Runs the target `runs` times, on the flows in turn from the first on; the time that it took.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn time(&mut self, runs: u32) -> anyhow::Result<Duration> {
        self.rewind()?;
        let program = program(&mut self.ebpf, self.program)?;
        let options = TestRunOptions {
            data_in: Some(&self.buffer),
            repeat: runs,
            ..TestRunOptions::default()
        };
        let before = thread_time()?;
        program.test_run(options)?;
        Ok(thread_time()?.saturating_sub(before))
    }

    /// The same, to see what comes out.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn run(&mut self, runs: u32) -> anyhow::Result<Outcome> {
        self.rewind()?;
        let mut output = vec![0; self.buffer.len()];
        let result = program(&mut self.ebpf, self.program)?.test_run(TestRunOptions {
            data_in: Some(&self.buffer),
            data_out: Some(&mut output),
            repeat: runs,
            ..TestRunOptions::default()
        })?;
        output.truncate(result.data_size_out as usize);
        Ok(Outcome {
            action: result.return_value,
            output,
        })
    }

    fn rewind(&mut self) -> anyhow::Result<()> {
        let next = AHEAD as u32 % self.flows;
        Ok(self.next.set(0, [next, self.flows], 0)?)
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name).context("no such program")?;
    Ok(program.try_into()?)
}

fn load<'a>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut Xdp> {
    let program = program(ebpf, name)?;
    program.load()?;
    Ok(program)
}

/// Where things are in a frame.
struct Layout {
    program: &'static str,
    source: usize,
    checksum: Option<usize>,
    l4: usize,
}

impl Layout {
    const fn of(version: Version) -> Self {
        match version {
            Version::V4 => Self {
                program: "restore_v4",
                source: 26,
                checksum: Some(24),
                l4: 34,
            },
            Version::V6 => Self {
                program: "restore_v6",
                source: 34,
                checksum: None,
                l4: 54,
            },
        }
    }

    /// What the wrapper keeps of a frame.
    fn patch(&self, frame: &[u8]) -> [u64; 2] {
        let wide = |at| u64::from(u32::from_ne_bytes(bytes(frame, at)));
        let narrow = |at| u64::from(u16::from_ne_bytes(bytes(frame, at)));
        [
            wide(self.source) | wide(self.l4) << 32,
            self.checksum.map_or(0, narrow) | narrow(self.l4 + 16) << 16,
        ]
    }

    /// What the wrapper does with it.
    fn apply(&self, frame: &mut [u8], [words, checksums]: [u64; 2]) {
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(field) = frame.get_mut(at..at + bytes.len()) {
                field.copy_from_slice(bytes);
            }
        };
        put(self.source, &(words as u32).to_ne_bytes());
        put(self.l4, &((words >> 32) as u32).to_ne_bytes());
        if let Some(at) = self.checksum {
            put(at, &(checksums as u16).to_ne_bytes());
        }
        put(self.l4 + 16, &((checksums >> 16) as u16).to_ne_bytes());
    }
}

/// Bytes of a frame; zeros behind its end.
fn bytes<const N: usize>(frame: &[u8], at: usize) -> [u8; N] {
    frame
        .get(at..)
        .and_then(|rest| rest.first_chunk().copied())
        .unwrap_or([0; N])
}
