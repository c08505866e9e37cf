//! What a build script that embeds a BPF object does.

use std::{env, path::Path, process::ExitCode};

use crate::{
    BpfTarget, build_ebpf, ebpf_target_dir, find_tools, outer_target_dir, tools::tools_dir,
};

/// Compiles the binary `program` of `balancer-ebpf` for a package that stands beside it; the package finds the object's
/// path in the variable `name`, for `aya::include_bytes_aligned!`.
///
/// A build script returns what this returns.
#[must_use]
pub fn build_script(program: &str, name: &str) -> ExitCode {
    if let Err(message) = build(program, name) {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
    // Cargo fails after a `cargo::error`; with another status it would print all of the above once more.
    ExitCode::SUCCESS
}

fn build(program: &str, name: &str) -> Result<(), String> {
    let variable = |name: &str| env::var(name).map_err(|error| format!("{name}: {error}"));
    let package = variable("CARGO_MANIFEST_DIR")?;
    let out_dir = variable("OUT_DIR")?;
    let target = BpfTarget::of_build_script().ok_or("CARGO_CFG_TARGET_ARCH is not set")?;
    let workspace = Path::new(&package)
        .parent()
        .ok_or("no workspace around the package")?;

    println!("cargo::rerun-if-changed=build.rs");
    for input in [
        "balancer-ebpf/src",
        "balancer-ebpf/Cargo.toml",
        "balancer-ebpf/Cargo.lock",
        "balancer-common/src",
        "balancer-common/Cargo.toml",
        // The packages inherit from it.
        "Cargo.toml",
    ] {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(input).display()
        );
    }

    let tools = find_tools(&tools_dir(workspace)).map_err(|missing| missing.to_string())?;
    println!("cargo::rerun-if-changed={}", tools.linker.display());
    let manifest = workspace.join("balancer-ebpf/Cargo.toml");
    let out_dir = Path::new(&out_dir);
    let target_dir = ebpf_target_dir(outer_target_dir(out_dir).unwrap_or(out_dir), &target);
    let object = build_ebpf(&tools, &target, &manifest, program, &target_dir, out_dir)
        .map_err(|error| error.to_string())?;
    for line in object.remarks.lines() {
        println!("cargo::warning={line}");
    }
    println!("cargo::rustc-env={name}={}", object.path.display());
    Ok(())
}
