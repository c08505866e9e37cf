//! Ids of services and backends: the same as long as anything refers to them, across reloads and restarts.
//!
//! They live in two pinned maps, from id to what it stands for. An id is given to something else only when all are
//! used up, and then only when it is neither in the config nor in a flow.

use std::collections::{HashMap, HashSet};

use aya::maps::{Array, MapData};
use balancer_common::abi::Identity;

use super::compile::{ServiceIds, protocol_number, words};
use super::kernel::{Kernel, KernelError};
use super::raw::Record;
use crate::config::Service;

/// What has which id.
#[derive(Debug, Default)]
pub struct Ids {
    services: Table,
    backends: Table,
}

/// One of the two tables.
#[derive(Debug, Default)]
struct Table {
    by_identity: HashMap<Identity, u32>,
    by_id: Vec<Identity>,
}

impl Ids {
    /// Reads what an earlier daemon left, or nothing.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn read(kernel: &Kernel) -> Result<Self, KernelError> {
        Ok(Self {
            services: Table::read(&kernel.services)?,
            backends: Table::read(&kernel.backends)?,
        })
    }

    /// The ids of services and their backends, in their order; new ones are written to the maps. `used` tells which
    /// backend ids flows refer to; it is asked only when all ids are used up.
    ///
    /// # Errors
    /// [`KernelError`]; [`KernelError::NoIds`] when more backends are alive than there can be.
    pub fn assign(
        &mut self,
        kernel: &mut Kernel,
        services: &[Service],
        used: impl Fn(&Kernel) -> Result<HashSet<u32>, KernelError>,
    ) -> Result<Vec<ServiceIds>, KernelError> {
        let wanted: Vec<(Identity, Vec<Identity>)> = services
            .iter()
            .map(|service| (service_identity(service), backend_identities(service)))
            .collect();
        let mut service_ids = HashSet::new();
        let mut backend_ids = HashSet::new();
        for (service, backends) in &wanted {
            service_ids.extend(self.services.by_identity.get(service));
            backend_ids.extend(
                backends
                    .iter()
                    .filter_map(|backend| self.backends.by_identity.get(backend)),
            );
        }
        let mut result = Vec::with_capacity(wanted.len());
        for (service, backends) in wanted {
            let id = self.services.find(&service).map_or_else(
                || {
                    let id = self.services.free(&service_ids).ok_or(KernelError::NoIds)?;
                    kernel.name_service(id, service)?;
                    self.services.set(id, service);
                    Ok::<u32, KernelError>(id)
                },
                Ok,
            )?;
            service_ids.insert(id);
            let mut ids = Vec::with_capacity(backends.len());
            for backend in backends {
                let id = self.backend_id(kernel, backend, &backend_ids, &used)?;
                backend_ids.insert(id);
                ids.push(id);
            }
            result.push(ServiceIds {
                service: id,
                backends: ids,
            });
        }
        Ok(result)
    }

    fn backend_id(
        &mut self,
        kernel: &mut Kernel,
        backend: Identity,
        configured: &HashSet<u32>,
        used: &impl Fn(&Kernel) -> Result<HashSet<u32>, KernelError>,
    ) -> Result<u32, KernelError> {
        if let Some(id) = self.backends.find(&backend) {
            return Ok(id);
        }
        let mut id = self.backends.unused();
        if id.is_none() {
            let taken = used(kernel)?.union(configured).copied().collect();
            id = self.backends.free(&taken);
        }
        let id = id.ok_or(KernelError::NoIds)?;
        kernel.name_backend(id, backend)?;
        self.backends.set(id, backend);
        Ok(id)
    }

    /// Every backend id and what it stands for.
    pub fn backends(&self) -> impl Iterator<Item = (u32, &Identity)> {
        let all = (0..).zip(&self.backends.by_id);
        all.filter(|(_, identity)| **identity != Identity::default())
    }

    /// What a backend id stands for.
    #[must_use]
    pub fn backend(&self, id: u32) -> Option<&Identity> {
        self.backends
            .by_id
            .get(id as usize)
            .filter(|identity| **identity != Identity::default())
    }
}

impl Table {
    fn read(map: &Array<MapData, Record<Identity>>) -> Result<Self, KernelError> {
        let mut table = Self {
            by_id: vec![Identity::default(); map.len() as usize],
            ..Self::default()
        };
        for (id, identity) in (0..).zip(map.iter()) {
            let Record(identity) = identity?;
            if identity != Identity::default() {
                table.set(id, identity);
            }
        }
        Ok(table)
    }

    fn find(&self, identity: &Identity) -> Option<u32> {
        self.by_identity.get(identity).copied()
    }

    /// An id that was never given.
    fn unused(&self) -> Option<u32> {
        let index = self
            .by_id
            .iter()
            .position(|identity| *identity == Identity::default())?;
        Some(index as u32)
    }

    /// An id that was never given, else one that is not among `taken`.
    fn free(&self, taken: &HashSet<u32>) -> Option<u32> {
        self.unused()
            .or_else(|| (0..self.by_id.len() as u32).find(|id| !taken.contains(id)))
    }

    fn set(&mut self, id: u32, identity: Identity) {
        if let Some(slot) = self.by_id.get_mut(id as usize) {
            self.by_identity.remove(slot);
            *slot = identity;
            self.by_identity.insert(identity, id);
        }
    }
}

fn service_identity(service: &Service) -> Identity {
    let mut identity = Identity {
        protocol: protocol_number(service.protocol),
        ..Identity::default()
    };
    // The config has seen to it that names are shorter.
    for (slot, byte) in identity.service.iter_mut().zip(service.name.bytes()) {
        *slot = byte;
    }
    identity
}

fn backend_identities(service: &Service) -> Vec<Identity> {
    let of_service = service_identity(service);
    let identity = |backend: &crate::config::Backend| {
        let [first, second] = words(backend.address).map(u64::to_ne_bytes);
        let mut address = [0; 16];
        address[..8].copy_from_slice(&first);
        address[8..].copy_from_slice(&second);
        Identity {
            address,
            port: backend.port.unwrap_or(0),
            ..of_service
        }
    };
    service.backends.iter().map(identity).collect()
}
