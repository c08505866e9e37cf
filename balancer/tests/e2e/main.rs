//! The real daemon, real servers and clients, the real kernel: what a user sees.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that fails here has failed")]

mod control;
mod counters;
mod crash;
mod engine;
mod flood;
mod fragments;
mod frames;
mod hostile;
mod icmp;
mod life;
mod loss;
mod nat;
mod netfilter;
mod paths;
mod refusals;
mod reload;
mod schedule;
mod site;
mod stream;
#[path = "../support/mod.rs"]
mod support;
mod tcp;
mod told;
mod vlan;
mod workers;
