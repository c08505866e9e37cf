//! What compiles the XDP program: the toolchain, its library sources, the linker.

use std::{
    env,
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The version of `bpf-linker` that `cargo xtask setup` installs: the newest that uses the compiler's own LLVM.
pub const LINKER_VERSION: &str = "0.10.3";

/// Releases with this prefix take the same options and the same LLVM.
const LINKER_SERIES: &str = "0.10.";

/// Where `cargo xtask setup` puts the tools: `target/tools` of the workspace, whatever `CARGO_TARGET_DIR` says, so that
/// every way of building finds them.
#[must_use]
pub fn tools_dir(workspace: &Path) -> PathBuf {
    workspace.join("target").join("tools")
}

/// The folder in `tools_dir` for the `library` sources of the compiler `version`. It appears only when it is complete.
#[must_use]
pub fn local_rust_src(tools_dir: &Path, version: &str) -> PathBuf {
    tools_dir.join(format!("rust-src-{version}"))
}

/// The linker in `tools_dir`.
#[must_use]
pub fn local_linker(tools_dir: &Path) -> PathBuf {
    tools_dir.join("bin").join("bpf-linker")
}

/// The compiler in use, and the cargo that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// The `cargo` program.
    pub cargo: PathBuf,
    /// The `rustc` program.
    pub rustc: PathBuf,
    /// The compiler's release, such as `1.95.0`.
    pub version: String,
    /// What it compiles for unless told otherwise, such as `x86_64-unknown-linux-gnu`.
    pub host: String,
    /// The compiler's root directory.
    pub sysroot: PathBuf,
}

impl Toolchain {
    /// The toolchain that cargo runs this process with, or else the one on `PATH`.
    ///
    /// # Errors
    ///
    /// The compiler could not be run, or did not answer as rustc does.
    pub fn current() -> Result<Self, ToolchainError> {
        let cargo = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        // A build script is told the compiler; a program under `cargo run` is not, but its cargo stands beside it.
        let rustc = env::var_os("RUSTC")
            .map(PathBuf::from)
            .or_else(|| {
                let beside = cargo.with_file_name("rustc");
                beside.is_file().then_some(beside)
            })
            .unwrap_or_else(|| PathBuf::from("rustc"));
        let about = output(Command::new(&rustc).arg("-vV"))?;
        let field = |name: &str| {
            let found = about.lines().find_map(|line| line.strip_prefix(name));
            let found = found.ok_or_else(|| ToolchainError::Answer(rustc.clone(), about.clone()));
            found.map(str::to_owned)
        };
        let (version, host) = (field("release: ")?, field("host: ")?);
        let sysroot = output(Command::new(&rustc).args(["--print", "sysroot"]))?;
        Ok(Self {
            cargo,
            version,
            host,
            sysroot: PathBuf::from(sysroot.trim_end()),
            rustc,
        })
    }

    /// `LD_LIBRARY_PATH` with the compiler's own libraries first: there the linker finds the LLVM that the compiler uses.
    #[must_use]
    pub fn library_path(&self) -> OsString {
        let mut path = self.sysroot.join("lib").into_os_string();
        if let Some(others) = env::var_os("LD_LIBRARY_PATH").filter(|others| !others.is_empty()) {
            path.push(":");
            path.push(others);
        }
        path
    }
}

/// Why the compiler is not known.
#[derive(Debug)]
pub enum ToolchainError {
    /// It could not be run.
    Run(String, io::Error),
    /// It ended with an error, or its answer names no release.
    Answer(PathBuf, String),
}

impl fmt::Display for ToolchainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(program, error) => write!(f, "{program} cannot be run: {error}"),
            Self::Answer(program, answer) => {
                write!(f, "{} answered: {}", program.display(), answer.trim_end())
            }
        }
    }
}

impl std::error::Error for ToolchainError {}

/// The standard output of a successful `command`.
fn output(command: &mut Command) -> Result<String, ToolchainError> {
    let program = command.get_program().to_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| ToolchainError::Run(program.to_string_lossy().into_owned(), error))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let answer = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(ToolchainError::Answer(PathBuf::from(program), answer))
    }
}

/// All that the XDP program is compiled with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// The compiler.
    pub toolchain: Toolchain,
    /// The `library` folder of the compiler's sources.
    pub rust_src: PathBuf,
    /// `bpf-linker`.
    pub linker: PathBuf,
}

/// The tools that are not there.
#[derive(Debug)]
pub enum MissingTools {
    /// The compiler itself cannot be asked.
    Toolchain(ToolchainError),
    /// What `cargo xtask setup` provides.
    Setup {
        /// The compiler's release.
        version: String,
        /// Its library sources are missing.
        rust_src: bool,
        /// A fitting linker is missing.
        linker: bool,
    },
}

impl fmt::Display for MissingTools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (version, rust_src, linker) = match self {
            Self::Toolchain(error) => return error.fmt(f),
            Self::Setup {
                version,
                rust_src,
                linker,
            } => (version, *rust_src, *linker),
        };
        f.write_str("the XDP program cannot be compiled yet: ")?;
        if rust_src {
            write!(f, "rust-src of rustc {version}")?;
        }
        if rust_src && linker {
            f.write_str(" and ")?;
        }
        if linker {
            write!(f, "bpf-linker {LINKER_SERIES}x")?;
        }
        let verb = if rust_src && linker { "are" } else { "is" };
        write!(
            f,
            " {verb} missing. Run `cargo xtask setup` once, then build again."
        )
    }
}

impl std::error::Error for MissingTools {}

/// Finds the tools in the toolchain, in `tools_dir` and on `PATH`.
///
/// # Errors
///
/// Tells which of them are missing.
pub fn find_tools(tools_dir: &Path) -> Result<Tools, MissingTools> {
    let toolchain = Toolchain::current().map_err(MissingTools::Toolchain)?;
    let rust_src = find_rust_src(tools_dir, &toolchain);
    let linker = find_linker(tools_dir, &toolchain);
    match (rust_src, linker) {
        (Some(rust_src), Some(linker)) => Ok(Tools {
            toolchain,
            rust_src,
            linker,
        }),
        (rust_src, linker) => Err(MissingTools::Setup {
            version: toolchain.version,
            rust_src: rust_src.is_none(),
            linker: linker.is_none(),
        }),
    }
}

/// The `library` folder of the compiler's sources: in the toolchain, or else in `tools_dir`.
#[must_use]
pub fn find_rust_src(tools_dir: &Path, toolchain: &Toolchain) -> Option<PathBuf> {
    let in_toolchain = toolchain.sysroot.join("lib/rustlib/src/rust/library");
    [in_toolchain, local_rust_src(tools_dir, &toolchain.version)]
        .into_iter()
        // Cargo refuses sources without their lock file.
        .find(|library| {
            library.join("Cargo.lock").is_file() && library.join("core/Cargo.toml").is_file()
        })
}

/// A `bpf-linker` that fits: in `tools_dir`, or else on `PATH`.
#[must_use]
pub fn find_linker(tools_dir: &Path, toolchain: &Toolchain) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|dir| dir.join("bpf-linker"));
    std::iter::once(local_linker(tools_dir))
        .chain(on_path)
        .find(|linker| linker.is_file() && linker_fits(linker, toolchain))
}

/// Whether `linker` runs and is of a version that takes our options.
#[must_use]
pub fn linker_fits(linker: &Path, toolchain: &Toolchain) -> bool {
    let mut command = Command::new(linker);
    command
        .arg("--version")
        .env("LD_LIBRARY_PATH", toolchain.library_path());
    output(&mut command).is_ok_and(|answer| {
        answer
            .trim_end()
            .strip_prefix("bpf-linker ")
            .is_some_and(|version| version.starts_with(LINKER_SERIES))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_what_is_missing_and_the_way_out() {
        for (rust_src, linker, expected) in [
            (
                true,
                true,
                "rust-src of rustc 1.95.0 and bpf-linker 0.10.x are missing",
            ),
            (true, false, "rust-src of rustc 1.95.0 is missing"),
            (false, true, "bpf-linker 0.10.x is missing"),
        ] {
            let version = "1.95.0".to_owned();
            let message = MissingTools::Setup {
                version,
                rust_src,
                linker,
            }
            .to_string();
            assert!(message.contains(expected), "{message}");
            assert!(message.contains("`cargo xtask setup`"), "{message}");
        }
    }

    #[test]
    fn the_version_to_install_is_one_that_fits() {
        assert!(LINKER_VERSION.starts_with(LINKER_SERIES));
    }
}
