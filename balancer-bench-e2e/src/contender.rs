//! What is compared.

use std::fmt::{self, Write as _};
use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context as _, ensure};
use balancer_lab::Host;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::daemon::{Binaries, Daemon, many_ports};
use crate::ends::{Beside, Origin};
use crate::plan;
use crate::site::Site;

/// What carries packets from clients to backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Contender {
    /// This project.
    Balancerd,
    /// The same with its pipeline in user space.
    Userspace,
    /// iptables-legacy: statistic nth with DNAT, masquerade.
    Iptables,
    /// nft: a map by numgen inc with DNAT, masquerade.
    Nft,
    /// The kernel's forwarding to one backend, nothing translated.
    Routing,
    /// No contender but the floor: an XDP program that hands frames over to the other side as they are.
    Wire,
}

impl Contender {
    /// All of them, without the floor.
    pub const ALL: [Self; 5] = [
        Self::Balancerd,
        Self::Userspace,
        Self::Iptables,
        Self::Nft,
        Self::Routing,
    ];
    /// With it.
    pub const AND_FLOOR: [Self; 6] = [
        Self::Balancerd,
        Self::Userspace,
        Self::Iptables,
        Self::Nft,
        Self::Routing,
        Self::Wire,
    ];

    /// Its name in tables and plots.
    pub fn name(self) -> &'static str {
        match self {
            Self::Balancerd => "balancerd",
            Self::Userspace => "balancerd, userspace",
            Self::Iptables => "iptables nth",
            Self::Nft => "nft numgen",
            Self::Routing => "routing, no NAT",
            Self::Wire => "floor: bare XDP",
        }
    }

    /// The program that it needs beside ours, and the argument that makes it tell its version.
    pub fn tool(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Iptables => Some(("iptables-legacy", "--version")),
            Self::Nft => Some(("nft", "--version")),
            Self::Balancerd | Self::Userspace | Self::Routing | Self::Wire => None,
        }
    }

    /// Whether it chooses a backend for each connection.
    pub fn balances(self) -> bool {
        !matches!(self, Self::Routing | Self::Wire)
    }

    /// What the far ends put on the box.
    pub fn beside(self) -> Beside {
        match self {
            Self::Balancerd | Self::Userspace => Beside::Nothing,
            Self::Iptables | Self::Nft | Self::Routing => Beside::Idle,
            Self::Wire => Beside::HandOver,
        }
    }

    /// Whom clients ask.
    pub fn destination(self) -> Ipv4Addr {
        if self.balances() {
            plan::SERVICE
        } else {
            plan::backend(1)
        }
    }

    /// Where the server should see frames come from.
    pub fn source(self) -> Origin {
        if self.balances() {
            Origin(plan::INSIDE, 32)
        } else {
            Origin(plan::CLIENTS, plan::CLIENTS_PREFIX)
        }
    }

    /// Where the client should see answers come from.
    pub fn answer(self) -> Origin {
        Origin(self.destination(), 32)
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// What is balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Over so many backends.
    pub backends: u32,
    /// Which service.
    pub service: Service,
}

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// UDP.
    Datagrams,
    /// TCP, HTTP.
    Web,
}

impl Service {
    /// The protocol, as every configuration here names it.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Datagrams => "udp",
            Self::Web => "tcp",
        }
    }

    /// The port of the service and of its backends.
    pub fn port(self) -> u16 {
        match self {
            Self::Datagrams => plan::PORT,
            Self::Web => plan::WEB_PORT,
        }
    }
}

/// A contender at work on a site.
pub enum Setup {
    /// The daemon.
    Balancerd(Daemon),
    /// Rules in the kernel.
    Rules(Contender),
    /// The kernel alone.
    Routing,
    /// Not even that.
    Wire,
}

impl Setup {
    /// Sets a contender up on the site's box.
    pub fn begin(
        contender: Contender,
        site: &Site,
        binaries: &Binaries,
        task: Task,
    ) -> anyhow::Result<Self> {
        match contender {
            Contender::Balancerd | Contender::Userspace => {
                let mut lines = many_ports(site)?;
                if contender == Contender::Userspace {
                    lines += "\nengine = \"userspace\"";
                }
                if task.service == Service::Datagrams {
                    // Connections that are opened by one packet each are not to be taken for a flood.
                    lines += "\nmax_half_open = 262144";
                }
                let addresses = (1..=task.backends).map(plan::backend);
                let daemon = Daemon::start(site, binaries, &lines, task.service, addresses)?;
                Ok(Self::Balancerd(daemon))
            }
            Contender::Iptables => {
                load(site, "iptables-legacy-restore", &iptables(task))?;
                Ok(Self::Rules(contender))
            }
            Contender::Nft => {
                load(site, "nft", &nft(task))?;
                Ok(Self::Rules(contender))
            }
            Contender::Routing => Ok(Self::Routing),
            Contender::Wire => Ok(Self::Wire),
        }
    }

    /// Fails unless exactly so many connections were opened by what this is, and so many frames were forwarded by it. `handed_over` were
    /// by the floor's program.
    pub fn check(
        &self,
        site: &Site,
        opened: u64,
        forwarded: u64,
        handed_over: u64,
    ) -> anyhow::Result<()> {
        let expected = if matches!(self, Self::Wire) {
            forwarded
        } else {
            0
        };
        ensure!(
            handed_over == expected,
            "the box handed {handed_over} frames over, of {expected}"
        );
        match self {
            Self::Balancerd(daemon) => {
                let status = daemon.status()?;
                let packets = status.packets;
                ensure!(
                    packets.forwarded == forwarded && packets.dropped == 0,
                    "balancerd counts {packets:?}, {forwarded} frames circulated"
                );
                let total = daemon.connections()?;
                ensure!(
                    total == opened,
                    "balancerd counts {total} connections of {opened}"
                );
            }
            Self::Rules(contender) => {
                let balancer = &site.balancer;
                let matched = matched(*contender, balancer)?;
                ensure!(
                    matched == opened,
                    "{matched} connections matched a rule, of {opened}"
                );
                let tracked: u64 = balancer
                    .read_sysctl("net/netfilter/nf_conntrack_count")?
                    .parse()?;
                ensure!(
                    tracked == opened,
                    "{tracked} connections are tracked, of {opened}"
                );
                ensure_forwarded(balancer, forwarded)?;
            }
            Self::Routing => {
                let tracked = balancer_tracks(&site.balancer)?;
                ensure!(tracked == 0, "{tracked} connections are tracked");
                ensure_forwarded(&site.balancer, forwarded)?;
            }
            Self::Wire => ensure_forwarded(&site.balancer, 0)?,
        }
        Ok(())
    }

    /// Fails unless at least so many connections were opened by what this is.
    pub fn check_opened(&self, site: &Site, least: u64) -> anyhow::Result<()> {
        let opened = match self {
            Self::Balancerd(daemon) => daemon.connections()?,
            Self::Rules(contender) => matched(*contender, &site.balancer)?,
            Self::Routing | Self::Wire => {
                let tracked = balancer_tracks(&site.balancer)?;
                ensure!(tracked == 0, "{tracked} connections are tracked");
                return Ok(());
            }
        };
        ensure!(
            opened >= least,
            "{opened} connections went through the balancer, of at least {least}"
        );
        Ok(())
    }
}

/// How many connections the kernel tracks on a host; none where it cannot.
fn balancer_tracks(host: &Host) -> anyhow::Result<u64> {
    let read = host.read_sysctl("net/netfilter/nf_conntrack_count");
    Ok(read
        .ok()
        .map(|count| count.parse())
        .transpose()?
        .unwrap_or(0))
}

/// The kernel has forwarded so many packets, by its own count.
fn ensure_forwarded(host: &Host, expected: u64) -> anyhow::Result<()> {
    // Of the thread: the process is in another namespace.
    let text = host.enter(|| fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Ip: "));
    let (names, values) = lines.next().zip(lines.next()).context("no line Ip:")?;
    let forwarded: u64 = names
        .split(' ')
        .zip(values.split(' '))
        .find_map(|(name, value)| (name == "ForwDatagrams").then(|| value.parse()))
        .context("no ForwDatagrams")??;
    ensure!(
        forwarded == expected,
        "the kernel forwarded {forwarded} packets, {expected} circulated"
    );
    Ok(())
}

/// Rule `i` of `n` takes one in `n - i` of what has come as far: each backend gets the same.
fn iptables(task: Task) -> String {
    let Task { backends, service } = task;
    let (protocol, port) = (service.protocol(), service.port());
    let mut text = "*nat\n".to_owned();
    for number in 1..=backends {
        let every = backends - number + 1;
        let nth = if every > 1 {
            format!(" -m statistic --mode nth --every {every} --packet 0")
        } else {
            String::new()
        };
        let _ = writeln!(
            text,
            "-A PREROUTING -d {}/32 -p {protocol} --dport {port}{nth} -j DNAT --to-destination {}:{port}",
            plan::SERVICE,
            plan::backend(number),
        );
    }
    text + "-A POSTROUTING -o eth1 -j MASQUERADE\nCOMMIT\n"
}

fn nft(task: Task) -> String {
    let Task { backends, service } = task;
    let (protocol, port) = (service.protocol(), service.port());
    let elements: Vec<_> = (0..backends)
        .map(|index| format!("{index} : {}", plan::backend(index + 1)))
        .collect();
    format!(
        "table ip bench {{
  chain prerouting {{
    type nat hook prerouting priority dstnat;
    ip daddr {} {protocol} dport {port} counter dnat to numgen inc mod {backends} map {{ {} }}
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    oifname \"eth1\" masquerade
  }}
}}
",
        plan::SERVICE,
        elements.join(", ")
    )
}

/// Hands rules to a program on the box.
fn load(site: &Site, program: &str, rules: &str) -> anyhow::Result<()> {
    let path = site.lab.directory().join("rules");
    fs::write(&path, rules)?;
    let path = path.to_string_lossy();
    let arguments: &[&str] = match program {
        "nft" => &["-f", &path],
        _ => &[&path],
    };
    site.balancer.run(program, arguments)?;
    Ok(())
}

/// How many first packets of connections have matched the rules that translate.
fn matched(contender: Contender, host: &Host) -> anyhow::Result<u64> {
    let count = |word: &str| {
        word.parse::<u64>()
            .with_context(|| format!("{word:?} is no count"))
    };
    if contender == Contender::Iptables {
        // [PACKETS:BYTES] -A PREROUTING …
        let rules = host
            .run("iptables-legacy-save", ["-c", "-t", "nat"])?
            .stdout;
        return rules
            .lines()
            .filter(|line| line.contains("-j DNAT"))
            .filter_map(|line| line.strip_prefix('[')?.split(':').next())
            .map(count)
            .sum();
    }
    // … counter packets PACKETS bytes BYTES dnat to …
    let rules = host
        .run("nft", ["list", "chain", "ip", "bench", "prerouting"])?
        .stdout;
    let mut words = rules.split_whitespace();
    words
        .find(|word| *word == "packets")
        .context("no counter")?;
    count(words.next().context("no count")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_of_iptables_counts_what_is_left_to_it() {
        let rules = iptables(Task {
            backends: 3,
            service: Service::Web,
        });
        let start = "-A PREROUTING -d 192.0.2.10/32 -p tcp --dport 80";
        let nth = |every| format!(" -m statistic --mode nth --every {every} --packet 0");
        let to = |number| format!(" -j DNAT --to-destination 10.64.0.{number}:80");
        let expected = [
            "*nat".to_owned(),
            format!("{start}{}{}", nth(3), to(1)),
            format!("{start}{}{}", nth(2), to(2)),
            format!("{start}{}", to(3)),
            "-A POSTROUTING -o eth1 -j MASQUERADE".to_owned(),
            "COMMIT".to_owned(),
        ];
        assert_eq!(rules.lines().collect::<Vec<_>>(), expected);
    }
}
