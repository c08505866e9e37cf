//! A small HTTP/1.1 server, for where nginx is not installed.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::{
    Error, Host, Request, Result, WebConfig,
    process::lock,
    server::{Server, Tally, listeners, read},
};

static ZEROS: [u8; 65_536] = [0; 65_536];
/// How often a limited download gets its share.
const SHARE: Duration = Duration::from_millis(50);

/// An HTTP server on a thread of this process, with the same paths as `Nginx`, and keep-alive. It speaks no TLS.
#[derive(Debug)]
pub struct HttpServer {
    log: Tally<Vec<Request>>,
    healthy: Tally<bool>,
    _server: Server,
}

/// What every connection needs to know.
#[derive(Clone)]
struct Site {
    config: WebConfig,
    host: String,
    log: Tally<Vec<Request>>,
    healthy: Tally<bool>,
}

impl HttpServer {
    /// Serves as `config` says.
    pub fn start(host: &Host, config: WebConfig) -> Result<Self> {
        if !config.https.is_empty() {
            let what = format!("{}: the embedded server speaks no TLS", host.name());
            return Err(Error::Invalid(what));
        }
        let log = Tally::default();
        let healthy = Tally::new(true.into());
        let site = Site {
            host: host.name().to_owned(),
            log: Tally::clone(&log),
            healthy: Tally::clone(&healthy),
            config,
        };
        let server = Server::start(host, "HTTP", move || {
            let listeners = listeners(&site.config.http)?;
            Ok(async move {
                let mut tasks = tokio::task::JoinSet::new();
                for listener in listeners {
                    tasks.spawn(serve(listener, site.clone()));
                }
                tasks.join_all().await;
            })
        })?;
        Ok(Self {
            log,
            healthy,
            _server: server,
        })
    }

    /// What `/healthz` answers from now on: 200 or 503.
    pub fn set_healthy(&self, healthy: bool) {
        *lock(&self.healthy) = healthy;
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        read(&self.log)
    }
}

async fn serve(listener: TcpListener, site: Site) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let site = site.clone();
        tokio::spawn(async move {
            // However the connection ends, it is over.
            let _ = converse(stream, peer, &site).await;
        });
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, site: &Site) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    while let Some(request) = read_request(&mut stream).await? {
        let (method, path) = (request.method.as_str(), request.path.as_str());
        let body = match path {
            "/" => Ok(format!("{}\n", site.host)),
            "/whoami" => Ok(format!("{} {}\n", peer.ip(), peer.port())),
            "/healthz" if read(&site.healthy) => Ok("ok\n".to_owned()),
            "/healthz" => Err(503),
            "/large" => Ok(String::new()),
            _ => Err(404),
        };
        let (status, body) = match body {
            Ok(body) => (200, body),
            Err(status) => (status, String::new()),
        };
        lock(&site.log).push(Request {
            peer,
            line: format!("{method} {path} HTTP/1.1"),
            status,
        });
        let zeros = if path == "/large" {
            site.config.large
        } else {
            0
        };
        let length = body.len() as u64 + zeros;
        let head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n",
            reason(status)
        );
        let text = if method == "HEAD" { head } else { head + &body };
        stream.write_all(text.as_bytes()).await?;
        if method != "HEAD" {
            write_zeros(&mut stream, zeros, site.config.limit_rate).await?;
        }
        if request.close {
            break;
        }
    }
    Ok(())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        503 => "Service Unavailable",
        _ => "Not Found",
    }
}

struct Head {
    method: String,
    path: String,
    close: bool,
}

/// The next request's head, or nothing at the connection's end. No request has a body here.
async fn read_request(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Head>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(path), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut head = Head {
        method: method.to_owned(),
        path: path.to_owned(),
        close: version == "HTTP/1.0",
    };
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.split_once(':') else {
            return Ok(Some(head));
        };
        if name.eq_ignore_ascii_case("connection") {
            head.close = value.trim().eq_ignore_ascii_case("close");
        }
    }
}

/// `rate` is in bytes a second.
async fn write_zeros(
    stream: &mut BufReader<TcpStream>,
    length: u64,
    rate: Option<u64>,
) -> io::Result<()> {
    let start = Instant::now();
    let mut sent = 0;
    while sent < length {
        let mut share = (length - sent).min(ZEROS.len() as u64);
        if let Some(rate) = rate {
            let elapsed = (start.elapsed() + SHARE).as_millis() as u64;
            share = share.min((rate.saturating_mul(elapsed) / 1000).saturating_sub(sent));
        }
        if share == 0 {
            tokio::time::sleep(SHARE).await;
            continue;
        }
        stream.write_all(&ZEROS[..share as usize]).await?;
        sent += share;
    }
    Ok(())
}
