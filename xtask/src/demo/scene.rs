//! The demo's stage: a client, the balancer, three web servers.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use balancer_lab::{Host, Lab, Process, Signal, WebConfig, WebKind, WebServer, eventually_some};

use super::go_on;
use crate::workspace::Workspace;

/// The configuration that is shown.
const CONFIG: &str = "configs/three-web-servers.toml";
/// The addresses of its backends.
const BACKENDS: [&str; 3] = ["10.0.0.3", "10.0.0.4", "10.0.0.5"];
/// How long the download is, and how fast, in bytes and bytes a second.
const LARGE: u64 = 24 << 20;
const RATE: u64 = 4 << 20;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is built up for the demo. Dropped, it is gone: namespaces, processes, program, pins.
pub struct Scene {
    daemon: Process,
    _servers: Vec<WebServer>,
    client: Host,
    balancer: Host,
    balancerctl: PathBuf,
    socket: PathBuf,
    config: PathBuf,
    text: String,
    /// `https` where nginx serves.
    scheme: &'static str,
    lab: Lab,
}

/// A server, as the client and as the balancer name it.
pub struct Server {
    /// The host's name.
    pub name: String,
    /// Its address and port.
    pub backend: String,
}

impl Scene {
    /// Builds it up and starts the daemon.
    pub fn build(workspace: &Workspace) -> anyhow::Result<Self> {
        let lab = Lab::new("demo")?;
        let (client, balancer) = (lab.host("client")?, lab.host("balancer")?);
        let hosts: Vec<Host> = (1..=BACKENDS.len())
            .map(|number| lab.host(&format!("web{number}")))
            .collect::<Result<_, _>>()?;
        lab.link(&client, "eth0", &balancer, "eth0")?;
        let mut ports = vec![(&balancer, "eth1")];
        ports.extend(hosts.iter().map(|host| (host, "eth0")));
        lab.switch("switch", &ports)?;
        client.address("eth0", "192.0.2.1/24")?;
        balancer.address("eth0", "192.0.2.10/24")?;
        balancer.address("eth1", "10.0.0.1/24")?;
        balancer.sysctl("net/ipv4/ip_forward", "1")?;
        for (host, address) in hosts.iter().zip(BACKENDS) {
            host.address("eth0", &format!("{address}/24"))?;
        }

        let nginx = balancer_lab::Nginx::installed();
        let port = if nginx { 443 } else { 80 };
        let web = WebConfig {
            http: if nginx { Vec::new() } else { vec![port] },
            https: if nginx { vec![port] } else { Vec::new() },
            large: LARGE,
            ..WebConfig::default()
        };
        let servers: Vec<WebServer> = hosts
            .iter()
            .map(|host| WebServer::start(host, web.clone()))
            .collect::<Result<_, _>>()?;
        let served_by = match servers[0].kind() {
            WebKind::Nginx => "nginx with TLS",
            WebKind::Embedded => "a small embedded HTTP server, as there is no nginx here",
        };
        println!(
            "\nA lab of network namespaces:\n\n  \
             client 192.0.2.1 ── eth0 balancer eth1 ── switch ── web1 10.0.0.3, web2 10.0.0.4, web3 10.0.0.5\n\n\
             The web servers run {served_by}."
        );

        let socket = lab.directory().join("control.sock");
        let config = lab.directory().join("lb.toml");
        let shown = fs::read_to_string(workspace.root.join(CONFIG)).context(CONFIG)?;
        let text = format!(
            "[daemon]\ncontrol_socket = \"{}\"\npin_path = \"{}\"\n\n{}",
            socket.display(),
            lab.pin_path()?.display(),
            shown.replace(":443\"", &format!(":{port}\"")),
        );
        fs::write(&config, &text)?;
        println!("The balancer runs {CONFIG}, with a control socket and pins of its own:\n");
        let lines = shown
            .lines()
            .filter(|line| !line.starts_with('#') && !line.is_empty());
        for line in lines {
            println!("  {line}");
        }
        let release = workspace.root.join("target/release");
        let mut command = balancer.command(release.join("balancerd"))?;
        command.arg("--config").arg(&config);
        let daemon = balancer.spawn_command(command)?;
        daemon.wait_for_line("ready", PATIENCE)?;
        go_on()?;
        Ok(Self {
            daemon,
            _servers: servers,
            client,
            balancer,
            balancerctl: release.join("balancerctl"),
            socket,
            config,
            text,
            scheme: if nginx { "https" } else { "http" },
            lab,
        })
    }

    fn url(&self, path: &str) -> String {
        format!("{}://192.0.2.10{path}", self.scheme)
    }

    /// Who answers so many requests.
    pub fn requests(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let request = |_| {
            go_on()?;
            let url = self.url("/");
            let output = self
                .client
                .run("curl", ["-sSk", "--max-time", "5", url.as_str()])?;
            Ok(output.stdout.trim().to_owned())
        };
        (0..count).map(request).collect()
    }

    fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let socket = self.socket.to_string_lossy();
        let mut all = vec!["--socket", &socket];
        all.extend(arguments);
        Ok(self
            .balancer
            .run(&self.balancerctl.to_string_lossy(), all)?
            .stdout)
    }

    /// The table of services.
    pub fn services(&self) -> anyhow::Result<String> {
        self.ctl(&["services"])
    }

    /// Begins a long download.
    pub fn download(&self) -> anyhow::Result<Process> {
        let (url, rate) = (self.url("/large"), RATE.to_string());
        let format = "%{size_download}";
        let arguments = [
            "-sSk",
            "--max-time",
            "60",
            "--limit-rate",
            &rate,
            "-o",
            "/dev/null",
            "-w",
            format,
            &url,
        ];
        Ok(self.client.spawn("curl", arguments)?)
    }

    /// Who serves the download: the one established connection.
    pub fn server_of(&self, download: &Process) -> anyhow::Result<Server> {
        let backend = eventually_some("the download to begin", PATIENCE, || {
            let list = self.ctl(&["connections"]).ok()?;
            let line = list.lines().find(|line| line.contains(" established "))?;
            let port = line
                .split_whitespace()
                .find(|word| word.starts_with("10.0.0.") && !word.starts_with("10.0.0.1:"))?;
            Some(port.to_owned())
        });
        let backend = backend.with_context(|| download.stderr())?;
        let index = BACKENDS
            .iter()
            .position(|address| backend.starts_with(&format!("{address}:")));
        match index {
            Some(index) => Ok(Server {
                name: format!("web{}", index + 1),
                backend,
            }),
            None => bail!("no server has the address {backend}"),
        }
    }

    /// Takes a server out of the configuration and reloads. Gives what the daemon says it changed.
    pub fn reload_without(&self, server: &Server) -> anyhow::Result<Vec<String>> {
        let block = format!(
            "  [[service.backend]]\n  address = \"{}\"\n",
            server.backend
        );
        let text = self.text.replace(&block, "");
        if text == self.text {
            bail!("the configuration has no {}", server.backend);
        }
        fs::write(&self.config, text)?;
        self.daemon.mark();
        self.daemon.kill(Signal::SIGHUP)?;
        let line = self.daemon.wait_for_line("backend", PATIENCE)?;
        let change = line
            .split_once("INFO")
            .map_or(line.as_str(), |(_, change)| change);
        Ok(vec![change.trim().to_owned()])
    }

    /// Waits for the download to end: how many bytes came, of how many.
    pub fn finish(download: &Process) -> anyhow::Result<(u64, u64)> {
        let ended = eventually_some("the download to end", Duration::from_mins(1), || {
            go_on()
                .err()
                .map(Err)
                .or_else(|| download.status().transpose().map(|status| Ok(status?)))
        })?;
        let status = ended?;
        if !status.success() {
            bail!("curl failed: {}", download.stderr());
        }
        Ok((download.stdout().trim().parse()?, LARGE))
    }

    /// Says how to look around, and waits for the user.
    pub fn keep(&self) {
        let enter = |host: &Host| format!("nsenter --net={}", host.namespace_path().display());
        println!(
            "\nThe lab stays up until Ctrl-C. In another terminal, as root:\n\n  \
             {client} curl -k {url}\n  \
             {balancer} {ctl} --socket {socket} services\n  \
             {client} sh        # a shell on the client; likewise the namespaces {prefix}-web1 to -web3\n  \
             $EDITOR {config} && kill -HUP {pid}",
            client = enter(&self.client),
            url = self.url("/"),
            balancer = enter(&self.balancer),
            ctl = self.balancerctl.display(),
            socket = self.socket.display(),
            prefix = self.lab.prefix(),
            config = self.config.display(),
            pid = self.daemon.pid(),
        );
        while go_on().is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    }
}
