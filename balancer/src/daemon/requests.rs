//! What operators ask over the control socket, fulfilled.

use std::sync::Arc;
use std::time::Instant;

use super::overrides::Overrides;
use super::reload::Reloader;
use super::report::{Filter, service_name};
use super::shared::Shared;
use super::tables::Tables;
use crate::config::{Backend, Service, Share};
use crate::control::document::{
    Change, ChangeDocument, Document, FlushDocument, Interface, ReloadDocument, Status,
    StatusDocument, Version, WithoutSockets, XdpMode,
};
use crate::control::{ControlError, Handler, Request};
use crate::datapath::kernel::KernelError;
use crate::datapath::netlink::{Link, Netlink, NetlinkError};

/// The handler of requests.
#[derive(Debug)]
pub struct Requests {
    tables: Shared<Tables>,
    reloader: Arc<Reloader>,
    started: Instant,
}

impl From<KernelError> for ControlError {
    fn from(error: KernelError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Requests {
    /// Answers from these tables; the daemon started now.
    #[must_use]
    pub fn new(tables: Shared<Tables>, reloader: Arc<Reloader>) -> Self {
        Self {
            tables,
            reloader,
            started: Instant::now(),
        }
    }

    async fn status(&self) -> Result<Document, ControlError> {
        let reload = self.reloader.status().await;
        let interfaces = self
            .interfaces()
            .await
            .map_err(|error| ControlError::Failed(error.to_string()))?;
        let config = self.reloader.path().to_owned();
        let uptime_seconds = self.started.elapsed().as_secs();
        let status = self.tables.with(move |tables| {
            let (connections, fill) = tables.fill();
            Ok::<_, KernelError>(Status {
                engine: tables.engine(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                config,
                interfaces,
                uptime_seconds,
                generation: tables.generation.into(),
                reload,
                connections,
                packets: tables.packets()?,
                tables: fill,
                pressure: tables.pressure()?,
                slow_path: tables.slow_path_counts(),
                workers: tables.worker_states(),
            })
        });
        Ok(Document::Status(Box::new(StatusDocument {
            version: Version,
            status: status.await?,
        })))
    }

    /// The interfaces, as the kernel has them now.
    async fn interfaces(&self) -> Result<Vec<Interface>, NetlinkError> {
        let links = Netlink::connect()?.links().await?;
        let known = |tables: &mut Tables| (tables.attached.clone(), tables.bare_queues.clone());
        let (attached, bare_queues) = self.tables.with(known).await;
        let interface = |link: Link| {
            let index = *attached.get(&link.name)?;
            let (_, native) = link.xdp?;
            let bare = bare_queues.get(&index);
            Some(Interface {
                name: link.name,
                index,
                mode: if native {
                    XdpMode::Native
                } else {
                    XdpMode::Generic
                },
                without_sockets: bare.map(|(queue, error)| WithoutSockets {
                    first_queue: *queue,
                    error: error.clone(),
                }),
            })
        };
        Ok(links.into_iter().filter_map(interface).collect())
    }

    /// Changes a backend's share and tells what it is then.
    async fn change(
        &self,
        service: String,
        backend: String,
        change: impl FnOnce(&mut Overrides, &Service, &Backend) -> Result<(), ControlError>
        + Send
        + 'static,
    ) -> Result<Document, ControlError> {
        let changed = self.tables.with(move |tables| {
            let (service, backend, id) = find(tables, &service, &backend)?;
            let mut result = Ok(());
            tables.change_shares(|overrides| result = change(overrides, &service, &backend))?;
            result?;
            Ok::<_, ControlError>(Change {
                service: service.name.clone(),
                backend: backend.to_string(),
                weight: super::report::weight(tables.overrides.share(&service, &backend)),
                state: tables.state(&service, &backend, id)?,
                connections_active: tables.active().get(&id).copied().unwrap_or(0),
            })
        });
        Ok(Document::Change(ChangeDocument {
            version: Version,
            changed: changed.await?,
        }))
    }

    async fn reload(&self, dry_run: bool) -> Document {
        let reload = if dry_run {
            self.reloader.rehearse().await
        } else {
            self.reloader.reload().await
        };
        Document::Reload(ReloadDocument {
            version: Version,
            reload,
        })
    }
}

/// A service and its backend by their names, with the backend's id.
fn find(
    tables: &Tables,
    service: &str,
    backend: &str,
) -> Result<(Service, Backend, u32), ControlError> {
    let services = &tables.config.services;
    let index = position(tables, service)?;
    let found = &services[index];
    let position = found
        .backends
        .iter()
        .position(|candidate| candidate.to_string() == backend)
        .ok_or_else(|| ControlError::UnknownBackend {
            service: service.to_owned(),
            backend: backend.to_owned(),
            known: found.backends.iter().map(ToString::to_string).collect(),
        })?;
    let id = tables.service_ids[index].backends[position];
    Ok((found.clone(), found.backends[position], id))
}

/// Where a service is.
fn position(tables: &Tables, service: &str) -> Result<usize, ControlError> {
    let services = &tables.config.services;
    services
        .iter()
        .position(|candidate| candidate.name == service)
        .ok_or_else(|| ControlError::UnknownService {
            service: service.to_owned(),
            known: services
                .iter()
                .map(|service| service.name.clone())
                .collect(),
        })
}

/// Whether a service is in the configuration, or was and may have connections still.
fn known(tables: &Tables, service: &str) -> Result<(), ControlError> {
    let mut left = tables.ids.backends();
    if left.any(|(_, identity)| service_name(identity) == service) {
        return Ok(());
    }
    position(tables, service).map(drop)
}

impl Handler for Requests {
    async fn handle(&self, request: Request) -> Result<Document, ControlError> {
        match request {
            Request::Status {} => self.status().await,
            Request::Services {} => {
                let services = self.tables.with(|tables| tables.services());
                Ok(Document::Services(services.await?))
            }
            Request::Connections {
                service,
                backend,
                limit,
            } => {
                let connections = self.tables.with(move |tables| {
                    if let Some(service) = &service {
                        known(tables, service)?;
                    }
                    Ok::<_, ControlError>(
                        tables.connections(&Filter { service, backend }, limit)?,
                    )
                });
                Ok(Document::Connections(connections.await?))
            }
            Request::Drops {} => {
                let drops = self.tables.with(|tables| tables.drops());
                Ok(Document::Drops(drops.await?))
            }
            Request::Reload { dry_run } => Ok(self.reload(dry_run).await),
            Request::Drain { service, backend } => {
                self.change(service, backend, |overrides, service, backend| {
                    overrides.drain(service, backend, true);
                    Ok(())
                })
                .await
            }
            Request::Undrain { service, backend } => {
                self.change(service, backend, |overrides, service, backend| {
                    overrides.drain(service, backend, false);
                    Ok(())
                })
                .await
            }
            Request::Weight {
                service,
                backend,
                weight,
            } => {
                self.change(service, backend, move |overrides, service, backend| {
                    if matches!(backend.share, Share::Probability(_)) {
                        return Err(ControlError::Invalid(format!(
                            "service \"{}\" has probabilities, not weights: change them in the configuration, \
                             or drain the backend",
                            service.name
                        )));
                    }
                    overrides.set_weight(service, backend, weight);
                    Ok(())
                })
                .await
            }
            Request::FlushConnections { service } => {
                let flushed = self.tables.with(move |tables| {
                    if let Some(service) = &service {
                        known(tables, service)?;
                    }
                    Ok::<_, ControlError>(tables.flush(service.as_deref())?)
                });
                Ok(Document::Flush(FlushDocument {
                    version: Version,
                    flushed: flushed.await?,
                }))
            }
        }
    }
}
