//! What the daemon answers: documents, each with its version.
//!
//! `balancerctl --json` prints them as they are. Within a version a field is added (with `#[serde(default)]`, so that a
//! new `balancerctl` reads an old daemon), never renamed or removed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The version of every document. Written as the number [`Version::CURRENT`]; another number is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Version;

impl Version {
    /// The one version there is.
    pub const CURRENT: u64 = 1;
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(Self::CURRENT)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            Self::CURRENT => Ok(Self),
            other => Err(de::Error::custom(format_args!(
                "the document has version {other}, this program reads version {}",
                Self::CURRENT
            ))),
        }
    }
}

/// Any answer but an error.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Document {
    /// To `status`.
    Status(Box<StatusDocument>),
    /// To `services`.
    Services(ServicesDocument),
    /// To `connections`.
    Connections(ConnectionsDocument),
    /// To `drops`.
    Drops(DropsDocument),
    /// To `reload`.
    Reload(ReloadDocument),
    /// To `drain`, `undrain` and `weight`.
    Change(ChangeDocument),
    /// To `flush_connections`.
    Flush(FlushDocument),
}

/// `{"version":1,"error":"…"}`: the request was not fulfilled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDocument {
    /// 1.
    pub version: Version,
    /// What is wrong and how to mend it; may have several lines.
    pub error: String,
}

/// `{"version":1,"status":{…}}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusDocument {
    /// 1.
    pub version: Version,
    /// The state of the daemon.
    pub status: Status,
}

/// The state of the daemon and of its datapath.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What moves the packets.
    pub engine: Engine,
    /// The daemon's version. (The document's own is the `version` beside `status`.)
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// The configuration file.
    pub config: PathBuf,
    /// The interfaces it is attached to.
    pub interfaces: Vec<Interface>,
    /// Seconds since the daemon started.
    pub uptime_seconds: u64,
    /// Number of the configuration in effect; each applied reload adds one.
    pub generation: u64,
    /// The last reload.
    pub reload: ReloadStatus,
    /// Connections now, and how many there may be.
    pub connections: ConnectionCounts,
    /// Packets by what became of them: `received` is the sum of the others.
    pub packets: PacketCounts,
    /// How full the tables are.
    pub tables: Vec<Table>,
    /// What was refused or lost because something was full, by what it was; all zero in a healthy daemon.
    pub pressure: BTreeMap<String, u64>,
    /// What was handed to the daemon.
    #[serde(default)]
    pub slow_path: SlowPathCounts,
    /// The threads that work on packets with engine `userspace`.
    #[serde(default)]
    pub workers: Workers,
}

/// The threads that work on packets with engine `userspace`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workers {
    /// Each; none with engine `kernel`.
    pub threads: Vec<Worker>,
    /// How often one has died, and another took its place.
    pub begun_again: u64,
}

/// A thread that works on packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its name.
    pub name: String,
    /// The CPU that it is pinned to.
    pub cpu: Option<u64>,
    /// Whether it answers; without an answer what follows is empty.
    pub answers: bool,
    /// The receive queues that it works on, as `eth0:1`.
    pub queues: Vec<String>,
    /// The frames that have come by these since it began.
    pub received: u64,
    /// The frames of its sockets' memory.
    pub frames: FrameCounts,
}

/// The frames of sockets' memory, by where they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameCounts {
    /// All.
    pub total: u64,
    /// Free.
    pub free: u64,
    /// For what comes, or come and not yet looked at.
    pub receiving: u64,
    /// To be sent.
    pub sending: u64,
    /// Nowhere: always 0 in a daemon that is right. Less than 0: in two places.
    pub missing: i64,
}

/// What was handed to the daemon since it started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlowPathCounts {
    /// Dropped packets whose sender may be told, by the reason; only those that there were.
    pub dropped: BTreeMap<String, u64>,
    /// Of these: the sender was told, by a RST or an ICMP error.
    pub told: u64,
    /// It was not: there were too many.
    pub limited: u64,
    /// It was not: nobody is told of such a packet.
    pub untold: u64,
    /// It was not: the answer could not be sent.
    pub unsent: u64,
    /// Packets that had to wait for something, by what for; only those that there were.
    #[serde(default)]
    pub held: BTreeMap<String, u64>,
    /// Of these: it came, and the program was given them again, as if they had just been received.
    #[serde(default)]
    pub resumed: u64,
    /// It did not come in time: they were dropped.
    #[serde(default)]
    pub expired: u64,
    /// There were too many: they were dropped.
    #[serde(default)]
    pub overflowed: u64,
    /// They could not be given to the program: they are lost.
    #[serde(default)]
    pub failed: u64,
}

/// What moves the packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The XDP program, with the daemon for what it hands up.
    Kernel,
    /// The daemon, over `AF_XDP`.
    Userspace,
}

/// An interface the XDP program is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// How the program is attached.
    pub mode: XdpMode,
    /// The receive queues that have no `AF_XDP` socket, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_sockets: Option<WithoutSockets>,
}

/// Receive queues without an `AF_XDP` socket: what comes by them is treated as without a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithoutSockets {
    /// The first; those behind it have none either.
    pub first_queue: u32,
    /// Why.
    pub error: String,
}

/// Where the kernel runs the XDP program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// After the driver, on socket buffers: works everywhere, slower.
    Generic,
}

/// The last reload; before the first one, the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// When: RFC 3339, UTC, as [`rfc3339`] writes it.
    pub at: String,
    /// Its outcome.
    pub result: ReloadResult,
    /// Why it failed; may have several lines.
    pub error: Option<String>,
    /// Reloads applied since the start.
    pub succeeded: u64,
    /// Reloads refused since the start; the old configuration went on.
    pub failed: u64,
}

/// The outcome of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadResult {
    /// Applied.
    Ok,
    /// Refused; the old configuration is in effect.
    Error,
}

/// Writes a time as RFC 3339 in UTC, whole seconds: `2026-11-30T12:34:56Z`.
///
/// A clock outside the years 1970 to 9999 gives the nearer end.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    const LAST: u64 = 253_402_300_799;
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(LAST));
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Connections now, and how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConnectionCounts {
    /// Connections now, half-open ones included.
    pub current: u64,
    /// As many as there may be.
    pub max: u64,
    /// TCP handshakes and one-way UDP now.
    pub half_open: u64,
    /// As many of these as there may be.
    pub half_open_max: u64,
}

/// Packets by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PacketCounts {
    /// All that came in.
    pub received: u64,
    /// Sent on by the balancer.
    pub forwarded: u64,
    /// Left to the kernel.
    pub passed: u64,
    /// Dropped; `drops` tells why.
    pub dropped: u64,
    /// Handed to the daemon, to wait for something; `slow_path` tells what became of them. Those that go on are received
    /// again.
    #[serde(default)]
    pub held: u64,
}

/// How full a table is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Entries in use.
    pub used: u64,
    /// Entries it holds.
    pub max: u64,
}

/// `{"version":1,"services":[…]}`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServicesDocument {
    /// 1.
    pub version: Version,
    /// The services, in the order of the configuration.
    pub services: Vec<Service>,
}

/// A service with its backends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Where it listens, as configured.
    pub listen: String,
    /// How it chooses a backend, as configured.
    pub scheduler: String,
    /// `masquerade`, `none`, or an address.
    pub source_nat: String,
    /// Its backends, in the order of the configuration; after them those removed from it that have connections.
    pub backends: Vec<Backend>,
    /// New connections it refused.
    pub refused: Refused,
}

/// A backend with its counters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Its address and port; with its service's name, what a request names it by.
    pub address: String,
    /// Whether it gets new connections.
    pub state: BackendState,
    /// The weight in effect; of a backend with a probability that in per cent, rounded.
    pub weight: u16,
    /// The probability, where the configuration sets one instead of a weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probability: Option<f64>,
    /// Connections now, without those that are closing.
    pub connections_active: u64,
    /// Connections ever.
    pub connections_total: u64,
    /// From clients to the backend.
    pub forward: Traffic,
    /// From the backend to clients.
    pub reply: Traffic,
}

/// Whether a backend gets new connections. Known connections stay on it in every state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// It does, as its weight says.
    Up,
    /// It does not: an operator drained it.
    Drained,
    /// It does not yet: its next hop has no neighbour entry.
    Unresolved,
    /// It does not: no longer in the configuration, but with connections.
    Removed,
}

/// Packets and bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// New connections a service refused, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Refused {
    /// No backend could take it.
    pub no_backend: u64,
    /// Over the service's `limit`.
    pub limit: u64,
    /// Over the service's `connections`.
    pub connections: u64,
    /// No source port was free.
    pub ports_exhausted: u64,
    /// The connection table, or its half-open part, was full.
    pub table_full: u64,
}

/// `{"version":1,"connections":[…],"truncated":false,"total":1}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionsDocument {
    /// 1.
    pub version: Version,
    /// The connections, as many as the limit allows, in no order.
    pub connections: Vec<Connection>,
    /// Whether the limit cut the list.
    pub truncated: bool,
    /// As many as the list would have without the limit.
    pub total: u64,
}

/// A live connection: the tuple the client sees (`client`, `virtual`) and the one the backend sees (`source`,
/// `destination`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The service's name.
    pub service: String,
    /// The backend, as `services` shows it.
    pub backend: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The client.
    pub client: SocketAddr,
    /// The service's address the client talks to.
    #[serde(rename = "virtual")]
    pub virtual_address: SocketAddr,
    /// Where the backend sees the packets come from.
    pub source: SocketAddr,
    /// Where on the backend they go.
    pub destination: SocketAddr,
    /// How far it is.
    pub state: ConnectionState,
    /// Seconds since its first packet.
    pub age_seconds: u64,
    /// Seconds since its last packet.
    pub idle_seconds: u64,
    /// From the client to the backend.
    pub forward: Traffic,
    /// From the backend to the client.
    pub reply: Traffic,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionState {
    /// TCP, before the handshake's last packet.
    Handshake,
    /// TCP, open.
    Established,
    /// TCP, after the first FIN or RST.
    Closing,
    /// UDP, only one direction seen.
    OneWay,
    /// UDP, both directions seen.
    Stream,
}

/// `{"version":1,"drops":{"bad_checksum":3,…}}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropsDocument {
    /// 1.
    pub version: Version,
    /// Packets dropped, by reason; every reason there is, those without a packet too.
    pub drops: BTreeMap<String, u64>,
}

/// `{"version":1,"reload":{…}}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadDocument {
    /// 1.
    pub version: Version,
    /// The outcome.
    pub reload: Reload,
}

/// The outcome of a reload, or what it would be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reload {
    /// Whether the file's configuration is now in effect; never in a dry run.
    pub applied: bool,
    /// Number of the configuration in effect.
    pub generation: u64,
    /// What differs between the configuration in effect before and the file, a line each; none: nothing to do.
    pub changes: Vec<String>,
    /// What is wrong with the file; each may have several lines. None: it is valid.
    pub errors: Vec<String>,
}

/// `{"version":1,"changed":{…}}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeDocument {
    /// 1.
    pub version: Version,
    /// The backend after the change.
    pub changed: Change,
}

/// A backend after a change to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The service's name.
    pub service: String,
    /// The backend's address.
    pub backend: String,
    /// Its weight.
    pub weight: u16,
    /// Its state.
    pub state: BackendState,
    /// Its connections now, without those that are closing.
    pub connections_active: u64,
}

/// `{"version":1,"flushed":12}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushDocument {
    /// 1.
    pub version: Version,
    /// Connections forgotten.
    pub flushed: u64,
}

#[cfg(test)]
mod tests;
