//! The programs that the demo, the end-to-end tests and the benches run.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::bail;

use crate::{
    progress::Step,
    run,
    workspace::{is_installed, is_root},
};

/// Each program, and Debian's package for it.
const PROGRAMS: [(&str, &str); 12] = [
    ("nginx", "nginx-light"),
    ("curl", "curl"),
    ("dnsmasq", "dnsmasq-base"),
    ("dig", "bind9-dnsutils"),
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("wrk", "wrk"),
    ("iperf3", "iperf3"),
    ("iptables-legacy", "iptables"),
    ("nft", "nftables"),
    ("ps", "procps"),
    ("shellcheck", "shellcheck"),
];

/// The script that Debian's packages ask before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs the missing ones where that is possible, else tells what is left out. Only the lab needs them.
pub fn ensure() -> anyhow::Result<()> {
    let who = "the demo, the end-to-end tests and the benches";
    ensure_these("programs of the lab", &PROGRAMS, who)
}

/// Installs those of `programs`, each with its package, that are missing, or tells what `who` lacks.
pub fn ensure_these(what: &str, programs: &[(&str, &str)], who: &str) -> anyhow::Result<()> {
    let mut step = Step::start(what);
    let missing: Vec<_> = programs
        .iter()
        .copied()
        .filter(|(program, _)| !is_installed(program))
        .collect();
    let (programs, packages): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
    if packages.is_empty() {
        step.done("there");
        return Ok(());
    }
    let why = match (is_installed("apt-get"), is_root()) {
        (true, true) => {
            install(&mut step, &packages)?;
            if let Some(program) = programs.iter().find(|program| !is_installed(program)) {
                bail!("the packages were installed, yet {program} is not there");
            }
            step.done(&format!("installed {}", packages.join(", ")));
            return Ok(());
        }
        (true, false) => format!(
            "not root; run: apt-get install --no-install-recommends {}",
            packages.join(" ")
        ),
        (false, _) => "no apt here; install them by hand".to_owned(),
    };
    let programs = programs.join(", ");
    step.left_out(&format!("{who} lack {programs} ({why})"));
    Ok(())
}

fn install(step: &mut Step, packages: &[&str]) -> anyhow::Result<()> {
    let _quiet = NoServices::ask(Path::new(POLICY));
    step.say("apt-get update");
    run::in_step(step, &mut apt("update"))?;
    step.say(&format!("apt-get install {}", packages.join(" ")));
    let mut install = apt("install");
    install
        .args(["--yes", "--no-install-recommends"])
        .args(packages);
    run::in_step(step, &mut install)
}

fn apt(subcommand: &str) -> Command {
    let mut command = Command::new("apt-get");
    command
        .arg(subcommand)
        .args(["--quiet", "-o", "Acquire::Retries=2"])
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// While it lives, the packages that are installed start no services.
struct NoServices {
    policy: Option<PathBuf>,
}

impl NoServices {
    /// Puts the script there. Another one that is there already has been asked for by somebody, and stays as it is.
    fn ask(policy: &Path) -> Self {
        // Should this process be killed before it removes the script, it forbids nothing any more.
        let script = format!(
            "#!/bin/sh\n# By `cargo xtask setup`, while it runs.\n[ -d /proc/{} ] && exit 101\nexit 0\n",
            std::process::id()
        );
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(policy)
            .and_then(|mut file| file.write_all(script.as_bytes()));
        Self {
            policy: written.is_ok().then(|| policy.to_owned()),
        }
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Some(policy) = &self.policy {
            // Left there, it would allow every service.
            let _ = fs::remove_file(policy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_forbidden_only_meanwhile() {
        let policy = std::env::temp_dir().join(format!("policy-rc.d-{}", std::process::id()));
        let guard = NoServices::ask(&policy);
        let status = Command::new(&policy).status().expect("the script runs");
        assert_eq!(status.code(), Some(101));
        let second = NoServices::ask(&policy);
        drop(second);
        assert!(policy.exists(), "the script of another stays");
        drop(guard);
        assert!(!policy.exists());
    }
}
