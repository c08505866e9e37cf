//! balancerd as a library: what the daemon and its control tool are made of.

pub mod chain;
pub mod config;
pub mod control;
pub mod ctl;
pub mod daemon;
pub mod datapath;
pub mod slow_path;
pub mod userspace;
