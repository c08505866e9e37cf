//! `docs/conformance.md` names tests that there are, and says of each requirement what it may say.

#![allow(clippy::unwrap_used, reason = "a test that fails here has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where tests are.
const SOURCES: [&str; 4] = [
    "balancer-common/src",
    "balancer-common/tests",
    "balancer/src",
    "balancer/tests",
];

/// Where vectors are.
const VECTORS: &str = "balancer/tests/table";

const STATUSES: [&str; 5] = ["met", NO_TEST, "partly", "not met", "waived"];

const NO_TEST: &str = "met, no test";

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn document() -> String {
    fs::read_to_string(root("docs/conformance.md")).unwrap()
}

/// The Rust files of a folder and those in it, each with its path and its text.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path.display().to_string(), text));
        }
    }
    found
}

/// What stands between two of these characters, of each line on its own.
fn between(text: &str, mark: char) -> Vec<&str> {
    let lines = text.lines();
    lines
        .flat_map(|line| {
            let parts: Vec<&str> = line.split(mark).collect();
            assert!(parts.len() % 2 == 1, "a {mark} without another one: {line}");
            parts.into_iter().skip(1).step_by(2)
        })
        .collect()
}

/// A requirement.
struct Row {
    /// Which one, as `RFC 4787, REQ-1`.
    key: String,
    status: String,
    shown: String,
}

/// The rows of all sections about RFCs.
fn rows(document: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut section = None;
    for line in document.lines() {
        if let Some(header) = line.strip_prefix("## ") {
            section = header
                .starts_with("RFC ")
                .then(|| header.split(':').next().unwrap());
        }
        let (Some(section), Some(row)) = (section, line.strip_prefix("| ")) else {
            continue;
        };
        if row.starts_with("---") || row.starts_with("requirement ") {
            continue;
        }
        let cells: Vec<&str> = row
            .trim_end_matches('|')
            .split('|')
            .map(str::trim)
            .collect();
        let [requirement, status, shown] = cells[..] else {
            panic!("not three cells: {line}");
        };
        let (number, _) = requirement
            .split_once(": ")
            .unwrap_or_else(|| panic!("no number: {line}"));
        let key = if number.starts_with("RFC ") {
            number.to_owned()
        } else {
            format!("{section}, {number}")
        };
        rows.push(Row {
            key,
            status: status.to_owned(),
            shown: shown.to_owned(),
        });
    }
    assert!(rows.len() > 100, "{}", rows.len());
    rows
}

#[test]
fn every_test_that_is_named_exists() {
    let document = document();
    let sources: Vec<_> = SOURCES
        .iter()
        .flat_map(|folder| sources(&root(folder)))
        .collect();
    let named: Vec<(&str, &str)> = between(&document, '`')
        .into_iter()
        .filter_map(|code| code.split_once(".rs::"))
        .collect();
    assert!(named.len() > 50, "{}", named.len());
    for (file, function) in named {
        let (end, signature) = (format!("/{file}.rs"), format!("fn {function}()"));
        let exists = sources
            .iter()
            .any(|(path, text)| path.ends_with(&end) && text.contains(&signature));
        assert!(exists, "there is no {file}.rs::{function}");
    }
}

#[test]
fn every_vector_that_is_named_exists() {
    let document = document();
    let tables = sources(&root(VECTORS));
    let named = between(&document, '"');
    assert!(named.len() > 100, "{}", named.len());
    for name in named {
        let literal = format!("\"{name}\"");
        let exists = tables.iter().any(|(_, text)| text.contains(&literal));
        assert!(exists, "there is no vector {literal}");
    }
}

#[test]
fn every_requirement_has_a_status_and_what_shows_it() {
    let mut keys = BTreeSet::new();
    for Row { key, status, shown } in rows(&document()) {
        assert!(STATUSES.contains(&status.as_str()), "{key}: {status}");
        assert!(!shown.is_empty(), "{key}");
        let refers = shown.starts_with("as ") || shown.contains("the same vectors");
        let names = shown.contains('"') || shown.contains(".rs::");
        assert!(status != "met" || names || refers, "{key} is not shown");
        assert!(keys.insert(key.clone()), "{key} twice");
    }
}

#[test]
fn what_has_no_test_is_listed() {
    let document = document();
    let (_, list) = document.split_once("## Without a test").unwrap();
    let listed: BTreeSet<String> = list
        .lines()
        .filter_map(|line| line.strip_prefix("- ")?.split_once(": "))
        .map(|(key, _)| key.to_owned())
        .collect();
    let without: BTreeSet<String> = rows(&document)
        .into_iter()
        .filter(|row| row.status == NO_TEST)
        .map(|row| row.key)
        .collect();
    assert_eq!(listed, without);
}
