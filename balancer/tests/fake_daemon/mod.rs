//! A control server with made-up answers, on a socket of its own.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use balancer::control::document::{
    Backend, BackendState, Change, ChangeDocument, Connection, ConnectionState,
    ConnectionsDocument, Document, DropsDocument, FlushDocument, Refused, Reload, ReloadDocument,
    Service, ServicesDocument, Traffic, Version,
};
use balancer::control::{ControlError, ControlListener, Handler, Limits, Request, serve_within};
use nix::unistd::Gid;
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Serves until it is dropped.
pub struct FakeDaemon {
    dir: TempDir,
    socket: PathBuf,
    answers: Arc<Answers>,
    stop: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// One service `web` with one backend `10.0.0.3:8443`; once drained, each look at it finds one connection less.
pub struct Answers {
    connections: AtomicU64,
    drained: AtomicU64,
    reloads_begun: AtomicU64,
}

impl FakeDaemon {
    pub fn start() -> Self {
        Self::start_within(Limits::default())
    }

    pub fn start_within(limits: Limits) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), limits)
    }

    pub fn start_in(dir: TempDir, limits: Limits) -> Self {
        let socket = dir.path().join("control.sock");
        let listener = ControlListener::bind(&socket).unwrap();
        let answers = Arc::new(Answers {
            connections: AtomicU64::new(3),
            drained: AtomicU64::new(0),
            reloads_begun: AtomicU64::new(0),
        });
        let handler = Arc::clone(&answers);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let shutdown = async { drop(stopped.await) };
            runtime
                .block_on(serve_within(limits, listener, handler, shutdown))
                .unwrap();
        });
        Self {
            dir,
            socket,
            answers,
            stop: Some((stop, thread)),
        }
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The group of the socket file.
    pub fn group(&self) -> Gid {
        Gid::from_raw(std::fs::symlink_metadata(&self.socket).unwrap().gid())
    }

    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    pub fn reloads_begun(&self) -> u64 {
        self.answers.reloads_begun.load(Ordering::SeqCst)
    }

    /// Stops it in order and waits for its end.
    pub fn stop(&mut self) {
        if let Some((stop, thread)) = self.stop.take() {
            drop(stop);
            thread.join().unwrap();
        }
    }
}

impl Drop for FakeDaemon {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Answers {
    fn state(&self) -> BackendState {
        if self.drained.load(Ordering::SeqCst) == 1 {
            BackendState::Drained
        } else {
            BackendState::Up
        }
    }

    fn change(&self, service: &str, backend: &str, weight: u16) -> Result<Document, ControlError> {
        known_service(Some(service))?;
        if backend != "10.0.0.3:8443" {
            return Err(ControlError::UnknownBackend {
                service: service.into(),
                backend: backend.into(),
                known: vec!["10.0.0.3:8443".into()],
            });
        }
        let changed = Change {
            service: service.into(),
            backend: backend.into(),
            weight,
            state: self.state(),
            connections_active: self.connections.load(Ordering::SeqCst),
        };
        Ok(Document::Change(ChangeDocument {
            version: Version,
            changed,
        }))
    }

    fn services(&self) -> ServicesDocument {
        if self.state() == BackendState::Drained {
            let less = |connections: u64| Some(connections.saturating_sub(1));
            let _ = self
                .connections
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        }
        let backend = Backend {
            address: "10.0.0.3:8443".into(),
            state: self.state(),
            weight: 1,
            connections_active: self.connections.load(Ordering::SeqCst),
            connections_total: 120,
            probability: None,
            forward: Traffic {
                packets: 900,
                bytes: 81_000,
            },
            reply: Traffic {
                packets: 870,
                bytes: 640_000,
            },
        };
        let service = Service {
            name: "web".into(),
            protocol: "tcp".into(),
            listen: "192.0.2.10:443".into(),
            scheduler: "nth".into(),
            source_nat: "masquerade".into(),
            backends: vec![backend],
            refused: Refused::default(),
        };
        ServicesDocument {
            version: Version,
            services: vec![service],
        }
    }
}

fn known_service(service: Option<&str>) -> Result<(), ControlError> {
    match service {
        None | Some("web") => Ok(()),
        Some(other) => Err(ControlError::UnknownService {
            service: other.into(),
            known: vec!["web".into()],
        }),
    }
}

/// As many connections as asked for of 5000, or all.
fn connections(limit: u64) -> ConnectionsDocument {
    let total = 5000;
    let shown = if limit == 0 { total } else { limit.min(total) };
    let connection = Connection {
        service: "web".into(),
        backend: "10.0.0.3:8443".into(),
        protocol: "tcp".into(),
        client: "198.51.100.7:50123".parse().unwrap(),
        virtual_address: "192.0.2.10:443".parse().unwrap(),
        source: "10.0.0.1:1024".parse().unwrap(),
        destination: "10.0.0.3:8443".parse().unwrap(),
        state: ConnectionState::Established,
        age_seconds: 10,
        idle_seconds: 1,
        forward: Traffic::default(),
        reply: Traffic::default(),
    };
    let connections = std::iter::repeat_n(connection, shown as usize).collect();
    ConnectionsDocument {
        version: Version,
        connections,
        truncated: shown < total,
        total,
    }
}

impl Handler for Answers {
    async fn handle(&self, request: Request) -> Result<Document, ControlError> {
        match request {
            Request::Status {} => Err(ControlError::Failed("two\nlines".into())),
            Request::Services {} => Ok(Document::Services(self.services())),
            Request::Connections { service, limit, .. } => {
                known_service(service.as_deref())?;
                Ok(Document::Connections(connections(limit)))
            }
            Request::Drops {} => {
                let drops = BTreeMap::from([("bad_checksum".into(), 3), ("land".into(), 0)]);
                Ok(Document::Drops(DropsDocument {
                    version: Version,
                    drops,
                }))
            }
            Request::Reload { dry_run } => {
                self.reloads_begun.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100)).await;
                let errors = if dry_run {
                    vec!["lb.toml:3:1: unknown key".into()]
                } else {
                    Vec::new()
                };
                let reload = Reload {
                    applied: !dry_run,
                    generation: 7,
                    changes: Vec::new(),
                    errors,
                };
                Ok(Document::Reload(ReloadDocument {
                    version: Version,
                    reload,
                }))
            }
            Request::Drain { service, backend } => {
                self.drained.store(1, Ordering::SeqCst);
                self.change(&service, &backend, 1)
            }
            Request::Undrain { service, backend } => {
                self.drained.store(0, Ordering::SeqCst);
                self.change(&service, &backend, 1)
            }
            Request::Weight {
                service,
                backend,
                weight,
            } => self.change(&service, &backend, weight),
            Request::FlushConnections { service } => {
                assert_ne!(service.as_deref(), Some("panic"), "as the test asked for");
                known_service(service.as_deref())?;
                Ok(Document::Flush(FlushDocument {
                    version: Version,
                    flushed: 7,
                }))
            }
        }
    }
}
