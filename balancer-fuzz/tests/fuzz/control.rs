//! Any bytes over the control socket: each line gets one answer, of bounded length, and what operators change at run time can always be
//! compiled.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use balancer::config::{self, Backend, Config, Service};
use balancer::control::document::{
    BackendState, Change, ChangeDocument, Document, FlushDocument, Version,
};
use balancer::control::protocol::MAX_REQUEST_BYTES;
use balancer::control::{ControlError, ControlListener, Handler, Request, serve};
use balancer::daemon::overrides::Overrides;
use balancer::datapath::compile::{ServiceIds, compile};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::SERVICES;

/// What an answer may have besides what it repeats of the request: names of services and backends.
const OWN: usize = 1024;

/// Of more the answers do not fit into the socket's buffer. So no line here is longer than a request may be.
const LONGEST: usize = 4096;
const _: () = assert!(LONGEST < MAX_REQUEST_BYTES);

/// A server that runs as long as the process; its socket is there as long as the thread.
struct Server {
    folder: TempDir,
    state: Arc<State>,
}

/// What operators have changed, by a config.
struct State {
    config: Config,
    overrides: Mutex<Overrides>,
}

thread_local! {
    static SERVER: Server = Server::start();
}

/// The socket's name.
const SOCKET: &str = "control.sock";

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = ControlListener::bind(&folder.path().join(SOCKET)).unwrap();
        let text = format!("[datapath]\ninterfaces = [\"eth0\", \"eth1\"]\n{SERVICES}{RANDOM}");
        let state = Arc::new(State {
            config: config::parse("lb.toml", &text).unwrap(),
            overrides: Mutex::default(),
        });
        let handler = Arc::clone(&state);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime
                .block_on(serve(listener, handler, std::future::pending()))
                .unwrap();
        });
        Self { folder, state }
    }

    /// Sends these bytes over a new connection, and gives all that comes back.
    fn ask(&self, input: &[u8]) -> Vec<u8> {
        *self.state.overrides.lock().unwrap() = Overrides::default();
        let mut stream = UnixStream::connect(self.folder.path().join(SOCKET)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(input).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).unwrap();
        answers
    }
}

/// Probabilities, which cannot be changed.
const RANDOM: &str = r#"
[[service]]
name = "random"
listen = "192.0.2.11:80"
scheduler = "random"
  [[service.backend]]
  address = "10.0.0.3"
  probability = 0.25
  [[service.backend]]
  address = "10.0.0.4"
  probability = 0.75
"#;

/// Each request, also with other services and backends, alone and one after the other.
pub fn seeds() -> Vec<Vec<u8>> {
    let names = [
        ("web", "10.0.0.3:8080"),
        ("random", "10.0.0.4"),
        ("no", "no"),
    ];
    let mut requests = vec![
        Request::Status {},
        Request::Services {},
        Request::Drops {},
        Request::Reload { dry_run: true },
        Request::FlushConnections { service: None },
    ];
    for (service, backend) in
        names.map(|(service, backend)| (service.to_owned(), backend.to_owned()))
    {
        requests.extend([
            Request::Connections {
                service: Some(service.clone()),
                backend: Some(backend.clone()),
                limit: 7,
            },
            Request::Drain {
                service: service.clone(),
                backend: backend.clone(),
            },
            Request::Undrain {
                service: service.clone(),
                backend: backend.clone(),
            },
            Request::Weight {
                service: service.clone(),
                backend,
                weight: 65_535,
            },
            Request::FlushConnections {
                service: Some(service),
            },
        ]);
    }
    let line = |request: &Request| [serde_json::to_vec(request).unwrap(), b"\n".to_vec()].concat();
    let lines: Vec<Vec<u8>> = requests.iter().map(line).collect();
    let together = lines.concat();
    lines.into_iter().chain([together]).collect()
}

/// Sends it as it is.
pub fn check(input: &[u8]) {
    let input = &input[..input.len().min(LONGEST)];
    let answers = SERVER.with(|server| server.ask(input));
    // What comes after the last newline is no line.
    let lines = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').count() - 1;
    assert_eq!(lines(&answers), lines(input), "an answer to each line");
    let pairs = input
        .split_inclusive(|byte| *byte == b'\n')
        .zip(answers.split_inclusive(|byte| *byte == b'\n'));
    for (request, answer) in pairs {
        // A byte of what is repeated may have become six: `\u0000`, of which the backslash is then one of text.
        assert!(answer.len() <= 8 * request.len() + OWN);
        let document: Value = serde_json::from_slice(answer).unwrap();
        assert_eq!(document["version"], 1);
        let is_request = serde_json::from_slice::<Request>(request).is_ok();
        let error = document["error"].as_str().unwrap_or_default();
        assert_eq!(error.starts_with("not a request: "), !is_request, "{error}");
    }
}

impl State {
    /// Makes a change, and compiles what comes of it.
    fn change(
        &self,
        service: &str,
        backend: &str,
        change: impl FnOnce(&mut Overrides, &Service, &Backend),
    ) -> Result<Document, ControlError> {
        let services = &self.config.services;
        let found = services.iter().find(|it| it.name == service);
        let found = found.ok_or_else(|| ControlError::UnknownService {
            service: service.to_owned(),
            known: services.iter().map(|it| it.name.clone()).collect(),
        })?;
        let mut backends = found.backends.iter();
        let target = backends.find(|it| it.to_string() == backend);
        let target = target.ok_or_else(|| ControlError::UnknownBackend {
            service: service.to_owned(),
            backend: backend.to_owned(),
            known: found.backends.iter().map(ToString::to_string).collect(),
        })?;
        let mut overrides = self.overrides.lock().unwrap();
        change(&mut overrides, found, target);
        let effective = overrides.apply(found, |_| true);
        let ids = ServiceIds {
            service: 0,
            backends: (0..effective.backends.len() as u32).collect(),
        };
        let ports = self.config.datapath.source_ports;
        let image = compile(1, &[effective], &[ids], ports, |_| Some(1));
        assert!(!image.cells.is_empty());
        Ok(Document::Change(ChangeDocument {
            version: Version,
            changed: Change {
                service: found.name.clone(),
                backend: target.to_string(),
                weight: 1,
                state: BackendState::Up,
                connections_active: 0,
            },
        }))
    }
}

impl Handler for State {
    async fn handle(&self, request: Request) -> Result<Document, ControlError> {
        match request {
            Request::Drain { service, backend } => {
                self.change(&service, &backend, |overrides, service, backend| {
                    overrides.drain(service, backend, true);
                })
            }
            Request::Undrain { service, backend } => {
                self.change(&service, &backend, |overrides, service, backend| {
                    overrides.drain(service, backend, false);
                })
            }
            Request::Weight {
                service,
                backend,
                weight,
            } => self.change(&service, &backend, |overrides, service, backend| {
                overrides.set_weight(service, backend, weight);
            }),
            Request::FlushConnections { service } => Ok(Document::Flush(FlushDocument {
                version: Version,
                flushed: service.map_or(0, |name| name.len() as u64),
            })),
            other => Err(ControlError::Failed(format!("{other:?}"))),
        }
    }
}
