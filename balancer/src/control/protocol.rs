//! What a client asks.

use serde::{Deserialize, Serialize};

/// Longest request line in bytes, its newline not counted.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// How many connections [`Request::Connections`] lists when the request does not say.
pub const DEFAULT_CONNECTION_LIMIT: u64 = 1000;

/// One request: a JSON object on a line of its own, `{"request":"drain","service":"web","backend":"10.0.0.3:8443"}`.
///
/// A field this daemon does not know is an error: a filter it ignored would let `flush_connections` forget more than
/// was asked. (The variants without fields have braces for that reason: serde lets a unit variant carry anything.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The state of the daemon; answered by [`StatusDocument`](super::document::StatusDocument).
    Status {},
    /// Services and backends with their counters; answered by [`ServicesDocument`](super::document::ServicesDocument).
    Services {},
    /// Live connections; answered by [`ConnectionsDocument`](super::document::ConnectionsDocument).
    Connections {
        /// Only those of this service.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
        /// Only those on the backend of this address, as `services` shows it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        backend: Option<String>,
        /// At most so many; 0: all.
        #[serde(default = "default_limit")]
        limit: u64,
    },
    /// Dropped packets by reason; answered by [`DropsDocument`](super::document::DropsDocument).
    Drops {},
    /// Reads the configuration file again; answered by [`ReloadDocument`](super::document::ReloadDocument).
    Reload {
        /// Tells the difference and applies nothing.
        #[serde(default)]
        dry_run: bool,
    },
    /// No new connections to a backend; answered by [`ChangeDocument`](super::document::ChangeDocument).
    Drain {
        /// Name of the service.
        service: String,
        /// Address of the backend, as `services` shows it.
        backend: String,
    },
    /// Takes a drain back; answered by [`ChangeDocument`](super::document::ChangeDocument).
    Undrain {
        /// Name of the service.
        service: String,
        /// Address of the backend, as `services` shows it.
        backend: String,
    },
    /// Gives a backend another weight; answered by [`ChangeDocument`](super::document::ChangeDocument).
    Weight {
        /// Name of the service.
        service: String,
        /// Address of the backend, as `services` shows it.
        backend: String,
        /// The new weight; 0: no new connections.
        weight: u16,
    },
    /// Forgets connections; answered by [`FlushDocument`](super::document::FlushDocument).
    FlushConnections {
        /// Only those of this service.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
    },
}

fn default_limit() -> u64 {
    DEFAULT_CONNECTION_LIMIT
}

impl Request {
    /// Whether the request may change what the daemon does; those are logged with who asked.
    #[must_use]
    pub fn changes_state(&self) -> bool {
        match self {
            Self::Status {} | Self::Services {} | Self::Connections { .. } | Self::Drops {} => {
                false
            }
            Self::Reload { dry_run } => !dry_run,
            Self::Drain { .. }
            | Self::Undrain { .. }
            | Self::Weight { .. }
            | Self::FlushConnections { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> (String, String) {
        ("web".into(), "10.0.0.3:8443".into())
    }

    /// Each request with its line: the words on the wire are held on to by scripts that speak to the socket.
    fn requests() -> Vec<(Request, &'static str)> {
        let (service, backend) = web();
        vec![
            (Request::Status {}, r#"{"request":"status"}"#),
            (Request::Services {}, r#"{"request":"services"}"#),
            (
                Request::Connections {
                    service: None,
                    backend: None,
                    limit: 0,
                },
                r#"{"request":"connections","limit":0}"#,
            ),
            (
                Request::Connections {
                    service: Some(service.clone()),
                    backend: Some(backend.clone()),
                    limit: 7,
                },
                r#"{"request":"connections","service":"web","backend":"10.0.0.3:8443","limit":7}"#,
            ),
            (Request::Drops {}, r#"{"request":"drops"}"#),
            (
                Request::Reload { dry_run: true },
                r#"{"request":"reload","dry_run":true}"#,
            ),
            (
                Request::Drain {
                    service: service.clone(),
                    backend: backend.clone(),
                },
                r#"{"request":"drain","service":"web","backend":"10.0.0.3:8443"}"#,
            ),
            (
                Request::Undrain {
                    service: service.clone(),
                    backend: backend.clone(),
                },
                r#"{"request":"undrain","service":"web","backend":"10.0.0.3:8443"}"#,
            ),
            (
                Request::Weight {
                    service: service.clone(),
                    backend,
                    weight: 65535,
                },
                r#"{"request":"weight","service":"web","backend":"10.0.0.3:8443","weight":65535}"#,
            ),
            (
                Request::FlushConnections { service: None },
                r#"{"request":"flush_connections"}"#,
            ),
            (
                Request::FlushConnections {
                    service: Some(service),
                },
                r#"{"request":"flush_connections","service":"web"}"#,
            ),
        ]
    }

    #[test]
    fn each_request_has_one_line_and_comes_back_from_it() {
        for (request, line) in requests() {
            assert_eq!(serde_json::to_string(&request).unwrap(), line);
            assert_eq!(serde_json::from_str::<Request>(line).unwrap(), request);
        }
    }

    #[test]
    fn left_out_fields_have_their_defaults() {
        let line = r#"{"request":"connections"}"#;
        let expected = Request::Connections {
            service: None,
            backend: None,
            limit: DEFAULT_CONNECTION_LIMIT,
        };
        assert_eq!(serde_json::from_str::<Request>(line).unwrap(), expected);
        let line = r#"{"request":"reload"}"#;
        assert_eq!(
            serde_json::from_str::<Request>(line).unwrap(),
            Request::Reload { dry_run: false }
        );
    }

    #[test]
    fn what_is_not_a_request_is_refused() {
        let cases = [
            ("not JSON", "drain web"),
            ("empty", ""),
            ("no request", "{}"),
            ("unknown request", r#"{"request":"drian"}"#),
            (
                "a field is missing",
                r#"{"request":"drain","service":"web"}"#,
            ),
            (
                "a field too many",
                r#"{"request":"flush_connections","client":"1.2.3.4"}"#,
            ),
            (
                "a field too many on a request without any",
                r#"{"request":"status","verbose":true}"#,
            ),
            (
                "weight out of range",
                r#"{"request":"weight","service":"web","backend":"b","weight":65536}"#,
            ),
            (
                "negative weight",
                r#"{"request":"weight","service":"web","backend":"b","weight":-1}"#,
            ),
            (
                "two requests on a line",
                r#"{"request":"status"}{"request":"drops"}"#,
            ),
        ];
        for (what, line) in cases {
            assert!(
                serde_json::from_str::<Request>(line).is_err(),
                "{what}: {line}"
            );
        }
    }

    #[test]
    fn only_requests_that_change_something_say_so() {
        let changing: Vec<_> = requests()
            .into_iter()
            .filter(|(request, _)| request.changes_state())
            .map(|(_, line)| line.split('"').nth(3).unwrap())
            .collect();
        assert_eq!(
            changing,
            [
                "drain",
                "undrain",
                "weight",
                "flush_connections",
                "flush_connections"
            ]
        );
        assert!(Request::Reload { dry_run: false }.changes_state());
    }
}
