//! Reads TOML, and turns its syntax errors into ours.

use std::ops::Range;

use serde_spanned::Spanned;
use toml::de::DeTable;

use super::error::Errors;

/// How far the tables of a file can be trusted after its syntax errors.
pub(super) enum Trust {
    /// There were none.
    Whole,
    /// Errors that start in these lines are consequences of syntax errors.
    ExceptLines(Vec<Range<usize>>),
    /// Keys may have ended up in the wrong table: further errors would mislead.
    Nothing,
}

/// Parses a file as far as possible.
pub(super) fn read<'a>(text: &'a str, errors: &mut Errors) -> (Spanned<DeTable<'a>>, Trust) {
    let (document, found) = DeTable::parse_recoverable(text);
    let mut found: Vec<_> = found
        .iter()
        .map(|error| (error.span().unwrap_or(0..0), error.message()))
        .collect();
    found.sort_by_key(|(span, _)| span.start);
    let mut lines: Vec<Range<usize>> = Vec::new();
    let mut local = true;
    let mut in_doubt = false;
    for (span, message) in found {
        let line = line_around(text, span.start);
        if lines.contains(&line) {
            continue;
        }
        let in_array = message.contains("array");
        if !(in_array && in_doubt) {
            local &= describe(text, &span, message, errors);
        }
        // An unclosed string hides the end of its list.
        in_doubt |= in_array || message.contains("string, expected");
        lines.push(line);
    }
    let trust = match (lines.is_empty(), local) {
        (true, _) => Trust::Whole,
        (false, true) => Trust::ExceptLines(lines),
        (false, false) => Trust::Nothing,
    };
    (document, trust)
}

/// Adds one syntax error. Returns whether it spoils no more than its own line.
fn describe(text: &str, span: &Range<usize>, message: &str, errors: &mut Errors) -> bool {
    if message == "duplicate key" {
        let key = text.get(span.clone()).unwrap_or_default().escape_debug();
        let header = text[line_around(text, span.start)]
            .trim_start()
            .starts_with('[');
        errors.add(span, format!("`{key}` is given twice")).help(if header {
            "put all its keys below one header; what can repeat has two brackets, such as [[service]]"
        } else {
            "remove one of them"
        });
        return true;
    }
    let scalar = [
        "string values must be quoted",
        "invalid boolean",
        "invalid float",
        "invalid integer",
        "invalid datetime",
    ];
    if !scalar.iter().any(|start| message.starts_with(start)) {
        let (message, help) = match message {
            m if m.starts_with("missing comma") => (
                "a list continues here, expected `,` or `]`",
                "a list ends with `]`",
            ),
            m if m.contains("array") => (
                m,
                "values in a list are separated by `,`, and the list ends with `]`",
            ),
            m if m.starts_with("unclosed table") => {
                (m, "a header looks like [datapath] or [[service]]")
            }
            m if m.starts_with("invalid basic string") => {
                (m, "a string begins and ends with `\"` on the same line")
            }
            m if m.starts_with("key with no value") => (m, "a key looks like `name = value`"),
            m => (m, "the file is TOML, see https://toml.io"),
        };
        errors.add(span, message).help(help);
        return false;
    }
    // The whole word, wherever in it the parser stumbled.
    let ends = |c: char| c.is_whitespace() || "#,[]{}=".contains(c);
    let before = text.get(..span.start).unwrap_or_default();
    let start = before.trim_end_matches(|c| !ends(c)).len();
    let word = text[start..].split(ends).next().unwrap_or_default();
    if word.is_empty() {
        errors
            .add(span, "a value is missing here")
            .help("write a value, or remove the key");
    } else {
        let shown = word.escape_debug();
        errors
            .add(
                &(start..start + word.len()),
                format!("`{shown}` is not a value"),
            )
            .help(format!(
                "words, addresses and durations stand in quotes: \"{shown}\""
            ));
    }
    true
}

/// The line that holds `offset`, without its end.
fn line_around(text: &str, offset: usize) -> Range<usize> {
    let offset = offset.min(text.len());
    let bytes = text.as_bytes();
    let start = bytes[..offset]
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |at| at + 1);
    let end = bytes[offset..]
        .iter()
        .position(|b| *b == b'\n')
        .map_or(text.len(), |at| offset + at);
    start..end
}
