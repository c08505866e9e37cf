//! A host: a network namespace, and what can be done in it.

use std::{
    ffi::OsStr,
    fmt, fs,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    panic,
    path::PathBuf,
    process::Command,
    str::FromStr,
    sync::Arc,
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, setns};

use crate::{Error, Output, Process, Result, client, error::Context, lab::Shared, namespace, sys};

/// How long `run` waits for a command.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(1);

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(formatter, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for MacAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::Invalid(format!("{text:?} is no Ethernet address"));
        let mut address = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut address {
            let part = parts
                .next()
                .filter(|part| part.len() == 2)
                .ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() {
            return Err(invalid());
        }
        Ok(Self(address))
    }
}

/// Whether a host tells its neighbours that its Ethernet address has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announce {
    /// A gratuitous ARP and unsolicited neighbour advertisements.
    Yes,
    /// Nothing: the neighbours find out by themselves.
    No,
}

/// A network namespace of a lab. A clone is the same host.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    namespace: String,
    shared: Arc<Shared>,
}

impl Host {
    pub(crate) fn create(shared: &Arc<Shared>, name: &str) -> Result<Self> {
        let namespace = format!("{}-{name}", shared.prefix());
        namespace::create(&namespace)?;
        Ok(Self {
            inner: Arc::new(Inner {
                name: name.to_owned(),
                namespace,
                shared: Arc::clone(shared),
            }),
        })
    }

    pub(crate) fn prepare(&self) -> Result<()> {
        self.enter(|| {
            sys::set_up("lo", true)?;
            for (key, value) in DEFAULTS {
                match fs::write(sysctl_path(key), value) {
                    // Not every kernel has every key.
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(error);
                    }
                    _ => {}
                }
            }
            Ok(())
        })?
        .context(|| format!("preparing {}", self.name()))
    }

    /// Its name in the lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The name of its network namespace, as `ip netns` shows it.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    /// The path of its network namespace, for `nsenter --net=PATH`.
    #[must_use]
    pub fn namespace_path(&self) -> PathBuf {
        namespace::path(&self.inner.namespace)
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Runs `work` on a new thread in the namespace and returns what it returns. Sockets made there stay in the namespace.
    ///
    /// A panic of `work` goes on in the caller.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let entry = self.entry()?;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                entry()?;
                Ok(work())
            });
            thread
                .join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }

    /// What a new thread has to call first to be on this host.
    pub(crate) fn entry(&self) -> Result<impl FnOnce() -> Result<()> + Send + 'static> {
        let namespace = namespace::open(&self.inner.namespace)?;
        let name = self.inner.namespace.clone();
        Ok(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).context(|| format!("entering {name}"))
        })
    }

    /// A command that will run in the namespace. It sees the caller's file systems: the bpffs, and in `/sys/class/net` the devices of
    /// the caller's own namespace, not of this one.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        namespace::command(&self.inner.namespace, program)
    }

    /// Runs a command to its end, for a minute at most; another status than 0 is an error with all output in it.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Output> {
        self.spawn(program, arguments)?.finish(COMMAND_TIMEOUT)
    }

    /// Starts a command.
    pub fn spawn<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Process> {
        let mut command = self.command(program)?;
        command.args(arguments);
        self.spawn_command(command)
    }

    /// Starts a command that `command` made; its streams and process group are set here.
    pub fn spawn_command(&self, command: Command) -> Result<Process> {
        Process::spawn(&self.inner.shared, &self.inner.name, command)
    }

    /// Runs one line of an `ip` command, without the `ip`.
    pub fn ip(&self, line: &str) -> Result<()> {
        self.ip_batch([line])
    }

    /// Runs lines of `ip` commands, in one process; the first that fails ends it.
    pub fn ip_batch<L: Into<String>>(&self, lines: impl IntoIterator<Item = L>) -> Result<()> {
        let lines: Vec<_> = lines.into_iter().map(Into::into).collect();
        namespace::ip_batch(Some(&self.inner.namespace), &lines)
    }

    /// Gives a device an address with its prefix length, of either family. It can be used at once: no duplicate address detection.
    pub fn address(&self, device: &str, address: &str) -> Result<()> {
        let detection = if address.contains(':') { " nodad" } else { "" };
        self.ip(&format!("addr add {address} dev {device}{detection}"))
    }

    /// Takes an address away.
    pub fn remove_address(&self, device: &str, address: &str) -> Result<()> {
        self.ip(&format!("addr del {address} dev {device}"))
    }

    /// Adds or replaces the route to `destination` (a prefix, or `default`) by way of `gateway`.
    pub fn route(&self, destination: &str, gateway: &str) -> Result<()> {
        self.ip(&format!("route replace {destination} via {gateway}"))
    }

    /// Adds or replaces the default route of the gateway's family.
    pub fn default_route(&self, gateway: &str) -> Result<()> {
        self.route("default", gateway)
    }

    /// The Ethernet address of a device.
    pub fn mac(&self, device: &str) -> Result<MacAddress> {
        self.enter(|| sys::hardware_address(device))?
            .map(MacAddress)
            .context(|| format!("Ethernet address of {device} of {}", self.name()))
    }

    /// Changes the Ethernet address of a device.
    pub fn set_mac(&self, device: &str, address: MacAddress, announce: Announce) -> Result<()> {
        let value = match announce {
            Announce::Yes => "1",
            Announce::No => "0",
        };
        self.sysctl(&format!("net/ipv4/conf/{device}/arp_notify"), value)?;
        self.sysctl(&format!("net/ipv6/conf/{device}/ndisc_notify"), value)?;
        self.ip(&format!("link set dev {device} address {address}"))
    }

    /// Sets a device up. Its peer's carrier comes with it.
    pub fn link_up(&self, device: &str) -> Result<()> {
        self.set_up(device, true)
    }

    /// Sets a device down, as a pulled cable would: the peer loses its carrier. Routes through it go, addresses stay.
    pub fn link_down(&self, device: &str) -> Result<()> {
        self.set_up(device, false)
    }

    fn set_up(&self, device: &str, up: bool) -> Result<()> {
        self.enter(|| sys::set_up(device, up))?
            .context(|| format!("setting {device} of {} up or down", self.name()))
    }

    /// Forgets all neighbours on a device, those that were entered by hand excepted.
    pub fn flush_neighbours(&self, device: &str) -> Result<()> {
        self.ip(&format!("neigh flush dev {device}"))
    }

    /// Writes a kernel setting of the namespace. The key is the path below `/proc/sys`: `net/ipv4/ip_forward`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.enter(|| fs::write(sysctl_path(key), value))?
            .context(|| format!("{}: {key} = {value}", self.name()))
    }

    /// Reads a kernel setting of the namespace.
    pub fn read_sysctl(&self, key: &str) -> Result<String> {
        self.enter(|| fs::read_to_string(sysctl_path(key)))?
            .map(|value| value.trim_end().to_owned())
            .context(|| format!("{}: {key}", self.name()))
    }

    /// Sends one ICMP echo request and returns how long its answer took.
    pub fn ping(&self, address: IpAddr, timeout: Duration) -> Result<Duration> {
        self.enter(|| client::ping(address, timeout))?
            .context(|| format!("{}: ping {address}", self.name()))
    }

    /// Opens a TCP connection, from `source_port` if one is given. The port can be used again at once after the connection.
    pub fn connect(
        &self,
        address: SocketAddr,
        source_port: Option<u16>,
        timeout: Duration,
    ) -> Result<TcpStream> {
        self.enter(|| client::connect(address, source_port, timeout))?
            .context(|| format!("{}: connecting to {address}", self.name()))
    }

    /// A UDP socket bound to `address`; port 0 takes a free one.
    pub fn udp_socket(&self, address: SocketAddr) -> Result<UdpSocket> {
        self.enter(|| UdpSocket::bind(address))?
            .context(|| format!("{}: UDP socket on {address}", self.name()))
    }

    /// Sends one datagram from a fresh socket, from `source_port` if one is given, and returns the answer.
    pub fn udp_exchange(
        &self,
        address: SocketAddr,
        source_port: Option<u16>,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>> {
        self.enter(|| client::udp_exchange(address, source_port, payload, timeout))?
            .context(|| format!("{}: datagram to {address}", self.name()))
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.inner.name, self.inner.namespace)
    }
}

/// What every host starts with, whatever the system's own defaults are.
const DEFAULTS: [(&str, &str); 11] = [
    // An address is there when the call that adds it returns.
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    // Routes are the test's business alone.
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/router_solicitations", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    // Addresses outlive a pulled cable, as IPv4's do.
    ("net/ipv6/conf/default/keep_addr_on_down", "1"),
    // ICMP sockets without a raw socket's rights.
    ("net/ipv4/ping_group_range", "0 2147483647"),
];

/// `/proc/sys/net` shows the namespace of the thread that looks.
fn sysctl_path(key: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(key)
}

#[cfg(test)]
mod tests {
    use super::MacAddress;

    #[test]
    fn an_ethernet_address_reads_as_it_prints() {
        let address = MacAddress([2, 0, 0x5e, 0x10, 0, 0xff]);
        assert_eq!(address.to_string(), "02:00:5e:10:00:ff");
        assert_eq!(address.to_string().parse::<MacAddress>().unwrap(), address);
        for wrong in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:ff:00",
            "2:0:5e:10:0:ff",
            "02:00:5e:10:00:fg",
        ] {
            wrong.parse::<MacAddress>().unwrap_err();
        }
    }
}
