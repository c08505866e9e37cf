//! The lab itself: what belongs together, and its certain end.

use std::{
    collections::BTreeSet,
    env, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::{
        Arc, Mutex, Once, OnceLock, Weak,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::kill,
    },
    unistd::{Pid, geteuid},
};
use tempfile::TempDir;

use crate::{
    Error, Host, Need, Result,
    error::Context,
    namespace, pins,
    process::{Running, lock},
    sys::{self, Feature},
};

/// All names of namespaces and directories begin so, then comes the process's id.
const PREFIX: &str = "bl-";
const TRANSMIT_QUEUE: u32 = 10_000;

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A set of hosts and links with names of its own, beside all other labs.
///
/// Dropped, also while a test panics, it ends every process that was started in it, and takes its namespaces, its pins and its directory away.
#[derive(Debug)]
pub struct Lab {
    shared: Arc<Shared>,
    hosts: Mutex<Vec<Host>>,
    directory: Option<TempDir>,
}

/// What hosts and processes need of their lab.
pub(crate) struct Shared {
    prefix: String,
    directory: PathBuf,
    processes: Mutex<Vec<Weak<Running>>>,
    counter: AtomicU32,
}

impl Shared {
    /// What the names of all its namespaces begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A number that no other file of this lab has.
    pub(crate) fn number(&self) -> u32 {
        self.counter.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn remember(&self, process: &Arc<Running>) {
        let mut processes = lock(&self.processes);
        processes.retain(|process| process.strong_count() > 0);
        processes.push(Arc::downgrade(process));
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.prefix)
    }
}

/// How a link's two ends are made.
#[derive(Debug, Clone, Copy)]
pub struct LinkOptions {
    /// The MTU of both ends.
    pub mtu: u32,
    /// Receive and transmit queues of both ends.
    pub queues: u32,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            mtu: 1500,
            queues: 1,
        }
    }
}

impl Lab {
    /// Whether a lab can be had here; if not, why.
    pub fn available() -> std::result::Result<(), String> {
        static ANSWER: OnceLock<std::result::Result<(), String>> = OnceLock::new();
        ANSWER.get_or_init(find_out).clone()
    }

    /// An empty lab. Leftovers of labs whose process is dead are swept first, once in a process.
    ///
    /// `name` may have lower-case letters, digits and hyphens.
    pub fn new(name: &str) -> Result<Self> {
        static SWEPT: Once = Once::new();
        Self::available().map_err(Error::Invalid)?;
        check_name(name)?;
        SWEPT.call_once(|| {
            raise_open_files();
            // What cannot be swept does not hinder a lab with other names.
            let _ = Self::sweep_stale();
        });
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}-{name}", process::id());
        let directory = tempfile::Builder::new()
            .prefix(&format!("{prefix}-"))
            .tempdir()
            .context(|| "a directory for the lab".to_owned())?;
        Ok(Self {
            shared: Arc::new(Shared {
                prefix,
                directory: directory.path().to_owned(),
                processes: Mutex::default(),
                counter: AtomicU32::default(),
            }),
            hosts: Mutex::default(),
            directory: Some(directory),
        })
    }

    /// A lab for a test, or nothing where none can be had: then the reason is printed, and the test should return.
    ///
    /// # Panics
    ///
    /// When the lab can be had but not made, and when it cannot be had although it is [needed](Need::Lab).
    #[must_use]
    pub fn for_test(name: &str) -> Option<Self> {
        if let Err(reason) = Self::available() {
            Need::Lab.leave_out(name, &reason);
            return None;
        }
        match Self::new(name) {
            Ok(lab) => Some(lab),
            Err(error) => panic!("{error}"),
        }
    }

    /// What the names of its namespaces and its directory begin with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.shared.prefix()
    }

    /// A directory for files of this lab, gone with it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.shared.directory()
    }

    /// A path on the BPF file system for the pins of a daemon in this lab; what is there goes with the lab.
    pub fn pin_path(&self) -> Result<PathBuf> {
        pins::folder(self.prefix())
    }

    /// A new host with its loopback device up. The name may have lower-case letters, digits and hyphens.
    pub fn host(&self, name: &str) -> Result<Host> {
        check_name(name)?;
        let host = Host::create(&self.shared, name)?;
        // Before it is prepared: should that fail, the namespace goes with the others.
        lock(&self.hosts).push(host.clone());
        host.prepare()?;
        Ok(host)
    }

    /// Joins two hosts by a veth pair with the default `LinkOptions`.
    pub fn link(&self, a: &Host, a_device: &str, b: &Host, b_device: &str) -> Result<()> {
        self.link_with(a, a_device, b, b_device, LinkOptions::default())
    }

    /// Joins two hosts by a veth pair. What one end sends, the other receives frame by frame and with full checksums: no offloads.
    pub fn link_with(
        &self,
        a: &Host,
        a_device: &str,
        b: &Host,
        b_device: &str,
        options: LinkOptions,
    ) -> Result<()> {
        let LinkOptions { mtu, queues } = options;
        let end = |host: &Host, device: &str| {
            format!(
                "name {device} netns {} mtu {mtu} txqueuelen {TRANSMIT_QUEUE} numtxqueues {queues} numrxqueues {queues}",
                host.namespace()
            )
        };
        let line = format!(
            "link add {} type veth peer {}",
            end(a, a_device),
            end(b, b_device)
        );
        namespace::ip_batch(None, &[line])?;
        for (host, device) in [(a, a_device), (b, b_device)] {
            prepare_end(host, device)?;
        }
        Ok(())
    }

    /// Joins several hosts by a switch: a bridge in a namespace of its own.
    pub fn switch(&self, name: &str, ports: &[(&Host, &str)]) -> Result<Switch> {
        let bridge = self.host(name)?;
        bridge.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        bridge.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
        for family in ["ip", "ip6", "arp"] {
            let key = format!("net/bridge/bridge-nf-call-{family}tables");
            // The key is there where bridges are filtered at all.
            if Path::new("/proc/sys").join(&key).exists() {
                bridge.sysctl(&key, "0")?;
            }
        }
        bridge.ip_batch([
            format!(
                "link add name {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
            ),
            format!("link set dev {BRIDGE} up"),
        ])?;
        let switch = Switch {
            bridge,
            ports: AtomicU32::default(),
        };
        for (host, device) in ports {
            switch.attach(self, host, device)?;
        }
        Ok(switch)
    }

    /// Takes away what labs of dead processes have left: processes, namespaces, pins, directories. Returns the names of all but the first.
    pub fn sweep_stale() -> Result<Vec<String>> {
        let mut swept = Vec::new();
        for name in pins::list().into_iter().filter(|name| is_stale(name)) {
            pins::remove(&name)?;
            swept.push(name);
        }
        for name in namespace::list().into_iter().filter(|name| is_stale(name)) {
            namespace::remove(&name)?;
            swept.push(name);
        }
        let temporary = env::temp_dir();
        let entries = fs::read_dir(&temporary).context(|| temporary.display().to_string())?;
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            // Others may write here too: only a true directory of our own is a lab's. The entry's metadata follow no link.
            let ours = entry
                .metadata()
                .is_ok_and(|its| its.is_dir() && its.uid() == geteuid().as_raw());
            if !is_stale(&name) || !ours {
                continue;
            }
            match fs::remove_dir_all(entry.path()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).context(|| format!("removing {}", entry.path().display()));
                }
                _ => swept.push(name),
            }
        }
        Ok(swept)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for process in lock(&self.shared.processes).drain(..) {
            if let Some(process) = process.upgrade()
                && let Err(error) = process.stop()
            {
                eprintln!("{error}");
            }
        }
        if let Err(error) = pins::remove(self.prefix()) {
            eprintln!("{error}");
        }
        let names: BTreeSet<_> = lock(&self.hosts)
            .iter()
            .map(|host| host.namespace().to_owned())
            .collect();
        for name in names {
            if let Err(error) = namespace::remove(&name) {
                eprintln!("{error}");
            }
        }
        if let Some(directory) = self.directory.take()
            && let Err(error) = directory.close()
        {
            eprintln!("removing the lab's directory: {error}");
        }
    }
}

const BRIDGE: &str = "br0";

/// A bridge that joins hosts, in a namespace of its own.
#[derive(Debug)]
pub struct Switch {
    bridge: Host,
    ports: AtomicU32,
}

impl Switch {
    /// The namespace that the bridge is in.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.bridge
    }

    /// Plugs another host in, and returns the name of the port on the switch.
    pub fn attach(&self, lab: &Lab, host: &Host, device: &str) -> Result<String> {
        let port = format!("port{}", self.ports.fetch_add(1, Ordering::Relaxed));
        lab.link(host, device, &self.bridge, &port)?;
        self.bridge
            .ip(&format!("link set dev {port} master {BRIDGE}"))?;
        Ok(port)
    }
}

/// Sets one end of a link up, as a plain wire: whole checksums, a frame a packet, and NAPI running.
fn prepare_end(host: &Host, device: &str) -> Result<()> {
    host.enter(|| {
        // Up first: grouping that is switched on while this end is down does not make its peer a target for redirects.
        sys::set_up(device, true)?;
        sys::set_features(
            device,
            &[
                // An XDP program updates checksums incrementally: there has to be a whole one.
                (Feature::TransmitChecksum, false),
                (Feature::TcpSegmentation, false),
                (Feature::Segmentation, false),
                // A frame that XDP redirects into the peer is lost unless this end polls, and grouping makes it poll.
                (Feature::ReceiveGrouping, true),
            ],
        )
    })?
    .context(|| format!("preparing {device} of {}", host.name()))?;
    // Grouping is on for its polling only: nothing fits into a group of one byte, so frames arrive as they were sent.
    // Kernels and `ip` before 5.19 do not know the setting; there frames of a TCP connection may arrive joined.
    let _ = host.ip(&format!("link set dev {device} gro_max_size 1"));
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 40 || !name.bytes().all(allowed) {
        return Err(Error::Invalid(format!(
            "{name:?} is no name for a lab or host: 1 to 40 of a-z, 0-9 and -"
        )));
    }
    Ok(())
}

/// Whether a name is a lab's whose process is dead.
fn is_stale(name: &str) -> bool {
    owner(name).is_some_and(|pid| kill(pid, None) == Err(Errno::ESRCH))
}

/// The process in a lab's name.
fn owner(name: &str) -> Option<Pid> {
    let (pid, rest) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let (counter, _) = rest.split_once('-')?;
    counter.parse::<u32>().ok()?;
    pid.parse().ok().filter(|pid| *pid > 0).map(Pid::from_raw)
}

fn find_out() -> std::result::Result<(), String> {
    if !geteuid().is_root() {
        return Err("network namespaces need root".to_owned());
    }
    let ip = Command::new("ip")
        .arg("-Version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if let Err(error) = ip {
        return Err(format!(
            "the `ip` tool (package iproute2) cannot be run: {error}"
        ));
    }
    // On a thread that ends at once, and its namespace with it.
    match thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("no network namespace can be made: {error}")),
        Err(_) => Err("no network namespace can be made".to_owned()),
    }
}

/// Enough for both ends of a hundred thousand connections.
const OPEN_FILES: u64 = 262_144;

/// Both ends of a connection may live in the test's own process. Fewer files than wished for are no error yet.
fn raise_open_files() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most.min(OPEN_FILES), most);
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::Pid;

    use super::{check_name, owner};

    #[test]
    fn the_owner_is_read_from_a_name() {
        let cases = [
            ("bl-123-0-nth-lb", Some(123)),
            ("bl-123-7-a", Some(123)),
            ("bl-123", None),
            ("bl-123-x-a", None),
            ("bl-0-0-a", None),
            ("bl--1-0-a", None),
            ("blue-123-0-a", None),
            ("xbl-123-0-a", None),
        ];
        for (name, pid) in cases {
            assert_eq!(owner(name), pid.map(Pid::from_raw), "{name}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_directory() {
        for wrong in ["", "a b", "../a", "A", "a\n", &"a".repeat(41)] {
            check_name(wrong).unwrap_err();
        }
        check_name("nth-2").unwrap();
    }
}
