//! Every key of the configuration, once.

use std::time::Duration;

use super::address::{BackendAddress, ListenAddress, Ports, SourceAddress};
use super::key::{Key, Section, Sections, Table};
use super::kind::{
    Choice, Cpus, FilePath, Flag, Interface, Interfaces, Later, Name, Number, Probability, Time,
};
use super::model::{Engine, FlowLookup, OnDaemonLoss, OnExit, Protocol, Scheduler, XdpMode};
use super::planned::{CONNECTIONS, FIREWALL, HEALTH, LIMIT, ROUTER, ROUTER_SOURCE_NAT};

const TIME: Time = Time {
    min: Duration::from_secs(1),
    max: Duration::from_hours(24 * 24),
};

pub(super) static ROOT: Table = Table {
    header: "",
    keys: &[
        &DAEMON,
        &DATAPATH,
        &TIMEOUTS,
        &SERVICES,
        &FIREWALL,
        &ROUTER,
        &ROUTER_SOURCE_NAT,
    ],
};

pub(super) static DAEMON: Key<Section> = Key::optional(
    "daemon",
    Section(&Table {
        header: "[daemon]",
        keys: &[&CONTROL_SOCKET, &PIN_PATH, &METRICS_LISTEN, &ON_EXIT],
    }),
    "The daemon itself.",
);

pub(super) static CONTROL_SOCKET: Key<FilePath> = Key::default(
    "control_socket",
    r#""/run/balancerd/control.sock""#,
    FilePath,
    "The Unix socket balancerctl talks to, mode 0660.",
)
.restart();

pub(super) static PIN_PATH: Key<FilePath> = Key::default(
    "pin_path",
    r#""/sys/fs/bpf/balancerd""#,
    FilePath,
    "The directory on the BPF file system that holds maps and links, mode 0700.",
)
.restart();

static METRICS_LISTEN: Key<Later> = Key::optional(
    "metrics_listen",
    Later::Text,
    "Address and port of the HTTP server for metrics.",
)
.restart()
.not_yet();

pub(super) static ON_EXIT: Key<Choice<OnExit>> = Key::default(
    "on_exit",
    r#""detach""#,
    Choice { values: &[("detach", OnExit::Detach), ("keep", OnExit::Keep)], not_yet: &[] },
    "What happens when the daemon is asked to end: the programs are taken away, or they go on forwarding.",
)
.restart();

pub(super) static DATAPATH: Key<Section> = Key::required(
    "datapath",
    Section(&Table {
        header: "[datapath]",
        keys: &[
            &INTERFACES,
            &ENGINE,
            &XDP_MODE,
            &MAX_CONNECTIONS,
            &MAX_HALF_OPEN,
            &SOURCE_PORTS,
            &FLOW_LOOKUP,
            &WORKER_CPUS,
            &BUSY_POLL,
            &ON_DAEMON_LOSS,
        ],
    }),
    "How packets are taken in and sent out.",
);

pub(super) static INTERFACES: Key<Interfaces> = Key::required(
    "interfaces",
    Interfaces,
    "The interfaces the program is attached to.",
)
.restart();

pub(super) static ENGINE: Key<Choice<Engine>> = Key::default(
    "engine",
    r#""kernel""#,
    Choice {
        values: &[("kernel", Engine::Kernel), ("userspace", Engine::Userspace)],
        not_yet: &[],
    },
    "Where packets are worked on: in the kernel, or on threads of the daemon.",
)
.restart();

pub(super) static WORKER_CPUS: Key<Cpus> = Key::default(
    "worker_cpus",
    "[]",
    Cpus,
    "The CPUs that the workers of engine `userspace` are pinned to, one each.",
)
.restart();

pub(super) static BUSY_POLL: Key<Flag> = Key::default(
    "busy_poll",
    "false",
    Flag,
    "Whether these workers spin instead of sleeping.",
)
.restart();

pub(super) static ON_DAEMON_LOSS: Key<Choice<OnDaemonLoss>> = Key::default(
    "on_daemon_loss",
    r#""pass""#,
    Choice {
        values: &[("pass", OnDaemonLoss::Pass), ("drop", OnDaemonLoss::Drop)],
        not_yet: &[],
    },
    "What packets for them get when the daemon is gone.",
)
.restart();

pub(super) static XDP_MODE: Key<Choice<XdpMode>> = Key::default(
    "xdp_mode",
    r#""auto""#,
    Choice {
        values: &[("auto", XdpMode::Auto), ("native", XdpMode::Native), ("generic", XdpMode::Generic)],
        not_yet: &[],
    },
    "Where in the receive path the program runs: in the driver, in the kernel's stack, or in the driver where it can.",
)
.restart();

pub(super) static MAX_CONNECTIONS: Key<Number> = Key::default(
    "max_connections",
    "262144",
    Number { min: 1, max: 16_777_216, example: 65_536 },
    "How many connections are known at most. When full, new ones are refused; established ones are never evicted.",
)
.restart();

pub(super) static MAX_HALF_OPEN: Key<Number> = Key::default(
    "max_half_open",
    "65536",
    Number { min: 1, max: 16_777_216, example: 65_536 },
    "How many of them may be TCP handshakes or one-way UDP. Left out, it is never more than max_connections.",
)
.restart();

pub(super) static FLOW_LOOKUP: Key<Choice<FlowLookup>> = Key::default(
    "flow_lookup",
    r#""table""#,
    Choice {
        values: &[("table", FlowLookup::Table), ("hash", FlowLookup::Hash)],
        not_yet: &[],
    },
    "How a packet's flow is found: by the flow table's own hash, or by a hash map of the kernel, which is slower.",
)
.restart();

pub(super) static SOURCE_PORTS: Key<Ports> = Key::default(
    "source_ports",
    r#""1024-32767""#,
    Ports {
        floor: (1024, "ports below 1024 belong to servers"),
    },
    "The ports used for source NAT; keep them apart from net.ipv4.ip_local_port_range.",
);

pub(super) static TIMEOUTS: Key<Section> = Key::optional(
    "timeouts",
    Section(&Table {
        header: "[timeouts]",
        keys: &[
            &TCP_HANDSHAKE,
            &TCP_ESTABLISHED,
            &TCP_CLOSING,
            &UDP,
            &UDP_STREAM,
            &Key::default(
                "icmp",
                r#""60s""#,
                Later::Text,
                "An ICMP query without further packets.",
            )
            .not_yet(),
            &FRAGMENT,
        ],
    }),
    "How long a connection may be idle before it is forgotten.",
);

pub(super) static FRAGMENT: Key<Time> = Key::default(
    "fragment",
    r#""2s""#,
    TIME,
    "The fragments of a packet, from the first one on, or until that comes.",
);

pub(super) static TCP_HANDSHAKE: Key<Time> = Key::default(
    "tcp_handshake",
    r#""30s""#,
    TIME,
    "A TCP handshake that is not finished.",
);

pub(super) static TCP_ESTABLISHED: Key<Time> = Key::default(
    "tcp_established",
    r#""2h4m""#,
    TIME,
    "An established TCP connection.",
);

pub(super) static TCP_CLOSING: Key<Time> = Key::default(
    "tcp_closing",
    r#""4m""#,
    TIME,
    "A TCP connection after a FIN or RST.",
);

pub(super) static UDP: Key<Time> =
    Key::default("udp", r#""30s""#, TIME, "UDP seen in one direction only.");

pub(super) static UDP_STREAM: Key<Time> = Key::default(
    "udp_stream",
    r#""5m""#,
    TIME,
    "UDP seen in both directions.",
);

pub(super) static SERVICES: Key<Sections> = Key::optional(
    "service",
    Sections(&Table {
        header: "[[service]]",
        keys: &[
            &NAME,
            &LISTEN,
            &PROTOCOL,
            &INTERFACE,
            &SCHEDULER,
            &SOURCE_NAT,
            &Key::optional(
                "affinity",
                Later::Text,
                "How long a client address keeps its backend.",
            )
            .not_yet(),
            &LIMIT,
            &CONNECTIONS,
            &BACKENDS,
            &HEALTH,
        ],
    }),
    "The services. Without one, everything passes.",
);

pub(super) static NAME: Key<Name> = Key::required("name", Name, "Its unique name.");

pub(super) static LISTEN: Key<ListenAddress> = Key::required(
    "listen",
    ListenAddress,
    "The address and the port or ports it takes packets for; `*` stands for any address of the backends' family.",
);

pub(super) static PROTOCOL: Key<Choice<Protocol>> = Key::default(
    "protocol",
    r#""tcp""#,
    Choice {
        values: &[("tcp", Protocol::Tcp), ("udp", Protocol::Udp)],
        not_yet: &[],
    },
    "The transport protocol.",
);

pub(super) static INTERFACE: Key<Interface> = Key::optional(
    "interface",
    Interface,
    "Only packets that came in here; left out: on any interface of the datapath.",
);

pub(super) static SCHEDULER: Key<Choice<Scheduler>> = Key::default(
    "scheduler",
    r#""nth""#,
    Choice {
        values: &[("nth", Scheduler::Nth), ("random", Scheduler::Random)],
        not_yet: &["maglev", "source-hash", "least-connections"],
    },
    "How a new connection gets its backend: in turn, or by chance.",
);

pub(super) static SOURCE_NAT: Key<SourceAddress> = Key::default(
    "source_nat",
    r#""masquerade""#,
    SourceAddress,
    "What becomes of the client's address: replaced by that of the interface, kept, or replaced by this one.",
);

pub(super) static BACKENDS: Key<Sections> = Key::required(
    "backend",
    Sections(&Table {
        header: "[[service.backend]]",
        keys: &[&ADDRESS, &WEIGHT, &PROBABILITY],
    }),
    "The servers, all of one address family.",
);

pub(super) static ADDRESS: Key<BackendAddress> = Key::required(
    "address",
    BackendAddress,
    "Address and port. Without a port it is the service's; with a range of ports, the one the packet came to.",
);

pub(super) static WEIGHT: Key<Number> = Key::default(
    "weight",
    "1",
    Number {
        min: 0,
        max: 65_535,
        example: 10,
    },
    "Its share of new connections, in proportion to the weights of the others; 0: none.",
);

pub(super) static PROBABILITY: Key<Probability> = Key::optional(
    "probability",
    Probability,
    "Its share of new connections with scheduler `random`, instead of a weight; those of a service sum to 1.",
);
