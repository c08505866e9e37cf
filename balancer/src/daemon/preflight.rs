//! What must be so before anything is touched: each failure is one line that says what to do.

use caps::{CapSet, Capability};

/// The oldest kernel that has all that the program and the daemon use: XDP links and `bpf_ktime_get_coarse_ns`
/// (5.11), atomic operations that return a value (5.12), frames that are given to a program for good (5.18).
const OLDEST: (u32, u32) = (5, 18);

/// Why the daemon cannot run here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unfit {
    /// The kernel is too old.
    #[error("Linux {release} is too old: balancerd needs {}.{} or newer", OLDEST.0, OLDEST.1)]
    Kernel {
        /// What it calls itself.
        release: String,
    },
    /// Capabilities are missing.
    #[error(
        "not permitted: balancerd must be started as root, or with the capabilities {} (missing: {missing})",
        names(&NEEDED)
    )]
    Privilege {
        /// Those that are missing.
        missing: String,
    },
}

/// What the daemon needs: to load programs, to attach them, for `AF_XDP` sockets, and for helpers that hand out kernel
/// pointers.
const NEEDED: [Capability; 4] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_PERFMON,
];

/// Whether `CAP_SYS_ADMIN` does not stand for it.
fn is_of_network(capability: Capability) -> bool {
    matches!(
        capability,
        Capability::CAP_NET_ADMIN | Capability::CAP_NET_RAW
    )
}

fn names(capabilities: &[Capability]) -> String {
    let names: Vec<String> = capabilities.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// Checks this process and this kernel.
///
/// # Errors
/// [`Unfit`].
pub fn check() -> Result<(), Unfit> {
    let release = nix::sys::utsname::uname().map_or_else(
        |_| String::new(),
        |name| name.release().to_string_lossy().into_owned(),
    );
    check_release(&release)?;
    // CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON.
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let missing: Vec<Capability> = NEEDED
        .into_iter()
        .filter(|&capability| {
            !has(capability) && (is_of_network(capability) || !has(Capability::CAP_SYS_ADMIN))
        })
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Unfit::Privilege {
            missing: names(&missing),
        })
    }
}

/// Checks a kernel release as `uname -r` prints it. One that cannot be read is let through: the kernel's own errors
/// are better than a guess.
fn check_release(release: &str) -> Result<(), Unfit> {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(str::parse::<u32>);
    if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next())
        && (major, minor) < OLDEST
    {
        return Err(Unfit::Kernel {
            release: release.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_refused_by_name() {
        for release in ["5.17.15-generic", "4.19.0", "2.6.78+"] {
            let text = check_release(release).unwrap_err().to_string();
            assert_eq!(
                text,
                format!("Linux {release} is too old: balancerd needs 5.18 or newer")
            );
        }
        for release in [
            "5.18.0-rc1",
            "5.19",
            "6.1.0-18-amd64",
            "10.0",
            "mainline",
            "",
        ] {
            assert_eq!(check_release(release), Ok(()), "{release}");
        }
    }
}
