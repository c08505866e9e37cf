//! balancerd.
fn main() {}
