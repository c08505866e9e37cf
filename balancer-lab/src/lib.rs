//! Network namespaces, links, hosts, servers and clients for the demo and the end-to-end tests of balancerd.
//!
//! A [`Lab`] owns everything: dropping it, also while a test panics, ends the processes and removes the namespaces and files.
//! What a killed process could not clean up, the next lab sweeps. No packet leaves the namespaces that the lab has made.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use balancer_lab::{Lab, WebConfig, WebServer};
//!
//! # fn main() -> balancer_lab::Result<()> {
//! let lab = Lab::new("example")?;
//! let (client, server) = (lab.host("client")?, lab.host("b1")?);
//! lab.link(&client, "eth0", &server, "eth0")?;
//! client.address("eth0", "192.0.2.1/24")?;
//! server.address("eth0", "192.0.2.2/24")?;
//! let _web = WebServer::start(&server, WebConfig::default())?;
//! client.ping([192, 0, 2, 2].into(), Duration::from_secs(1))?;
//! assert_eq!(client.run("curl", ["-sS", "http://192.0.2.2/"])?.stdout, "b1\n");
//! # Ok(())
//! # }
//! ```
#![allow(
    clippy::missing_errors_doc,
    reason = "every call fails alike: `Error` names the host, the command or system call, and its output"
)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a test that unwraps in vain has failed")
)]

mod client;
mod dns;
mod echo;
mod error;
mod host;
mod http;
mod lab;
mod namespace;
mod need;
mod pins;
mod process;
mod raw;
mod server;
mod sys;
mod wait;
mod web;

pub use client::{KeepAlive, Response};
pub use dns::{Dnsmasq, dig};
pub use echo::{TcpEcho, UdpEcho};
pub use error::{Error, Result};
pub use host::{Announce, Host, MacAddress};
pub use http::HttpServer;
pub use lab::{Lab, LinkOptions, Switch};
pub use need::Need;
pub use nix::sys::signal::Signal;
pub use process::{Output, Process, killed_by};
pub use raw::RawPort;
pub use wait::{eventually, eventually_some};
pub use web::{Nginx, Request, WebConfig, WebKind, WebServer};
