//! Services, connections through them, and their frames, the same in both engines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use balancer::config::{self, FlowLookup};
use balancer::datapath::compile::{ServiceIds, compile, words};
use balancer::datapath::kernel::{Back, Kernel, Sizes, Work};
use balancer::datapath::memory::Memory;
use balancer::userspace::Lane;
use balancer_common::abi::{Link, Path};
use balancer_common::hop::Hop;
use balancer_common::pipeline::process;
use balancer_common::verdict::Verdict;
use etherparse::PacketBuilder;

use crate::wrapper::Wrapper;

/// The interface that a test run pretends a frame came in by: `lo`.
pub const INGRESS: u32 = 1;
/// Another one, where the backends of the services on port 81 are. Nothing is sent there.
pub const ELSEWHERE: u32 = 7;

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const BOX_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];

/// How many backends the services on port 80 have, and clients. A connection keeps its client's source port then: no two
/// connections to a backend have the same.
pub const BACKENDS: u32 = 64;
/// Connections over a family, at most.
pub const MOST: u32 = BACKENDS << 14;

/// The services: on port 80 with [`BACKENDS`], and on port 81 with one elsewhere.
fn services() -> String {
    let service = |name: &str, listen: &str, network: &str, end: &str, port: u32, backends: u32| {
        let protocol = if name == "udp" { "udp" } else { "tcp" };
        let service = format!(
            "[[service]]\nname = \"{name}-{port}\"\nlisten = \"{listen}:{port}\"\nprotocol = \"{protocol}\"\n"
        );
        let backends = (2..2 + backends).map(|number| {
            format!("[[service.backend]]\naddress = \"{network}{number}{end}:80{port}\"\n")
        });
        service + &backends.collect::<String>()
    };
    let mut text = String::from("[datapath]\ninterfaces = [\"lo\"]\n");
    for (port, backends) in [(80, BACKENDS), (81, 1)] {
        text += &service("v4", "192.0.2.10", "10.0.0.", "", port, backends);
        text += &service("v6", "[2001:db8::10]", "[2001:db8:1::", "]", port, backends);
    }
    text += &service("udp", "192.0.2.10", "10.0.0.", "", 80, BACKENDS);
    text
}

/// 4 or 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Control bits of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The first packet of a connection.
    Syn,
    /// Its answer.
    SynAck,
    /// Any later packet.
    Ack,
}

/// A box with four services, their connections in user space and, with root, in the kernel.
#[derive(Debug)]
pub struct Scene {
    /// The tables in user space.
    pub memory: Memory,
    /// The program and its maps.
    pub kernel: Option<Kernel>,
    /// What a worker of engine `userspace` has.
    pub lane: Option<Worker>,
}

/// A worker's tables: maps of the kernel, mapped into memory.
#[derive(Debug)]
pub struct Worker {
    /// Them.
    pub lane: Lane,
    /// Whose maps they are.
    pub kernel: Kernel,
}

impl Worker {
    fn new(kernel: Kernel) -> anyhow::Result<Self> {
        let maps = kernel.maps.clone().context("its maps are not mapped")?;
        let lane = Lane::new(maps, Arc::default());
        lane.set_time(NOW);
        Ok(Self { lane, kernel })
    }
}

/// When all of it takes place, in nanoseconds.
const NOW: u64 = 1 << 30;

impl Scene {
    /// Without connections. `connections` is how many there may be, of each family.
    ///
    /// # Errors
    /// The program cannot be loaded.
    pub fn new(connections: u32, with_kernel: bool) -> anyhow::Result<Self> {
        let config = config::parse("scene.toml", &services())
            .map_err(|_| anyhow::anyhow!("the scene's config is wrong"))?;
        let mut backends = 0..;
        let ids: Vec<_> = (0..)
            .zip(&config.services)
            .map(|(id, service)| ServiceIds {
                service: id,
                backends: backends.by_ref().take(service.backends.len()).collect(),
            })
            .collect();
        let ports = config.datapath.source_ports;
        let image = compile(1, &config.services, &ids, ports, |_| Some(INGRESS));
        let sizes = Sizes {
            connections,
            // So many that the screen never comes up: half of them are let in, and here all are half-open for a moment.
            half_open: connections * 2,
            lookup: FlowLookup::Table,
        };
        let paths: Vec<_> = config.services.iter().flat_map(paths).collect();
        let mut memory = Memory::new(image.clone(), paths.len(), sizes)?;
        memory.paths.clone_from(&paths);
        let load = |work| -> anyhow::Result<Kernel> {
            let mut loaded = Kernel::load(sizes, work, None)?;
            loaded.set_image(&image)?;
            loaded.set_links([INGRESS, ELSEWHERE].map(|index| {
                (
                    index,
                    Link {
                        mtu: 65_535,
                        ..Link::default()
                    },
                )
            }))?;
            for (backend, path) in (0..).zip(&paths) {
                loaded.set_path(backend, *path)?;
            }
            Ok(loaded)
        };
        let (mut kernel, mut lane) = (None, None);
        if with_kernel {
            kernel = Some(load(Work::Kernel(Back::Transmit))?);
            let drops_on_loss = false;
            lane = Some(Worker::new(load(Work::Userspace { drops_on_loss })?)?);
        }
        Ok(Self {
            memory,
            kernel,
            lane,
        })
    }

    /// Establishes connections to a service, and gives a later packet of each direction of each. User space decides what the
    /// frames are; the kernel gets all first packets, then all answers, and so on, which is a great deal faster than one
    /// after the other.
    ///
    /// # Errors
    /// A connection is not forwarded both ways, or the engines do not agree on how many there are.
    pub fn connect(
        &mut self,
        version: Version,
        port: u16,
        connections: Range<u32>,
    ) -> anyhow::Result<Vec<[Vec<u8>; 2]>> {
        let mut steps: [Vec<Vec<u8>>; 4] = Default::default();
        for index in connections {
            let (client, service) = ends(version, port, index);
            let syn = tcp(client, service, Control::Syn);
            let opened = self.forward(&syn)?;
            let (backend, back) = answered(&opened).context("what was forwarded is no packet")?;
            let frames = [
                syn,
                tcp(backend, back, Control::SynAck),
                tcp(client, service, Control::Ack),
                tcp(backend, back, Control::Ack),
            ];
            for frame in &frames[1..] {
                self.forward(frame)?;
            }
            for (step, frame) in steps.iter_mut().zip(frames) {
                step.push(frame);
            }
        }
        if let Some(kernel) = &mut self.kernel {
            let program = kernel.program()?.fd()?.try_clone()?;
            for frames in &steps {
                Wrapper::new(Some(&program), version, frames)?.run(frames.len() as u32)?;
            }
            let (ours, theirs) = match version {
                Version::V4 => (self.memory.v4.count(), kernel.v4.count()),
                Version::V6 => (self.memory.v6.count(), kernel.v6.count()),
            };
            ensure!(
                ours == theirs,
                "{ours} connections in user space, {theirs} in the kernel"
            );
        }
        let [_, _, originals, replies] = steps;
        Ok(originals
            .into_iter()
            .zip(replies)
            .map(|(original, reply)| [original, reply])
            .collect())
    }

    /// Lets the engines in user space forward a frame, which must make the same of it.
    fn forward(&self, frame: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut output = frame.to_vec();
        let mut other = frame.to_vec();
        let verdict = process(&mut output.as_mut_slice(), &self.memory, INGRESS);
        ensure!(
            matches!(verdict, Verdict::Transmit | Verdict::Redirect(_)),
            "a packet of a connection is not forwarded: {verdict:?}"
        );
        if let Some(Worker { lane, .. }) = &self.lane {
            let its = process(&mut other.as_mut_slice(), lane, INGRESS);
            ensure!(
                (its, other) == (verdict, output.clone()),
                "a worker does not make the same of a packet: {its:?}, not {verdict:?}"
            );
        }
        Ok(output)
    }

    /// First packets of connections that are not open yet: UDP over IPv4, TCP over IPv6.
    #[must_use]
    pub fn first_packets(version: Version, connections: Range<u32>) -> Vec<Vec<u8>> {
        let first = |index| {
            let (client, service) = ends(version, 80, index);
            match version {
                Version::V4 => udp(client, service),
                Version::V6 => tcp(client, service, Control::Syn),
            }
        };
        connections.map(first).collect()
    }
}

/// The ways to the backends of a service.
fn paths(service: &config::Service) -> impl Iterator<Item = Path> + use<> {
    let is_v4 = service.backends.iter().all(|b| b.address.is_ipv4());
    let source: IpAddr = if is_v4 {
        Ipv4Addr::new(10, 0, 0, 1).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1).into()
    };
    let interface = if service.listen.ports.first == 80 {
        INGRESS
    } else {
        ELSEWHERE
    };
    let path = Path {
        hop: Hop::new(interface, BACKEND_MAC, BOX_MAC),
        source: words(source),
    };
    service
        .backends
        .iter()
        .map(move |_| path)
        .collect::<Vec<_>>()
        .into_iter()
}

/// Client and service of the connection number `index`.
fn ends(version: Version, port: u16, index: u32) -> (SocketAddr, SocketAddr) {
    let client_port = 2000 + (index / BACKENDS) as u16;
    let host = 1 + (index % BACKENDS) as u16;
    match version {
        Version::V4 => {
            let [high, low] = host.to_be_bytes();
            (
                (Ipv4Addr::new(198, 18, high, low), client_port).into(),
                (Ipv4Addr::new(192, 0, 2, 10), port).into(),
            )
        }
        Version::V6 => (
            (
                Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, host),
                client_port,
            )
                .into(),
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10), port).into(),
        ),
    }
}

/// The XDP action of a verdict.
#[must_use]
pub fn action(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Drop(_) => 1,
        Verdict::Pass(_) => 2,
        Verdict::Transmit => 3,
        // The slow path's sockets are redirected to, too.
        Verdict::Redirect(_) | Verdict::Punt(_) => 4,
    }
}

/// A frame from `source` to `destination`, of the same family.
#[must_use]
pub fn tcp(source: SocketAddr, destination: SocketAddr, control: Control) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(CLIENT_MAC, BOX_MAC);
    let ip = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), 64),
        (from, to) => ethernet.ipv6(octets(from), octets(to), 64),
    };
    // Both begin with the same number, and nothing is acknowledged but the handshake.
    let first = 1000;
    let tcp = |number| ip.tcp(source.port(), destination.port(), number, 1024);
    let tcp = match control {
        Control::Syn => tcp(first).syn(),
        Control::SynAck => tcp(first).syn().ack(first + 1),
        Control::Ack => tcp(first + 1).ack(first + 1),
    };
    // With a payload, so that all frames are as long as the longest that is restored.
    let payload = [0; 26];
    let mut frame = Vec::with_capacity(tcp.size(payload.len()));
    // Memory takes whatever is written.
    let _ = tcp.write(&mut frame, &payload);
    frame
}

/// A datagram over IPv4, without a checksum (RFC 768).
fn udp(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (source.ip(), destination.ip()) else {
        return Vec::new();
    };
    let udp = PacketBuilder::ethernet2(CLIENT_MAC, BOX_MAC)
        .ipv4(from.octets(), to.octets(), 64)
        .udp(source.port(), destination.port());
    let payload = [0; 38];
    let mut frame = Vec::with_capacity(udp.size(payload.len()));
    // Memory takes whatever is written.
    let _ = udp.write(&mut frame, &payload);
    if let Some(checksum) = frame.get_mut(40..42) {
        checksum.fill(0);
    }
    frame
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Source and destination of the packet that answers a frame.
fn answered(frame: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let at = |offset: usize| {
        Some(u16::from_be_bytes([
            *frame.get(offset)?,
            *frame.get(offset + 1)?,
        ]))
    };
    let (addresses, ports): ([IpAddr; 2], usize) = if frame.get(12)? == &8 {
        let address = |offset: usize| -> Option<IpAddr> {
            let bytes: [u8; 4] = *frame.get(offset..)?.first_chunk()?;
            Some(bytes.into())
        };
        ([address(26)?, address(30)?], 34)
    } else {
        let address = |offset: usize| -> Option<IpAddr> {
            let bytes: [u8; 16] = *frame.get(offset..)?.first_chunk()?;
            Some(bytes.into())
        };
        ([address(22)?, address(38)?], 54)
    };
    Some((
        SocketAddr::new(addresses[1], at(ports + 2)?),
        SocketAddr::new(addresses[0], at(ports)?),
    ))
}
