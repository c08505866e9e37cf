//! balancerctl.
fn main() {}
