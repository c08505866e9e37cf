//! `balancer-flood`, which sends packets that nobody wants.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::Context as _;
use balancer_lab::{Process, Signal};
use serde::Deserialize;

use crate::measure::Bench;
use crate::plan;
use crate::site::Site;

/// The most that it lasts.
const LONGEST: &str = "60s";
/// How long it may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The ports that packets come from.
const PORTS: &str = "1024-65535";
/// As small as they can be.
const SMALL: &str = "frame_size = 60";

/// What comes.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Packets from the service's own address, which everyone drops at once: what the generator and the links cost.
    Impossible,
    /// SYNs, each of a connection of its own.
    Syns,
    /// First fragments, each of a packet of its own.
    First,
    /// Later ones.
    Later,
}

/// It, at work at the client. Dropped, it is ended.
pub struct Flood(Process);

/// What it tells.
#[derive(Deserialize)]
struct Report {
    pps: f64,
}

impl Flood {
    /// Starts it, with so many thousands of packets a second.
    pub fn start(
        bench: &Bench,
        site: &Site,
        to: Ipv4Addr,
        kind: Kind,
        thousands: u32,
    ) -> anyhow::Result<Self> {
        let network = u32::from(plan::CLIENTS);
        let last = network | !plan::mask(plan::CLIENTS_PREFIX);
        let clients = format!(
            "{}-{}",
            Ipv4Addr::from(network + 1),
            Ipv4Addr::from(last - 1)
        );
        // Fragments of one source would be taken for those of one packet: each comes from an address of its own.
        let fragment = |which| {
            let flows = last - network - 1;
            let more = format!("frame_size = 66\nfragment = \"{which}\"\nflows = {flows}");
            ("established", clients.clone(), "1024-1024", more)
        };
        let (mode, source, ports, keys) = match kind {
            Kind::Impossible => ("established", format!("{to}-{to}"), PORTS, SMALL.to_owned()),
            Kind::Syns => ("new", clients, PORTS, SMALL.to_owned()),
            Kind::First => fragment("first"),
            Kind::Later => fragment("later"),
        };
        let text = format!(
            "name = \"flood\"\nfamily = 4\nprotocol = \"tcp\"\nmode = \"{mode}\"\n\
             destination_mac = \"{}\"\nsource = \"{source}\"\ndestination = \"{to}\"\n\
             source_ports = \"{ports}\"\ndestination_port = {}\n{keys}\nrate = {}\nduration = \"{LONGEST}\"\n",
            site.balancer.mac("eth0")?,
            plan::WEB_PORT,
            u64::from(thousands) * 1000,
        );
        let path = site.lab.directory().join("flood.toml");
        fs::write(&path, text)?;
        let mut command = site
            .client
            .command(bench.binaries.directory.join("balancer-flood"))?;
        command.args(["--interface", "eth0", "--json"]).arg(path);
        Ok(Self(site.client.spawn_command(command)?))
    }

    /// Ends it: packets a second.
    pub fn end(self) -> anyhow::Result<f64> {
        let Self(process) = self;
        process.kill(Signal::SIGINT)?;
        process.wait(PATIENCE)?;
        let output = process.stdout();
        let report: Report = serde_json::from_str(&output)
            .with_context(|| format!("balancer-flood wrote\n{output}{}", process.stderr()))?;
        Ok(report.pps)
    }
}
