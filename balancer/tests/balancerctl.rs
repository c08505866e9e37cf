//! The balancerctl program itself: what it prints, where, and its exit status.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod fake_daemon;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use balancer::control::document::{BackendState, ChangeDocument, ServicesDocument};
use balancer_lab::Need;
use fake_daemon::FakeDaemon;
use nix::unistd::{Gid, Uid};

const NOBODY: u32 = 65534;

/// What a run left: exit status, standard output, standard error.
type Run = (Option<i32>, String, String);

fn command(socket: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_balancerctl"));
    command
        .arg("--socket")
        .arg(socket)
        .args(line.split_whitespace())
        .stdin(Stdio::null());
    command
}

fn run(mut command: Command) -> Run {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn ctl(socket: &Path, line: &str) -> Run {
    run(command(socket, line))
}

fn is_root(test: &str) -> bool {
    let root = Uid::effective().is_root();
    if !root {
        Need::Lab.leave_out(test, "becoming another user needs root");
    }
    root
}

#[test]
fn without_a_daemon_it_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let expected = format!(
        "balancerctl: balancerd is not running (no one answers on {}): start it with `balancerd --config FILE`\n",
        socket.display()
    );
    for line in [
        "status",
        "services",
        "reload",
        "drain web 10.0.0.3:8443 --wait",
    ] {
        assert_eq!(
            ctl(&socket, line),
            (Some(1), String::new(), expected.clone()),
            "{line}"
        );
    }
}

#[test]
fn wrong_usage_exits_2() {
    let (status, output, error) = ctl(Path::new("/nowhere"), "weight web 10.0.0.3:8443 70000");
    assert_eq!((status, output.as_str()), (Some(2), ""));
    assert!(error.contains("70000"), "{error}");
}

#[test]
fn json_is_the_daemons_document() {
    let daemon = FakeDaemon::start();
    let drops = "{\"version\":1,\"drops\":{\"bad_checksum\":3,\"land\":0}}\n";
    assert_eq!(
        ctl(daemon.socket(), "drops --json"),
        (Some(0), drops.into(), String::new())
    );
    let services = concat!(
        r#"{"version":1,"services":[{"name":"web","protocol":"tcp","listen":"192.0.2.10:443","scheduler":"nth","#,
        r#""source_nat":"masquerade","backends":[{"address":"10.0.0.3:8443","state":"up","weight":1,"#,
        r#""connections_active":3,"connections_total":120,"forward":{"packets":900,"bytes":81000},"#,
        r#""reply":{"packets":870,"bytes":640000}}],"#,
        r#""refused":{"no_backend":0,"limit":0,"connections":0,"ports_exhausted":0,"table_full":0}}]}"#,
        "\n"
    );
    assert_eq!(
        ctl(daemon.socket(), "--json services"),
        (Some(0), services.into(), String::new())
    );
}

#[test]
fn text_goes_to_standard_output() {
    let daemon = FakeDaemon::start();
    let cases = [
        ("drops", "REASON        PACKETS\nbad_checksum        3\n"),
        (
            "weight web 10.0.0.3:8443 5",
            "web 10.0.0.3:8443: up, weight 5, 3 connections\n",
        ),
        (
            "drain web 10.0.0.3:8443",
            "web 10.0.0.3:8443: drained, weight 1, 3 connections\n",
        ),
        (
            "undrain web 10.0.0.3:8443",
            "web 10.0.0.3:8443: up, weight 1, 3 connections\n",
        ),
        ("reload", "generation 7: no changes\n"),
        (
            "flush connections --service web",
            "7 connections forgotten\n",
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(
            ctl(daemon.socket(), line),
            (Some(0), expected.into(), String::new()),
            "{line}"
        );
    }
}

#[test]
fn an_error_of_the_daemon_goes_to_standard_error() {
    let daemon = FakeDaemon::start();
    let cases = [
        ("status --json", "two\nlines"),
        (
            "drain wbe 10.0.0.3:8443",
            "no service \"wbe\" (services: web)",
        ),
        (
            "undrain web 10.0.0.4:8443",
            "service \"web\" has no backend \"10.0.0.4:8443\" (backends: 10.0.0.3:8443)",
        ),
    ];
    for (line, expected) in cases {
        let expected = format!("balancerctl: {expected}\n");
        assert_eq!(
            ctl(daemon.socket(), line),
            (Some(1), String::new(), expected),
            "{line}"
        );
    }
}

#[test]
fn a_refused_reload_exits_1_with_its_errors() {
    let daemon = FakeDaemon::start();
    let (status, output, error) = ctl(daemon.socket(), "reload --dry-run");
    assert_eq!((status, output.as_str()), (Some(1), ""));
    assert!(error.contains("lb.toml:3:1: unknown key"), "{error}");
    let (status, output, _) = ctl(daemon.socket(), "reload --dry-run --json");
    assert_eq!(status, Some(1));
    assert!(
        output.starts_with(r#"{"version":1,"reload":{"applied":false"#),
        "{output}"
    );
}

#[test]
fn a_list_that_was_cut_says_so_beside_it() {
    let daemon = FakeDaemon::start();
    let (status, output, error) = ctl(daemon.socket(), "connections");
    assert_eq!((status, output.lines().count()), (Some(0), 1 + 1000));
    assert_eq!(
        error,
        "1000 of 5000 connections shown; --limit 0 shows all\n"
    );
    let (status, output, error) = ctl(daemon.socket(), "connections --limit 0");
    assert_eq!(
        (status, output.lines().count(), error.as_str()),
        (Some(0), 1 + 5000, "")
    );
}

#[test]
fn a_closed_pipe_is_no_error() {
    let daemon = FakeDaemon::start();
    for line in ["connections --limit 0 --json", "man", "completions bash"] {
        let mut child = command(daemon.socket(), line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            (output.status.code(), error.as_str()),
            (Some(0), ""),
            "{line}"
        );
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let daemon = FakeDaemon::start();
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = command(daemon.socket(), "drops")
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("standard output")
    );
}

#[test]
fn drain_wait_returns_with_the_last_connection() {
    let daemon = FakeDaemon::start();
    let (status, output, error) = ctl(daemon.socket(), "drain web 10.0.0.3:8443 --wait --json");
    assert_eq!((status, error.as_str()), (Some(0), ""));
    let changed = serde_json::from_str::<ChangeDocument>(&output)
        .unwrap()
        .changed;
    assert_eq!(
        (changed.connections_active, changed.state),
        (0, BackendState::Drained)
    );
}

#[test]
fn drain_wait_gives_up_in_time_and_leaves_the_backend_drained() {
    let daemon = FakeDaemon::start();
    let begun = Instant::now();
    let line = "drain web 10.0.0.3:8443 --wait --timeout 10ms";
    let (status, output, error) = ctl(daemon.socket(), line);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!((status, output.as_str()), (Some(1), ""));
    assert!(error.contains("have not ended in time"), "{error}");
    let (_, output, _) = ctl(daemon.socket(), "services --json");
    let services: ServicesDocument = serde_json::from_str(&output).unwrap();
    assert_eq!(
        services.services[0].backends[0].state,
        BackendState::Drained
    );
}

#[test]
fn detach_is_refused_while_a_daemon_answers() {
    let daemon = FakeDaemon::start();
    let (status, output, error) = ctl(daemon.socket(), "detach --pin-path /nowhere");
    assert_eq!((status, output.as_str()), (Some(1), ""));
    assert!(error.contains("stop it first"), "{error}");
}

#[test]
fn the_mode_of_the_socket_keeps_others_out() {
    if !is_root("the_mode_of_the_socket_keeps_others_out") {
        return;
    }
    let daemon = open_to_nobody();
    let (status, output, error) = run(as_nobody(&daemon, "drops", NOBODY));
    assert_eq!((status, output.as_str()), (Some(1), ""));
    assert!(error.contains("permission denied on "), "{error}");
    assert!(
        error.contains("run as root or as a member of group "),
        "{error}"
    );
}

#[test]
fn another_user_is_refused_whatever_the_mode() {
    if !is_root("another_user_is_refused_whatever_the_mode") {
        return;
    }
    let daemon = open_to_nobody();
    fs::set_permissions(daemon.socket(), Permissions::from_mode(0o666)).unwrap();
    let (status, output, error) = run(as_nobody(&daemon, "drops", NOBODY));
    assert_eq!((status, output.as_str()), (Some(1), ""));
    assert!(
        error.contains("user 65534 may not control balancerd"),
        "{error}"
    );
}

#[test]
fn a_member_of_the_group_is_let_in() {
    if !is_root("a_member_of_the_group_is_let_in") {
        return;
    }
    let daemon = open_to_nobody();
    let group = daemon.group();
    let (status, _, error) = run(as_nobody(&daemon, "drops", group.as_raw()));
    assert_eq!(
        (status, error.as_str()),
        (Some(0), ""),
        "as its primary group"
    );

    let mut command = as_nobody(&daemon, "drops", NOBODY);
    // More groups than one read of them takes; the socket's is the last.
    let groups: Vec<_> = (70_000..70_100).map(Gid::from_raw).chain([group]).collect();
    // `Command::uid` would drop these groups again: all three are set here, in the order that leaves the right to.
    command.uid(0).gid(0);
    // SAFETY: between fork and exec only system calls are made; the list was allocated before.
    unsafe {
        command.pre_exec(move || {
            nix::unistd::setgroups(&groups)?;
            nix::unistd::setgid(Gid::from_raw(NOBODY))?;
            nix::unistd::setuid(Uid::from_raw(NOBODY))?;
            Ok(())
        });
    }
    let (status, _, error) = run(command);
    assert_eq!(
        (status, error.as_str()),
        (Some(0), ""),
        "as a supplementary group"
    );
}

/// A daemon whose directory others may enter, and which has a copy of the program that they may run.
fn open_to_nobody() -> FakeDaemon {
    let daemon = FakeDaemon::start();
    fs::set_permissions(daemon.directory(), Permissions::from_mode(0o755)).unwrap();
    let copy = daemon.directory().join("balancerctl");
    // By another process: a file that a thread of this one writes may still be open in a child forked by another
    // thread, and then cannot be run.
    let program = env!("CARGO_BIN_EXE_balancerctl");
    let copied = Command::new("install")
        .args(["-m", "755", program])
        .arg(copy)
        .status();
    assert!(copied.unwrap().success());
    daemon
}

/// The program as user 65534 with one group and no supplementary ones.
fn as_nobody(daemon: &FakeDaemon, line: &str, group: u32) -> Command {
    let mut command = Command::new(daemon.directory().join("balancerctl"));
    command
        .arg("--socket")
        .arg(daemon.socket())
        .args(line.split_whitespace());
    command
        .stdin(Stdio::null())
        .current_dir("/")
        .uid(NOBODY)
        .gid(group);
    command
}
