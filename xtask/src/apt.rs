//! Debian's packages without root: an apt that keeps to a directory of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::{progress::Step, run, workspace::is_installed};

/// The keys that Debian signs its suites with.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt that knows suites of Debian that the machine may not use, from the mirror that it does use. Its lists, its
/// cache and what it downloads are in one directory; nothing of the system changes.
pub struct Apt {
    dir: PathBuf,
    mirror: String,
}

impl Apt {
    /// One that knows no suite yet.
    ///
    /// Fails where there is no apt, or none with a Debian mirror.
    pub fn new(dir: PathBuf) -> anyhow::Result<Self> {
        ensure!(
            is_installed("apt-get") && is_installed("dpkg-deb"),
            "there is no apt here"
        );
        for sub in [
            "lists/partial",
            "cache/archives/partial",
            "sources",
            "packages",
        ] {
            let dir = dir.join(sub);
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        let mirror = mirror()?;
        Ok(Self { dir, mirror })
    }

    /// Where it keeps everything.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes these its suites, and fetches their lists.
    pub fn update(&self, step: &mut Step, suites: &[&str]) -> anyhow::Result<()> {
        let mut source = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: main\n",
            self.mirror,
            suites.join(" ")
        );
        if Path::new(KEYRING).is_file() {
            source.push_str("Signed-By: ");
            source.push_str(KEYRING);
            source.push('\n');
        }
        fs::write(self.dir.join("sources/debian.sources"), source)?;
        run::in_step(
            step,
            self.command("apt-get", "update")
                .args(["-o", "APT::Update::Error-Mode=any"]),
        )
    }

    /// The names of the packages that begin with `prefix`.
    pub fn names(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let output = self
            .command("apt-cache", "pkgnames")
            .arg(prefix)
            .output()
            .context("apt-cache cannot be run")?;
        let names = String::from_utf8_lossy(&output.stdout);
        Ok(names.lines().map(str::to_owned).collect())
    }

    /// Downloads a package, of a version that begins with `version`.
    pub fn download(
        &self,
        step: &mut Step,
        package: &str,
        version: &str,
    ) -> anyhow::Result<PathBuf> {
        let packages = self.dir.join("packages");
        run::in_step(
            step,
            self.command("apt-get", "download")
                .arg(format!("{package}={version}*"))
                .current_dir(&packages),
        )?;
        fs::read_dir(&packages)?
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .find(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(&format!("{package}_{version}")) && name.ends_with(".deb")
            })
            .context("apt-get download left no package there")
    }

    fn command(&self, program: &str, subcommand: &str) -> Command {
        let mut command = Command::new(program);
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

/// Unpacks a package into a directory.
pub fn unpack(step: &mut Step, package: &Path, dir: &Path) -> anyhow::Result<()> {
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--extract").arg(package).arg(dir);
    run::in_step(step, &mut unpack)
}

/// The Debian mirror in the machine's own apt sources.
fn mirror() -> anyhow::Result<String> {
    let targets = Command::new("apt-get")
        .args(["indextargets", "--format", "$(COMPONENT) $(REPO_URI)"])
        .output()
        .context("apt-get cannot be run")?;
    pick_mirror(&String::from_utf8_lossy(&targets.stdout)).context("apt has no Debian mirror here")
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
