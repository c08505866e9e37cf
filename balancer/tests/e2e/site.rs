//! A site: clients, a balancer with a real `balancerd`, and backends, in namespaces of their own.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use balancer::control::document::{
    ConnectionsDocument, DropsDocument, Service, ServicesDocument, Status, StatusDocument, XdpMode,
};
use balancer_lab::{
    Host, Lab, LinkOptions, Nginx, Process, Signal, TcpEcho, UdpEcho, WebConfig, eventually_some,
    killed_by,
};
use etherparse::{Ethernet2Header, PacketBuilder, PacketBuilderStep};
use serde::de::DeserializeOwned;

use crate::schedule::{backend, nth};

/// How long a daemon may take to start or to reload, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How long one exchange may take.
pub const SOON: Duration = Duration::from_secs(3);

/// What a site looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The client on one link, each backend on a link of its own.
    Links,
    /// The same; the clients' link has so many queues, each backend's so many.
    Queues(u32, u32),
    /// All on one link: one-arm.
    OneArm,
}

/// The site. Client `192.0.2.1` and `2001:db8::1`, balancer `192.0.2.10` and `2001:db8::10`. Backend *n*: `10.0.n.3` and
/// `2001:db8:n::3`, from the balancer's `ethn`; one-arm `192.0.2.10n` and `2001:db8::10n`.
///
/// Dropped, the daemon is ended and all of it goes, pins too.
pub struct Site {
    shape: Shape,
    daemon: Option<Process>,
    /// Daemons before it: what they logged is shown too when the test fails.
    ended: Vec<Process>,
    pub client: Host,
    pub balancer: Host,
    pub backends: Vec<Host>,
    config: PathBuf,
    socket: PathBuf,
    pub pins: PathBuf,
    head: String,
    pub lab: Lab,
}

impl Site {
    /// A site with `count` backends; `None` where there can be none.
    pub fn new(name: &str, shape: Shape, count: usize) -> Option<Self> {
        let lab = Lab::for_test(name)?;
        let client = lab.host("client").unwrap();
        let balancer = lab.host("balancer").unwrap();
        let backends: Vec<Host> = (1..=count)
            .map(|number| lab.host(&format!("b{number}")).unwrap())
            .collect();
        let mut interfaces = vec!["eth0".to_owned()];
        match shape {
            Shape::Links | Shape::Queues(..) => {
                let queues = match shape {
                    Shape::Queues(front, back) => [front, back],
                    _ => [1, 1],
                };
                let [front, back] = queues.map(|queues| LinkOptions {
                    queues,
                    ..LinkOptions::default()
                });
                lab.link_with(&client, "eth0", &balancer, "eth0", front)
                    .unwrap();
                for (number, backend) in (1..).zip(&backends) {
                    let device = format!("eth{number}");
                    lab.link_with(backend, "eth0", &balancer, &device, back)
                        .unwrap();
                    backend
                        .address("eth0", &format!("10.0.{number}.3/24"))
                        .unwrap();
                    balancer
                        .address(&device, &format!("10.0.{number}.1/24"))
                        .unwrap();
                    backend
                        .address("eth0", &format!("2001:db8:{number}::3/64"))
                        .unwrap();
                    balancer
                        .address(&device, &format!("2001:db8:{number}::1/64"))
                        .unwrap();
                    backend.default_route(&format!("10.0.{number}.1")).unwrap();
                    backend
                        .default_route(&format!("2001:db8:{number}::1"))
                        .unwrap();
                    interfaces.push(device);
                }
            }
            Shape::OneArm => {
                let mut ports = vec![(&client, "eth0"), (&balancer, "eth0")];
                ports.extend(backends.iter().map(|backend| (backend, "eth0")));
                lab.switch("switch", &ports).unwrap();
                for (number, backend) in (101..).zip(&backends) {
                    backend
                        .address("eth0", &format!("192.0.2.{number}/24"))
                        .unwrap();
                    backend
                        .address("eth0", &format!("2001:db8::{number}/64"))
                        .unwrap();
                }
            }
        }
        client.address("eth0", "192.0.2.1/24").unwrap();
        client.address("eth0", "2001:db8::1/64").unwrap();
        client.default_route("192.0.2.10").unwrap();
        client.default_route("2001:db8::10").unwrap();
        balancer.address("eth0", "192.0.2.10/24").unwrap();
        balancer.address("eth0", "2001:db8::10/64").unwrap();
        balancer.sysctl("net/ipv4/ip_forward", "1").unwrap();
        balancer
            .sysctl("net/ipv6/conf/all/forwarding", "1")
            .unwrap();
        let pins = lab.pin_path().unwrap();
        let socket = lab.directory().join("control.sock");
        let head = format!(
            "[daemon]\ncontrol_socket = \"{}\"\npin_path = \"{}\"\n",
            socket.display(),
            pins.display()
        );
        let site = Self {
            shape,
            daemon: None,
            ended: Vec::new(),
            client,
            balancer,
            backends,
            config: lab.directory().join("lb.toml"),
            socket,
            pins,
            head,
            lab,
        };
        site.balancer_ready();
        let names: Vec<String> = interfaces
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect();
        let lookup = std::env::var("BALANCER_FLOW_LOOKUP");
        let lookup = lookup.as_deref().unwrap_or("table");
        let engine = std::env::var("BALANCER_ENGINE");
        let engine = engine.as_deref().unwrap_or("kernel");
        Some(site.with_head(&format!(
            "[datapath]\ninterfaces = [{}]\nflow_lookup = \"{lookup}\"\nengine = \"{engine}\"\n",
            names.join(", ")
        )))
    }

    fn with_head(mut self, datapath: &str) -> Self {
        self.head.push_str(datapath);
        self
    }

    /// The links carry packets: what the kernel says of them may lag behind.
    fn balancer_ready(&self) {
        eventually_some("the client to reach the balancer", PATIENCE, || {
            self.client
                .ping([192, 0, 2, 10].into(), Duration::from_millis(200))
                .ok()
        })
        .unwrap();
    }

    /// A TCP echo server on port 7 of each backend.
    pub fn tcp_echo(&self) -> Vec<TcpEcho> {
        let start = |host| TcpEcho::start(host, [7]).unwrap();
        self.backends.iter().map(start).collect()
    }

    /// A UDP echo server on port 9 of each backend.
    pub fn udp_echo(&self) -> Vec<UdpEcho> {
        let start = |host| UdpEcho::start(host, [9]).unwrap();
        self.backends.iter().map(start).collect()
    }

    /// An nginx on each backend.
    pub fn nginx(&self, config: &WebConfig) -> Vec<Nginx> {
        let start = |host| Nginx::start(host, config).unwrap();
        self.backends.iter().map(start).collect()
    }

    /// A UDP socket of the client, bound to one address and connected to another.
    pub fn udp(&self, from: &str, to: &str) -> UdpSocket {
        let socket = self.client.udp_socket(from.parse().unwrap()).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.connect(to).unwrap();
        socket
    }

    /// What a frame of the client to the box begins with.
    pub fn link_header(&self) -> PacketBuilderStep<Ethernet2Header> {
        let [from, to] = [&self.client, &self.balancer].map(|host| host.mac("eth0").unwrap().0);
        PacketBuilder::ethernet2(from, to)
    }

    /// The text of a service over IPv4 and of the same over IPv6, with nth over all backends.
    pub fn both_families(&self, protocol: &str, port: u16) -> String {
        let service = |family, listen: &str, backends: Vec<String>| {
            nth(&format!("{listen}:{port}"), &backends).replace(
                "name = \"web\"",
                &format!("name = \"{protocol}{family}\"\nprotocol = \"{protocol}\""),
            )
        };
        let backends = |address: fn(Shape, usize) -> String| {
            (1..=self.backends.len())
                .map(|number| backend(&format!("{}:{port}", address(self.shape, number))))
                .collect()
        };
        let v4 = backends(|shape, number| match shape {
            Shape::Links | Shape::Queues(..) => format!("10.0.{number}.3"),
            Shape::OneArm => format!("192.0.2.10{number}"),
        });
        let v6 = backends(|shape, number| match shape {
            Shape::Links | Shape::Queues(..) => format!("[2001:db8:{number}::3]"),
            Shape::OneArm => format!("[2001:db8::10{number}]"),
        });
        service(4, "192.0.2.10", v4) + &service(6, "[2001:db8::10]", v6)
    }

    /// Puts a line right below `[daemon]`, as `on_exit = "keep"`.
    pub fn daemon_key(&mut self, line: &str) {
        self.head = self
            .head
            .replacen("[daemon]\n", &format!("[daemon]\n{line}\n"), 1);
    }

    /// Puts a line at the end of `[datapath]`.
    pub fn datapath_key(&mut self, line: &str) {
        self.head.push_str(line);
        self.head.push('\n');
    }

    /// Says where packets are worked on.
    pub fn set_engine(&mut self, engine: &str) {
        let is_line = |line: &&str| line.starts_with("engine = ");
        let old = self.head.lines().find(is_line).unwrap().to_owned();
        self.replace_head(&old, &format!("engine = \"{engine}\""));
    }

    /// Whether packets are worked on in the kernel, also without a daemon.
    pub fn is_in_kernel(&self) -> bool {
        self.head.contains("engine = \"kernel\"")
    }

    /// Replaces something of what the configuration begins with.
    pub fn replace_head(&mut self, old: &str, new: &str) {
        assert!(self.head.contains(old), "{old} in {}", self.head);
        self.head = self.head.replacen(old, new, 1);
    }

    /// Writes the configuration.
    pub fn configure(&self, services: &str) {
        fs::write(&self.config, format!("{}{services}", self.head)).unwrap();
    }

    /// Writes the configuration and starts the daemon.
    pub fn start(&mut self, services: &str) {
        self.configure(services);
        self.start_again();
    }

    /// Starts the daemon with the configuration that is there.
    pub fn start_again(&mut self) {
        let daemon = self.spawn();
        daemon.wait_for_line("ready", PATIENCE).unwrap();
        self.daemon = Some(daemon);
    }

    fn spawn(&self) -> Process {
        let mut command = self
            .balancer
            .command(env!("CARGO_BIN_EXE_balancerd"))
            .unwrap();
        command.arg("--config").arg(&self.config);
        self.balancer.spawn_command(command).unwrap()
    }

    /// Starts a daemon and kills it after a while, ready or not.
    pub fn start_and_kill_after(&self, time: Duration) {
        let daemon = self.spawn();
        std::thread::sleep(time);
        daemon.kill(Signal::SIGKILL).unwrap();
        daemon.wait(PATIENCE).unwrap();
    }

    /// Starts a daemon that must refuse: its error.
    pub fn start_refused(&self) -> String {
        let daemon = self.spawn();
        let status = daemon.wait(PATIENCE).unwrap();
        assert_eq!(status.code(), Some(1), "{}", daemon.stderr());
        let log = daemon.stderr();
        let line = log.lines().rfind(|line| line.starts_with("balancerd: "));
        line.unwrap_or_else(|| panic!("no error in {log}"))
            .to_owned()
    }

    /// The daemon.
    pub fn daemon(&self) -> &Process {
        self.daemon.as_ref().unwrap()
    }

    /// Whether there is a daemon.
    pub fn has_daemon(&self) -> bool {
        self.daemon.is_some()
    }

    /// Ends the daemon with SIGTERM; it must end well.
    pub fn terminate(&mut self) {
        self.end(Signal::SIGTERM);
    }

    /// Asks the daemon to end by a signal; it must end well.
    pub fn end(&mut self, signal: Signal) {
        let status = self.signal_and_wait(signal);
        assert!(status.success(), "{signal}: {status}");
    }

    /// Kills the daemon with SIGKILL.
    pub fn kill(&mut self) {
        let status = self.signal_and_wait(Signal::SIGKILL);
        assert!(killed_by(status, Signal::SIGKILL), "{status}");
    }

    fn signal_and_wait(&mut self, signal: Signal) -> ExitStatus {
        let daemon = self.daemon.take().unwrap();
        let status = daemon
            .kill(signal)
            .and_then(|()| daemon.wait(PATIENCE))
            .unwrap();
        self.ended.push(daemon);
        status
    }

    /// Writes another configuration, sends SIGHUP, and waits for the outcome.
    pub fn reload(&self, services: &str) {
        let before = self.status().reload;
        self.configure(services);
        self.daemon().kill(Signal::SIGHUP).unwrap();
        let after = eventually_some("the reload", PATIENCE, || {
            let reload = self.status().reload;
            (reload.succeeded + reload.failed > before.succeeded + before.failed).then_some(reload)
        })
        .unwrap();
        assert_eq!(after.error, None);
    }

    /// Runs balancerctl: its output, or its error.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = self
            .balancer
            .command(env!("CARGO_BIN_EXE_balancerctl"))
            .unwrap();
        command.arg("--socket").arg(&self.socket).args(arguments);
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            assert_eq!(output.status.code(), Some(1));
            Err(text(output.stderr))
        }
    }

    /// Runs balancerctl with `--json` and reads the document.
    pub fn document<D: DeserializeOwned>(&self, arguments: &[&str]) -> D {
        let text = self.ctl(&[&["--json"], arguments].concat()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub fn status(&self) -> Status {
        self.document::<StatusDocument>(&["status"]).status
    }

    pub fn services(&self) -> Vec<Service> {
        self.document::<ServicesDocument>(&["services"]).services
    }

    pub fn connections(&self) -> ConnectionsDocument {
        self.document(&["connections", "--limit", "0"])
    }

    pub fn drops(&self) -> DropsDocument {
        self.document(&["drops"])
    }

    /// Asserts on which interfaces the program is, by their names, and how.
    pub fn expect_modes(&self, expected: &[(&str, XdpMode)]) {
        let interfaces = self.status().interfaces;
        let modes = interfaces.iter().map(|it| (it.name.as_str(), it.mode));
        let modes: BTreeMap<_, _> = modes.collect();
        assert_eq!(modes, expected.iter().copied().collect());
    }

    /// How many frames the kernel has received on the balancer's interfaces and the program has not counted: those that
    /// came before it was attached. It stays the same as long as every frame goes through the program.
    pub fn uncounted(&self) -> u64 {
        eventually_some("a moment in which no frame comes", PATIENCE, || {
            let before = self.received_by_the_kernel();
            let counted = self.status().packets.received;
            (before == self.received_by_the_kernel()).then(|| before.wrapping_sub(counted))
        })
        .unwrap()
    }

    /// The frames received on all interfaces but the loopback device, by the kernel's own count.
    fn received_by_the_kernel(&self) -> u64 {
        // Of the thread: the process is in another namespace.
        let read = || fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let table = self.balancer.enter(read).unwrap();
        let devices = table.lines().filter_map(|line| line.split_once(':'));
        devices
            .filter(|(name, _)| name.trim() != "lo")
            .map(|(_, counts)| counts.split_whitespace().nth(1).unwrap())
            .map(|packets| packets.parse::<u64>().unwrap())
            .sum()
    }

    /// Fetches `/` with curl over a connection of its own.
    pub fn curl(&self, url: &str) -> Result<String, String> {
        let output = self
            .client
            .command("curl")
            .unwrap()
            .args(["-sS", "--max-time", "5", url])
            .output()
            .unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout)
                .unwrap()
                .trim_end()
                .to_owned())
        } else {
            Err(String::from_utf8(output.stderr).unwrap())
        }
    }

    /// The folder of the site's files.
    pub fn directory(&self) -> &Path {
        self.lab.directory()
    }
}

/// Connects and reads the greeting of a TCP echo server: who answered, and whom it sees.
pub fn greeting(client: &Host, address: SocketAddr, port: Option<u16>) -> (String, SocketAddr) {
    use std::io::{BufRead as _, BufReader};
    let stream = client.connect(address, port, SOON).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    let mut words = line.split_whitespace();
    let mut word = || words.next().unwrap_or_else(|| panic!("greeting {line:?}"));
    let name = word().to_owned();
    let peer = SocketAddr::new(word().parse().unwrap(), word().parse().unwrap());
    (name, peer)
}
