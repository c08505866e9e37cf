//! What a configuration takes for granted of the box: checked at the start and at each reload.

use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::config::{Config, PortRange, SourceNat};
use crate::datapath::netlink::{Link, Netlink, Way};

/// Where the kernel's settings are; of the network namespace of who reads them.
const SETTINGS: &str = "/proc/sys/net";

/// What is not so.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Mismatch {
    /// Interfaces that are not there.
    #[error("datapath.interfaces: there is no interface {missing} (there are: {known})")]
    Interface {
        /// Those.
        missing: String,
        /// Those that are there.
        known: String,
    },
    /// CPUs that the daemon may not use, or that are not there.
    #[error("datapath.worker_cpus: this process may not use CPU {missing} (it may use: {known})")]
    Cpus {
        /// Those.
        missing: String,
        /// Those that it may use.
        known: String,
    },
    /// The ports for source NAT are ports of the box's own connections.
    #[error(
        "datapath.source_ports: {ports} overlaps the ports of the box's own connections, {ephemeral} \
         (net.ipv4.ip_local_port_range): change one of the two"
    )]
    Ports {
        /// Those of the configuration.
        ports: PortRange,
        /// Those of the kernel.
        ephemeral: PortRange,
    },
}

/// Checks that the interfaces are there. Only at the start: a reload cannot change them, and one that is gone for a
/// while must not stand in its way.
///
/// # Errors
/// [`Mismatch::Interface`].
pub fn check_interfaces(config: &Config, links: &[Link]) -> Result<(), Mismatch> {
    let missing: Vec<&str> = config
        .datapath
        .interfaces
        .iter()
        .map(String::as_str)
        .filter(|name| !links.iter().any(|link| link.name == *name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let known: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    Err(Mismatch::Interface {
        missing: missing.join(", "),
        known: known.join(", "),
    })
}

/// Checks that workers can be where they are to be. Only at the start: a reload cannot change that.
///
/// # Errors
/// [`Mismatch::Cpus`].
pub fn check_cpus(config: &Config) -> Result<(), Mismatch> {
    // Without an answer the worker itself says that it is not pinned.
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return Ok(());
    };
    let may_use = |&cpu: &u32| set.is_set(cpu as usize).unwrap_or(false);
    let (_, missing): (Vec<u32>, Vec<u32>) = config
        .datapath
        .worker_cpus
        .iter()
        .partition(|cpu| may_use(cpu));
    if missing.is_empty() {
        return Ok(());
    }
    let known = (0..CpuSet::count() as u32).filter(may_use);
    let list = |cpus: Vec<u32>| {
        let cpus: Vec<String> = cpus.iter().map(u32::to_string).collect();
        cpus.join(", ")
    };
    Err(Mismatch::Cpus {
        missing: list(missing),
        known: list(known.collect()),
    })
}

/// Checks a configuration against the box's settings.
///
/// # Errors
/// [`Mismatch::Ports`].
pub fn check(config: &Config) -> Result<(), Mismatch> {
    let ephemeral = setting("ipv4/ip_local_port_range").and_then(|text| range(&text));
    check_ports(config.datapath.source_ports, ephemeral)
}

/// Checks that no port is given to connections of clients and of the box.
fn check_ports(ports: PortRange, ephemeral: Option<PortRange>) -> Result<(), Mismatch> {
    match ephemeral {
        Some(ephemeral) if ports.first <= ephemeral.last && ephemeral.first <= ports.last => {
            Err(Mismatch::Ports { ports, ephemeral })
        }
        _ => Ok(()),
    }
}

/// Two ports with white space between them, as the kernel prints them.
fn range(text: &str) -> Option<PortRange> {
    let mut ports = text.split_whitespace().map(str::parse);
    Some(PortRange {
        first: ports.next()?.ok()?,
        last: ports.next()?.ok()?,
    })
}

fn setting(file: &str) -> Option<String> {
    std::fs::read_to_string(Path::new(SETTINGS).join(file)).ok()
}

/// Tells what works in another way than an operator may expect.
pub async fn tell(config: &Config, netlink: &Netlink) {
    // Without forwarding the kernel's routing table is not asked for the way back to clients.
    let families = [
        (true, "net.ipv4.ip_forward", "ipv4/ip_forward"),
        (
            false,
            "net.ipv6.conf.all.forwarding",
            "ipv6/conf/all/forwarding",
        ),
    ];
    for (is_ipv4, key, file) in families {
        let mut backends = config.services.iter().flat_map(|service| &service.backends);
        if backends.any(|backend| backend.address.is_ipv4() == is_ipv4)
            && setting(file).is_some_and(|value| value.trim() == "0")
        {
            tracing::info!(
                "{key} is off: answers go back the way their connection came, not by the routing table"
            );
        }
    }
    for service in &config.services {
        if let SourceNat::Address(address) = service.source_nat
            && !matches!(netlink.way(address).await, Ok(Way::Local))
        {
            tracing::warn!(
                service = service.name,
                "source_nat: {address} is no address of this box: answers come back only if the network routes it here"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> PortRange {
        range(text).unwrap()
    }

    #[test]
    fn ports_of_the_boxs_own_connections_are_refused() {
        let check = |ours, kernels| check_ports(ports(ours), Some(ports(kernels)));
        assert_eq!(check("1024 32767", "32768\t60999\n"), Ok(()));
        assert_eq!(check("61000 65535", "32768 60999"), Ok(()));
        for overlapping in ["1024 32768", "60999 65535", "40000 40000", "1024 65535"] {
            let text = check(overlapping, "32768 60999").unwrap_err().to_string();
            assert!(
                text.contains("32768-60999 (net.ipv4.ip_local_port_range)"),
                "{text}"
            );
        }
        assert_eq!(check_ports(ports("1024 65535"), None), Ok(()));
    }
}
