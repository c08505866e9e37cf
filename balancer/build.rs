//! Compiles the XDP program; `BALANCER_EBPF_OBJECT` is its path, for `aya::include_bytes_aligned!`.

use std::process::ExitCode;

fn main() -> ExitCode {
    balancer_build::build_script("balancer", "BALANCER_EBPF_OBJECT")
}
