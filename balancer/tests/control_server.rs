//! The control server over a real socket.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod fake_daemon;

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use balancer::control::document::{DropsDocument, FlushDocument};
use balancer::control::protocol::MAX_REQUEST_BYTES;
use balancer::control::{Client, ClientError, ControlListener, Limits, Request};
use fake_daemon::FakeDaemon;

/// A connection that writes and reads whatever a test likes.
struct Raw(BufReader<UnixStream>);

impl Raw {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    /// The next line without its newline; empty at the end of the stream.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n").as_bytes());
        self.line()
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_socket_is_for_owner_and_group() {
    let daemon = FakeDaemon::start();
    assert_eq!(
        fs::symlink_metadata(daemon.socket()).unwrap().mode() & 0o7777,
        0o660
    );
}

#[test]
fn several_requests_are_answered_in_order_on_one_connection() {
    let daemon = FakeDaemon::start();
    let mut client = Client::connect(daemon.socket()).unwrap();
    let drops: DropsDocument = client.call(&Request::Drops {}).unwrap().document().unwrap();
    assert_eq!(drops.drops["bad_checksum"], 3);
    let flush = Request::FlushConnections { service: None };
    assert_eq!(
        client
            .call(&flush)
            .unwrap()
            .document::<FlushDocument>()
            .unwrap()
            .flushed,
        7
    );

    let mut raw = Raw::connect(daemon.socket());
    raw.send(b"{\"request\":\"drops\"}\n{\"request\":\"flush_conn");
    raw.send(b"ections\"}\n");
    assert_eq!(
        raw.line(),
        r#"{"version":1,"drops":{"bad_checksum":3,"land":0}}"#
    );
    assert_eq!(raw.line(), r#"{"version":1,"flushed":7}"#);
}

#[test]
fn an_error_of_the_handler_is_the_clients() {
    let daemon = FakeDaemon::start();
    let mut client = Client::connect(daemon.socket()).unwrap();
    let flush = Request::FlushConnections {
        service: Some("wbe".into()),
    };
    let error = client.call(&flush).unwrap_err();
    assert!(
        matches!(&error, ClientError::Daemon(text) if text == "no service \"wbe\" (services: web)"),
        "{error}"
    );
}

#[test]
fn a_malformed_request_is_answered_and_the_connection_goes_on() {
    let daemon = FakeDaemon::start();
    let mut raw = Raw::connect(daemon.socket());
    let cases: [&[u8]; 6] = [
        b"\n",
        b"drain web\n",
        b"{\"request\":\"drian\"}\n",
        b"{\"request\":\"drain\",\"service\":\"web\"}\n",
        b"\xff\xfe\x00\n",
        &[&b"[".repeat(10_000)[..], b"\n"].concat(),
    ];
    for case in cases {
        raw.send(case);
        let answer = raw.line();
        assert!(
            answer.starts_with(r#"{"version":1,"error":"not a request: "#),
            "{answer}"
        );
    }
    assert!(raw.ask(r#"{"request":"drops"}"#).contains("bad_checksum"));
}

#[test]
fn an_oversized_request_is_answered_and_the_connection_goes_on() {
    let daemon = FakeDaemon::start();
    let mut raw = Raw::connect(daemon.socket());
    // Spaces before a request are JSON: only its length is wrong with it.
    let request = r#"{"request":"drops"}"#;
    let padded = |length: usize| " ".repeat(length - request.len()) + request;
    assert!(
        raw.ask(&padded(MAX_REQUEST_BYTES)).contains("bad_checksum"),
        "the longest allowed"
    );
    let refusal = format!(
        r#"{{"version":1,"error":"the request is longer than {MAX_REQUEST_BYTES} bytes"}}"#
    );
    assert_eq!(raw.ask(&padded(MAX_REQUEST_BYTES + 1)), refusal);
    assert_eq!(raw.ask(&padded(20 * MAX_REQUEST_BYTES)), refusal);
    assert!(raw.ask(request).contains("bad_checksum"));
}

#[test]
fn the_connection_after_the_last_is_told_so() {
    let daemon = FakeDaemon::start();
    let limit = Limits::default().connections;
    assert_eq!(limit, 32);
    let mut open: Vec<_> = (0..limit).map(|_| Raw::connect(daemon.socket())).collect();
    let mut late = Raw::connect(daemon.socket());
    assert_eq!(
        late.line(),
        r#"{"version":1,"error":"32 control connections are open, more are not served"}"#
    );
    for raw in &mut open {
        assert!(
            raw.ask(r#"{"request":"drops"}"#).contains("bad_checksum"),
            "those before are served"
        );
    }
    // The client reads the refusal although its request was never taken.
    let error = Client::connect(daemon.socket())
        .unwrap()
        .call(&Request::Drops {})
        .unwrap_err();
    assert!(matches!(error, ClientError::Daemon(_)), "{error}");

    drop(open.pop());
    wait_until("a place is free again", || {
        Client::connect(daemon.socket())
            .unwrap()
            .call(&Request::Drops {})
            .is_ok()
    });
}

#[test]
fn an_idle_connection_is_closed_however_slowly_it_sends() {
    let idle = Duration::from_millis(200);
    let daemon = FakeDaemon::start_within(Limits {
        idle,
        ..Limits::default()
    });
    let mut silent = Raw::connect(daemon.socket());
    assert_eq!(silent.line(), "", "closed without a word");

    let mut slow = UnixStream::connect(daemon.socket()).unwrap();
    let begun = Instant::now();
    while slow.write_all(b" ").is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(20), "never closed");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(begun.elapsed() >= idle / 2);
}

#[test]
fn a_defect_in_the_handler_ends_its_connection_alone() {
    let daemon = FakeDaemon::start();
    let mut other = Client::connect(daemon.socket()).unwrap();
    let flush = Request::FlushConnections {
        service: Some("panic".into()),
    };
    let error = Client::connect(daemon.socket())
        .unwrap()
        .call(&flush)
        .unwrap_err();
    assert!(matches!(error, ClientError::Closed(_)), "{error}");
    assert!(other.call(&Request::Drops {}).is_ok());
}

#[test]
fn a_client_that_vanishes_harms_nobody() {
    let daemon = FakeDaemon::start();
    for _ in 0..100 {
        let mut stream = UnixStream::connect(daemon.socket()).unwrap();
        // Refused, when those before it are not done with yet; that is as good.
        let _ = stream.write_all(b"{\"request\":\"drops\"}\n{\"requ");
    }
    wait_until("the others are served", || {
        Client::connect(daemon.socket())
            .unwrap()
            .call(&Request::Drops {})
            .is_ok()
    });
}

#[test]
fn shutdown_removes_the_file_and_ends_idle_connections() {
    let mut daemon = FakeDaemon::start();
    let mut raw = Raw::connect(daemon.socket());
    raw.ask(r#"{"request":"drops"}"#);
    let begun = Instant::now();
    daemon.stop();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "it did not wait for the idle connection"
    );
    assert!(!daemon.socket().exists());
    assert_eq!(raw.line(), "");
}

#[test]
fn shutdown_lets_a_request_at_work_end() {
    let mut daemon = FakeDaemon::start();
    let mut raw = Raw::connect(daemon.socket());
    raw.send(b"{\"request\":\"reload\"}\n");
    wait_until("the request is at work", || daemon.reloads_begun() == 1);
    daemon.stop();
    assert!(raw.line().contains(r#""applied":true"#));
}

#[test]
fn shutdown_leaves_a_file_that_is_not_ours() {
    let mut daemon = FakeDaemon::start();
    fs::remove_file(daemon.socket()).unwrap();
    let other = ControlListener::bind(daemon.socket()).unwrap();
    daemon.stop();
    assert!(UnixStream::connect(daemon.socket()).is_ok());
    drop(other);
    assert!(!daemon.socket().exists());
}

#[test]
fn a_daemon_that_died_leaves_a_socket_that_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let daemon = FakeDaemon::start_in(dir, Limits::default());
    assert!(
        Client::connect(daemon.socket())
            .unwrap()
            .call(&Request::Drops {})
            .is_ok()
    );
    let error = ControlListener::bind(daemon.socket())
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        format!("another balancerd answers on {}", path.display())
    );
}

#[test]
fn a_looser_mode_lets_the_own_user_in_still() {
    let daemon = FakeDaemon::start();
    fs::set_permissions(daemon.socket(), Permissions::from_mode(0o666)).unwrap();
    assert!(
        Client::connect(daemon.socket())
            .unwrap()
            .call(&Request::Drops {})
            .is_ok()
    );
}
