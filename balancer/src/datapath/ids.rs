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

    /// The ids of services and their backends, in their order; new ones are written to the maps. Those in effect are not
    /// given away, nor are the backend ids that flows refer to, for which `flows` is asked only when no other is left.
    ///
    /// # Errors
    /// [`KernelError`]; [`KernelError::NoIds`] when more services or backends are alive than there can be.
    pub fn assign(
        &mut self,
        kernel: &mut Kernel,
        services: &[Service],
        in_effect: &[ServiceIds],
        flows: impl Fn(&Kernel) -> HashSet<u32>,
    ) -> Result<Vec<ServiceIds>, KernelError> {
        let wanted: Vec<(Identity, Vec<Identity>)> = services
            .iter()
            .map(|service| (service_identity(service), backend_identities(service)))
            .collect();
        let named = wanted.iter().map(|(service, _)| service);
        let in_use = in_effect.iter().map(|ids| ids.service).collect();
        let mut new_services = self.services.free(named, in_use, HashSet::new)?;
        let named = wanted.iter().flat_map(|(_, backends)| backends);
        let in_use = in_effect.iter().flat_map(|ids| &ids.backends).copied();
        let mut new_backends = self
            .backends
            .free(named, in_use.collect(), || flows(kernel))?;
        let mut result = Vec::with_capacity(wanted.len());
        for (service, backends) in wanted {
            let id = if let Some(id) = self.services.find(&service) {
                id
            } else {
                let id = new_services.pop().ok_or(KernelError::NoIds)?;
                kernel.name_service(id, service, self.services.was_given(id))?;
                self.services.set(id, service);
                id
            };
            let mut ids = Vec::with_capacity(backends.len());
            for backend in backends {
                ids.push(if let Some(id) = self.backends.find(&backend) {
                    id
                } else {
                    let id = new_backends.pop().ok_or(KernelError::NoIds)?;
                    kernel.name_backend(id, backend, self.backends.was_given(id))?;
                    self.backends.set(id, backend);
                    id
                });
            }
            result.push(ServiceIds {
                service: id,
                backends: ids,
            });
        }
        Ok(result)
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

    /// Whether an id stands for something, or did.
    fn was_given(&self, id: u32) -> bool {
        let identity = self.by_id.get(id as usize);
        identity.is_none_or(|identity| *identity != Identity::default())
    }

    /// As many ids as there are new ones among `named`, the one to be given first last: those that were never given, then
    /// those that neither `named` nor `in_use` nor `more`, which is asked only then, has.
    fn free<'a>(
        &self,
        named: impl Iterator<Item = &'a Identity>,
        in_use: HashSet<u32>,
        more: impl FnOnce() -> HashSet<u32>,
    ) -> Result<Vec<u32>, KernelError> {
        let mut taken = in_use;
        let mut new = HashSet::new();
        for identity in named {
            match self.find(identity) {
                Some(id) => {
                    taken.insert(id);
                }
                None => {
                    new.insert(identity);
                }
            }
        }
        let is_unused = |id: &u32| !self.was_given(*id);
        let all = 0..self.by_id.len() as u32;
        let mut ids: Vec<u32> = all.clone().filter(is_unused).take(new.len()).collect();
        if ids.len() < new.len() {
            taken.extend(more());
            let old = all.filter(|id| !is_unused(id) && !taken.contains(id));
            ids.extend(old.take(new.len() - ids.len()));
        }
        if ids.len() < new.len() {
            return Err(KernelError::NoIds);
        }
        ids.reverse();
        Ok(ids)
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
