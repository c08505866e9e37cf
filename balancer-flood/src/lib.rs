//! Sends packets out of an interface, and counts those that come in by one: the load of benchmarks.
//!
//! A [`Scenario`] says what is sent; [`frame`] makes the frames of it; a [`Sender`] has the kernel send them by test
//! runs of an XDP program with live frames, so that a packet costs no system call and no socket buffer; a [`Receiver`]
//! counts with another XDP program, which drops what it has counted. The programs are `balancer-ebpf/src/bin/flood`.
//!
//! Nothing here sends without a bound.

mod error;
pub mod frame;
mod interface;
mod pace;
#[path = "../../balancer-ebpf/src/bin/flood/plan.rs"]
mod plan;
mod program;
mod range;
mod receiver;
mod report;
mod scenario;
mod sender;

pub use error::Error;
pub use interface::{Counters, Interface};
pub use plan::{Patch, Plan, Tally, fold};
pub use range::{AddressRange, PortRange};
pub use receiver::Receiver;
pub use report::{Ended, Received, Sent};
pub use scenario::{Family, Mode, Order, Protocol, Scenario, ScenarioError};
pub use sender::Sender;
