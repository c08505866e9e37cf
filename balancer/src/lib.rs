//! balancerd as a library: what the daemon and its control tool are made of.

pub mod control;
pub mod ctl;
