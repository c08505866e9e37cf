//! The kernels: where each comes from, and what the verifier may take on it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{
    apt::{self, Apt},
    progress::Step,
    setup::{fresh_dir, remove_dir},
};

/// The suites of Debian that have these kernels.
pub const SUITES: [&str; 3] = ["bookworm", "trixie", "trixie-backports"];

/// One of Debian's kernels for virtual machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Series {
    /// The first two numbers of its version; the newest package of it is taken.
    pub name: &'static str,
    /// Instructions that its verifier may process, by `flow_lookup`: about a tenth more than it does.
    pub budget: [(&'static str, u32); 2],
}

/// All of them, the oldest first.
pub const ALL: [Series; 4] = [
    Series {
        name: "6.1",
        budget: [("table", 104_000), ("hash", 97_000)],
    },
    Series {
        name: "6.12",
        budget: [("table", 79_000), ("hash", 80_000)],
    },
    Series {
        name: "6.18",
        budget: [("table", 98_000), ("hash", 85_000)],
    },
    Series {
        name: "7.2",
        budget: [("table", 91_000), ("hash", 90_000)],
    },
];

impl Series {
    /// Its packages among `names`: the newest kernel, with its modules where they are apart.
    fn packages(self, names: &[String]) -> Option<Vec<String>> {
        let newest = |kind: &str| {
            names
                .iter()
                .filter_map(|name| {
                    let release = name.strip_prefix(kind)?;
                    let version = release.strip_suffix("-cloud-amd64")?;
                    version
                        .strip_prefix(self.name)?
                        .starts_with('.')
                        .then(|| (numbers(version), release))
                })
                .max()
                .map(|(_, release)| release)
        };
        // Newer ones are split up, and `linux-image-` is an empty package that names the parts.
        let kinds: &[&str] = if newest("linux-modules-").is_some() {
            &["linux-binary-", "linux-modules-"]
        } else {
            &["linux-image-"]
        };
        let release = newest(kinds[0])?;
        Some(
            kinds
                .iter()
                .map(|kind| format!("{kind}{release}"))
                .collect(),
        )
    }
}

/// A version's numbers: `6.12.107+deb13` is newer than `6.12.94+deb13`.
fn numbers(version: &str) -> Vec<u32> {
    version
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// A kernel that was unpacked.
#[derive(Debug)]
pub struct Kernel {
    /// What it calls itself.
    pub release: String,
    /// The file to boot.
    pub image: PathBuf,
    /// The folder of its modules.
    pub modules: PathBuf,
}

impl Kernel {
    /// Finds it where its packages were unpacked.
    fn find(dir: &Path) -> anyhow::Result<Self> {
        // Newer packages know that /lib is a link.
        let modules = ["usr/lib/modules", "lib/modules"]
            .map(|path| dir.join(path))
            .into_iter()
            .find_map(|path| fs::read_dir(path).ok()?.next()?.ok())
            .with_context(|| format!("no modules in {}", dir.display()))?;
        let release = modules.file_name().to_string_lossy().into_owned();
        let modules = modules.path();
        let image = [
            dir.join(format!("boot/vmlinuz-{release}")),
            modules.join("vmlinuz"),
        ]
        .into_iter()
        .find(|path| path.is_file())
        .with_context(|| format!("no kernel in {}", dir.display()))?;
        Ok(Self {
            release,
            image,
            modules,
        })
    }
}

/// The packages of the guests, unpacked below one folder. What is there is not fetched again.
pub struct Store {
    dir: PathBuf,
    apt: Option<Apt>,
}

impl Store {
    /// One in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, apt: None }
    }

    /// A kernel, fetched unless it is there.
    pub fn kernel(&mut self, step: &mut Step, series: Series) -> anyhow::Result<Kernel> {
        let dir = self.get(step, series.name, |apt| {
            let mut names = Vec::new();
            for kind in ["image", "binary", "modules"] {
                names.extend(apt.names(&format!("linux-{kind}-{}.", series.name))?);
            }
            series
                .packages(&names)
                .with_context(|| format!("Debian has no kernel {}", series.name))
        })?;
        Kernel::find(&dir)
    }

    /// The guest's shell, fetched unless it is there.
    pub fn busybox(&mut self, step: &mut Step) -> anyhow::Result<PathBuf> {
        let dir = self.get(step, "busybox", |_| Ok(vec!["busybox-static".to_owned()]))?;
        ["usr/bin/busybox", "bin/busybox"]
            .map(|path| dir.join(path))
            .into_iter()
            .find(|path| path.is_file())
            .context("the package busybox-static has no busybox")
    }

    /// The folder `name`, with the packages that `choose` tells.
    fn get(
        &mut self,
        step: &mut Step,
        name: &str,
        choose: impl FnOnce(&Apt) -> anyhow::Result<Vec<String>>,
    ) -> anyhow::Result<PathBuf> {
        let dir = self.dir.join(name);
        if dir.is_dir() {
            return Ok(dir);
        }
        let apt = self.apt(step)?;
        let unpacked = apt.dir().join("unpacked");
        fresh_dir(&unpacked)?;
        for package in choose(apt)? {
            step.say(&format!("fetching {package}"));
            let file = apt.download(step, &package, "")?;
            apt::unpack(step, &file, &unpacked)?;
            fs::remove_file(&file)?;
        }
        fs::rename(&unpacked, &dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(dir)
    }

    /// The apt, with its lists fetched once.
    fn apt(&mut self, step: &mut Step) -> anyhow::Result<&Apt> {
        if self.apt.is_none() {
            let apt = Apt::new(self.dir.join("apt"))?;
            step.say("fetching the lists of Debian's packages");
            apt.update(step, &SUITES)?;
            self.apt = Some(apt);
        }
        self.apt.as_ref().context("there is no apt")
    }

    /// Removes what only fetching needs.
    pub fn close(self) -> anyhow::Result<()> {
        self.apt.map_or(Ok(()), |apt| remove_dir(apt.dir()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str) -> Series {
        let mut all = ALL.into_iter();
        all.find(|series| series.name == name)
            .expect("it is one of them")
    }

    #[test]
    fn the_newest_package_of_a_series_is_taken() {
        let names = [
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.12.94+deb13-cloud-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64-unsigned",
            "linux-image-6.12.107+deb13-amd64",
            "linux-image-7.2.12+deb13-cloud-amd64",
            "linux-binary-7.2.9+deb13-cloud-amd64",
            "linux-binary-7.2.12+deb13-cloud-amd64",
            "linux-binary-unsigned-7.2.12+deb13-cloud-amd64",
            "linux-modules-7.2.9+deb13-cloud-amd64",
            "linux-modules-7.2.12+deb13-cloud-amd64",
        ]
        .map(str::to_owned);
        for (name, packages) in [
            ("6.1", vec!["linux-image-6.1.0-50-cloud-amd64"]),
            ("6.12", vec!["linux-image-6.12.107+deb13-cloud-amd64"]),
            (
                "7.2",
                vec![
                    "linux-binary-7.2.12+deb13-cloud-amd64",
                    "linux-modules-7.2.12+deb13-cloud-amd64",
                ],
            ),
        ] {
            let found = series(name).packages(&names).expect("it is there");
            assert_eq!(found, packages);
        }
        assert_eq!(series("6.18").packages(&names), None);
    }
}
