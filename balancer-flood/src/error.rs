//! Why packets are not sent, or not counted.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use thiserror::Error;

/// Why packets are not sent, or not counted.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no such interface in this network namespace.
    #[error("{0}: no such interface in this network namespace")]
    NoInterface(String),
    /// The interface is down.
    #[error("{0} is down: `ip link set {0} up`")]
    Down(String),
    /// Neither the scenario nor the interface has an Ethernet address to send from.
    #[error("{0} has no Ethernet address: the scenario needs `source_mac`")]
    NoMac(String),
    /// The interface has sent not one frame.
    #[error(
        "{0} has sent none of {1} frames: its driver sends none that XDP redirects, or, with a veth, its peer does not \
         poll (`ethtool -K PEER gro on` there, or an XDP program)"
    )]
    NotSent(String, u64),
    /// The object has no such program or map.
    #[error("the generator's object has no {0}")]
    Missing(&'static str),
    /// The system does not tell of the interface.
    #[error("{0}")]
    System(String, #[source] io::Error),
    /// The object cannot be loaded.
    #[error("the generator's programs cannot be loaded (this needs root)")]
    Load(#[from] EbpfError),
    /// A program cannot be loaded, attached or run.
    #[error("the kernel refused the generator's program (this needs root, and Linux 5.18 to send)")]
    Program(#[from] ProgramError),
    /// A map cannot be read or written.
    #[error("the kernel refused a map of the generator")]
    Map(#[from] MapError),
}
