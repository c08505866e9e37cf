//! The control socket: how the operator's tool talks to the daemon.
//!
//! A Unix stream socket. Each request is one line of JSON ([`Request`]), each answer one line of JSON: a document of
//! [`document`], or an [`ErrorDocument`](document::ErrorDocument). A connection carries any number of requests, answered
//! in order.
//!
//! Who may talk to the daemon is decided twice: by the socket file (mode 0660, [`ControlListener`]) and by the
//! credentials of the peer ([`Access`]).

pub mod client;
pub mod document;
mod error;
mod listener;
mod peer;
pub mod protocol;
#[cfg(test)]
pub(crate) mod samples;
pub mod server;

pub use client::{Client, ClientError, Reply};
pub use document::Document;
pub use error::ControlError;
pub use listener::{BindError, ControlListener};
pub use peer::{Access, GroupName, Peer, Refused};
pub use protocol::Request;
pub use server::{Handler, Limits, serve, serve_within};

/// Where the daemon listens unless its configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/balancerd/control.sock";
