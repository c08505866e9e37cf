//! The far ends: user space's part of `balancer-ebpf/src/bin/ends.rs`, which draws how frames circulate.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aya::maps::{Array, MapData, PerCpuArray};
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, Pod};
use balancer_lab::{Host, MacAddress};
use nix::net::if_::if_nametoindex;

use crate::contender::Contender;
use crate::cpus::{self, Cpus};
use crate::frame::{self, Flow, WORDS, Words};
use crate::interrupt;
use crate::plan;
use crate::site::Site;

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("BALANCER_ENDS_OBJECT"));

/// How many frames circulate: as many as a device's poll takes at once. All of them fit into a link's queue, so none is lost for
/// want of room.
pub const FRAMES: u32 = 64;
/// More than can be sent in the time that a measurement takes. Frames end after so many though this process be gone.
const BUDGET: u64 = 200_000_000;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing may arrive before frames count as lost.
const LOST: Duration = Duration::from_millis(300);
/// How often a watched count is read.
const GLANCE: Duration = Duration::from_millis(5);

/// What a frame does at the server's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Goes back through the box.
    Round,
    /// Goes back beside the box, and is counted by backend.
    One,
}

/// Where frames should say that they come from: an address and a prefix length.
#[derive(Clone, Copy, Debug)]
pub struct Origin(pub Ipv4Addr, pub u32);

impl Origin {
    fn words(self) -> [u32; 2] {
        let mask = plan::mask(self.1);
        [(u32::from(self.0) & mask).to_be(), mask.to_be()]
    }
}

/// As in the program.
#[derive(Clone, Copy)]
#[repr(C)]
struct Control {
    template: [u64; WORDS],
    stop: u32,
    flows: u32,
    wrap: u32,
    client_device: u32,
    server_device: u32,
    box_devices: [u32; 2],
    answer: [u32; 2],
    source: [u32; 2],
    backends: [u32; 2],
    reserved: u32,
}

// SAFETY: numbers only, and `reserved` stands where padding would.
unsafe impl Pod for Control {}

/// What an end has done with frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent on.
    pub sent: u64,
    /// Dropped: they did not come from or go to where they should.
    pub wrong: u64,
    /// Dropped at the end of a run.
    pub ended: u64,
}

/// What is on the box beside what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// Nothing: balancerd has programs there itself.
    Nothing,
    /// A program that does nothing.
    Idle,
    /// A program that hands frames over, and is all that is measured.
    HandOver,
}

/// What the ends have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Both {
    /// The client's.
    pub client: Counts,
    /// The server's.
    pub server: Counts,
    /// Frames that the box has handed over.
    pub handed_over: u64,
}

/// The programs on the far ends. Dropped, they are gone.
pub struct Ends {
    /// Holds the programs and their links.
    ebpf: Ebpf,
    control: Array<MapData, Control>,
    state: Array<MapData, [u64; 4]>,
    flows: Array<MapData, Words>,
    counts: PerCpuArray<MapData, [u64; 3]>,
    arrived: PerCpuArray<MapData, u64>,
    current: Control,
    client: Host,
    macs: [MacAddress; 2],
    cpus: Cpus,
    /// Frames that were put on the wire and have not ended.
    circulating: u64,
    /// Frames that had ended when the last ones were put there.
    ended_before: u64,
}

impl Ends {
    /// Puts the programs on the ends of a site, for a contender that is at work there and so many flows.
    pub fn attach(
        site: &Site,
        cpus: Cpus,
        contender: Contender,
        way: Way,
        room: u32,
    ) -> anyhow::Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("FLOWS", room)
            .load(OBJECT)?;
        let programs: &[(&str, &Host, &[&str])] = match way {
            // `ask_next` makes the first frames only.
            Way::Round => &[
                ("ask_next", &site.client, &[]),
                ("ask_again", &site.client, &["eth0"]),
                ("turn", &site.server, &["eth0"]),
            ],
            Way::One => &[
                ("ask_next", &site.client, &["eth1"]),
                ("count", &site.server, &["eth0"]),
            ],
        };
        for &(name, host, devices) in programs {
            attach(&mut ebpf, name, host, devices)?;
        }
        match contender.beside() {
            Beside::Nothing => {}
            Beside::Idle => attach(&mut ebpf, "idle", &site.balancer, &["eth0", "eth1"])?,
            Beside::HandOver => attach(&mut ebpf, "hand_over", &site.balancer, &["eth0", "eth1"])?,
        }
        let index = |host: &Host, device: &str| -> anyhow::Result<u32> {
            Ok(host.enter(|| if_nametoindex(device))??)
        };
        let back = match way {
            Way::Round => "eth0",
            Way::One => "eth1",
        };
        let current = Control {
            template: [0; WORDS],
            stop: 0,
            flows: 0,
            wrap: 0,
            client_device: index(&site.client, "eth0")?,
            server_device: index(&site.server, back)?,
            box_devices: [
                index(&site.balancer, "eth0")?,
                index(&site.balancer, "eth1")?,
            ],
            answer: contender.answer().words(),
            source: contender.source().words(),
            backends: Origin(plan::BACKENDS, plan::BACKENDS_PREFIX).words(),
            reserved: 0,
        };
        let mut take = |name| {
            ebpf.take_map(name)
                .with_context(|| format!("no map {name}"))
        };
        Ok(Self {
            control: take("CONTROL")?.try_into()?,
            state: take("STATE")?.try_into()?,
            flows: take("FLOWS")?.try_into()?,
            counts: take("COUNTS")?.try_into()?,
            arrived: take("ARRIVED")?.try_into()?,
            ebpf,
            current,
            client: site.client.clone(),
            macs: [site.client.mac("eth0")?, site.balancer.mac("eth0")?],
            cpus,
            circulating: 0,
            ended_before: 0,
        })
    }

    /// Lets frames of these flows circulate, in this order: once, or again and again.
    pub fn start(&mut self, flows: &[Flow], again: bool) -> anyhow::Result<()> {
        ensure!(self.circulating == 0, "frames circulate already");
        let [from, to] = self.macs;
        let first = flows.first().context("no flows")?.frame(from, to)?;
        for (index, flow) in (0..).zip(flows) {
            self.flows
                .set(index, frame::words(&flow.frame(from, to)?)?, 0)?;
        }
        self.current.template = frame::template(&first)?;
        self.current.stop = 0;
        self.current.flows = flows.len() as u32;
        self.current.wrap = again.into();
        self.control.set(0, self.current, 0)?;
        self.state.set(0, [0, BUDGET, 0, 0], 0)?;
        let ended = self.ended()?;
        // Where they begin, they circulate: each end polls on the CPU that brings it something.
        let cpu = self.cpus.packets;
        let program: &Xdp = self
            .ebpf
            .program("ask_next")
            .context("no program")?
            .try_into()?;
        self.client.enter(|| -> anyhow::Result<()> {
            cpus::keep_to(&[cpu])?;
            program.test_run(TestRunOptions {
                data_in: Some(&first),
                repeat: FRAMES,
                attrs: TestRunAttrs::new().xdp_live_frames(FRAMES),
                ..TestRunOptions::default()
            })?;
            Ok(())
        })??;
        self.circulating = FRAMES.into();
        self.ended_before = ended;
        Ok(())
    }

    /// How many frames have ended.
    fn ended(&self) -> anyhow::Result<u64> {
        let Both { client, server, .. } = self.counts()?;
        Ok(client.ended + server.ended)
    }

    /// What the ends have done so far.
    pub fn counts(&self) -> anyhow::Result<Both> {
        let side = |index| -> anyhow::Result<Counts> {
            let mut sum = [0; 3];
            for counts in self.counts.get(&index, 0)?.iter() {
                for (sum, count) in sum.iter_mut().zip(counts) {
                    *sum += count;
                }
            }
            let [sent, wrong, ended] = sum;
            Ok(Counts { sent, wrong, ended })
        };
        Ok(Both {
            client: side(0)?,
            server: side(1)?,
            handed_over: side(2)?.sent,
        })
    }

    /// How many frames have come to the backend of this number, one way.
    pub fn arrived(&self, backend: u32) -> anyhow::Result<u64> {
        Ok(self.arrived.get(&backend, 0)?.iter().sum())
    }

    /// Nanoseconds a frame that the client's end sends, over so much time.
    pub fn rate(&self, time: Duration) -> anyhow::Result<f64> {
        self.watch(|| {
            let (start, before) = (Instant::now(), self.counts()?.client.sent);
            interrupt::sleep(time)?;
            let (took, after) = (start.elapsed(), self.counts()?.client.sent);
            ensure!(after > before, "no frames circulate");
            Ok(took.as_secs_f64() * 1e9 / (after - before) as f64)
        })
    }

    /// Waits until all flows that were started once have been sent and all frames have ended: nanoseconds a flow, by the clock of the
    /// program. Fails when frames are lost.
    ///
    /// Where that takes longer than `bound`, frames are made to end then.
    pub fn finish(&mut self, bound: Duration) -> anyhow::Result<f64> {
        let start = Instant::now();
        loop {
            let all = self.ended_before + self.circulating;
            let before = self.counts()?.client.sent;
            if self.ended()? >= all || start.elapsed() > bound {
                break;
            }
            interrupt::sleep(GLANCE)?;
            // Nothing moves: they are lost, which `stop` tells.
            if self.counts()?.client.sent == before {
                break;
            }
        }
        let [next, _, begun, ended] = self.state.get(&0, 0)?;
        self.stop()?;
        // At its end one frame is back, all others are on their way.
        Ok(ended.saturating_sub(begun) as f64
            / next.saturating_sub(u64::from(FRAMES)).max(1) as f64)
    }

    /// Ends all frames; fails when some are lost or were not what they should be.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let lost = self.drain()?;
        ensure!(lost == 0, "{lost} of up to {FRAMES} frames were lost");
        Ok(())
    }

    /// Ends all frames: how many were lost since they were put on the wire.
    pub fn drain(&mut self) -> anyhow::Result<u64> {
        self.current.stop = 1;
        self.control.set(0, self.current, 0)?;
        let start = Instant::now();
        let (mut ended, mut still) = (0, start);
        loop {
            let Both { client, server, .. } = self.counts()?;
            let wrong = client.wrong + server.wrong;
            ensure!(
                wrong == 0,
                "{} frames at the client and {} at the server took another way",
                client.wrong,
                server.wrong
            );
            let now = client.ended + server.ended;
            if now >= self.ended_before + self.circulating {
                break;
            }
            if now != ended {
                (ended, still) = (now, Instant::now());
            }
            if still.elapsed() > LOST || start.elapsed() > PATIENCE {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        let lost = (self.ended_before + self.circulating).saturating_sub(self.ended()?);
        self.circulating = 0;
        Ok(lost)
    }

    /// Runs `work` on the CPU that packets do not use.
    fn watch<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let cpu = self.cpus.watch;
        thread::scope(|scope| {
            let watcher = scope.spawn(move || {
                cpus::keep_to(&[cpu])?;
                work()
            });
            watcher
                .join()
                .map_err(|_| anyhow::anyhow!("the watcher panicked"))?
        })
    }
}

fn attach(ebpf: &mut Ebpf, name: &str, host: &Host, devices: &[&str]) -> anyhow::Result<()> {
    let program: &mut Xdp = ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?
        .try_into()?;
    program.load()?;
    for device in devices {
        host.enter(|| program.attach(device, XdpMode::Driver))?
            .with_context(|| format!("{name} on {device} of {}", host.name()))?;
    }
    Ok(())
}
