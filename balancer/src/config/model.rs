//! What a configuration file says, with every default filled in.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// A whole configuration.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The daemon itself.
    pub daemon: Daemon,
    /// How packets are taken in and sent out.
    pub datapath: Datapath,
    /// How long a connection may be idle.
    pub timeouts: Timeouts,
    /// The services, in the order of the file. None: everything passes.
    pub services: Vec<Service>,
}

/// The daemon itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Daemon {
    /// The Unix socket `balancerctl` talks to; absolute.
    pub control_socket: PathBuf,
    /// The directory on the BPF file system that holds maps and links; absolute.
    pub pin_path: PathBuf,
    /// What happens to the programs when the daemon ends.
    pub on_exit: OnExit,
}

/// What happens to the programs when the daemon is asked to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnExit {
    /// They are taken away.
    Detach,
    /// They go on forwarding.
    Keep,
}

/// How packets are taken in and sent out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datapath {
    /// The interfaces the program is attached to; one or more, each once.
    pub interfaces: Vec<String>,
    /// Where packets are worked on.
    pub engine: Engine,
    /// Where in the receive path the program runs.
    pub xdp_mode: XdpMode,
    /// How many connections are known at most.
    pub max_connections: u32,
    /// How many of them may be TCP handshakes or one-way UDP; at most `max_connections`.
    pub max_half_open: u32,
    /// The ports used for source NAT.
    pub source_ports: PortRange,
    /// How flows are found.
    pub flow_lookup: FlowLookup,
    /// The CPUs of the workers of engine `userspace`, one each; none: one for each receive queue, on any.
    pub worker_cpus: Vec<u32>,
    /// Whether these workers never sleep.
    pub busy_poll: bool,
    /// What packets for them get when they are gone.
    pub on_daemon_loss: OnDaemonLoss,
}

/// Where packets are worked on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// In the kernel, by XDP.
    Kernel,
    /// In user space, by `AF_XDP`.
    Userspace,
}

/// What packets of services get when the daemon of engine `userspace` is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnDaemonLoss {
    /// The kernel has them.
    Pass,
    /// They are dropped.
    Drop,
}

/// How flows are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FlowLookup {
    /// By the flow table's own hash.
    #[default]
    Table,
    /// By a hash map of the kernel, which names their lines in the table.
    Hash,
}

/// Where in the receive path the program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XdpMode {
    /// In the driver where it can, else in the kernel's stack with a warning.
    Auto,
    /// In the driver.
    Native,
    /// In the kernel's stack.
    Generic,
}

/// How long a connection may be idle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timeouts {
    /// A TCP handshake that is not finished.
    pub tcp_handshake: Duration,
    /// An established TCP connection.
    pub tcp_established: Duration,
    /// A TCP connection after a FIN or RST.
    pub tcp_closing: Duration,
    /// UDP seen in one direction only.
    pub udp: Duration,
    /// UDP seen in both directions.
    pub udp_stream: Duration,
    /// The fragments of a packet, from the first one on, or until that comes.
    pub fragment: Duration,
}

/// Ports from `first` to `last`, both included; `first <= last`, neither is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

/// A service: packets to `listen` go to one of `backends`.
#[derive(Clone, PartialEq, Debug)]
pub struct Service {
    /// Its unique name.
    pub name: String,
    /// The address and ports it takes packets for.
    pub listen: Listen,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Only packets that came in here; `None`: on any interface of the datapath.
    pub interface: Option<String>,
    /// How a new connection gets its backend.
    pub scheduler: Scheduler,
    /// What becomes of the client's address.
    pub source_nat: SourceNat,
    /// One or more, all of one address family.
    pub backends: Vec<Backend>,
}

/// The address and ports a service takes packets for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listen {
    /// `None`: any address of the backends' family.
    pub address: Option<IpAddr>,
    /// One port or a range.
    pub ports: PortRange,
}

/// The transport protocol of a service.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// How a new connection gets its backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheduler {
    /// In turn, weights interleaved smoothly.
    Nth,
    /// By chance, each backend with its share.
    Random,
}

/// What becomes of the client's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceNat {
    /// Replaced by an address of the interface the packet leaves by.
    Masquerade,
    /// Kept.
    None,
    /// Replaced by this one; of the backends' family.
    Address(IpAddr),
}

/// A server behind a service.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Backend {
    /// Its address.
    pub address: IpAddr,
    /// Its port; `None`: the port the packet came to. That is possible only where the service listens on a range.
    pub port: Option<u16>,
    /// How much of the service's new connections it gets.
    pub share: Share,
}

/// A backend's share of new connections. All backends of a service have the same kind.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Share {
    /// In proportion to the weights of the others; 0: no new connections.
    Weight(u16),
    /// With exactly this probability, `0.0..=1.0`; those of a service sum to 1. Scheduler `random` only.
    Probability(f64),
}

impl PortRange {
    /// Whether `port` is one of them.
    #[must_use]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    /// How many there are.
    #[must_use]
    pub fn count(self) -> usize {
        (self.first..=self.last).len()
    }

    /// The port, where there is only one.
    #[must_use]
    pub fn single(self) -> Option<u16> {
        (self.first == self.last).then_some(self.first)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(port) => write!(f, "{port}"),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => write!(f, "*:{}", self.ports),
            Some(IpAddr::V4(address)) => write!(f, "{address}:{}", self.ports),
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.ports),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address, self.port) {
            (address, Some(port)) => SocketAddr::new(address, port).fmt(f),
            (IpAddr::V4(address), None) => address.fmt(f),
            (IpAddr::V6(address), None) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weight(weight) => write!(f, "weight {weight}"),
            Self::Probability(probability) => write!(f, "probability {probability}"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nth => "nth",
            Self::Random => "random",
        })
    }
}

impl fmt::Display for SourceNat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Masquerade => f.write_str("masquerade"),
            Self::None => f.write_str("none"),
            Self::Address(address) => address.fmt(f),
        }
    }
}
