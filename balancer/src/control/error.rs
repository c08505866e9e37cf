//! Why the daemon refuses a request.

use std::fmt::Write as _;

/// A request the daemon understood and cannot fulfil; its text is what the client shows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The configuration has no such service.
    #[error("no service \"{service}\"{}", list("services", known))]
    UnknownService {
        /// What was asked for.
        service: String,
        /// The services there are.
        known: Vec<String>,
    },
    /// The service has no such backend.
    #[error(
        "service \"{service}\" has no backend \"{backend}\"{}",
        list("backends", known)
    )]
    UnknownBackend {
        /// The service.
        service: String,
        /// What was asked for.
        backend: String,
        /// The backends there are.
        known: Vec<String>,
    },
    /// The request makes no sense for this daemon; the text says why and what does.
    #[error("{0}")]
    Invalid(String),
    /// The daemon tried and failed; the text says at what.
    #[error("{0}")]
    Failed(String),
}

/// `" (services: web, dns)"`; of a long list its beginning.
fn list(what: &str, known: &[String]) -> String {
    const SHOWN: usize = 10;
    if known.is_empty() {
        return format!(" (there are no {what})");
    }
    let mut text = format!(" ({what}: {}", known[..known.len().min(SHOWN)].join(", "));
    if known.len() > SHOWN {
        let _ = write!(text, " and {} more", known.len() - SHOWN);
    }
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let names = |count: usize| (1..=count).map(|n| format!("s{n}")).collect::<Vec<_>>();
        let text = |known| {
            ControlError::UnknownService {
                service: "wbe".into(),
                known,
            }
            .to_string()
        };
        assert_eq!(
            text(names(0)),
            r#"no service "wbe" (there are no services)"#
        );
        assert_eq!(text(names(2)), r#"no service "wbe" (services: s1, s2)"#);
        assert!(
            text(names(12)).ends_with("s9, s10 and 2 more)"),
            "{}",
            text(names(12))
        );
    }
}
