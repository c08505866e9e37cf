//! The ways to backends: asked of the kernel's routing and neighbour tables, followed, and written to the maps.
//!
//! - A neighbour whose entry vanishes keeps its last known address, and is resolved anew: a packet to it is not lost
//!   because the kernel forgot.
//! - A new address counts at once, for known connections too.
//! - A backend without a route has no way, and falls out of its schedule until there is one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use balancer_common::abi::Path;
use balancer_common::hop::Hop;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::reload::TOLD;
use super::shared::Shared;
use super::tables::{Tables, Target};
use crate::datapath::compile::words;
use crate::datapath::kernel::KernelError;
use crate::datapath::netlink::{Event, Link, Neighbour, Netlink, NetlinkError, Way};

/// How long a start or a reload waits for new backends to be resolved.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often everything is asked again, whatever was announced.
const REFRESH: Duration = Duration::from_secs(30);

/// How long changes that concern no backend are collected before flows look for their next hop again.
const COLLECT: Duration = Duration::from_millis(100);

/// Why ways cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum PathError {
    /// The kernel did not tell.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// They could not be written.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A backend is this box.
    #[error("backend {0} is an address of this box: that is not supported yet")]
    Local(IpAddr),
    /// The follower has ended.
    #[error("the ways to backends are not followed any more")]
    Ended,
}

/// What the follower is asked for.
enum Ask {
    Follow(Vec<Target>, oneshot::Sender<Result<(), PathError>>),
    Retain,
    End(oneshot::Sender<()>),
}

/// The follower, as others see it.
#[derive(Clone, Debug)]
pub struct Paths {
    asks: mpsc::Sender<Ask>,
}

impl Paths {
    /// Begins to follow; nothing yet.
    ///
    /// # Errors
    /// [`PathError`].
    pub async fn start(tables: Shared<Tables>) -> Result<Self, PathError> {
        let (asks, requests) = mpsc::channel(16);
        let mut follower = Follower {
            events: Netlink::watch()?,
            netlink: Netlink::connect()?,
            tables,
            links: HashMap::new(),
            neighbours: HashMap::new(),
            fixed: HashSet::new(),
            followed: BTreeMap::new(),
            waiting: Vec::new(),
            ask_ways_at: None,
            invalidate_at: None,
        };
        follower.read_all().await?;
        tokio::spawn(follower.run(requests));
        Ok(Self { asks })
    }

    /// Follows these backends too. Returns when all of them are resolved, or after a second.
    ///
    /// # Errors
    /// [`PathError::Local`] for a backend on this box; then none of them is followed.
    pub async fn follow(&self, targets: Vec<Target>) -> Result<(), PathError> {
        let (answer, answered) = oneshot::channel();
        let _ = self.asks.send(Ask::Follow(targets, answer)).await;
        answered.await.unwrap_or(Err(PathError::Ended))
    }

    /// Ceases to follow the backends that no packet can go to any more.
    pub async fn retain(&self) {
        let _ = self.asks.send(Ask::Retain).await;
    }

    /// Ceases to follow, and leaves neighbours to the kernel.
    pub async fn end(&self) {
        let (answer, answered) = oneshot::channel();
        let _ = self.asks.send(Ask::End(answer)).await;
        let _ = answered.await;
    }
}

/// A backend that is followed.
#[derive(Clone, Copy, Debug)]
struct Followed {
    address: IpAddr,
    way: Way,
    /// As it was written last.
    written: Path,
}

/// Who waits for backends to be resolved.
struct Waiting {
    backends: Vec<u32>,
    until: Instant,
    answer: oneshot::Sender<Result<(), PathError>>,
}

struct Follower {
    netlink: Netlink,
    events: mpsc::UnboundedReceiver<Event>,
    tables: Shared<Tables>,
    links: HashMap<u32, Link>,
    /// The addresses that neighbours have or, if they are somebody's next hop, had last.
    neighbours: HashMap<(u32, IpAddr), [u8; 6]>,
    /// The neighbours whose entries somebody else has fixed: the kernel resolves no such one.
    fixed: HashSet<(u32, IpAddr)>,
    /// By backend id.
    followed: BTreeMap<u32, Followed>,
    waiting: Vec<Waiting>,
    /// When to ask for links and ways again.
    ask_ways_at: Option<Instant>,
    /// When to let flows look for their next hop again.
    invalidate_at: Option<Instant>,
}

impl Follower {
    async fn run(mut self, mut asks: mpsc::Receiver<Ask>) {
        let mut refresh = interval(REFRESH);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        refresh.reset();
        loop {
            let due = [self.ask_ways_at, self.invalidate_at]
                .into_iter()
                .chain(self.waiting.iter().map(|waiting| Some(waiting.until)))
                .flatten()
                .min();
            let done = tokio::select! {
                ask = asks.recv() => match ask {
                    Some(Ask::Follow(targets, answer)) => self.follow(targets, answer).await,
                    Some(Ask::Retain) => self.give_up().await,
                    Some(Ask::End(answer)) => {
                        self.retain(&HashSet::new()).await;
                        let _ = answer.send(());
                        break;
                    }
                    None => break,
                },
                event = self.events.recv() => self.take(event).await,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.catch_up().await,
                _ = refresh.tick() => self.read_all().await,
            };
            if let Err(error) = done {
                tracing::error!(%error, "the ways to backends are not up to date; trying again");
                self.ask_ways_at = Some(Instant::now() + PATIENCE);
            }
        }
    }

    /// Takes in an event and all that wait behind it.
    async fn take(&mut self, event: Option<Event>) -> Result<(), PathError> {
        let Some(first) = event else {
            // The socket is gone: another one, and everything anew. If there is none to be had, not at once again.
            sleep(PATIENCE).await;
            self.events = Netlink::watch()?;
            self.netlink = Netlink::connect()?;
            return self.read_all().await;
        };
        let mut next = Some(first);
        let mut lost = HashSet::new();
        while let Some(event) = next {
            match event {
                Event::Ways => soon(&mut self.ask_ways_at),
                Event::Lost => return self.read_all().await,
                Event::Neighbour(neighbour) => self.learn(neighbour),
                Event::Forgotten(Neighbour {
                    interface, address, ..
                }) => {
                    self.fixed.remove(&(interface, address));
                    if self.is_next_hop(interface, address) {
                        // What was known of it is better than nothing.
                        lost.insert((interface, address));
                    } else {
                        self.neighbours.remove(&(interface, address));
                    }
                }
            }
            next = self.events.try_recv().ok();
        }
        for (interface, address) in lost {
            self.resolve(interface, address).await;
        }
        self.write().await
    }

    /// Takes in what a neighbour entry says.
    fn learn(&mut self, neighbour: Neighbour) {
        let key = (neighbour.interface, neighbour.address);
        if neighbour.is_fixed {
            self.fixed.insert(key);
        } else {
            self.fixed.remove(&key);
        }
        let Some(mac) = neighbour.mac else {
            return;
        };
        if self.neighbours.insert(key, mac) != Some(mac) {
            soon(&mut self.invalidate_at);
        }
    }

    /// Has a neighbour resolved. That fails while its link is down, and is tried again when that changes.
    async fn resolve(&self, interface: u32, address: IpAddr) {
        if self.fixed.contains(&(interface, address)) {
            // To ask for it would make it an entry like any other.
            return;
        }
        if let Err(error) = self.netlink.resolve(interface, address).await {
            tracing::debug!(%address, %error, "a neighbour cannot be resolved now");
        }
    }

    fn is_next_hop(&self, interface: u32, address: IpAddr) -> bool {
        self.followed
            .values()
            .any(|followed| hop_of(followed.way) == Some((interface, address)))
    }

    /// Does what is due.
    async fn catch_up(&mut self) -> Result<(), PathError> {
        let now = Instant::now();
        if self.ask_ways_at.is_some_and(|at| at <= now) {
            self.ask_ways().await?;
            // Routes to clients may be others too.
            soon(&mut self.invalidate_at);
        }
        if self.invalidate_at.is_some_and(|at| at <= now) {
            self.invalidate_at = None;
            self.tables
                .with(|tables| tables.kernel.invalidate_hops())
                .await?;
        }
        self.waiting = self
            .waiting
            .drain(..)
            .filter_map(|waiting| waiting.check(&self.followed, now))
            .collect();
        Ok(())
    }

    /// Asks for everything: links, neighbours, ways.
    async fn read_all(&mut self) -> Result<(), PathError> {
        for neighbour in self.netlink.neighbours().await? {
            self.learn(neighbour);
        }
        self.ask_ways().await
    }

    /// Asks for links and ways, and has next hops resolved that are not.
    async fn ask_ways(&mut self) -> Result<(), PathError> {
        self.ask_ways_at = None;
        self.read_links().await?;
        let addresses = self.followed.values().map(|followed| followed.address);
        let known = self.netlink.ways(addresses).await?;
        let before = hops(&self.followed);
        for followed in self.followed.values_mut() {
            let way = known.get(&followed.address).copied().unwrap_or(Way::None);
            if way == Way::None && followed.way != Way::None {
                tracing::warn!(backend = %followed.address, "there is no route to a backend");
            }
            followed.way = way;
        }
        let next_hops = hops(&self.followed);
        self.release(&before, &next_hops).await;
        for (interface, address) in next_hops {
            self.resolve(interface, address).await;
        }
        self.write().await
    }

    /// Asks for links; an interface that was made anew gets the program again.
    async fn read_links(&mut self) -> Result<(), PathError> {
        let links = self.netlink.links().await?;
        self.links = links
            .iter()
            .map(|link| (link.index, link.clone()))
            .collect();
        let attached = self
            .tables
            .with(move |tables| tables.attach_again(&links))
            .await;
        if let Err(error) = attached {
            tracing::error!(%error, "an interface is not attached");
        }
        Ok(())
    }

    async fn follow(
        &mut self,
        targets: Vec<Target>,
        answer: oneshot::Sender<Result<(), PathError>>,
    ) -> Result<(), PathError> {
        // An id may have been given to another backend since.
        let is_new = |target: &&Target| {
            let followed = self.followed.get(&target.backend);
            followed.is_none_or(|followed| followed.address != target.address)
        };
        let new: Vec<Target> = targets.iter().filter(is_new).copied().collect();
        let known = self.netlink.ways(new.iter().map(|target| target.address));
        let known = match known.await {
            Ok(known) => known,
            Err(error) => {
                let _ = answer.send(Err(error.into()));
                return Ok(());
            }
        };
        let mut added = Vec::with_capacity(new.len());
        for target in new {
            let way = known.get(&target.address).copied().unwrap_or(Way::None);
            if way == Way::Local {
                let _ = answer.send(Err(PathError::Local(target.address)));
                return Ok(());
            }
            added.push((target, way));
        }
        let backends: Vec<u32> = targets.iter().map(|target| target.backend).collect();
        for (address, _) in known.iter().filter(|(_, way)| **way == Way::None) {
            tracing::warn!(backend = %address, "there is no route to a backend");
        }
        // Of an earlier daemon, or nothing.
        let written: Vec<Path> = {
            let added: Vec<u32> = added.iter().map(|(target, _)| target.backend).collect();
            let paths = move |tables: &mut Tables| -> Result<_, KernelError> {
                added.iter().map(|&id| tables.kernel.path(id)).collect()
            };
            self.tables.with(paths).await?
        };
        for (&(target, way), written) in added.iter().zip(written) {
            let followed = Followed {
                address: target.address,
                way,
                written,
            };
            self.followed.insert(target.backend, followed);
        }
        self.warn_of_other_interfaces(&added).await;
        let next_hops: HashSet<_> = added.iter().filter_map(|&(_, way)| hop_of(way)).collect();
        for (interface, address) in next_hops {
            self.resolve(interface, address).await;
        }
        self.waiting.push(Waiting {
            backends,
            until: Instant::now() + PATIENCE,
            answer,
        });
        self.write().await
    }

    /// Answers that come in by another interface are not translated back.
    async fn warn_of_other_interfaces(&self, added: &[(Target, Way)]) {
        let attached: HashSet<u32> = self
            .tables
            .with(|tables| tables.config.datapath.interfaces.clone())
            .await
            .iter()
            .filter_map(|name| self.links.values().find(|link| link.name == *name))
            .map(|link| link.index)
            .collect();
        for (target, way) in added {
            if let Some((interface, _)) = hop_of(*way)
                && !attached.contains(&interface)
            {
                let name = self
                    .links
                    .get(&interface)
                    .map_or("?", |link| link.name.as_str());
                tracing::warn!(
                    backend = %target.address,
                    "the way to a backend is by {name}, which is not in datapath.interfaces: its answers will not be translated back"
                );
            }
        }
    }

    /// Asked now, and not by who wants it: what a reload has begun to follow meanwhile is among the targets.
    async fn give_up(&mut self) -> Result<(), PathError> {
        let targets = self.tables.with(|tables| tables.targets()).await?;
        self.retain(&targets).await;
        Ok(())
    }

    async fn retain(&mut self, backends: &HashSet<u32>) {
        let before = hops(&self.followed);
        self.followed
            .retain(|backend, _| backends.contains(backend));
        self.release(&before, &hops(&self.followed)).await;
    }

    /// Leaves the neighbours to the kernel that are next hops no more.
    async fn release(&self, before: &HashSet<(u32, IpAddr)>, after: &HashSet<(u32, IpAddr)>) {
        for &(interface, address) in before.difference(after) {
            if !self.fixed.contains(&(interface, address)) {
                // Its link may be gone, and its entry with it.
                let _ = self.netlink.release(interface, address).await;
            }
        }
    }

    /// Writes the ways that changed.
    async fn write(&mut self) -> Result<(), PathError> {
        let mut changed = Vec::new();
        for (&backend, followed) in &self.followed {
            let path = self.path(followed);
            if path != followed.written {
                changed.push((backend, path));
            }
        }
        if !changed.is_empty() {
            let paths = changed.clone();
            self.tables
                .with(move |tables| tables.set_paths(&paths))
                .await?;
            // What was collected is done with.
            self.invalidate_at = None;
        }
        let mut told = HashSet::new();
        for (backend, path) in changed {
            if let Some(followed) = self.followed.get_mut(&backend) {
                let (was, is) = (followed.written.hop.is_known(), path.hop.is_known());
                followed.written = path;
                let address = followed.address;
                if was != is && told.insert(address) && told.len() <= TOLD {
                    tracing::info!(backend = %address, "a backend is {}", if is { "resolved" } else { "out of reach" });
                }
            }
        }
        if let Some(more @ 1..) = told.len().checked_sub(TOLD) {
            tracing::info!("and {more} more backends");
        }
        let now = Instant::now();
        self.waiting = self
            .waiting
            .drain(..)
            .filter_map(|waiting| waiting.check(&self.followed, now))
            .collect();
        Ok(())
    }

    /// The way as it is to be written.
    fn path(&self, followed: &Followed) -> Path {
        let Way::Out {
            interface,
            next_hop,
            source,
        } = followed.way
        else {
            return Path::default();
        };
        let source = words(source);
        let link = self.links.get(&interface);
        let mac = self.neighbours.get(&(interface, next_hop));
        match (link, mac) {
            (Some(link), Some(&mac)) => Path {
                hop: Hop::new(interface, mac, link.mac),
                source,
            },
            // Not resolved yet; what an earlier daemon knew of the same link is better than nothing.
            _ if followed.written.hop.interface() == interface => followed.written,
            _ => Path {
                source,
                ..Path::default()
            },
        }
    }
}

impl Waiting {
    /// Answers if the time has come, and goes on waiting if not.
    fn check(self, followed: &BTreeMap<u32, Followed>, now: Instant) -> Option<Self> {
        let resolved = self.backends.iter().all(|backend| {
            followed
                .get(backend)
                .is_none_or(|followed| followed.written.hop.is_known())
        });
        if resolved || self.until <= now {
            let _ = self.answer.send(Ok(()));
            return None;
        }
        Some(self)
    }
}

/// The neighbours that ways lead to first.
fn hops(followed: &BTreeMap<u32, Followed>) -> HashSet<(u32, IpAddr)> {
    let ways = followed.values().map(|followed| followed.way);
    ways.filter_map(hop_of).collect()
}

/// The neighbour that a way leads to first.
fn hop_of(way: Way) -> Option<(u32, IpAddr)> {
    match way {
        Way::Out {
            interface,
            next_hop,
            ..
        } => Some((interface, next_hop)),
        Way::Local | Way::None => None,
    }
}

/// In a moment, if not sooner.
fn soon(at: &mut Option<Instant>) {
    at.get_or_insert_with(|| Instant::now() + COLLECT);
}
