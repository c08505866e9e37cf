//! Whether this process may load programs and make network namespaces.

use std::{fs, path::Path, process::Command};

use crate::workspace::is_root;

/// Where the tests and the daemon pin maps and links.
const BPFFS: &str = "/sys/fs/bpf";

/// The capabilities that root lacks in most containers, with their numbers.
const CAPABILITIES: [(&str, u32); 2] = [("CAP_NET_ADMIN", 12), ("CAP_SYS_ADMIN", 21)];

/// Why the tests that need root cannot run; `None` when they can.
pub fn missing() -> Option<String> {
    if !is_root() {
        return Some("not root".to_owned());
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    missing_capability(&status).map(|name| format!("root here lacks {name}"))
}

fn missing_capability(status: &str) -> Option<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    CAPABILITIES
        .into_iter()
        .find(|(_, bit)| effective & (1 << bit) == 0)
        .map(|(name, _)| name)
}

/// Mounts the BPF file system where it is expected, unless it is there.
pub fn mount_bpffs() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounted = mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(BPFFS) && fields.next() == Some("bpf")
    });
    if mounted || !Path::new(BPFFS).is_dir() {
        return;
    }
    let mount = Command::new("mount")
        .args(["-t", "bpf", "bpf", BPFFS])
        .status();
    if mount.is_ok_and(|status| status.success()) {
        eprintln!("mounted the BPF file system on {BPFFS}");
    } else {
        eprintln!("the BPF file system could not be mounted on {BPFFS}; tests that pin will fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_root_is_told_what_it_lacks() {
        for (status, expected) in [
            ("Name:\tcargo\nCapEff:\t000001ffffffffff\n", None),
            ("CapEff:\t00000000a80425fb\n", Some("CAP_NET_ADMIN")),
            ("CapEff:\t0000000000001000\n", Some("CAP_SYS_ADMIN")),
            ("", Some("CAP_NET_ADMIN")),
        ] {
            assert_eq!(missing_capability(status), expected, "{status}");
        }
    }
}
