//! Web servers: nginx, and what takes its place.

use std::{
    fs::{self, File, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use crate::{Error, Host, HttpServer, Process, Result, error::Context, eventually};

const START: Duration = Duration::from_secs(10);
const UNHEALTHY: &str = "unhealthy";
const LOG: &str = "access.log";
const PID: &str = "nginx.pid";

/// What a web server serves, and where. Both families, all addresses of the host.
///
/// | path | answer |
/// | --- | --- |
/// | `/` | the host's name |
/// | `/whoami` | the client's address and port, as the server sees them |
/// | `/healthz` | `ok`, or 503 after `set_healthy(false)` |
/// | `/large` | `large` zeros, at `limit_rate` |
#[derive(Debug, Clone)]
pub struct WebConfig {
    /// Ports for plain HTTP.
    pub http: Vec<u16>,
    /// Ports for TLS, with a certificate that the lab has signed itself.
    pub https: Vec<u16>,
    /// The length of `/large`, in bytes.
    pub large: u64,
    /// How fast `/large` is served, in bytes a second.
    pub limit_rate: Option<u64>,
    /// Whether requests are logged, for `requests`. nginx alone can leave it.
    pub log: bool,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self {
            http: vec![80],
            https: Vec::new(),
            large: 16 << 20,
            limit_rate: None,
            log: true,
        }
    }
}

/// One line of a web server's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The client, as the server sees it.
    pub peer: SocketAddr,
    /// The request line.
    pub line: String,
    /// The answer's status.
    pub status: u16,
}

/// An nginx of its own: one worker, its files in the lab's directory.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    directory: PathBuf,
}

impl Nginx {
    /// Whether nginx is installed.
    #[must_use]
    pub fn installed() -> bool {
        static ANSWER: OnceLock<bool> = OnceLock::new();
        *ANSWER.get_or_init(|| {
            Command::new("nginx")
                .arg("-v")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        })
    }

    /// Starts it, and returns when it listens.
    pub fn start(host: &Host, config: &WebConfig) -> Result<Self> {
        let shared = host.shared();
        let directory = shared
            .directory()
            .join(format!("{}-web-{}", host.name(), shared.number()));
        fs::create_dir(&directory).context(|| directory.display().to_string())?;
        if !config.https.is_empty() {
            certificate(host, shared.directory())?;
        }
        let write = || {
            File::create(directory.join("large"))?.set_len(config.large)?;
            fs::write(
                directory.join("nginx.conf"),
                configuration(host.name(), config),
            )
        };
        write().context(|| directory.display().to_string())?;
        let mut command = host.command("nginx")?;
        command
            .arg("-p")
            .arg(&directory)
            .args(["-c", "nginx.conf", "-e", "error.log"]);
        let process = host.spawn_command(command)?;
        // It writes its process id when it listens. To connect would prove less: another server may hold the port.
        let pid = process.pid().to_string();
        let mut ended = None;
        let up = eventually("nginx to listen", START, || {
            ended = process.status().ok().flatten();
            let written = fs::read_to_string(directory.join(PID)).unwrap_or_default();
            ended.is_some() || written.trim_end() == pid
        });
        if let Some(status) = ended {
            // The files that it could not open, for example, are told there only.
            let log = fs::read_to_string(directory.join("error.log")).unwrap_or_default();
            return Err(Error::Command {
                command: format!("{}: nginx", host.name()),
                status,
                output: format!("{}{log}", process.stderr()),
            });
        }
        up?;
        Ok(Self { process, directory })
    }

    /// The process, to signal or to stop it.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What `/healthz` answers from now on: 200 or 503.
    pub fn set_healthy(&self, healthy: bool) -> Result<()> {
        let path = self.directory.join(UNHEALTHY);
        let done = match (healthy, path.exists()) {
            (true, true) => fs::remove_file(&path),
            (false, false) => fs::write(&path, ""),
            _ => Ok(()),
        };
        done.context(|| path.display().to_string())
    }

    /// All requests so far that have been answered to their end.
    pub fn requests(&self) -> Result<Vec<Request>> {
        let path = self.directory.join(LOG);
        let log = fs::read_to_string(&path).context(|| path.display().to_string())?;
        log.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| {
                parse_log(line.trim_end())
                    .ok_or_else(|| Error::Invalid(format!("{}: {line:?}", path.display())))
            })
            .collect()
    }
}

/// `ADDRESS PORT STATUS "REQUEST LINE"`
fn parse_log(line: &str) -> Option<Request> {
    let mut words = line.splitn(4, ' ');
    let address = words.next()?.parse().ok()?;
    let port = words.next()?.parse().ok()?;
    let status = words.next()?.parse().ok()?;
    let line = words.next()?.strip_prefix('"')?.strip_suffix('"')?;
    Some(Request {
        peer: SocketAddr::new(address, port),
        line: line.to_owned(),
        status,
    })
}

/// Paths are relative to the server's directory.
fn configuration(host: &str, config: &WebConfig) -> String {
    let listen = |ports: &[u16], tls: &str| {
        let lines = ports
            .iter()
            .map(|port| format!("    listen {port}{tls};\n    listen [::]:{port}{tls};\n"));
        lines.collect::<String>()
    };
    let mut listens = listen(&config.http, "");
    if !config.https.is_empty() {
        listens += &listen(&config.https, " ssl");
        listens += "    ssl_certificate ../lab.crt;\n    ssl_certificate_key ../lab.key;\n";
    }
    let log = if config.log {
        format!("{LOG} lab")
    } else {
        "off".to_owned()
    };
    let limit = config
        .limit_rate
        .map_or(String::new(), |rate| format!("limit_rate {rate};"));
    format!(
        "daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {PID};
error_log error.log notice;
events {{
  worker_connections 32768;
}}
http {{
  log_format lab '$remote_addr $remote_port $status \"$request\"';
  access_log {log};
  default_type text/plain;
  sendfile on;
  tcp_nodelay on;
  keepalive_requests 1000000;
  keepalive_timeout 1h;
  client_body_temp_path temp-body;
  proxy_temp_path temp-proxy;
  fastcgi_temp_path temp-fastcgi;
  uwsgi_temp_path temp-uwsgi;
  scgi_temp_path temp-scgi;
  server {{
{listens}    root .;
    location = / {{ return 200 \"{host}\\n\"; }}
    location = /whoami {{ return 200 \"$remote_addr $remote_port\\n\"; }}
    location = /healthz {{
      if (-f $document_root/{UNHEALTHY}) {{ return 503; }}
      return 200 \"ok\\n\";
    }}
    location = /large {{ {limit} }}
    location / {{ return 404; }}
  }}
}}
"
    )
}

/// One key and certificate for all servers of a lab, in its directory.
fn certificate(host: &Host, directory: &Path) -> Result<()> {
    let (key, certificate) = (directory.join("lab.key"), directory.join("lab.crt"));
    if certificate.exists() {
        return Ok(());
    }
    let mut command = host.command("openssl")?;
    command
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args(["-nodes", "-days", "2", "-subj", "/CN=lab", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    host.spawn_command(command)?.finish(START)?;
    fs::set_permissions(&key, Permissions::from_mode(0o600)).context(|| key.display().to_string())
}

/// Which program a `WebServer` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebKind {
    /// nginx.
    Nginx,
    /// The server in this crate.
    Embedded,
}

impl std::fmt::Display for WebKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Nginx => "nginx",
            Self::Embedded => "embedded",
        })
    }
}

/// nginx where it is installed, else the embedded server.
#[derive(Debug)]
pub enum WebServer {
    /// nginx.
    Nginx(Nginx),
    /// The server in this crate.
    Embedded(HttpServer),
}

impl WebServer {
    /// Starts what is there. TLS ports need nginx.
    pub fn start(host: &Host, config: WebConfig) -> Result<Self> {
        if Nginx::installed() {
            return Nginx::start(host, &config).map(Self::Nginx);
        }
        HttpServer::start(host, config).map(Self::Embedded)
    }

    /// Which of the two it is.
    #[must_use]
    pub fn kind(&self) -> WebKind {
        match self {
            Self::Nginx(_) => WebKind::Nginx,
            Self::Embedded(_) => WebKind::Embedded,
        }
    }

    /// What `/healthz` answers from now on: 200 or 503.
    pub fn set_healthy(&self, healthy: bool) -> Result<()> {
        match self {
            Self::Nginx(nginx) => nginx.set_healthy(healthy),
            Self::Embedded(server) => {
                server.set_healthy(healthy);
                Ok(())
            }
        }
    }

    /// All requests so far.
    pub fn requests(&self) -> Result<Vec<Request>> {
        match self {
            Self::Nginx(nginx) => nginx.requests(),
            Self::Embedded(server) => Ok(server.requests()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Request, parse_log};

    #[test]
    fn a_line_of_the_log_is_read() {
        let request = parse_log("2001:db8::1 40000 200 \"GET /whoami HTTP/1.1\"").unwrap();
        assert_eq!(
            request,
            Request {
                peer: "[2001:db8::1]:40000".parse().unwrap(),
                line: "GET /whoami HTTP/1.1".to_owned(),
                status: 200,
            }
        );
        assert_eq!(parse_log("192.0.2.1 1 200"), None);
    }
}
