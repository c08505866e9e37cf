//! What a worker is told, and what it says.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;

use crate::datapath::socket::Frames;

/// What a worker is told.
pub enum Task {
    /// To open a socket on a queue of an interface, instead of the one that it may have.
    Open {
        /// The interface's index.
        interface: u32,
        /// The queue.
        queue: u32,
        /// Where to say what came of it.
        answer: Sender<io::Result<OwnedFd>>,
    },
    /// To close the sockets of all interfaces but these.
    Retain(Vec<u32>),
    /// To work on a frame that has waited.
    Resume {
        /// The interface that it came in by.
        interface: u32,
        /// The queue.
        queue: u32,
        /// It.
        frame: Vec<u8>,
    },
    /// To send a frame.
    Send {
        /// The interface that it leaves by.
        out: u32,
        /// The counter of what it gets, if it is to be counted.
        counter: Option<usize>,
        /// It.
        frame: Vec<u8>,
    },
    /// To work on what has come so far, and to say when that is done.
    Finish(Sender<()>),
    /// To say how it is.
    Report(Sender<Report>),
    /// To end.
    End,
}

/// How a worker is.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The interface and the queue of each socket.
    pub queues: Vec<(u32, u32)>,
    /// Where the frames of all its sockets are.
    pub frames: Frames,
    /// How many it has received.
    pub received: u64,
}
