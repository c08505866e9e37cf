//! Needs root.
//!
//! The verifier takes the program within its budget: what it costs is printed at every run.

#![allow(clippy::unwrap_used, reason = "a test that fails here has failed")]

use std::time::Instant;

use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use balancer::datapath::kernel::KernelError;
use balancer_common::abi::{INDEXED, program};
use balancer_lab::Need;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Instructions that the verifier may process, unless `BALANCER_BUDGET` says otherwise. The kernel's own limit is a
/// million.
const BUDGET: u32 = 100_000;

fn budget() -> u32 {
    std::env::var("BALANCER_BUDGET").map_or(BUDGET, |text| text.parse().unwrap())
}

#[test]
fn the_program_loads_within_its_budget() {
    if !nix::unistd::geteuid().is_root() {
        Need::Lab.leave_out("verifier", "loading a program needs root");
        return;
    }
    for (lookup, indexed) in [("table", 0_u8), ("hash", 1)] {
        load(lookup, indexed);
    }
}

fn load(lookup: &str, indexed: u8) {
    let start = Instant::now();
    let mut ebpf = EbpfLoader::new()
        .verifier_log_level(VerifierLogLevel::STATS)
        .override_global(INDEXED, &indexed, true)
        .load(balancer::datapath::OBJECT)
        .unwrap();
    let maps = start.elapsed();
    println!("maps made in {maps:.1?}");
    for name in program::ALL
        .into_iter()
        .chain([program::STEER, program::ROUTE])
    {
        verify(&mut ebpf, name, lookup);
    }
}

fn verify(ebpf: &mut Ebpf, name: &str, lookup: &str) {
    let log = verifier_log(ebpf, name);
    let stack = log
        .lines()
        .find_map(|line| line.strip_prefix("stack depth "))
        .unwrap_or("unknown");
    let start = Instant::now();
    let program = xdp(ebpf, name);
    program.load().unwrap();
    let verification = start.elapsed();
    let verified = program
        .info()
        .unwrap()
        .verified_instruction_count()
        .unwrap();
    let budget = budget();
    println!(
        "XDP program {name}, flow_lookup = \"{lookup}\": {verified} instructions verified (budget {budget}), loaded in {verification:.1?}, \
         bytes of stack by function {stack}"
    );
    assert!(
        verified <= budget,
        "{verified} instructions, {budget} budgeted"
    );
}

/// What the verifier says of a program that it takes. It is told to those only whose load fails, so the program is
/// loaded when there is no file descriptor left for it.
fn verifier_log(ebpf: &mut Ebpf, name: &str) -> String {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard).unwrap();
    let result = xdp(ebpf, name).load();
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    let error = result.expect_err("loaded without a file descriptor");
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = &error
    else {
        panic!("{error}");
    };
    let log = verifier_log.to_string();
    assert_eq!(
        io_error.raw_os_error(),
        Some(nix::libc::EMFILE),
        "{io_error}: {log}"
    );
    // Whoever starts the daemon where the program is not taken reads both.
    let (reason, told) = (io_error.to_string(), KernelError::from(error).to_string());
    assert!(told.contains(&reason) && told.contains(&log), "{told}");
    log
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut Xdp {
    ebpf.program_mut(name).unwrap().try_into().unwrap()
}
