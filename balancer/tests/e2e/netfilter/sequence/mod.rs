//! What is sent.

mod fragments;
mod headers;
mod icmp;
mod tcp;
mod udp;

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;

use super::twin::macs;
use super::world::{Side, World};
use crate::support::frame::{self, Frame, SYN, error};

/// Frames in the order of a connection, step by step.
pub struct Sequence {
    pub name: &'static str,
    /// The worlds that it is for.
    pub of: fn(World) -> bool,
    pub steps: fn(&Talk) -> Steps,
}

/// Frames, and from which side each is sent.
pub type Sent = Vec<(Side, Vec<u8>)>;

/// What each step of a sequence is called, and what it sends.
pub type Steps = Vec<(&'static str, Sent)>;

/// All of them.
pub static SEQUENCES: LazyLock<Vec<&'static Sequence>> = LazyLock::new(|| {
    [
        tcp::SEQUENCES,
        udp::SEQUENCES,
        icmp::SEQUENCES,
        fragments::SEQUENCES,
        headers::SEQUENCES,
    ]
    .into_iter()
    .flatten()
    .collect()
});

/// The ends of a sequence.
pub struct Talk {
    pub world: World,
    /// The client's first port.
    pub first: u16,
}

/// Further than any window here.
const FAR: u32 = 1 << 20;

/// The window that all segments offer.
const WINDOW: u32 = 0x2021;

const PORT_UNREACHABLE: Kind = Kind([3, 3], [1, 4]);
const HOST_UNREACHABLE: Kind = Kind([3, 1], [1, 3]);
const TOO_BIG: Kind = Kind([3, 4], [2, 0]);
const TIME_EXCEEDED: Kind = Kind([11, 0], [3, 0]);
const PARAMETER_PROBLEM: Kind = Kind([12, 0], [4, 1]);

/// Type and code of an ICMP message, over IPv4 and over IPv6.
#[derive(Clone, Copy)]
struct Kind([u8; 2], [u8; 2]);

/// More than any packet here has.
const WHOLE: usize = 2000;

fn at(address: IpAddr, port: u16) -> String {
    SocketAddr::new(address, port).to_string()
}

impl Talk {
    /// The client, by another port of it.
    fn client(&self, port: u16) -> String {
        at(self.world.client(), self.first + port)
    }

    fn service(&self) -> String {
        at(self.world.service(), self.world.service_port())
    }

    fn peer(&self, port: u16) -> String {
        at(self.world.peer(), self.first + port)
    }

    fn backend(&self) -> String {
        at(self.world.backend(), self.world.backend_port())
    }

    fn ends(&self, side: Side, port: u16) -> [String; 2] {
        match side {
            Side::Client => [self.client(port), self.service()],
            Side::Backend => [self.backend(), self.peer(port)],
        }
    }

    /// A segment of the side that has sent and got so many bytes before.
    fn tcp(&self, side: Side, flags: &'static str, sent: u32, got: u32) -> Frame {
        let [source, destination] = self.ends(side, 0);
        let first = u32::from(!flags.contains('S'));
        frame::tcp(flags, &source, &destination).numbers(
            SYN.wrapping_add(sent).wrapping_add(first),
            SYN.wrapping_add(got).wrapping_add(1),
        )
    }

    fn c(&self, flags: &'static str, sent: u32, got: u32) -> Frame {
        self.tcp(Side::Client, flags, sent, got)
    }

    fn b(&self, flags: &'static str, sent: u32, got: u32) -> Frame {
        self.tcp(Side::Backend, flags, sent, got)
    }

    fn asks(&self) -> Frame {
        self.asks_from(0)
    }

    fn asks_from(&self, port: u16) -> Frame {
        let [source, destination] = self.ends(Side::Client, port);
        frame::udp(&source, &destination).payload(b"who is there?")
    }

    fn answers(&self) -> Frame {
        let [source, destination] = self.ends(Side::Backend, 0);
        frame::udp(&source, &destination).payload(b"it is me")
    }

    /// An ICMP error of a router on a side, to whom the quoted packet comes from.
    fn error(&self, side: Side, kind: Kind, quoted: &Frame, length: usize) -> Frame {
        let to = match side {
            Side::Client => self.world.service(),
            Side::Backend => self.world.peer(),
        };
        self.error_to(side, to, kind, quoted, length)
    }

    fn error_to(&self, side: Side, to: IpAddr, kind: Kind, quoted: &Frame, length: usize) -> Frame {
        let from = self.world.router(side);
        error(self.kind(kind), &at(from, 0), &at(to, 0), quoted, length)
    }

    fn kind(&self, Kind(four, six): Kind) -> [u8; 2] {
        if self.world.is_ipv4() { four } else { six }
    }

    /// What the backend has got of the client's, and the client of the backend's: what an error of a router there quotes.
    fn inside(&self, frame: &Frame) -> Frame {
        frame
            .clone()
            .between(&self.peer(0), &self.backend())
            .forwarded()
    }

    fn outside(&self, frame: &Frame) -> Frame {
        frame
            .clone()
            .between(&self.service(), &self.client(0))
            .forwarded()
    }
}

fn client(frame: &Frame) -> Sent {
    sent(Side::Client, std::slice::from_ref(frame))
}

fn backend(frame: &Frame) -> Sent {
    sent(Side::Backend, std::slice::from_ref(frame))
}

fn sent(side: Side, frames: &[Frame]) -> Sent {
    let [there, here] = macs(side);
    let build = |frame: &Frame| (side, frame.clone().macs(there, here).build());
    frames.iter().map(build).collect()
}

fn handshake(talk: &Talk) -> Steps {
    vec![
        ("SYN", client(&talk.c("S", 0, 0))),
        ("SYN-ACK", backend(&talk.b("SA", 0, 0))),
        ("ACK", client(&talk.c("A", 0, 0))),
    ]
}

/// Both have sent ten bytes.
fn established(talk: &Talk) -> Steps {
    let data = b"ten bytes.";
    let mut steps = handshake(talk);
    steps.extend([
        ("client's data", client(&talk.c("PA", 0, 0).payload(data))),
        (
            "backend's data",
            backend(&talk.b("PA", 0, 10).payload(data)),
        ),
        ("client's acknowledgement", client(&talk.c("A", 10, 10))),
    ]);
    steps
}

/// Both have closed, the client first.
fn closed(talk: &Talk) -> Steps {
    let mut steps = established(talk);
    steps.extend([
        ("client's FIN", client(&talk.c("FA", 10, 10))),
        ("backend's FIN", backend(&talk.b("FA", 10, 11))),
        ("last ACK", client(&talk.c("A", 11, 11))),
    ]);
    steps
}

/// Whether the two still talk.
fn goes_on(talk: &Talk) -> Steps {
    vec![
        (
            "client goes on",
            client(&talk.c("PA", 10, 10).payload(b"more")),
        ),
        (
            "backend goes on",
            backend(&talk.b("PA", 10, 14).payload(b"more")),
        ),
    ]
}

fn asked(talk: &Talk) -> Steps {
    vec![("question", client(&talk.asks()))]
}

fn answered(talk: &Talk) -> Steps {
    vec![
        ("question", client(&talk.asks())),
        ("answer", backend(&talk.answers())),
    ]
}
