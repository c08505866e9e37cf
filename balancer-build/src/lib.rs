//! How the XDP program is compiled: the tools it takes, and the one place where its flags stand.
//!
//! A stable compiler does it with `RUSTC_BOOTSTRAP=1`. The BPF targets come without a core library, so cargo builds one
//! (`build-std`) from the sources of exactly the compiler's version, and `bpf-linker` makes the object. What is not in
//! the toolchain or on `PATH`, `cargo xtask setup` puts into the [tools directory](tools_dir); `balancer/build.rs` and
//! the tasks both find it here. Nothing but the standard library is used, so that the build script is quick to compile.

mod compile;
mod script;
mod tools;

pub use compile::{
    BpfTarget, BuildError, Object, build_ebpf, ebpf_cargo, ebpf_target_dir, outer_target_dir,
};
pub use script::build_script;
pub use tools::{
    LINKER_VERSION, MissingTools, Toolchain, ToolchainError, Tools, find_linker, find_rust_src,
    find_tools, linker_fits, local_linker, local_rust_src, tools_dir,
};
