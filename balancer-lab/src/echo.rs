//! Echo servers that say which host they are and count what reaches them.

use std::{
    collections::BTreeMap,
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddr,
    os::fd::AsRawFd,
};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream, UdpSocket},
};

use crate::{
    Host, Result,
    process::lock,
    server::{Server, Tally, each_family, listeners, read},
};

const BUFFER: usize = 65_536;
/// Datagrams wait here while the one thread answers others.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A UDP server on both families that answers every datagram with its host's name, from the address that it was sent to.
#[derive(Debug)]
pub struct UdpEcho {
    peers: Tally<BTreeMap<SocketAddr, u64>>,
    _server: Server,
}

impl UdpEcho {
    /// Serves on `ports`: `[53]`, or a range.
    pub fn start(host: &Host, ports: impl IntoIterator<Item = u16>) -> Result<Self> {
        Self::serve(host, ports.into_iter().collect(), Answer::Name)
    }

    /// The same, but each answer has the datagram behind the name.
    pub fn repeating(host: &Host, ports: impl IntoIterator<Item = u16>) -> Result<Self> {
        Self::serve(host, ports.into_iter().collect(), Answer::NameAndDatagram)
    }

    fn serve(host: &Host, ports: Vec<u16>, answer: Answer) -> Result<Self> {
        let name = host.name().to_owned();
        let peers = Tally::default();
        let counts = Tally::clone(&peers);
        let server = Server::start(host, "UDP echo", move || {
            let sockets = each_family(&ports, |domain, address| {
                let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
                if domain == Domain::IPV6 {
                    socket.set_only_v6(true)?;
                    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
                } else {
                    setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
                }
                setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
                socket.set_nonblocking(true)?;
                socket.bind(&address.into())?;
                UdpSocket::from_std(socket.into())
            })?;
            Ok(async move {
                let mut tasks = tokio::task::JoinSet::new();
                for socket in sockets {
                    tasks.spawn(answer_datagrams(
                        socket,
                        name.clone(),
                        answer,
                        Tally::clone(&counts),
                    ));
                }
                tasks.join_all().await;
            })
        })?;
        Ok(Self {
            peers,
            _server: server,
        })
    }

    /// How many datagrams came from each peer, as the server sees its address.
    #[must_use]
    pub fn peers(&self) -> BTreeMap<SocketAddr, u64> {
        read(&self.peers)
    }

    /// How many datagrams came altogether.
    #[must_use]
    pub fn datagrams(&self) -> u64 {
        lock(&self.peers).values().sum()
    }
}

/// What an answer has.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Name,
    NameAndDatagram,
}

async fn answer_datagrams(
    socket: UdpSocket,
    name: String,
    answer: Answer,
    peers: Tally<BTreeMap<SocketAddr, u64>>,
) {
    let mut buffer = vec![0; BUFFER];
    loop {
        // An ICMP error about an earlier answer is reported here too, and is no reason to end.
        let _ = socket
            .async_io(Interest::READABLE, || {
                answer_one(&socket, &name, answer, &peers, &mut buffer)
            })
            .await;
    }
}

fn answer_one(
    socket: &UdpSocket,
    name: &str,
    answer: Answer,
    peers: &Tally<BTreeMap<SocketAddr, u64>>,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut control = nix::cmsg_space!(nix::libc::in6_pktinfo, nix::libc::in_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_DONTWAIT,
    )?;
    let from = message.address.ok_or(io::ErrorKind::InvalidData)?;
    let v4 = from
        .as_sockaddr_in()
        .map(|from| SocketAddr::V4((*from).into()));
    let v6 = from
        .as_sockaddr_in6()
        .map(|from| SocketAddr::V6((*from).into()));
    if let Some(peer) = v4.or(v6) {
        // Before the answer: who has it finds the datagram counted.
        *lock(peers).entry(peer).or_default() += 1;
    }
    let (info, length) = (message.cmsgs()?.next(), message.bytes);
    let repeated = match answer {
        Answer::Name => &[],
        Answer::NameAndDatagram => &buffer[..length],
    };
    let reply = [IoSlice::new(name.as_bytes()), IoSlice::new(repeated)];
    let send = |control: &[ControlMessage<'_>]| {
        sendmsg(
            socket.as_raw_fd(),
            &reply,
            control,
            MsgFlags::MSG_DONTWAIT,
            Some(&from),
        )
    };
    // The kernel would choose the source by the route; a host with several addresses has to answer from the right one. A datagram
    // that cannot be answered has come all the same.
    let _ = match info {
        Some(ControlMessageOwned::Ipv4PacketInfo(mut info)) => {
            info.ipi_ifindex = 0;
            info.ipi_spec_dst = info.ipi_addr;
            send(&[ControlMessage::Ipv4PacketInfo(&info)])
        }
        Some(ControlMessageOwned::Ipv6PacketInfo(info)) => {
            send(&[ControlMessage::Ipv6PacketInfo(&info)])
        }
        _ => send(&[]),
    };
    Ok(())
}

/// A TCP server on both families that greets with `HOST PEER-ADDRESS PEER-PORT`, echoes what comes, and holds the connection until
/// the client closes it.
#[derive(Debug)]
pub struct TcpEcho {
    state: Tally<State>,
    _server: Server,
}

#[derive(Debug, Clone, Default)]
struct State {
    open: usize,
    peers: Vec<SocketAddr>,
}

impl TcpEcho {
    /// Serves on `ports`: `[7]`, or a range.
    pub fn start(host: &Host, ports: impl IntoIterator<Item = u16>) -> Result<Self> {
        let ports: Vec<_> = ports.into_iter().collect();
        let name = host.name().to_owned();
        let state = Tally::default();
        let shared = Tally::clone(&state);
        let server = Server::start(host, "TCP echo", move || {
            let listeners = listeners(&ports)?;
            Ok(async move {
                let mut tasks = tokio::task::JoinSet::new();
                for listener in listeners {
                    tasks.spawn(hold_connections(
                        listener,
                        name.clone(),
                        Tally::clone(&shared),
                    ));
                }
                tasks.join_all().await;
            })
        })?;
        Ok(Self {
            state,
            _server: server,
        })
    }

    /// How many connections are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        lock(&self.state).open
    }

    /// How many connections there have been.
    #[must_use]
    pub fn accepted(&self) -> usize {
        lock(&self.state).peers.len()
    }

    /// The peers of all connections there have been, in order, as the server sees their addresses.
    #[must_use]
    pub fn peers(&self) -> Vec<SocketAddr> {
        read(&self.state).peers
    }
}

async fn hold_connections(listener: TcpListener, name: String, state: Tally<State>) {
    loop {
        // A client that has gone before it was accepted is no reason to end.
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        {
            let mut state = lock(&state);
            state.open += 1;
            state.peers.push(peer);
        }
        let greeting = format!("{name} {} {}\n", peer.ip(), peer.port());
        let state = Tally::clone(&state);
        tokio::spawn(async move {
            // However the connection ends, it is over.
            let _ = echo(stream, greeting).await;
            lock(&state).open -= 1;
        });
    }
}

async fn echo(mut stream: TcpStream, greeting: String) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(greeting.as_bytes()).await?;
    drop(greeting);
    // Small, since thousands of these are held.
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
}
