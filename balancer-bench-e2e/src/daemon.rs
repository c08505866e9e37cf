//! A real balancerd on the box.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use balancer::control::document::{
    Reload, ReloadDocument, ServicesDocument, Status, StatusDocument,
};
use balancer_lab::{Host, Process};
use serde::de::DeserializeOwned;

use crate::contender::Service;
use crate::plan;
use crate::site::Site;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the release is.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The folder with `balancerd` and `balancerctl`.
    pub directory: PathBuf,
}

/// The line for `[datapath]` that gives source NAT as many ports as masquerade may take: the box's own connections, which have
/// others then, need few.
pub fn many_ports(site: &Site) -> anyhow::Result<String> {
    let (first, last) = plan::SOURCE_PORTS;
    let own = format!("{} 65535", last + 1);
    site.balancer.sysctl("net/ipv4/ip_local_port_range", &own)?;
    Ok(format!("source_ports = \"{first}-{last}\""))
}

/// The daemon. Dropped, it is ended.
pub struct Daemon {
    /// Ended when this is dropped.
    _process: Process,
    balancer: Host,
    ctl: PathBuf,
    socket: PathBuf,
    config: PathBuf,
    head: String,
    service: Service,
    /// From its start until it was ready.
    pub until_ready: Duration,
}

impl Daemon {
    /// Starts it with lines for `[datapath]` and a service with these backends, and waits until it is ready.
    pub fn start(
        site: &Site,
        binaries: &Binaries,
        datapath: &str,
        service: Service,
        backends: impl Iterator<Item = Ipv4Addr>,
    ) -> anyhow::Result<Self> {
        let directory = site.lab.directory();
        let socket = directory.join("control.sock");
        let config = directory.join("lb.toml");
        let head = format!(
            "[daemon]\ncontrol_socket = \"{}\"\npin_path = \"{}\"\n[datapath]\ninterfaces = [\"eth0\", \"eth1\"]\n{datapath}\n",
            socket.display(),
            site.lab.pin_path()?.display(),
        );
        fs::write(&config, text(&head, service, backends))?;
        // As a service manager does: it tells the moment, a look at the log would come later.
        let notify = directory.join("notify.sock");
        let told = UnixDatagram::bind(&notify)?;
        told.set_read_timeout(Some(PATIENCE))?;
        let mut command = site
            .balancer
            .command(binaries.directory.join("balancerd"))?;
        command
            .arg("--config")
            .arg(&config)
            .env("NOTIFY_SOCKET", &notify)
            .env_remove("RUST_LOG");
        let start = Instant::now();
        let process = site.balancer.spawn_command(command)?;
        let mut buffer = [0; 256];
        let ready = told.recv(&mut buffer);
        let until_ready = start.elapsed();
        let ready = ready.ok().and_then(|length| buffer.get(..length));
        ensure!(
            ready.is_some_and(|text| text.starts_with(b"READY=1")),
            "balancerd was not ready: {}",
            process.stderr()
        );
        Ok(Self {
            _process: process,
            balancer: site.balancer.clone(),
            ctl: binaries.directory.join("balancerctl"),
            socket,
            config,
            head,
            service,
            until_ready,
        })
    }

    /// Replaces all backends in the configuration, without a reload.
    pub fn configure(&self, backends: impl Iterator<Item = Ipv4Addr>) -> anyhow::Result<()> {
        Ok(fs::write(
            &self.config,
            text(&self.head, self.service, backends),
        )?)
    }

    fn document<D: DeserializeOwned>(&self, command: &str) -> anyhow::Result<D> {
        let output = self
            .balancer
            .command(&self.ctl)?
            .arg("--json")
            .arg("--socket")
            .arg(&self.socket)
            .arg(command)
            .output()
            .with_context(|| self.ctl.display().to_string())?;
        ensure!(
            output.status.success(),
            "balancerctl {command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// `balancerctl status`.
    pub fn status(&self) -> anyhow::Result<Status> {
        Ok(self.document::<StatusDocument>("status")?.status)
    }

    /// `balancerctl reload`.
    pub fn reload(&self) -> anyhow::Result<Reload> {
        Ok(self.document::<ReloadDocument>("reload")?.reload)
    }

    /// Connections that were refused since the table was full.
    pub fn refused(&self) -> anyhow::Result<u64> {
        let services = self.document::<ServicesDocument>("services")?.services;
        Ok(services
            .iter()
            .map(|service| service.refused.table_full)
            .sum())
    }

    /// Connections ever, to all backends.
    pub fn connections(&self) -> anyhow::Result<u64> {
        let services = self.document::<ServicesDocument>("services")?.services;
        let backends = services.iter().flat_map(|service| &service.backends);
        Ok(backends.map(|backend| backend.connections_total).sum())
    }
}

fn text(head: &str, service: Service, backends: impl Iterator<Item = Ipv4Addr>) -> String {
    let (protocol, port) = (service.protocol(), service.port());
    let mut text = format!(
        "{head}[[service]]\nname = \"bench\"\nlisten = \"{}:{port}\"\nprotocol = \"{protocol}\"\nscheduler = \"nth\"\nsource_nat = \"masquerade\"\n",
        plan::SERVICE
    );
    for address in backends {
        let _ = writeln!(text, "[[service.backend]]\naddress = \"{address}:{port}\"");
    }
    text
}
