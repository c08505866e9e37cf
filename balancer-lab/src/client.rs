//! Client ends: echo requests, connections, datagrams, and HTTP on a connection that stays.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{Error, Host, Result, error::Context};

const ECHO_HEADER: usize = 8;
const ECHO_PAYLOAD: &[u8] = b"balancer-lab";
/// Larger than any datagram.
const DATAGRAM: usize = 65_536;

fn any(family_of: &SocketAddr, port: u16) -> SocketAddr {
    match family_of {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

/// One echo request and its answer, on a socket of the calling thread's namespace.
pub(crate) fn ping(address: IpAddr, timeout: Duration) -> io::Result<Duration> {
    let (domain, protocol, request) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128),
    };
    // The kernel fills in identifier and checksum, and hands over only the answers to this socket's own requests.
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.set_read_timeout(Some(timeout))?;
    socket.connect(&SocketAddr::new(address, 0).into())?;
    let message = [&[request, 0, 0, 0, 0, 0, 0, 1][..], ECHO_PAYLOAD].concat();
    let start = Instant::now();
    socket.send(&message)?;
    let mut answer = [MaybeUninit::<u8>::uninit(); ECHO_HEADER + ECHO_PAYLOAD.len() + 1];
    let length = socket.recv(&mut answer).map_err(name_timeout)?;
    let took = start.elapsed();
    if length != message.len() {
        let what = format!("{} bytes sent, {length} came back", message.len());
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(took)
}

/// A bound that has passed reads as what it is, not as "try again".
fn name_timeout(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock {
        return io::Error::new(io::ErrorKind::TimedOut, "no answer in time");
    }
    error
}

/// A connection from the calling thread's namespace.
pub(crate) fn connect(
    address: SocketAddr,
    source_port: Option<u16>,
    timeout: Duration,
) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if let Some(port) = source_port {
        // The port may still be in TIME_WAIT from the connection before.
        socket.set_reuse_address(true)?;
        socket.bind(&any(&address, port).into())?;
    }
    socket.connect_timeout(&address.into(), timeout)?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// A datagram and its answer, on a socket of the calling thread's namespace.
pub(crate) fn udp_exchange(
    address: SocketAddr,
    source_port: Option<u16>,
    payload: &[u8],
    timeout: Duration,
) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind(any(&address, source_port.unwrap_or(0)))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send(payload)?;
    let mut answer = vec![0; DATAGRAM];
    let length = socket.recv(&mut answer).map_err(name_timeout)?;
    answer.truncate(length);
    Ok(answer)
}

/// What a web server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body, as long as `Content-Length` said.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text, without the line's end.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_owned()
    }
}

/// An HTTP/1.1 connection that is kept open: every request goes through it, and fails when it is gone.
#[derive(Debug)]
pub struct KeepAlive {
    stream: BufReader<TcpStream>,
    what: String,
}

impl KeepAlive {
    /// Connects from `host`; `timeout` bounds the connecting, and later every single read and write.
    pub fn connect(
        host: &Host,
        address: SocketAddr,
        source_port: Option<u16>,
        timeout: Duration,
    ) -> Result<Self> {
        let what = format!("{}: HTTP connection to {address}", host.name());
        let stream = host.connect(address, source_port, timeout)?;
        stream
            .set_read_timeout(Some(timeout))
            .context(|| what.clone())?;
        stream
            .set_write_timeout(Some(timeout))
            .context(|| what.clone())?;
        Ok(Self {
            stream: BufReader::new(stream),
            what,
        })
    }

    /// Requests `path` and returns the body of a 200 answer, as text.
    pub fn get(&mut self, path: &str) -> Result<String> {
        let response = self.request(path)?;
        if response.status != 200 {
            let Response { status, .. } = response;
            return Err(Error::Invalid(format!(
                "{}: {path} answered {status}",
                self.what
            )));
        }
        Ok(response.text())
    }

    /// Requests `path` and returns the whole answer.
    pub fn request(&mut self, path: &str) -> Result<Response> {
        let length = self.start(path)?;
        let mut body = vec![0; length.body];
        self.stream
            .read_exact(&mut body)
            .map_err(name_timeout)
            .context(|| format!("{}: body of {path}", self.what))?;
        Ok(Response {
            status: length.status,
            body,
        })
    }

    /// Requests `path` and reads the answer's head only; the body is for `read` to take, and has to be taken before the next request.
    ///
    /// Returns the body's length.
    pub fn download(&mut self, path: &str) -> Result<usize> {
        Ok(self.start(path)?.body)
    }

    /// Takes up to a buffer of a body that `download` began.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.stream
            .read(buffer)
            .map_err(name_timeout)
            .context(|| self.what.clone())
    }

    /// The connection's own address, as the client sees it.
    pub fn local_address(&self) -> Result<SocketAddr> {
        self.stream
            .get_ref()
            .local_addr()
            .context(|| self.what.clone())
    }

    /// The connection itself.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    fn start(&mut self, path: &str) -> Result<Head> {
        self.exchange(path)
            .map_err(name_timeout)
            .context(|| format!("{}: {path}", self.what))
    }

    fn exchange(&mut self, path: &str) -> io::Result<Head> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: lab\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let status = parse_status(&self.line()?)?;
        let mut body = None;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                body = value.trim().parse().ok();
            }
        }
        let body = body.ok_or_else(|| invalid("an answer without Content-Length"))?;
        Ok(Head { status, body })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

struct Head {
    status: u16,
    body: usize,
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn parse_status(line: &str) -> io::Result<u16> {
    line.strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| invalid(&format!("no status line: {line:?}")))
}

#[cfg(test)]
mod tests {
    use super::parse_status;

    #[test]
    fn a_status_line_is_read() {
        assert_eq!(parse_status("HTTP/1.1 404 Not Found").unwrap(), 404);
        assert_eq!(parse_status("HTTP/1.0 200").unwrap(), 200);
        for wrong in ["", "HTTP/1.1", "HTTP/1.1 abc", "SSH-2.0-x"] {
            parse_status(wrong).unwrap_err();
        }
    }
}
