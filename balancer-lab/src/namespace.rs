//! Named network namespaces: made by `ip netns add`, so that `ip netns` and `nsenter` find them too.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Error, Result, error::Context, eventually, sys};

const DIRECTORY: &str = "/run/netns";
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// A descriptor of the namespace, to enter it with.
pub(crate) fn open(name: &str) -> Result<OwnedFd> {
    File::open(path(name))
        .map(OwnedFd::from)
        .context(|| format!("network namespace {name}"))
}

pub(crate) fn create(name: &str) -> Result<()> {
    ip_batch(None, &[format!("netns add {name}")])
}

/// The names of all namespaces in the usual place.
pub(crate) fn list() -> Vec<String> {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Takes a namespace away, with what runs in it. One that is gone already is no error.
pub(crate) fn remove(name: &str) -> Result<()> {
    end_processes_in(name)?;
    let path = path(name);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // EINVAL: the mount is gone, or was never made, and only the file is left.
        Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
        Err(error) => return Err(error).context(|| format!("unmounting {}", path.display())),
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Ends processes that live in a namespace though nobody holds them any more: daemons that left their process group, and those of
/// a lab whose process is dead.
fn end_processes_in(name: &str) -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let pids = processes_in(name);
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            // One that has ended meanwhile is what we want.
            let _ = kill(pid, signal);
        }
        let gone = eventually("the namespace to be empty", LEFTOVER_GRACE, || {
            processes_in(name).is_empty()
        });
        if gone.is_ok() {
            return Ok(());
        }
    }
    Err(Error::Invalid(format!(
        "processes {:?} in network namespace {name} outlive SIGKILL",
        processes_in(name)
    )))
}

fn processes_in(name: &str) -> Vec<Pid> {
    let (Ok(namespace), Ok(entries)) = (fs::metadata(path(name)), fs::read_dir("/proc")) else {
        return Vec::new();
    };
    // An empty file where a namespace's mount should be: no process can be in there.
    let own = process::id();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter(|pid| {
            // A process that has ended and waits to be reaped has no namespace any more.
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|its| (its.dev(), its.ino()) == (namespace.dev(), namespace.ino()))
        })
        .map(|pid| Pid::from_raw(pid.cast_signed()))
        .collect()
}

/// A command that will run in `namespace`.
pub(crate) fn command(namespace: &str, program: impl AsRef<OsStr>) -> Result<Command> {
    let mut command = Command::new(program);
    sys::enter_before_exec(&mut command, open(namespace)?);
    Ok(command)
}

/// Runs lines of `ip` commands in one process, in `namespace` or in the caller's own. The first that fails ends it.
pub(crate) fn ip_batch(namespace: Option<&str>, lines: &[String]) -> Result<()> {
    let mut command = match namespace {
        Some(namespace) => command(namespace, "ip")?,
        None => Command::new("ip"),
    };
    let what = || {
        let place = namespace.map_or(String::new(), |name| format!(" in {name}"));
        format!("ip -batch{place}: {}", lines.join("; "))
    };
    let mut child = command
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context(what)?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may have ended at an error already; its status tells.
        let _ = stdin.write_all(lines.join("\n").as_bytes());
    }
    let output = child.wait_with_output().context(what)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: what(),
        status: output.status,
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
