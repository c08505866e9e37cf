//! Which segments change a connection, and which are only sent on.

use balancer_common::table::state::Phase::{self, Closing, Established, HalfOpen, Refused};

use super::{BOX, BOX6, CLIENT, CLIENT6, ONE, ONE6, TWO, WEB, WEB_AT, WEB6, WEB6_AT};
use crate::support::frame::{Frame, SYN, tcp};
use crate::support::vector::{Vector, to_backend, to_client};

/// The widest window that is not scaled.
const NARROW: u32 = 0xffff;

/// No further than this from what is expected are numbers that are right, whatever the scale.
const FAR: u32 = 1 << 31;

/// A connection to the first backend, every segment of which is sent on.
struct Talk {
    vector: Vector,
    /// Client, service, box, backend.
    ends: [&'static str; 4],
    /// The numbers of the SYNs of client and backend, the first and the second of the two.
    first: [u32; 2],
    /// Packets and bytes of the client, and of the backend.
    counts: [[u64; 2]; 2],
}

impl Talk {
    fn new(name: &'static str) -> Self {
        Self {
            vector: Vector::new(name, WEB),
            ends: [CLIENT, WEB_AT, BOX, ONE],
            first: [SYN; 2],
            counts: [[0; 2]; 2],
        }
    }

    fn over_ipv6(name: &'static str) -> Self {
        Self {
            vector: Vector::new(name, WEB6),
            ends: [CLIENT6, WEB6_AT, BOX6, ONE6],
            ..Self::new(name)
        }
    }

    /// The SYNs have other numbers.
    fn beginning(self, client: u32, backend: u32) -> Self {
        Self {
            first: [client, backend],
            ..self
        }
    }

    /// A segment of one of the two that has sent and got so many bytes before; `change` makes more of it.
    fn segment(
        mut self,
        who: usize,
        flags: &'static str,
        [sent, got]: [u32; 2],
        change: impl FnOnce(Frame) -> Frame,
    ) -> Self {
        let [client, service, source, backend] = self.ends;
        let [from, to] = [[client, service], [backend, source]][who];
        let [own, other] = [self.first[who], self.first[1 - who]];
        let frame = change(tcp(flags, from, to).numbers(
            after(own, flags, sent),
            other.wrapping_add(1).wrapping_add(got),
        ));
        self.counts[who][0] += 1;
        self.counts[who][1] += frame.build().len() as u64 - 14;
        self.vector = if who == 0 {
            self.vector.client(frame, to_backend(source, backend))
        } else {
            self.vector.backend(frame, to_client(service, client))
        };
        self
    }

    fn client_with(
        self,
        flags: &'static str,
        numbers: [u32; 2],
        change: impl FnOnce(Frame) -> Frame,
    ) -> Self {
        self.segment(0, flags, numbers, change)
    }

    fn client(self, flags: &'static str, sent: u32, got: u32) -> Self {
        self.client_with(flags, [sent, got], |frame| frame)
    }

    fn backend_with(
        self,
        flags: &'static str,
        numbers: [u32; 2],
        change: impl FnOnce(Frame) -> Frame,
    ) -> Self {
        self.segment(1, flags, numbers, change)
    }

    fn backend(self, flags: &'static str, sent: u32, got: u32) -> Self {
        self.backend_with(flags, [sent, got], |frame| frame)
    }

    /// The handshake, with these options of client and backend.
    fn handshake_with(self, client: &[u8], backend: &[u8]) -> Self {
        self.client_with("S", [0, 0], |frame| frame.tcp_options(client))
            .backend_with("SA", [0, 0], |frame| frame.tcp_options(backend))
            .stands(HalfOpen)
            .client("A", 0, 0)
            .stands(Established)
    }

    fn handshake(self) -> Self {
        self.handshake_with(&[], &[])
    }

    fn stands(mut self, phase: Phase) -> Self {
        self.vector = self.vector.stands(phase);
        self
    }

    /// In the end it stands there.
    fn ends(self, phase: Phase) -> Vector {
        let [forward, reply] = self.counts;
        let half_open = usize::from(matches!(phase, HalfOpen | Refused));
        (self.vector.stands(phase))
            .counts(0, 1, forward, reply)
            .leaves(2, half_open)
    }
}

/// The number of a segment with these control bits behind so many bytes.
fn after(first: u32, flags: &str, sent: u32) -> u32 {
    first
        .wrapping_add(u32::from(!flags.contains('S')))
        .wrapping_add(sent)
}

/// Options that say a window scale.
const fn scale(shift: u8) -> [u8; 4] {
    [1, 3, 3, shift]
}

pub fn table() -> Vec<Vector> {
    let mut vectors = forged();
    vectors.extend(right());
    vectors.extend(handshakes());
    vectors.extend(scales());
    vectors.extend(options());
    vectors
}

fn forged() -> Vec<Vector> {
    vec![
        Talk::new("RSTs out of the window of an established connection change nothing")
            .handshake()
            .client("R", u32::MAX, 0)
            .client("R", NARROW + 1, 0)
            .client("RA", FAR, 0)
            .backend("R", u32::MAX, 0)
            .backend("R", NARROW + 1, 0)
            .backend("RA", FAR, 0)
            .stands(Established)
            .client("S", 0, 0)
            .ends(Established),
        Talk::over_ipv6(
            "RSTs out of the window of an established connection over IPv6 change nothing",
        )
        .handshake()
        .client("R", NARROW + 1, 0)
        .backend("RA", FAR, 0)
        .ends(Established),
        Talk::new("FINs out of the window, or that acknowledge what was not sent, close nothing")
            .handshake()
            .client("FA", NARROW + 1, 0)
            .client("FA", 0, NARROW + 1)
            .client("FA", FAR, FAR)
            .client("F", 0, 0)
            .backend("FA", NARROW + 1, 0)
            .backend("FA", 0, NARROW + 1)
            .backend("FA", FAR, FAR)
            .backend("F", 0, 0)
            .ends(Established),
        Talk::new("SYNs of any number in an established connection change nothing")
            .handshake()
            .client("S", 0, 0)
            .client("S", 1000, 0)
            .client("S", FAR, 0)
            .client("SA", 0, 0)
            .backend("S", 0, 0)
            .backend("SA", 0, 0)
            .backend("SA", FAR, 0)
            // The answers, by which a side that has lost the connection resets it (RFC 5961, section 4).
            .backend("A", 0, 0)
            .stands(Established)
            .client("R", 0, 0)
            .ends(Closing),
        Talk::new("segments that are nowhere near move no window")
            .handshake()
            .client("A", FAR, FAR)
            .backend("A", FAR, FAR)
            .client("R", FAR, FAR)
            .backend("R", FAR, FAR)
            .stands(Established)
            .backend("R", 0, 0)
            .ends(Closing),
        Talk::new("segments without an acknowledgement change nothing")
            .handshake()
            .client("", 0, 5000)
            .client("P", 0, 5000)
            .client("F", 0, 5000)
            .backend("R", NARROW + 5000, 0)
            .ends(Established),
    ]
}

fn right() -> Vec<Vector> {
    vec![
        Talk::new("a RST of the client at the right edge of the window closes")
            .handshake()
            .client("R", NARROW, 0)
            .ends(Closing),
        Talk::new("a RST of the backend at what the client has acknowledged closes")
            .handshake()
            .backend_with("PA", [0, 0], |frame| frame.payload(&[7; 900]))
            .client("A", 0, 900)
            .backend("R", 0, 0)
            .stands(Established)
            .backend("R", 900, 0)
            .ends(Closing),
        Talk::over_ipv6(
            "a RST of the client at what the backend has acknowledged over IPv6 closes",
        )
        .handshake()
        .client_with("PA", [0, 0], |frame| frame.payload(&[7; 900]))
        .backend("A", 0, 900)
        .client("RA", 899, 0)
        .stands(Established)
        .client("RA", 900, 0)
        .ends(Closing),
        Talk::new("numbers wrap around")
            .beginning(u32::MAX, u32::MAX - 500)
            .handshake()
            .client_with("PA", [0, 0], |frame| frame.payload(&[7; 1000]))
            .backend_with("PA", [0, 1000], |frame| frame.payload(&[7; 1000]))
            .client("A", 1000, 1000)
            .client("R", 999, 1000)
            .backend("R", 999, 1000)
            .backend("R", 1000 + NARROW + 1, 1000)
            .stands(Established)
            .backend("R", 1000 + NARROW, 1000)
            .ends(Closing),
        Talk::new("one side closes, the other goes on, and closes too")
            .handshake()
            .client("FA", 0, 0)
            .backend_with("PA", [0, 1], |frame| frame.payload(&[7; 1000]))
            .client("A", 1, 1000)
            .stands(Established)
            .backend("FA", 1000, 1)
            .stands(Closing)
            .client("A", 1, 1001)
            .ends(Closing),
        Talk::new("both close at the same time")
            .handshake()
            .client("FA", 0, 0)
            .backend("FA", 0, 0)
            .stands(Closing)
            .client("A", 1, 1)
            .backend("A", 1, 1)
            .ends(Closing),
        Talk::new("FINs sent again, with data, still count")
            .handshake()
            .backend_with("FPA", [0, 0], |frame| frame.payload(&[7; 500]))
            .backend_with("FPA", [0, 0], |frame| frame.payload(&[7; 500]))
            .client("FA", 0, 501)
            .client("FA", 0, 501)
            .ends(Closing),
        Talk::new("what was led astray by a guess comes back by the next segment")
            .handshake()
            .client("A", 0, FAR / 2)
            .backend("R", 0, 0)
            .stands(Established)
            .client("A", 0, 0)
            .backend("R", 0, 0)
            .ends(Closing),
    ]
}

fn handshakes() -> Vec<Vector> {
    vec![
        Talk::new("only a RST that acknowledges the SYN refuses a connection")
            .client("S", 0, 0)
            .backend("R", 0, 0)
            .backend("RA", 0, u32::MAX)
            .backend("RA", 0, 1)
            .backend("RA", 0, FAR)
            .stands(HalfOpen)
            .backend("RA", FAR, 0)
            .ends(Refused),
        Talk::over_ipv6("only a RST that acknowledges the SYN refuses a connection over IPv6")
            .client("S", 0, 0)
            .backend("RA", 0, 1)
            .stands(HalfOpen)
            .backend("RA", 0, 0)
            .ends(Refused),
        Talk::new("a RST that acknowledges a SYN with its data refuses a connection")
            .client_with("S", [0, 0], |frame| frame.payload(b"early"))
            .backend("RA", 0, 6)
            .stands(HalfOpen)
            .backend("RA", 0, 5)
            .ends(Refused),
        Talk::new("only the right SYN-ACK, and the right ACK of it, establish")
            .client("S", 0, 0)
            .backend("SA", 0, 1)
            .backend("SA", 0, FAR)
            .backend("S", 0, 0)
            .client("A", 0, 0)
            .stands(HalfOpen)
            .backend("SA", 0, 0)
            .client("A", 0, u32::MAX)
            .client("A", 0, NARROW + 1)
            .client("A", FAR, 0)
            .client("", 0, 0)
            .stands(HalfOpen)
            .client("A", 0, 0)
            .ends(Established),
        Talk::new("a SYN-ACK may acknowledge the data of a SYN, or not")
            .client_with("S", [0, 0], |frame| frame.payload(b"early"))
            .backend("SA", 0, 0)
            .backend("SA", 0, 5)
            .backend_with("PA", [0, 5], |frame| frame.payload(&[7; 1000]))
            .client("A", 5, 0)
            .ends(Established),
        Talk::new("SYN and SYN-ACK sent again")
            .client("S", 0, 0)
            .client("S", 0, 0)
            .backend("SA", 0, 0)
            .client("S", 0, 0)
            .backend("SA", 0, 0)
            .stands(HalfOpen)
            .client("A", 0, 0)
            .ends(Established),
        Talk::new("a client that gave up begins anew with another number")
            .client("S", 0, 0)
            .client("S", 9000, 0)
            .backend("SA", 70, 9000)
            .client("A", 9000, 70)
            .ends(Established),
        Talk::new(
            "a client begins anew behind the SYN-ACK, of a backend that has kept nothing of it",
        )
        .client("S", 0, 0)
        .backend("SA", 0, 0)
        .client("S", 9000, 0)
        .backend("SA", 70, 9000)
        .client("A", 9000, 70)
        .ends(Established),
        Talk::new("a forged SYN keeps nobody from being established")
            .client("S", 0, 0)
            .client("S", FAR, 0)
            .backend("SA", 0, 0)
            .client("S", FAR, 0)
            .backend("A", 0, 0)
            .client("A", 0, 0)
            .ends(Established),
        reset_by_the_client(),
        Talk::new("both begin at the same time")
            .client("S", 0, 0)
            .backend("S", 0, 0)
            .client("SA", 0, 0)
            .backend("SA", 0, 0)
            .stands(HalfOpen)
            .client("A", 0, 0)
            .ends(Established),
    ]
}

/// The backend still answers the SYN that the client has given up; the client resets that.
fn reset_by_the_client() -> Vector {
    let mut talk = Talk::new("a client that gave up resets what is left, and begins anew")
        .client("S", 0, 0)
        .backend("SA", 0, 0)
        .client("S", 9000, 0)
        .backend("A", 0, 0)
        .client("R", FAR, 0)
        .stands(HalfOpen)
        .client("R", 0, 0)
        .stands(Refused);
    let again = tcp("S", CLIENT, WEB_AT).numbers(SYN + 9000, 0);
    talk.vector = talk.vector.client(again, to_backend(BOX, TWO));
    let [forward, reply] = talk.counts;
    (talk.vector.stands(HalfOpen))
        .counts(0, 1, forward, reply)
        .counts(1, 1, [1, 40], [0, 0])
        .leaves(2, 2)
}

/// A RST of the backend that is as far as this in the window of the client is right, and one that is further is not.
fn reaches(talk: Talk, window: u32) -> Vector {
    talk.backend("R", window + 1, 0)
        .stands(Established)
        .backend("R", window, 0)
        .ends(Closing)
}

fn scales() -> Vec<Vector> {
    vec![
        reaches(
            Talk::new("windows are scaled as both sides have said")
                .handshake_with(&scale(7), &scale(2))
                .client("R", (NARROW << 2) + 1, 0)
                .stands(Established),
            NARROW << 7,
        ),
        reaches(
            Talk::over_ipv6("windows over IPv6 are scaled as both sides have said")
                .handshake_with(&scale(3), &scale(14)),
            NARROW << 3,
        ),
        reaches(
            Talk::new("windows are not scaled when only the client says so")
                .handshake_with(&scale(7), &[])
                .client("R", NARROW + 1, 0),
            NARROW,
        ),
        Talk::new("windows are not scaled when only the backend says so")
            .handshake_with(&[], &scale(7))
            .backend("A", 0, 0)
            .client("R", NARROW + 1, 0)
            .stands(Established)
            .client("R", NARROW, 0)
            .ends(Closing),
        reaches(
            Talk::new("acknowledgements go on by as much as a scaled window")
                .handshake_with(&scale(7), &scale(0))
                .client("A", 0, NARROW << 7)
                .client("A", 0, NARROW << 8)
                .beginning(SYN, SYN.wrapping_add(NARROW << 8)),
            NARROW << 7,
        ),
    ]
}

fn options() -> Vec<Vector> {
    let with = |name, options: &[u8]| Talk::new(name).handshake_with(options, &scale(0));
    let mut vectors = vec![
        reaches(
            with(
                "a window scale among the usual options",
                &[
                    2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 5,
                ],
            ),
            NARROW << 5,
        ),
        reaches(
            with("a window scale as the last of forty bytes", &{
                let mut options = [1; 40];
                options[37..].copy_from_slice(&[3, 3, 9]);
                options
            }),
            NARROW << 9,
        ),
        reaches(
            with(
                "a window scale behind the end of the options is none",
                &[0, 3, 3, 5],
            ),
            NARROW,
        ),
        reaches(
            with(
                "three that are no window scale",
                &[2, 4, 3, 3, 254, 4, 3, 3],
            ),
            NARROW,
        ),
        reaches(
            with("a window scale of more than 14 is 14", &scale(200)),
            NARROW << 14,
        ),
        reaches(
            Talk::over_ipv6("a window scale behind extension headers").scaled_behind_extensions(),
            NARROW << 6,
        ),
    ];
    // What cannot be read may have said anything.
    for (name, options) in [
        ("a window scale of another length may be any", [3, 4, 5, 0]),
        ("a window scale that is cut off may be any", [1, 1, 3, 3]),
        ("options that overrun the header may be any", [1, 1, 2, 4]),
        (
            "an option shorter than it can be may hide any",
            [2, 1, 0, 0],
        ),
        ("an option without a length may hide any", [1, 1, 1, 2]),
        ("IPv4's source route is no option of TCP", [131, 3, 0, 0]),
    ] {
        vectors.push(reaches(with(name, &options), NARROW << 14));
    }
    vectors
}

impl Talk {
    /// A handshake, of which the SYN has its scale further from the beginning than an IPv4 header can reach.
    fn scaled_behind_extensions(self) -> Self {
        let mut long = [0; 248];
        long[1] = 30;
        self.client_with("S", [0, 0], |frame| {
            frame.extension(60, &long).tcp_options(&scale(6))
        })
        .backend_with("SA", [0, 0], |frame| frame.tcp_options(&scale(1)))
        .client("A", 0, 0)
    }
}
