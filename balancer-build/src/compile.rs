//! The one call of cargo that compiles the XDP program.

use std::{
    env,
    ffi::{OsStr, OsString},
    fmt, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::tools::Tools;

/// The machine that the program will run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfTarget {
    /// The processor as rustc calls it (`x86_64`): the layout of the kernel's register structures follows from it.
    pub arch: String,
    /// Big endian.
    pub big_endian: bool,
}

impl BpfTarget {
    /// This machine.
    #[must_use]
    pub fn host() -> Self {
        Self {
            arch: env::consts::ARCH.to_owned(),
            big_endian: cfg!(target_endian = "big"),
        }
    }

    /// What cargo compiles for, told to a build script in its environment; `None` outside of one.
    #[must_use]
    pub fn of_build_script() -> Option<Self> {
        Some(Self {
            arch: env::var("CARGO_CFG_TARGET_ARCH").ok()?,
            big_endian: env::var("CARGO_CFG_TARGET_ENDIAN").ok()? == "big",
        })
    }

    /// The compiler's name for the BPF target.
    #[must_use]
    pub fn triple(&self) -> &'static str {
        if self.big_endian {
            "bpfeb-unknown-none"
        } else {
            "bpfel-unknown-none"
        }
    }
}

/// A compiled XDP program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The ELF file.
    pub path: PathBuf,
    /// What the compiler and the linker remarked; empty when all is well.
    pub remarks: String,
}

/// Why the XDP program was not compiled.
#[derive(Debug)]
pub enum BuildError {
    /// Cargo could not be run.
    Cargo(PathBuf, io::Error),
    /// Cargo ended with an error; this is what it printed.
    Failed(String),
    /// The object that cargo made cannot be copied.
    NoObject(PathBuf, io::Error),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cargo(cargo, error) => write!(f, "{} cannot be run: {error}", cargo.display()),
            Self::Failed(output) => {
                write!(
                    f,
                    "the XDP program (balancer-ebpf) does not compile:\n{}",
                    output.trim_end()
                )
            }
            Self::NoObject(path, error) => {
                write!(f, "{} cannot be copied: {error}", path.display())
            }
        }
    }
}

impl std::error::Error for BuildError {}

/// Cargo's own target directory for the XDP program, in that of the outer build: two cargos in one would wait for each
/// other's lock, and one for each profile of the outer build would compile the same once more.
#[must_use]
pub fn ebpf_target_dir(outer: &Path, target: &BpfTarget) -> PathBuf {
    outer.join("ebpf").join(&target.arch)
}

/// The target directory of the build that a build script with this `OUT_DIR` is part of.
#[must_use]
pub fn outer_target_dir(out_dir: &Path) -> Option<&Path> {
    // TARGET/PROFILE/build/PACKAGE-HASH/out
    let build = out_dir
        .ancestors()
        .find(|dir| dir.file_name() == Some(OsStr::new("build")))?;
    build.parent()?.parent()
}

/// Compiles the binary `program` of the package at `manifest` (`balancer-ebpf/Cargo.toml`) in release mode in
/// `target_dir`, and copies the object to `out_dir`.
///
/// # Errors
///
/// The program does not compile or link.
pub fn build_ebpf(
    tools: &Tools,
    target: &BpfTarget,
    manifest: &Path,
    program: &str,
    target_dir: &Path,
    out_dir: &Path,
) -> Result<Object, BuildError> {
    let mut cargo = ebpf_cargo(tools, target, "build", manifest, target_dir);
    let output = cargo
        .args(["--quiet", "--bin", program])
        .env("CARGO_TERM_COLOR", "never")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| BuildError::Cargo(tools.toolchain.cargo.clone(), error))?;
    let remarks = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(BuildError::Failed(remarks));
    }
    let built = target_dir
        .join(target.triple())
        .join("release")
        .join(program);
    let path = out_dir.join(format!("{program}.bpf.o"));
    match fs::copy(&built, &path) {
        Ok(_) => Ok(Object { path, remarks }),
        Err(error) => Err(BuildError::NoObject(built, error)),
    }
}

/// `cargo SUBCOMMAND` for the BPF target in release mode, with the flags and the environment that it takes.
#[must_use]
pub fn ebpf_cargo(
    tools: &Tools,
    target: &BpfTarget,
    subcommand: &str,
    manifest: &Path,
    target_dir: &Path,
) -> Command {
    let mut cargo = Command::new(&tools.toolchain.cargo);
    cargo
        .arg(subcommand)
        .arg("--manifest-path")
        .arg(manifest)
        .arg("--target-dir")
        .arg(target_dir)
        .args(["--release", "--target", target.triple()])
        .args(["-Z", "build-std=core"]);
    // Cargo reads its config files from the working directory upwards.
    if let Some(package) = manifest.parent() {
        cargo.current_dir(package);
    }
    for (name, _) in env::vars_os().filter(|(name, _)| is_of_outer_build(name)) {
        cargo.env_remove(name);
    }
    cargo
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", &tools.toolchain.rustc)
        // Empty, they also override a wrapper in the user's cargo config.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(tools, target))
        .env("LD_LIBRARY_PATH", tools.toolchain.library_path())
        // Where build-std takes the library from, instead of the toolchain.
        .env("__CARGO_TESTS_ONLY_SRC_ROOT", &tools.rust_src);
    cargo
}

/// The compiler's flags, in cargo's encoding.
fn rustflags(tools: &Tools, target: &BpfTarget) -> OsString {
    // The register structures of 64-bit RISC-V are known under one name.
    let arch = if target.arch.starts_with("riscv64") {
        "riscv64"
    } else {
        &target.arch
    };
    let mut linker = OsString::from("-Clinker=");
    linker.push(&tools.linker);
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\"").into(),
        // Atomics that return a value.
        "-Ctarget-cpu=v3".into(),
        // Without it, an unaligned read becomes byte loads, which take too much of the 512 bytes of stack. It is the
        // linker that generates the code; told of the feature, the compiler would only warn that it does not know it.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".into(),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        linker,
    ];
    flags.join(OsStr::new("\x1f"))
}

/// Whether a variable of the environment speaks of the build that this process is part of: its compiler flags, its
/// target, clippy's arguments. What speaks of the network, the registry and the jobs is kept.
fn is_of_outer_build(name: &OsStr) -> bool {
    const KEPT: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        // The jobserver: both cargos together run as many jobs as were asked for.
        "CARGO_MAKEFLAGS",
        "CARGO_BUILD_JOBS",
    ];
    const REMOVED: [&str; 7] = [
        "CARGO",
        "__CARGO",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "CLIPPY_",
        "DEP_",
    ];
    let name = name.to_string_lossy();
    let starts = |prefix: &&str| name.starts_with(*prefix);
    REMOVED.iter().any(starts) && !KEPT.iter().any(starts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_build_is_forgotten_the_users_settings_are_kept() {
        for name in [
            "RUSTC",
            "RUSTC_WORKSPACE_WRAPPER",
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO_BUILD_TARGET",
            "CARGO_TARGET_DIR",
            "CARGO_PROFILE_RELEASE_LTO",
            "CARGO_MANIFEST_DIR",
            "CLIPPY_ARGS",
        ] {
            assert!(is_of_outer_build(OsStr::new(name)), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "RUSTUP_TOOLCHAIN",
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_PROXY",
            "CARGO_MAKEFLAGS",
        ] {
            assert!(!is_of_outer_build(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn the_outer_target_directory_is_found_in_every_layout() {
        for (out_dir, expected) in [
            ("/w/target/debug/build/balancer-1f/out", Some("/w/target")),
            ("/w/target/debug/build/balancer/1f/out", Some("/w/target")),
            ("/build/t/release/build/balancer-1f/out", Some("/build/t")),
            (
                "/w/t/aarch64-unknown-linux-gnu/debug/build/balancer-1f/out",
                Some("/w/t/aarch64-unknown-linux-gnu"),
            ),
            ("/w/out", None),
        ] {
            assert_eq!(
                outer_target_dir(Path::new(out_dir)),
                expected.map(Path::new),
                "{out_dir}"
            );
        }
    }

    #[test]
    fn the_endianness_names_the_target() {
        let target = |big_endian| BpfTarget {
            arch: "x86_64".to_owned(),
            big_endian,
        };
        assert_eq!(target(false).triple(), "bpfel-unknown-none");
        assert_eq!(target(true).triple(), "bpfeb-unknown-none");
    }
}
