//! The kernel's tables and the configuration that they hold: the one place from which maps are written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use balancer_common::abi::{self, Path};
use balancer_common::table::flow::Flow;

use super::overrides::Overrides;
use crate::config::Config;
use crate::datapath::attach::attach;
use crate::datapath::compile::{Image, ServiceIds, compile};
use crate::datapath::flows::{Pass, now};
use crate::datapath::hops::HopKeeper;
use crate::datapath::ids::Ids;
use crate::datapath::kernel::{Kernel, KernelError};
use crate::datapath::netlink::Link;
use crate::datapath::pins::{PinError, Pins};
use crate::datapath::queues::Sockets;
use crate::slow_path::SlowPath;
use crate::userspace::{Reopened, Workers};

/// A backend's id and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The id.
    pub backend: u32,
    /// The address.
    pub address: IpAddr,
}

/// The tables, and what they were filled with.
#[derive(Debug)]
pub struct Tables {
    /// The maps and the program.
    pub kernel: Kernel,
    /// Where they are pinned.
    pub pins: Arc<Pins>,
    /// What has which id.
    pub ids: Ids,
    /// The configuration in effect.
    pub config: Config,
    /// The ids of its services.
    pub service_ids: Vec<ServiceIds>,
    /// The backends of the configuration that was named last, in effect or about to be.
    named: HashSet<u32>,
    /// The next hops of clients.
    hops: HopKeeper,
    /// What operators changed since.
    pub overrides: Overrides,
    /// The number of the configuration.
    pub generation: u32,
    /// The image is older than what it is made of: another could not be made.
    is_stale: bool,
    /// The index of each link, by its name.
    indexes: HashMap<String, u32>,
    /// The interfaces that the program is attached to, with their index.
    pub attached: BTreeMap<String, u32>,
    /// Who works on packets; `None`: the program does. Before the slow path, since it goes on with what that is given.
    pub workers: Option<Workers>,
    /// What is there for packets that are not finished; `None`: nothing.
    pub slow_path: Option<SlowPath>,
    /// What the program knows of the interfaces, by their index.
    links: BTreeMap<u32, abi::Link>,
    /// Why receive queues of an interface have no socket, from which on, by its index.
    pub bare_queues: BTreeMap<u32, (u32, String)>,
}

/// A pass of the sweeper.
#[derive(Debug, Default)]
pub struct Sweep {
    v4: Pass,
    v6: Pass,
}

/// What a pass found, and what it removed.
#[derive(Clone, Copy, Debug)]
pub struct Swept {
    /// Connections there.
    pub connections: u64,
    /// Of these half-open.
    pub half_open: u64,
    /// Connections removed.
    pub removed: u64,
}

/// Services that got their ids; the first half of a change.
#[derive(Debug)]
pub struct Named {
    config: Config,
    ids: Vec<ServiceIds>,
}

impl Named {
    /// The backends.
    pub fn targets(&self) -> impl Iterator<Item = Target> + '_ {
        let services = self.config.services.iter().zip(&self.ids);
        services.flat_map(|(service, ids)| {
            let backends = service.backends.iter().zip(&ids.backends);
            backends.map(|(backend, &id)| Target {
                backend: id,
                address: backend.address,
            })
        })
    }
}

impl Tables {
    /// Takes over what is in the maps. No packet sees anything of it before [`Tables::apply`].
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn new(
        kernel: Kernel,
        pins: Arc<Pins>,
        config: Config,
        workers: Option<Workers>,
        slow_path: Option<SlowPath>,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            ids: Ids::read(&kernel)?,
            kernel,
            pins,
            config,
            service_ids: Vec::new(),
            named: HashSet::new(),
            hops: HopKeeper::default(),
            overrides: Overrides::default(),
            generation: 0,
            is_stale: false,
            indexes: HashMap::new(),
            attached: BTreeMap::new(),
            workers,
            slow_path,
            links: BTreeMap::new(),
            bare_queues: BTreeMap::new(),
        })
    }

    /// Gives everything in a configuration its id; packets see nothing of it yet.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn name(&mut self, config: Config) -> Result<Named, KernelError> {
        let ids = self.ids.assign(
            &mut self.kernel,
            &config.services,
            &self.service_ids,
            in_use,
        )?;
        self.named = backends(&ids).collect();
        Ok(Named { config, ids })
    }

    /// Puts a configuration into effect, as one generation.
    ///
    /// # Errors
    /// [`KernelError`]; the one before stays in effect.
    pub fn apply(&mut self, named: Named) -> Result<(), KernelError> {
        let Named { config, ids } = named;
        let mut overrides = self.overrides.clone();
        overrides.keep(&self.config, &config);
        let generation = self.generation + 1;
        let image = self.image(&config, &ids, &overrides, generation)?;
        self.kernel.set_fragment_timeout(config.timeouts.fragment)?;
        if let Some(slow_path) = &self.slow_path {
            slow_path.set_fragment_timeout(config.timeouts.fragment);
        }
        self.kernel.set_image(&image)?;
        self.generation = generation;
        self.config = config;
        self.service_ids = ids;
        self.overrides = overrides;
        self.is_stale = false;
        Ok(())
    }

    /// Changes shares: `change` is tried on a copy, which counts once the image with it is in.
    ///
    /// # Errors
    /// [`KernelError`]; everything stays as it was.
    pub fn change_shares(
        &mut self,
        change: impl FnOnce(&mut Overrides),
    ) -> Result<(), KernelError> {
        let mut overrides = self.overrides.clone();
        change(&mut overrides);
        let image = self.image(&self.config, &self.service_ids, &overrides, self.generation)?;
        self.kernel.set_image(&image)?;
        self.overrides = overrides;
        self.is_stale = false;
        Ok(())
    }

    fn image(
        &self,
        config: &Config,
        ids: &[ServiceIds],
        overrides: &Overrides,
        generation: u32,
    ) -> Result<Image, KernelError> {
        let mut effective = Vec::with_capacity(ids.len());
        for (service, ids) in config.services.iter().zip(ids) {
            let mut resolved = Vec::with_capacity(ids.backends.len());
            for &backend in &ids.backends {
                resolved.push(self.is_resolved(backend)?);
            }
            effective.push(overrides.apply(service, |index| resolved[index]));
        }
        let ports = config.datapath.source_ports;
        let index = |name: &str| self.indexes.get(name).copied();
        Ok(compile(generation, &effective, ids, ports, index))
    }

    /// Whether the way to a backend is known.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn is_resolved(&self, backend: u32) -> Result<bool, KernelError> {
        Ok(self.kernel.path(backend)?.hop.is_known())
    }

    /// Writes ways to backends. A backend that became reachable, or ceased to be, comes into or falls out of its
    /// schedule.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn set_paths(&mut self, paths: &[(u32, Path)]) -> Result<(), KernelError> {
        let in_effect: HashSet<u32> = backends(&self.service_ids).collect();
        let mut has_come = false;
        for &(backend, path) in paths {
            let (was_known, is_known) = (self.is_resolved(backend)?, path.hop.is_known());
            self.is_stale |= in_effect.contains(&backend) && was_known != is_known;
            has_come |= is_known && !was_known;
            self.kernel.set_path(backend, path)?;
        }
        self.kernel.invalidate_hops()?;
        let refreshed = self.refresh();
        if let Some(slow_path) = self.slow_path.as_ref().filter(|_| has_come) {
            slow_path.way_has_come();
        }
        refreshed
    }

    /// Makes the image anew if it is older than what it is made of.
    fn refresh(&mut self) -> Result<(), KernelError> {
        if self.is_stale {
            self.change_shares(|_| {})?;
        }
        Ok(())
    }

    /// Takes note of the links that there are.
    pub fn know(&mut self, links: &[Link]) {
        self.indexes = links
            .iter()
            .map(|link| (link.name.clone(), link.index))
            .collect();
    }

    /// Attaches the program to the interfaces of the configuration that `links` has and that it is not attached to
    /// yet, under their present index.
    ///
    /// # Errors
    /// [`AttachError`](crate::datapath::attach::AttachError) of the first that failed; those before it are attached.
    pub fn attach(&mut self, links: &[Link]) -> anyhow::Result<()> {
        let names = &self.config.datapath.interfaces;
        let is_missing = |link: &&Link| {
            names.contains(&link.name) && self.attached.get(&link.name) != Some(&link.index)
        };
        let missing: Vec<&Link> = links.iter().filter(is_missing).collect();
        // Without the one that an interface had before it was made anew.
        let is_new = |name: &String| missing.iter().any(|link| link.name == *name);
        let old = self.attached.iter().filter(|(name, _)| !is_new(name));
        let new = missing.iter().map(|link| link.index);
        let all: Vec<u32> = old.map(|(_, &index)| index).chain(new).collect();
        if self.workers.is_some() {
            self.tend()?;
            // Before any packet is handed over.
            for link in &missing {
                self.link(link, &all)?;
            }
        }
        for link in missing {
            let mode = self.config.datapath.xdp_mode;
            attach(self.kernel.program()?, &self.pins, link, mode)?;
            if self.workers.is_none() {
                self.link(link, &all)?;
            }
            // If not, it is tried again when links change.
            self.attached.insert(link.name.clone(), link.index);
        }
        Ok(())
    }

    /// Lets packets leave by an interface, and be handed over that come in by it; by others than `all` none any more.
    fn link(&mut self, link: &Link, all: &[u32]) -> Result<(), KernelError> {
        let (name, index) = (&link.name, link.index);
        let stays = |other: &u32| *other != index && all.contains(other);
        self.links.retain(|other, _| stays(other));
        self.bare_queues.retain(|other, _| stays(other));
        let sockets = match (&self.workers, &self.slow_path) {
            (Some(workers), _) => {
                workers.retain(all);
                workers.open(index, self.links.values())?
            }
            (None, Some(slow_path)) => {
                slow_path.retain(all);
                slow_path.open(index, self.links.values()).unwrap_or_else(|error| {
                    tracing::warn!(interface = name, %error, "no AF_XDP sockets: senders of refused packets are not told");
                    Sockets {
                        error: Some(error),
                        ..Sockets::default()
                    }
                })
            }
            (None, None) => Sockets::default(),
        };
        if let Some(error) = sockets.error {
            let bare = (sockets.link.sockets, error.to_string());
            self.bare_queues.insert(index, bare);
        }
        for (number, socket) in (sockets.link.first_socket..).zip(&sockets.sockets) {
            self.kernel.set_socket(number, socket.as_fd())?;
        }
        let known = abi::Link {
            mtu: link.mtu,
            ..sockets.link
        };
        self.links.insert(index, known);
        self.write_links()
    }

    /// Has workers begun again that have died.
    ///
    /// # Errors
    /// What is tried again the next time: there can be no thread, or a map could not be written.
    pub fn tend(&mut self) -> anyhow::Result<()> {
        let Some(workers) = &self.workers else {
            return Ok(());
        };
        for Reopened {
            interface,
            queue,
            socket,
        } in workers.revive()?
        {
            match (socket, self.links.get(&interface)) {
                (Ok(socket), Some(link)) => {
                    let number = link.first_socket + queue;
                    self.kernel.set_socket(number, socket.as_fd())?;
                }
                (Err(error), _) => {
                    tracing::error!(interface, queue, %error, "no AF_XDP socket for this queue");
                }
                // The interface has gone.
                (Ok(_), None) => {}
            }
        }
        Ok(())
    }

    /// Follows the MTUs of the interfaces.
    fn follow_mtus(&mut self, links: &[Link]) -> Result<(), KernelError> {
        let before = self.links.clone();
        for link in links {
            if let Some(known) = self.links.get_mut(&link.index) {
                known.mtu = link.mtu;
            }
        }
        if self.links == before {
            return Ok(());
        }
        self.write_links()
    }

    fn write_links(&mut self) -> Result<(), KernelError> {
        let links = self.links.iter().map(|(&index, &link)| (index, link));
        self.kernel.set_links(links)
    }

    /// Attaches the program to the interfaces of the configuration that have none yet, to all or none. Says to which.
    ///
    /// # Errors
    /// As [`Tables::attach`].
    pub fn attach_new(&mut self, links: &[Link]) -> anyhow::Result<Vec<String>> {
        let bare = links.iter().filter(|link| link.xdp.is_none()).cloned();
        let bare: Vec<Link> = bare.collect();
        let attached = self.attach(&bare);
        let names: Vec<String> = self.attached.keys().cloned().collect();
        if attached.is_err() {
            self.take_off(&names);
        }
        attached.map(|()| names)
    }

    /// Takes the program off interfaces that it was just attached to.
    pub fn take_off(&mut self, interfaces: &[String]) {
        for name in interfaces {
            self.attached.remove(name);
            if let Err(error) = self.pins.remove_link(name) {
                tracing::error!(interface = name, %error, "the program stays attached");
            }
        }
    }

    /// Attaches the program to interfaces that were deleted and made anew.
    ///
    /// # Errors
    /// As [`Tables::attach`]; or that the image could not be made for the new index.
    pub fn attach_again(&mut self, links: &[Link]) -> anyhow::Result<()> {
        self.know(links);
        if self.attached.is_empty() {
            // Not started yet.
            return Ok(());
        }
        let before = self.attached.clone();
        let attached = self.attach(links);
        self.follow_mtus(links)?;
        if before != self.attached {
            tracing::info!("attached to an interface that was made anew");
            self.is_stale = true;
        }
        // Also for those that were attached before one was not.
        self.refresh()?;
        attached
    }

    /// Takes away the links of interfaces that an earlier daemon was attached to and this one is not.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn detach_others(&self) -> Result<(), PinError> {
        for name in self.pins.links()? {
            if !self.attached.contains_key(&name) {
                tracing::info!(interface = name, "no longer in the configuration: detached");
                self.pins.remove_link(&name)?;
            }
        }
        Ok(())
    }

    /// Goes on with a pass: removes connections that were idle for too long. Says whether there is more.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn look(&mut self, sweep: &mut Sweep) -> Result<bool, KernelError> {
        let (timeouts, now) = (&self.config.timeouts, now()?);
        let kernel = &mut self.kernel;
        Ok(kernel.v4.look(&mut sweep.v4, timeouts, now)
            || kernel.v6.look(&mut sweep.v6, timeouts, now))
    }

    /// How many connections that were over packets have replaced so far.
    #[must_use]
    pub fn replaced(&self) -> u64 {
        self.kernel.v4.count_replaced() + self.kernel.v6.count_replaced()
    }

    /// Ends a pass: gives back what the connections had.
    ///
    /// # Errors
    /// [`KernelError`]; what was not given back the next pass finds.
    pub fn free(&mut self, sweep: &Sweep) -> Result<Swept, KernelError> {
        let (v4, v6) = (&sweep.v4, &sweep.v6);
        self.kernel.keep_counts()?;
        let kernel = &mut self.kernel;
        let closed = self.hops.retain(&kernel.hops, [&v4.hops, &v6.hops]);
        if closed || !v4.is_empty() || !v6.is_empty() {
            grace(kernel, self.workers.as_ref())?;
            kernel.v4.free(v4);
            kernel.v6.free(v6);
        }
        Ok(Swept {
            connections: kernel.v4.count() + kernel.v6.count(),
            half_open: kernel.v4.count_half_open() + kernel.v6.count_half_open(),
            removed: v4.removed + v6.removed,
        })
    }

    /// Ends the work on packets, as far as it is the daemon's, and keeps what it has counted.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn end(&mut self) -> Result<(), KernelError> {
        if self.workers.is_some() {
            // Nothing is handed over any more; then they work on what has been, so that all of it is counted.
            for link in self.links.values_mut() {
                link.sockets = 0;
            }
            self.write_links()?;
            self.kernel.grace()?;
        }
        self.workers = None;
        self.kernel.keep_counts()
    }

    /// Removes the connections to backends that `wanted` picks by their id. Says how many.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn flush_backends(&mut self, wanted: impl Fn(u32) -> bool) -> Result<u64, KernelError> {
        let kernel = &mut self.kernel;
        let (v4, v6) = (kernel.v4.flush(&wanted), kernel.v6.flush(&wanted));
        grace(kernel, self.workers.as_ref())?;
        kernel.v4.free(&v4);
        kernel.v6.free(&v6);
        Ok(v4.removed + v6.removed)
    }

    /// How many connections each backend has that are not closing, by its id; those without any are not in it.
    ///
    /// # Errors
    /// [`KernelError`].
    #[must_use]
    pub fn active(&self) -> HashMap<u32, u64> {
        let mut counts = HashMap::new();
        self.kernel.v4.count_active(&mut counts);
        self.kernel.v6.count_active(&mut counts);
        counts
    }

    /// Backends that have connections.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn left_behind(&self) -> Result<Vec<Target>, KernelError> {
        let target = |backend: u32| {
            let identity = self.ids.backend(backend)?;
            Some(Target {
                backend,
                address: IpAddr::from(identity.address).to_canonical(),
            })
        };
        Ok(in_use(&self.kernel)
            .into_iter()
            .filter_map(target)
            .collect())
    }

    /// Every backend that packets may go to: those of the configuration, in effect or about to be, and those that still
    /// have connections.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn targets(&self) -> Result<HashSet<u32>, KernelError> {
        let mut targets = in_use(&self.kernel);
        targets.extend(backends(&self.service_ids));
        targets.extend(&self.named);
        Ok(targets)
    }
}

/// Waits until no packet has anything of before any more.
fn grace(kernel: &mut Kernel, workers: Option<&Workers>) -> Result<(), KernelError> {
    if let Some(workers) = workers {
        workers.grace();
    }
    kernel.grace()
}

/// The backends of services.
fn backends(ids: &[ServiceIds]) -> impl Iterator<Item = u32> + '_ {
    ids.iter().flat_map(|ids| ids.backends.iter().copied())
}

/// The backends that flows refer to.
fn in_use(kernel: &Kernel) -> HashSet<u32> {
    let v4 = kernel.v4.flows().map(Flow::backend);
    let v6 = kernel.v6.flows().map(Flow::backend);
    v4.chain(v6).collect()
}
