//! Name servers that say which host they are, and a client for them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use crate::{Host, Process, Result};

const START: Duration = Duration::from_secs(10);

/// A dnsmasq that answers from its own list only, over UDP and TCP, on all addresses of its host.
#[derive(Debug)]
pub struct Dnsmasq {
    process: Process,
}

impl Dnsmasq {
    /// Starts it on `port` with the addresses of some names, and returns when it answers.
    ///
    /// For every one of the names, and for `whoami.test`, it also has a TXT record with the host's name.
    pub fn start(host: &Host, port: u16, names: &[(&str, IpAddr)]) -> Result<Self> {
        let mut command = host.command("dnsmasq")?;
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--no-poll",
            "--user=root",
            "--group=root",
            "--pid-file",
            "--log-facility=-",
        ]);
        command.arg(format!("--port={port}"));
        for (name, address) in names {
            command.arg(format!("--host-record={name},{address}"));
        }
        let mut texts: Vec<_> = names
            .iter()
            .map(|(name, _)| *name)
            .chain(["whoami.test"])
            .collect();
        texts.sort_unstable();
        texts.dedup();
        for name in texts {
            command.arg(format!("--txt-record={name},{}", host.name()));
        }
        let process = host.spawn_command(command)?;
        process.wait_for_line("started, version", START)?;
        Ok(Self { process })
    }

    /// The process, to signal or to stop it.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}

/// Asks `server` once, for one second, and returns the answers' values, without quotation marks; none where the name is unknown.
///
/// `kind` is the record's type: `A`, `AAAA`, `TXT`. Each question of a process comes from a port of its own: one that the
/// kernel gives twice would be the same connection to a load balancer.
pub fn dig(
    client: &Host,
    server: SocketAddr,
    name: &str,
    kind: &str,
    tcp: bool,
) -> Result<Vec<String>> {
    static ASKED: AtomicU16 = AtomicU16::new(0);
    let port = 20_000 + ASKED.fetch_add(1, Ordering::Relaxed) % 10_000;
    let any = if server.is_ipv4() { "0.0.0.0" } else { "::" };
    let transport = if tcp { "+tcp" } else { "+notcp" };
    let output = client.run(
        "dig",
        [
            "+short",
            "+time=1",
            "+tries=1",
            transport,
            "-b",
            &format!("{any}#{port}"),
            "-p",
            &server.port().to_string(),
            &format!("@{}", server.ip()),
            name,
            kind,
        ],
    )?;
    Ok(output
        .stdout
        .lines()
        .map(|line| line.trim_matches('"').to_owned())
        .collect())
}
