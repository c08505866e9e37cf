//! That the documents keep their names.

use std::fmt::Debug;

use serde::de::DeserializeOwned;

use super::*;
use crate::control::samples;

/// Writes a document, reads it back, and returns what was written.
fn round_trip<D>(document: &D) -> String
where
    D: Clone + Debug + PartialEq + Serialize + DeserializeOwned,
{
    let text = serde_json::to_string_pretty(document).unwrap();
    assert_eq!(serde_json::from_str::<D>(&text).unwrap(), *document);
    text
}

// The snapshots are the promise to scripts: a line that vanishes from one, or changes its name, breaks them.

#[test]
fn status() {
    insta::assert_snapshot!(round_trip(&samples::status()));
}

#[test]
fn services() {
    insta::assert_snapshot!(round_trip(&samples::services()));
}

#[test]
fn connections() {
    insta::assert_snapshot!(round_trip(&samples::connections()));
}

#[test]
fn drops() {
    insta::assert_snapshot!(round_trip(&samples::drops()));
}

#[test]
fn reload() {
    insta::assert_snapshot!(round_trip(&samples::reload_refused()));
}

#[test]
fn change() {
    insta::assert_snapshot!(round_trip(&samples::change()));
}

#[test]
fn flush() {
    insta::assert_snapshot!(round_trip(&FlushDocument {
        version: Version,
        flushed: 12
    }));
}

#[test]
fn error() {
    let document = ErrorDocument {
        version: Version,
        error: "two\nlines".into(),
    };
    insta::assert_snapshot!(round_trip(&document));
}

#[test]
fn a_document_is_written_as_what_it_holds() {
    let inner = serde_json::to_string(&samples::services()).unwrap();
    let outer = serde_json::to_string(&Document::Services(samples::services())).unwrap();
    assert_eq!(outer, inner);
}

#[test]
fn another_version_is_not_read() {
    for text in [
        r#"{"version":2,"flushed":1}"#,
        r#"{"version":"1","flushed":1}"#,
        r#"{"flushed":1}"#,
    ] {
        assert!(
            serde_json::from_str::<FlushDocument>(text).is_err(),
            "{text}"
        );
    }
}

#[test]
fn a_field_of_a_newer_daemon_is_passed_over() {
    let text = r#"{"version":1,"flushed":1,"kept":2}"#;
    assert_eq!(
        serde_json::from_str::<FlushDocument>(text).unwrap().flushed,
        1
    );
}

#[test]
fn every_state_has_its_word() {
    let backend = [
        (BackendState::Up, "up"),
        (BackendState::Drained, "drained"),
        (BackendState::Unresolved, "unresolved"),
        (BackendState::Removed, "removed"),
    ];
    for (state, expected) in backend {
        assert_eq!(serde_json::to_value(state).unwrap(), expected);
    }
    let connection = [
        (ConnectionState::Handshake, "handshake"),
        (ConnectionState::Established, "established"),
        (ConnectionState::Closing, "closing"),
        (ConnectionState::OneWay, "one-way"),
        (ConnectionState::Stream, "stream"),
    ];
    for (state, expected) in connection {
        assert_eq!(serde_json::to_value(state).unwrap(), expected);
    }
    for (engine, expected) in [(Engine::Kernel, "kernel"), (Engine::Userspace, "userspace")] {
        assert_eq!(serde_json::to_value(engine).unwrap(), expected);
    }
}

#[test]
fn times_are_utc_and_never_panic() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    assert_eq!(rfc3339(at(1_796_041_296)), "2026-11-30T12:21:36Z");
    assert_eq!(
        rfc3339(SystemTime::UNIX_EPOCH - Duration::from_secs(1)),
        "1970-01-01T00:00:00Z"
    );
    assert_eq!(rfc3339(at(1 << 40)), "9999-12-31T23:59:59Z");
}
