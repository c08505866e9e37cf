//! Needs root.
//!
//! The verifier takes the program within its budget: what it costs is printed at every run.

use std::time::Instant;

use aya::programs::Xdp;
use aya::{EbpfLoader, VerifierLogLevel};

/// Instructions that the verifier may process. The kernel's own limit is a million.
const BUDGET: u32 = 150_000;

#[test]
fn the_program_loads_within_its_budget() {
    if !nix_is_root() {
        eprintln!("left out: loading a program needs root");
        return;
    }
    let start = Instant::now();
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .load(balancer::datapath::OBJECT)
        .unwrap();
    let maps = start.elapsed();
    let start = Instant::now();
    let program: &mut Xdp = ebpf
        .program_mut(balancer::datapath::PROGRAM)
        .unwrap()
        .try_into()
        .unwrap();
    program.load().unwrap();
    let verification = start.elapsed();
    let verified = program
        .info()
        .unwrap()
        .verified_instruction_count()
        .unwrap();
    println!(
        "XDP program: {verified} instructions verified (budget {BUDGET}), \
         maps made in {maps:.1?}, loaded in {verification:.1?}"
    );
    assert!(
        verified <= BUDGET,
        "{verified} instructions, {BUDGET} budgeted"
    );
}

fn nix_is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
