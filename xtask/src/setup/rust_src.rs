//! The library sources of exactly the compiler's version.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use balancer_build::{Toolchain, find_rust_src, local_rust_src};

use crate::{
    progress::Step,
    run,
    setup::{fresh_dir, remove_dir},
    workspace::{Workspace, is_installed},
};

/// Debian's suites that newer compilers come in, the likeliest first.
const SUITES: [&str; 4] = ["trixie-backports", "forky", "sid", "trixie"];

/// The keys that Debian signs its suites with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where the sources come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// rustup, or else Debian.
    Auto,
    /// The toolchain's own component.
    Rustup,
    /// Debian's package, unpacked into the tools directory.
    Debian,
}

impl Source {
    fn from_env() -> anyhow::Result<Self> {
        match env::var("BALANCER_RUST_SRC").as_deref() {
            Err(env::VarError::NotPresent) | Ok("" | "auto") => Ok(Self::Auto),
            Ok("rustup") => Ok(Self::Rustup),
            Ok("debian") => Ok(Self::Debian),
            other => bail!("BALANCER_RUST_SRC is {other:?}; it may be auto, rustup or debian"),
        }
    }
}

/// Makes sure that the sources are there.
pub fn ensure(workspace: &Workspace, toolchain: &Toolchain) -> anyhow::Result<()> {
    let source = Source::from_env()?;
    let tools = workspace.tools_dir();
    let mut step = Step::start(&format!("rust-src {}", toolchain.version));
    if let Some(library) = find_rust_src(&tools, toolchain) {
        step.done(&format!("in {}", short(&library, workspace)));
        return Ok(());
    }
    match source {
        Source::Rustup => from_rustup(&mut step, toolchain)?,
        Source::Debian => from_debian(&mut step, &tools, &toolchain.version)?,
        Source::Auto => {
            if let Err(error) = from_rustup(&mut step, toolchain) {
                // The first line names the program and its exit status; rustup's own report follows.
                let error = error.to_string();
                step.say(error.lines().next().unwrap_or_default());
                from_debian(&mut step, &tools, &toolchain.version)?;
            }
        }
    }
    let library = find_rust_src(&tools, toolchain)
        .context("rust-src was installed, but it is not where it belongs")?;
    step.done(&format!("installed in {}", short(&library, workspace)));
    Ok(())
}

/// The path as a user of this checkout would write it.
fn short(path: &Path, workspace: &Workspace) -> String {
    if let Ok(inside) = path.strip_prefix(&workspace.root) {
        inside.display().to_string()
    } else {
        "the toolchain".to_owned()
    }
}

/// Adds the component to the toolchain in use.
fn from_rustup(step: &mut Step, toolchain: &Toolchain) -> anyhow::Result<()> {
    ensure!(
        is_installed("rustup"),
        "rustup is not there to add the component rust-src"
    );
    // rustup names a toolchain by the last part of its root directory.
    let name = toolchain.sysroot.file_name().unwrap_or_default();
    step.say("rustup component add rust-src");
    let mut rustup = Command::new("rustup");
    rustup
        .args(["component", "add", "rust-src", "--toolchain"])
        .arg(name)
        .env("RUSTUP_MAX_RETRIES", "2")
        .env_remove("RUST_BACKTRACE");
    run::in_step(step, &mut rustup)
}

/// Unpacks Debian's package of that name, fetched by apt with lists and a cache of its own: no root, and nothing of the
/// system changes.
fn from_debian(step: &mut Step, tools: &Path, version: &str) -> anyhow::Result<()> {
    ensure!(
        is_installed("apt-get") && is_installed("dpkg-deb"),
        "there is no apt to fetch rust-src with; run: rustup component add rust-src"
    );
    // It stays until the end, so the next setup goes on with a download that broke off.
    let apt = Apt::new(tools.join("incoming/apt"));
    let package = apt.download(step, version)?;

    step.say("unpacking");
    let incoming = tools.join("incoming/rust-src");
    fresh_dir(&incoming)?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--extract").arg(&package).arg(&incoming);
    run::in_step(step, &mut unpack)?;
    let source = incoming.join(format!("usr/src/rustc-{version}"));
    let marker = source.join("src/version");
    let found = fs::read_to_string(&marker)
        .with_context(|| format!("Debian's rust-src has no {}", marker.display()))?;
    ensure!(
        found.trim_end() == version,
        "Debian's rust-src is of rustc {}, not {version}",
        found.trim_end()
    );
    let place = local_rust_src(tools, version);
    remove_dir(&place)?;
    fs::rename(source.join("library"), &place)
        .with_context(|| format!("cannot move the sources to {}", place.display()))?;
    remove_dir(&incoming)?;
    remove_dir(&apt.dir)
}

/// An apt that knows Debian's newer suites, from the mirror that the machine uses already, and keeps to one directory.
struct Apt {
    dir: PathBuf,
}

impl Apt {
    fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Downloads the package rust-src for `version` from the first suite that has it.
    fn download(&self, step: &mut Step, version: &str) -> anyhow::Result<PathBuf> {
        for sub in [
            "lists/partial",
            "cache/archives/partial",
            "sources",
            "packages",
        ] {
            let dir = self.dir.join(sub);
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let uri = mirror()?;
        let mut failed = None;
        for suite in SUITES {
            step.say(&format!("Debian's package, suite {suite}"));
            match self.download_from(step, &uri, suite, version) {
                Ok(package) => return Ok(package),
                // The first failure tells the most: a mirror that is out of reach fails for every suite.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let error = failed.unwrap_or_else(|| anyhow::anyhow!("no suite was tried"));
        Err(error.context(format!(
            "Debian's package rust-src {version} could not be had; run: rustup component add rust-src"
        )))
    }

    fn download_from(
        &self,
        step: &mut Step,
        uri: &str,
        suite: &str,
        version: &str,
    ) -> anyhow::Result<PathBuf> {
        let mut source = format!("Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: main\n");
        if Path::new(KEYRING).is_file() {
            source.push_str("Signed-By: ");
            source.push_str(KEYRING);
            source.push('\n');
        }
        fs::write(self.dir.join("sources/rust-src.sources"), source)?;
        run::in_step(
            step,
            self.command("update")
                .args(["-o", "APT::Update::Error-Mode=any"]),
        )?;
        let packages = self.dir.join("packages");
        run::in_step(
            step,
            self.command("download")
                .arg(format!("rust-src={version}*"))
                .current_dir(&packages),
        )?;
        fs::read_dir(&packages)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(&format!("rust-src_{version}")) && name.ends_with(".deb")
            })
            .context("apt-get download left no package there")
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new("apt-get");
        command.arg(subcommand).arg("--quiet");
        for (option, value) in [
            ("Dir::Etc::sourcelist", Path::new("/dev/null").to_owned()),
            ("Dir::Etc::sourceparts", self.dir.join("sources")),
            ("Dir::State::lists", self.dir.join("lists")),
            ("Dir::Cache", self.dir.join("cache")),
        ] {
            command
                .arg("-o")
                .arg(format!("{option}={}", value.display()));
        }
        command
            // It also goes on with a download that broke off.
            .args(["-o", "Acquire::Retries=2"])
            .args(["-o", "Acquire::Languages=none"])
            // Root's apt would download as a user that may not write into the checkout.
            .args(["-o", "APT::Sandbox::User="])
            .env("LC_ALL", "C.UTF-8");
        command
    }
}

/// The Debian mirror in the machine's own apt sources.
fn mirror() -> anyhow::Result<String> {
    let targets = Command::new("apt-get")
        .args(["indextargets", "--format", "$(COMPONENT) $(REPO_URI)"])
        .output()
        .context("apt-get cannot be run")?;
    pick_mirror(&String::from_utf8_lossy(&targets.stdout))
        .context("apt has no Debian mirror here; run: rustup component add rust-src")
}

/// The first address that is a Debian archive's: those of security updates have other names, those of other vendors no
/// component `main`.
fn pick_mirror(targets: &str) -> Option<String> {
    targets
        .lines()
        .filter_map(|target| target.strip_prefix("main "))
        .find(|address| address.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_mirror_is_taken() {
        let own = "stable https://vendor.example/linux/debian/\n\
                   main http://mirror.example/debian-security/\n\
                   main https://mirror.example/debian/\n";
        assert_eq!(
            pick_mirror(own).as_deref(),
            Some("https://mirror.example/debian/")
        );
        let others = "main https://vendor.example/apt/\nmain http://ports.example/ubuntu/\n";
        assert_eq!(pick_mirror(others), None);
    }
}
