//! The XDP program in the kernel, and its maps.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aya::maps::{
    Array, ArrayOfMaps, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray,
    XskMap,
};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use balancer_common::abi::{
    BackendStats, DROPS_ON_LOSS, GEOMETRY, Globals, INDEXED, Identity, Link, MAX_BACKENDS,
    MAX_SERVICES, Path, REDIRECTS_BACK, SCHEMA, ServiceStats, Stats, budget, map, program,
};
use balancer_common::family::{Family, KEYS, V4, V6};
use balancer_common::hop::{HOPS, HopCell};
use balancer_common::image::Cell;
use balancer_common::pipeline::Part;
use balancer_common::ports::PORT_WORDS;
use balancer_common::screen::{ROWS, Row};
use balancer_common::table::tick::Tick;
use balancer_common::table::{Geometry, index};
use balancer_common::word::Word;

use super::OBJECT;
use super::compile::Image;
use super::counters::{AllCounters, Counters};
use super::flows::FlowTable;
use super::index::KernelIndex;
use super::injector::Injector;
use super::mapped::{self, Mapped};
use super::maps::{self, GlobalsCell, Maps, PathCell};
use super::notes::{AllNotes, Entries, Notes};
use super::raw::Record;
use super::router::Router;
use crate::chain::chain;
use crate::config::FlowLookup;

/// `BPF_F_INNER_MAP`: the inner array may have any length.
const INNER_MAP: u32 = 1 << 12;

/// The sizes of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Connections of a family, half-open ones included.
    pub connections: u32,
    /// Half-open connections of a family.
    pub half_open: u32,
    /// How flows are found.
    pub lookup: FlowLookup,
}

impl Sizes {
    /// The shape of the flow tables.
    #[must_use]
    pub fn geometry(self, keys: [u64; KEYS]) -> Geometry {
        Geometry::new(keys, self.connections, self.half_open)
    }

    /// How many entries the index of a flow table has room for: a map has at least one.
    #[must_use]
    pub const fn index_entries(self) -> u32 {
        match self.lookup {
            FlowLookup::Table => 1,
            FlowLookup::Hash => index::entries(self.connections),
        }
    }
}

/// Where packets are worked on, and what of the programs depends on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// In the kernel.
    Kernel(Back),
    /// In user space. Says whether packets are dropped when nobody is there.
    Userspace {
        /// So they are; else the kernel has them.
        drops_on_loss: bool,
    },
}

/// Whether frames are sent back by a redirect: see [`REDIRECTS_BACK`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// No: `XDP_TX`.
    Transmit,
    /// Yes.
    Redirect,
}

/// Why the kernel's part is not there.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The object was not loaded: a map could not be made or taken over.
    #[error("the XDP program's maps cannot be made: {}", chain(.0))]
    Load(#[from] EbpfError),
    /// The program was not loaded.
    #[error("the kernel does not take the XDP program: {}", chain(.0))]
    Program(#[from] ProgramError),
    /// A map could not be used.
    #[error("a map of the XDP program cannot be used: {}", chain(.0))]
    Map(#[from] MapError),
    /// The kernel refused a system call.
    #[error("the kernel refused: {0}")]
    Io(#[from] std::io::Error),
    /// Every id is in use.
    #[error("more services or backends are in use than there can be ids")]
    NoIds,
    /// A pinned map is not as this version makes it.
    #[error(
        "{path} was made by another version or with other sizes ({found}, not {wanted}): \
         stop that daemon and run `balancerctl detach`"
    )]
    Pinned {
        /// Its pin.
        path: String,
        /// What was found there.
        found: String,
        /// What should be there.
        wanted: String,
    },
}

/// The program, loaded, and its maps. The daemon is the only writer of those that it writes.
pub struct Kernel {
    ebpf: Ebpf,
    /// The flow table of IPv4.
    pub v4: FlowTable<V4>,
    /// The flow table of IPv6.
    pub v6: FlowTable<V6>,
    /// The next hops of clients, by number.
    pub hops: Arc<Mapped<HopCell>>,
    /// What packets in user space see of all this; `None` when they are worked on in the kernel.
    pub maps: Option<Arc<Maps>>,
    /// The interfaces that answers may leave by, by their index.
    links: HashMap<MapData, u32, Record<Link>>,
    /// What the program and the slow path note for each other.
    pub notes: Arc<AllNotes>,
    /// What the program goes on to. It is empty as soon as nobody has it, neither this process nor a pin.
    _programs: ProgramArray<MapData>,
    /// The sockets of the slow path, by the numbers that the links have.
    sockets: XskMap<MapData>,
    /// How much the slow path may be handed over: [`balancer_common::abi::budget`].
    pub budgets: Arc<Mapped<Word>>,
    /// The table of ports.
    ports: Arc<Mapped<Word>>,
    /// The current image, at 0.
    image: ArrayOfMaps<MapData, Array<MapData, Record<Cell>>>,
    /// Where packets are worked on.
    work: Work,
    /// What this process has put there.
    current: Option<Array<MapData, Record<Cell>>>,
    /// One.
    globals: Array<MapData, Record<Globals>>,
    /// By backend id.
    paths: Array<MapData, Record<Path>>,
    /// By service id.
    tickets: Array<MapData, u64>,
    /// One.
    stats: PerCpuArray<MapData, Record<Stats>>,
    /// One.
    workers_stats: Array<MapData, Record<Stats>>,
    /// By backend id.
    backend_stats: PerCpuArray<MapData, Record<BackendStats>>,
    /// By service id.
    service_stats: PerCpuArray<MapData, Record<ServiceStats>>,
    /// By service id.
    pub services: Array<MapData, Record<Identity>>,
    /// By backend id.
    pub backends: Array<MapData, Record<Identity>>,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").finish_non_exhaustive()
    }
}

impl Kernel {
    /// Loads the program. With `pins`, a folder of a bpffs, its maps are taken over from there when they are there,
    /// and pinned there when not.
    ///
    /// # Errors
    /// [`KernelError`]; what was pinned stays as it was.
    pub fn load(sizes: Sizes, work: Work, pins: Option<&FilePath>) -> Result<Self, KernelError> {
        let is_indexed = u8::from(sizes.lookup == FlowLookup::Hash);
        let redirects_back = u8::from(work == Work::Kernel(Back::Redirect));
        let drops_on_loss = work
            == Work::Userspace {
                drops_on_loss: true,
            };
        let drops_on_loss = u8::from(drops_on_loss);
        let keys = match pins {
            Some(pins) => pinned_keys(pins)?,
            None => None,
        };
        let is_new = keys.is_none();
        let keys = keys.map_or_else(random, Ok)?;
        let geometry = sizes.geometry(keys);
        let shape = Record(geometry);
        let mut loader = EbpfLoader::new();
        loader
            .verifier_log_level(VerifierLogLevel::STATS)
            .override_global(REDIRECTS_BACK, &redirects_back, true)
            .override_global(DROPS_ON_LOSS, &drops_on_loss, true)
            .override_global(GEOMETRY, &shape, true)
            .override_global(INDEXED, &is_indexed, true)
            .map_max_entries(map::INDEX_V4, sizes.index_entries())
            .map_max_entries(map::INDEX_V6, sizes.index_entries())
            .map_max_entries(map::FLOWS_V4, geometry.lines())
            .map_max_entries(map::FLOWS_V6, geometry.lines());
        if let Some(pins) = pins {
            for name in map::ALL {
                loader.map_pin_path(name, pins.join(name));
            }
        }
        let mut ebpf = loader.load(OBJECT)?;
        let programs = load_programs(&mut ebpf, work)?;
        let seen = match work {
            Work::Kernel(_) => None,
            Work::Userspace { .. } => Some(Seen::of(&mut ebpf)?),
        };
        let totals = take(&mut ebpf, map::TOTALS)?;
        let hops = Arc::new(mapped(&take(&mut ebpf, map::HOPS)?, HOPS as usize)?);
        let mut kernel = Self {
            v4: flow_table(
                &mut ebpf,
                sizes,
                geometry,
                [map::FLOWS_V4, map::INDEX_V4],
                &totals,
            )?,
            v6: flow_table(
                &mut ebpf,
                sizes,
                geometry,
                [map::FLOWS_V6, map::INDEX_V6],
                &totals,
            )?,
            hops,
            maps: None,
            work,
            links: take(&mut ebpf, map::LINKS)?.try_into()?,
            notes: Arc::new(AllNotes {
                v4: notes(&mut ebpf, map::DATAGRAMS_V4, map::SEARCHES_V4)?,
                v6: notes(&mut ebpf, map::DATAGRAMS_V6, map::SEARCHES_V6)?,
            }),
            _programs: programs,
            sockets: take(&mut ebpf, map::SOCKETS)?.try_into()?,
            budgets: Arc::new(mapped(&take(&mut ebpf, map::BUDGETS)?, budget::KINDS)?),
            ports: Arc::new(mapped(&take(&mut ebpf, map::PORTS)?, PORT_WORDS as usize)?),
            current: None,
            image: take(&mut ebpf, map::IMAGE)?.try_into()?,
            globals: take(&mut ebpf, map::GLOBALS)?.try_into()?,
            paths: take(&mut ebpf, map::PATHS)?.try_into()?,
            tickets: take(&mut ebpf, map::TICKETS)?.try_into()?,
            stats: take(&mut ebpf, map::STATS)?.try_into()?,
            workers_stats: take(&mut ebpf, map::WORKERS_STATS)?.try_into()?,
            backend_stats: take(&mut ebpf, map::BACKEND_STATS)?.try_into()?,
            service_stats: take(&mut ebpf, map::SERVICE_STATS)?.try_into()?,
            services: take(&mut ebpf, map::SERVICES)?.try_into()?,
            backends: take(&mut ebpf, map::BACKENDS)?.try_into()?,
            ebpf,
        };
        if is_new {
            let globals = Globals {
                schema: SCHEMA.into(),
                hop_generation: 1,
                keys,
                fragment_timeout: 0,
                least_mtu: 0,
            };
            kernel.globals.set(0, Record(globals), 0)?;
        }
        kernel.maps = seen.map(|seen| Arc::new(kernel.maps(seen)));
        Ok(kernel)
    }

    /// All that packets in user space see.
    fn maps(&self, seen: Seen) -> Maps {
        Maps {
            v4: self.v4.view(),
            v6: self.v6.view(),
            hops: Arc::clone(&self.hops),
            ports: Arc::clone(&self.ports),
            screen: seen.screen,
            paths: seen.paths,
            tickets: seen.tickets,
            globals: seen.globals,
            budgets: Arc::clone(&self.budgets),
            image: ArcSwap::default(),
            links: ArcSwap::default(),
            notes: Arc::clone(&self.notes),
            router: seen.router,
            counters: AllCounters::default(),
        }
    }

    /// The program that interfaces have.
    ///
    /// # Errors
    /// Never: the object has it.
    pub fn program(&mut self) -> Result<&mut Xdp, KernelError> {
        let name = match self.work {
            Work::Kernel(_) => program::BALANCER,
            Work::Userspace { .. } => program::STEER,
        };
        xdp(&mut self.ebpf, name)
    }

    /// A way to give frames to the program.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn injector(&mut self) -> Result<Injector, KernelError> {
        Ok(Injector::of(self.program()?)?)
    }

    /// Swaps in an image: packets that begin from now on see it, those at work end with the old one.
    ///
    /// # Errors
    /// [`KernelError::Map`]; the old image stays.
    pub fn set_image(&mut self, image: &Image) -> Result<(), KernelError> {
        let mut array = Array::<_, Record<Cell>>::create(image.cells.len() as u32, INNER_MAP)?;
        for (index, &cell) in (0..).zip(&image.cells) {
            if cell != Cell::default() {
                array.set(index, Record(cell), 0)?;
            }
        }
        for (word, &ports) in self.ports.iter().zip(&image.ports) {
            word.set(word.get() | ports);
        }
        // Workers first: what is handed to them by the new one they must not look for in the old one.
        let before = self.maps.as_ref().map(|maps| {
            let new = Arc::new(image.cells.clone());
            (maps, maps.image.swap(new))
        });
        // The kernel waits here until no packet has the old image any more.
        if let Err(error) = self.image.set(0, &array, 0) {
            if let Some((maps, before)) = before {
                maps.image.store(before);
            }
            return Err(error.into());
        }
        for (word, &ports) in self.ports.iter().zip(&image.ports) {
            word.set(ports);
        }
        self.current = Some(array);
        Ok(())
    }

    /// Waits until every packet that was at work when this was called is done: a grace period of RCU. The kernel waits for
    /// one when an array of maps is written to, on all machines; `membarrier` it refuses where CPUs are set apart.
    ///
    /// # Errors
    /// [`KernelError::Map`]; or there is no image yet, so that no packet is let in.
    pub fn grace(&mut self) -> Result<(), KernelError> {
        match &self.current {
            Some(current) => Ok(self.image.set(0, current, 0)?),
            None => Err(io::Error::from(io::ErrorKind::NotFound).into()),
        }
    }

    /// Writes the way to a backend; flows follow after [`Kernel::invalidate_hops`].
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn set_path(&mut self, backend: u32, path: Path) -> Result<(), KernelError> {
        Ok(self.paths.set(backend, Record(path), 0)?)
    }

    /// The way to a backend.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn path(&self, backend: u32) -> Result<Path, KernelError> {
        Ok(self.paths.get(&backend, 0)?.0)
    }

    /// Sets the interfaces that answers may leave by: those that the program is attached to, by their index.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn set_links(
        &mut self,
        links: impl IntoIterator<Item = (u32, Link)>,
    ) -> Result<(), KernelError> {
        let mut gone: Vec<u32> = self.links.keys().collect::<Result<_, _>>()?;
        let mut least = u32::MAX;
        let links: std::collections::HashMap<u32, Link> = links.into_iter().collect();
        for (&index, &link) in &links {
            least = least.min(link.mtu);
            self.links.insert(index, Record(link), 0)?;
            gone.retain(|&other| other != index);
        }
        if let Some(maps) = &self.maps {
            maps.links.store(Arc::new(links));
        }
        for index in gone {
            self.links.remove(&index)?;
        }
        self.change(|globals| globals.least_mtu = least.into())
    }

    /// Sets a socket of the slow path.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn set_socket(&mut self, number: u32, socket: BorrowedFd<'_>) -> Result<(), KernelError> {
        Ok(self.sockets.set(number, socket.as_raw_fd(), 0)?)
    }

    /// Makes every flow ask for its next hop again.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn invalidate_hops(&mut self) -> Result<(), KernelError> {
        self.change(|globals| globals.hop_generation += 1)
    }

    /// Sets how long a datagram is remembered after its first fragment.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn set_fragment_timeout(&mut self, timeout: Duration) -> Result<(), KernelError> {
        self.change(|globals| globals.fragment_timeout = Tick::count(timeout).into())
    }

    /// Changes what every packet may have to know.
    fn change(&mut self, change: impl FnOnce(&mut Globals)) -> Result<(), KernelError> {
        let Record(mut globals) = self.globals.get(&0, 0)?;
        change(&mut globals);
        Ok(self.globals.set(0, Record(globals), 0)?)
    }

    /// How many tickets a service has given out.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn tickets(&self, service: u32) -> Result<u64, KernelError> {
        Ok(self.tickets.get(&service, 0)?)
    }

    /// The counters of verdicts, of all CPUs together.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn stats(&self) -> Result<Stats, KernelError> {
        let mut sum = Stats::default();
        for Record(stats) in self.stats.get(&0, 0)?.iter() {
            sum.add(stats);
        }
        sum.add(&self.workers_stats.get(&0, 0)?.0);
        self.each_worker(|counters| sum.add(&counters.verdicts()));
        Ok(sum)
    }

    /// The counters of a backend, of all CPUs together.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn backend_stats(&self, backend: u32) -> Result<BackendStats, KernelError> {
        let mut sum = BackendStats::default();
        for Record(stats) in self.backend_stats.get(&backend, 0)?.iter() {
            sum.add(stats);
        }
        self.each_worker(|counters| sum.add(&counters.backend(backend)));
        Ok(sum)
    }

    /// Gives a backend id its meaning; counters and path begin at nothing, as they are when it never had one.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn name_backend(
        &mut self,
        backend: u32,
        identity: Identity,
        had_another: bool,
    ) -> Result<(), KernelError> {
        if had_another {
            // Not to come back later.
            self.keep_counts()?;
            let zeros = vec![Record(BackendStats::default()); nr_cpus()?];
            self.backend_stats
                .set(backend, PerCpuValues::try_from(zeros)?, 0)?;
            self.set_path(backend, Path::default())?;
        }
        Ok(self.backends.set(backend, Record(identity), 0)?)
    }

    /// Gives a service id its meaning; counters and tickets begin at nothing, as they are when it never had one.
    ///
    /// # Errors
    /// [`KernelError`].
    pub fn name_service(
        &mut self,
        service: u32,
        identity: Identity,
        had_another: bool,
    ) -> Result<(), KernelError> {
        if had_another {
            // Not to come back later.
            self.keep_counts()?;
            let zeros = vec![Record(ServiceStats::default()); nr_cpus()?];
            self.service_stats
                .set(service, PerCpuValues::try_from(zeros)?, 0)?;
            self.tickets.set(service, 0, 0)?;
        }
        Ok(self.services.set(service, Record(identity), 0)?)
    }

    /// What a service refused, on all CPUs together.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn service_stats(&self, service: u32) -> Result<ServiceStats, KernelError> {
        let mut sum = ServiceStats::default();
        for Record(stats) in self.service_stats.get(&service, 0)?.iter() {
            sum.add(stats);
        }
        self.each_worker(|counters| sum.add(&counters.service(service)));
        Ok(sum)
    }

    /// Keeps what workers of engine `userspace` have counted, so that it outlives them. The program counts neither for backends
    /// nor for services then.
    ///
    /// # Errors
    /// [`KernelError::Map`]; some of it is lost.
    pub fn keep_counts(&mut self) -> Result<(), KernelError> {
        let Some(maps) = self.maps.clone() else {
            return Ok(());
        };
        for counters in maps.counters.all().iter() {
            let Record(mut stats) = self.workers_stats.get(&0, 0)?;
            stats.add(&counters.keep_verdicts());
            self.workers_stats.set(0, Record(stats), 0)?;
            for (backend, more) in counters.keep_backends() {
                let mut stats: Vec<_> = self.backend_stats.get(&backend, 0)?.to_vec();
                stats[0].0.add(&more);
                let stats = PerCpuValues::try_from(stats)?;
                self.backend_stats.set(backend, stats, 0)?;
            }
            for (service, more) in counters.keep_services() {
                let mut stats: Vec<_> = self.service_stats.get(&service, 0)?.to_vec();
                stats[0].0.add(&more);
                let stats = PerCpuValues::try_from(stats)?;
                self.service_stats.set(service, stats, 0)?;
            }
        }
        Ok(())
    }

    /// The counters of the workers of engine `userspace`, if there are any.
    fn each_worker(&self, with: impl FnMut(&Counters)) {
        if let Some(maps) = &self.maps {
            maps.counters.all().iter().map(AsRef::as_ref).for_each(with);
        }
    }
}

/// Loads the programs of an engine. Gives those that the first of engine `kernel` goes on to.
fn load_programs(ebpf: &mut Ebpf, work: Work) -> Result<ProgramArray<MapData>, KernelError> {
    let names: &[&str] = match work {
        Work::Kernel(_) => &program::ALL,
        Work::Userspace { .. } => &[program::STEER, program::ROUTE],
    };
    for name in names {
        xdp(ebpf, name)?.load()?;
    }
    let mut programs: ProgramArray<_> = take(ebpf, map::PROGRAMS)?.try_into()?;
    if let Work::Kernel(_) = work {
        for part in Part::ALL {
            // The program of an earlier daemon goes on to this one from now on.
            let program = xdp(ebpf, program::of(part))?.fd()?;
            programs.set(part as u32, program, 0)?;
        }
    }
    Ok(programs)
}

/// What packets in user space see, and the daemon does not need.
struct Seen {
    globals: GlobalsCell,
    paths: Mapped<PathCell>,
    tickets: Mapped<Word>,
    screen: Mapped<Row>,
    router: Router,
}

impl Seen {
    fn of(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        fn seen<T: mapped::Cell>(
            ebpf: &Ebpf,
            name: &str,
            length: u32,
        ) -> Result<Mapped<T>, KernelError> {
            let map = ebpf.map(name).ok_or_else(|| MapError::InvalidName {
                name: name.to_owned(),
            })?;
            mapped(map, length as usize)
        }
        Ok(Self {
            globals: GlobalsCell(seen(ebpf, map::GLOBALS, maps::GLOBALS)?),
            paths: seen(ebpf, map::PATHS, MAX_BACKENDS)?,
            tickets: seen(ebpf, map::TICKETS, MAX_SERVICES)?,
            screen: seen(ebpf, map::SCREEN, ROWS)?,
            router: Router::of(xdp(ebpf, program::ROUTE)?)?,
        })
    }
}

/// The keys of an earlier daemon's tables, if there are any. Nothing of another version's is touched.
fn pinned_keys(pins: &FilePath) -> Result<Option<[u64; KEYS]>, KernelError> {
    let path = pins.join(map::GLOBALS);
    if !path.exists() {
        return Ok(None);
    }
    let globals: Array<_, Record<Globals>> = Map::Array(MapData::from_pin(path)?).try_into()?;
    let Record(globals) = globals.get(&0, 0)?;
    if globals == Globals::default() {
        return Ok(None);
    }
    if globals.schema != u64::from(SCHEMA) {
        return Err(KernelError::Pinned {
            path: pins.display().to_string(),
            found: format!("schema {}", globals.schema),
            wanted: format!("schema {SCHEMA}"),
        });
    }
    Ok(Some(globals.keys))
}

/// Odd numbers by chance.
fn random() -> io::Result<[u64; KEYS]> {
    let mut bytes = [[0; 8]; KEYS];
    File::open("/dev/urandom")?.read_exact(bytes.as_flattened_mut())?;
    Ok(bytes.map(|bytes| u64::from_ne_bytes(bytes) | 1))
}

fn flow_table<F: Family>(
    ebpf: &mut Ebpf,
    sizes: Sizes,
    geometry: Geometry,
    [lines, index]: [&str; 2],
    totals: &Map,
) -> Result<FlowTable<F>, KernelError> {
    let lines = mapped(&take(ebpf, lines)?, geometry.lines() as usize)?;
    let index = match sizes.lookup {
        FlowLookup::Table => None,
        FlowLookup::Hash => Some(KernelIndex::new(take(ebpf, index)?.try_into()?)),
    };
    let totals = mapped(totals, 2)?;
    Ok(FlowTable::new(geometry, lines, index, totals))
}

fn notes<F: Family>(
    ebpf: &mut Ebpf,
    datagrams: &str,
    searches: &str,
) -> Result<Notes<F>, KernelError> {
    Ok(Notes {
        datagrams: Entries::new(take(ebpf, datagrams)?)?,
        searches: Entries::new(take(ebpf, searches)?)?,
    })
}

fn mapped<T: mapped::Cell>(map: &Map, length: usize) -> Result<Mapped<T>, KernelError> {
    match map {
        Map::Array(data) => Ok(Mapped::array(data.fd().as_fd(), length)?),
        _ => Err(MapError::InvalidMapType { map_type: 0 }.into()),
    }
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, KernelError> {
    let program = ebpf.program_mut(name).ok_or(ProgramError::NotLoaded)?;
    Ok(program.try_into()?)
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, KernelError> {
    Ok(ebpf.take_map(name).ok_or_else(|| MapError::InvalidName {
        name: name.to_owned(),
    })?)
}

fn nr_cpus() -> Result<usize, KernelError> {
    aya::util::nr_cpus().map_err(|(_, error)| error.into())
}
