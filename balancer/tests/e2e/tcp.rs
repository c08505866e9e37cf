//! What forged segments, and real ones, do to connections.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use balancer::control::document::{Connection, ConnectionState};
use balancer_lab::{MacAddress, RawPort, TcpEcho, eventually, eventually_some};
use etherparse::{
    NetSlice, PacketBuilder, PacketBuilderStep, SlicedPacket, TcpHeader, TransportSlice,
};
use nix::sys::socket::{setsockopt, sockopt};

use crate::schedule::{backend, nth};
use crate::site::{PATIENCE, SOON, Shape, Site};

const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 1], 5000);
const SERVICE: ([u8; 4], u16) = ([192, 0, 2, 10], 7);
const BACKEND: ([u8; 4], u16) = ([10, 0, 1, 3], 7);
const BOX: [u8; 4] = [10, 0, 1, 1];

/// Further than any window of Linux reaches, either way.
const FAR: u32 = 1 << 30;

fn site(name: &str) -> Option<(Site, TcpEcho)> {
    let mut site = Site::new(name, Shape::Links, 1)?;
    let echo = TcpEcho::start(&site.backends[0], [SERVICE.1]).unwrap();
    site.start(&nth("192.0.2.10:7", &[backend("10.0.1.3:7")]));
    Some((site, echo))
}

/// The only connection.
fn connection(site: &Site) -> Connection {
    let [connection] = <[Connection; 1]>::try_from(site.connections().connections).unwrap();
    connection
}

/// The numbers of the next segments of client and server, by a segment of the server.
fn numbers(frame: &[u8]) -> Option<[u32; 2]> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) =
        (&packet.net, &packet.transport)
    else {
        return None;
    };
    let is_ours = ip.header().source() == SERVICE.0 && tcp.destination_port() == CLIENT.1;
    let end = (tcp.sequence_number()).wrapping_add(tcp.payload().len() as u32);
    is_ours.then_some([tcp.acknowledgment_number(), end])
}

type Tcp = PacketBuilderStep<TcpHeader>;

/// Who pretends to be an end of a connection.
struct Forger {
    port: RawPort,
    macs: [MacAddress; 2],
    from: ([u8; 4], u16),
    to: ([u8; 4], u16),
    /// The numbers that would be right: its own and the other side's.
    right: [u32; 2],
}

impl Forger {
    /// Sends a RST, a FIN and a SYN that are nowhere near, to either side.
    fn send_all(&self) {
        for offset in [FAR, FAR.wrapping_neg()] {
            let [own, other] = self.right.map(|number| number.wrapping_add(offset));
            let kinds = [
                |tcp: Tcp, _| tcp.rst(),
                |tcp: Tcp, other| tcp.rst().ack(other),
                |tcp: Tcp, other| tcp.fin().ack(other),
                |tcp: Tcp, _| tcp.syn(),
            ];
            for kind in kinds {
                let frame = PacketBuilder::ethernet2(self.macs[0].0, self.macs[1].0)
                    .ipv4(self.from.0, self.to.0, 64)
                    .tcp(self.from.1, self.to.1, own, 1000);
                let mut bytes = Vec::new();
                kind(frame, other).write(&mut bytes, &[]).unwrap();
                self.port.send(&bytes).unwrap();
            }
        }
    }

    /// How many segments that is.
    const ALL: u64 = 8;
}

/// A connection that has been used, and the lines that come by it.
fn open(site: &Site) -> (TcpStream, Lines<BufReader<TcpStream>>) {
    let stream = (site.client)
        .connect(SERVICE.into(), Some(CLIENT.1), SOON)
        .unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    lines.next().unwrap().unwrap();
    exchange(&stream, &mut lines);
    (stream, lines)
}

/// Sends a line through a connection, which comes back.
fn exchange(stream: &TcpStream, lines: &mut impl Iterator<Item = std::io::Result<String>>) {
    let mut stream = stream;
    stream.write_all(b"still there\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "still there");
}

#[test]
fn forged_segments_change_nothing_and_real_ones_do() {
    let Some((site, _echo)) = site("forged") else {
        return;
    };
    let port = RawPort::open(&site.client, "eth0").unwrap();
    let (stream, mut lines) = open(&site);
    let mut right = None;
    eventually("the server to have acknowledged all", PATIENCE, || {
        let frame = port.receive(Duration::from_millis(300), |frame| numbers(frame).is_some());
        match frame.unwrap() {
            Some(frame) => right = numbers(&frame),
            None => return right.is_some(),
        }
        false
    })
    .unwrap();
    let [client, server] = right.unwrap();
    let before = connection(&site);
    assert_eq!(before.state, ConnectionState::Established);
    let SocketAddr::V4(source) = before.source else {
        panic!("{before:?}");
    };
    let forgers = [
        Forger {
            macs: [
                site.client.mac("eth0").unwrap(),
                site.balancer.mac("eth0").unwrap(),
            ],
            port,
            from: CLIENT,
            to: SERVICE,
            right: [client, server],
        },
        Forger {
            macs: [
                site.backends[0].mac("eth0").unwrap(),
                site.balancer.mac("eth1").unwrap(),
            ],
            port: RawPort::open(&site.backends[0], "eth0").unwrap(),
            from: BACKEND,
            to: (BOX, source.port()),
            right: [server, client],
        },
    ];
    for forger in &forgers {
        forger.send_all();
    }
    // They are sent on: it is for the ends to judge them.
    let after = eventually_some("the forged ones to be counted", PATIENCE, || {
        let after = connection(&site);
        let counted = after.forward.packets >= before.forward.packets + Forger::ALL
            && after.reply.packets >= before.reply.packets + Forger::ALL;
        counted.then_some(after)
    })
    .unwrap();
    assert_eq!(after.state, ConnectionState::Established);
    exchange(&stream, &mut lines);
    assert_eq!(connection(&site).state, ConnectionState::Established);

    drop((lines, stream));
    let state = || connection(&site).state;
    eventually("it to be closed", PATIENCE, || {
        state() == ConnectionState::Closing
    })
    .unwrap();
}

#[test]
fn a_reset_of_the_client_itself_closes() {
    let Some((site, echo)) = site("reset") else {
        return;
    };
    let (stream, lines) = open(&site);
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, sockopt::Linger, &at_once).unwrap();
    drop((lines, stream));
    eventually("the backend to hear of it", PATIENCE, || echo.open() == 0).unwrap();
    assert_eq!(connection(&site).state, ConnectionState::Closing);
}

/// The backend does not answer for a while; then it answers a SYN that was sent again, or that of a client which has given up
/// once.
#[test]
fn a_slow_backend_answers_in_the_end() {
    let Some((site, _echo)) = site("slow") else {
        return;
    };
    let backend = &site.backends[0];
    backend.ip("route add blackhole 10.0.1.1/32").unwrap();
    let connect = |timeout| (site.client).connect(SERVICE.into(), Some(CLIENT.1), timeout);
    connect(Duration::from_millis(300)).unwrap_err();
    assert_eq!(connection(&site).state, ConnectionState::Handshake);
    let stream = thread::scope(|scope| {
        let connecting = scope.spawn(|| connect(PATIENCE));
        eventually("the SYN to be sent again", PATIENCE, || {
            connection(&site).forward.packets >= 3
        })
        .unwrap();
        backend.ip("route del blackhole 10.0.1.1/32").unwrap();
        connecting.join().unwrap().unwrap()
    });
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("b1 "));
    exchange(&stream, &mut lines);
    assert_eq!(connection(&site).state, ConnectionState::Established);
    assert_eq!(site.services()[0].backends[0].connections_total, 1);
}
