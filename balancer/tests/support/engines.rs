//! The pipeline in user space and the compiled program under `BPF_PROG_TEST_RUN`, given the same frames: verdict,
//! bytes, counters and tables must be alike.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use balancer::config::{self, Config};
use balancer::datapath::compile::{Image, ServiceIds, compile, words};
use balancer::datapath::flows::FlowTable;
use balancer::datapath::kernel::{Back, Kernel, Sizes, Work};
use balancer::datapath::memory::{InMemory, Memory};
use balancer::slow_path::{Program, SlowPath};
use balancer_common::abi::{Identity, Link, Note, Path, Stats};
use balancer_common::family::{Family, V4, V6};
use balancer_common::hop::{Hop, HopCell};
use balancer_common::parse;
use balancer_common::pipeline::process;
use balancer_common::steer;
use balancer_common::table::flow::Flow;
use balancer_common::table::retire::{free, kill};
use balancer_common::table::state::Phase;
use balancer_common::table::{Lines as _, Totals, find};
use balancer_common::tables::Reception;
use balancer_common::tuple::Tuple;
use balancer_common::verdict::{Drop, Exit, Pass, Punt, Verdict};
use balancer_common::wire::ethertype;

use super::flows::visible;
use super::program::{self, Ran};
use super::{BACKEND_MAC, BACKEND_SIDE, BOX_MAC, CLIENT_SIDE, OTHER_SIDE, source};

/// How many services and backends a box of these tests may have.
const IDS: u32 = 64;

/// Those that frames come in by.
const INTERFACES: [u32; 3] = [CLIENT_SIDE, BACKEND_SIDE, OTHER_SIDE];

/// `BPF_PROG_TEST_RUN` takes no frame that is shorter.
pub const SHORTEST: usize = 14;

/// What a box is given before its first frame.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The services, in TOML. Services and backends have ids in the order of the file.
    pub services: String,
    /// More keys of the section `[datapath]`.
    pub datapath: &'static str,
    /// The way to every backend.
    pub hop: Hop,
    /// The kernel's route to every client that has a connection, if there is one.
    pub route: Option<Hop>,
    /// The id of the first backend.
    pub first_backend: u32,
    /// For how many connections the table still has room; `None`: plenty.
    pub free_connections: Option<u32>,
    /// For how many half-open ones.
    pub free_half_open: Option<u32>,
    /// What becomes of what is offered to the slow path.
    pub slow_path: Reception,
    /// The MTU of every interface.
    pub mtu: u32,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            services: String::new(),
            datapath: "",
            hop: Hop::new(BACKEND_SIDE, BACKEND_MAC, BOX_MAC),
            route: None,
            first_backend: 0,
            free_connections: None,
            free_half_open: None,
            slow_path: Reception::Nobody,
            mtu: 65_535,
        }
    }
}

/// Which ids the services and backends of a box have: the same after a reload.
#[derive(Debug, Default)]
struct Ids {
    services: Vec<String>,
    backends: Vec<(String, IpAddr, Option<u16>)>,
    first_backend: u32,
}

impl Ids {
    fn of(&mut self, config: &Config) -> Vec<ServiceIds> {
        let ids = |service: &config::Service| ServiceIds {
            service: number(&mut self.services, service.name.clone()),
            backends: service
                .backends
                .iter()
                .map(|backend| {
                    let backend = (service.name.clone(), backend.address, backend.port);
                    self.first_backend + number(&mut self.backends, backend)
                })
                .collect(),
        };
        config.services.iter().map(ids).collect()
    }
}

/// The index of an item, which is put at the end if it is new.
fn number<T: PartialEq>(items: &mut Vec<T>, item: T) -> u32 {
    let index = items.iter().position(|it| *it == item);
    let index = index.unwrap_or_else(|| {
        items.push(item);
        items.len() - 1
    });
    index as u32
}

/// Both engines, or the one in user space alone.
pub struct Engines {
    /// The one in user space.
    pub memory: Memory,
    kernel: Option<Kernel>,
    ids: Ids,
    /// By their text, all that were read.
    configs: HashMap<String, Config>,
    /// What the kernel must have counted so far, boxes before this one included.
    pub stats: Stats,
    sizes: Sizes,
    generation: u16,
    /// What takes packets that the kernel's program hands over, and the interfaces' sockets.
    slow_path: Option<(SlowPath, [(u32, Link); 3])>,
    /// Half-open connections that no frame has entered, of each family.
    occupied: u64,
    /// What is being shown, for whoever reads of a failure.
    pub about: String,
}

impl Engines {
    /// The engine in user space alone.
    pub fn in_memory(sizes: Sizes) -> Self {
        Self {
            memory: Memory::new(Image::default(), 0, sizes).unwrap(),
            kernel: None,
            ids: Ids::default(),
            configs: HashMap::new(),
            stats: Stats::default(),
            sizes,
            generation: 1,
            slow_path: None,
            occupied: 0,
            about: String::new(),
        }
    }

    /// Both. The calling thread has to be in the box.
    pub fn both(sizes: Sizes) -> Self {
        let mut kernel = Kernel::load(sizes, Work::Kernel(Back::Transmit), None).unwrap();
        let program = Program::of(&mut kernel, None).unwrap();
        let slow_path = SlowPath::start(program).unwrap();
        let mut links = INTERFACES.map(|index| (index, Link::default()));
        for place in 0..links.len() {
            let others = links.iter().map(|(_, link)| link);
            let opened = slow_path.open(links[place].0, others).unwrap();
            for (number, socket) in (opened.link.first_socket..).zip(&opened.sockets) {
                kernel.set_socket(number, socket.as_fd()).unwrap();
            }
            links[place].1 = opened.link;
        }
        Self {
            kernel: Some(kernel),
            slow_path: Some((slow_path, links)),
            ..Self::in_memory(sizes)
        }
    }

    /// Whether frames are run in the kernel too.
    pub fn has_kernel(&self) -> bool {
        self.kernel.is_some()
    }

    /// Makes the box new.
    pub fn set_up(&mut self, setting: &Setting) {
        self.ids = Ids {
            first_backend: setting.first_backend,
            ..Ids::default()
        };
        self.memory = Memory::new(Image::default(), IDS as usize, self.sizes).unwrap();
        self.memory.route = setting.route;
        self.memory.slow_path = setting.slow_path;
        self.memory.mtu = setting.mtu;
        *self.memory.hop_generation.get_mut() = self.generation;
        if let Some(kernel) = &mut self.kernel {
            for id in 0..IDS {
                kernel.name_service(id, Identity::default(), true).unwrap();
                kernel.name_backend(id, Identity::default(), true).unwrap();
            }
            clear(&mut kernel.v4);
            clear(&mut kernel.v6);
            kernel.notes.clear();
            let most = match setting.slow_path {
                Reception::Full => 0,
                _ => u64::MAX,
            };
            for budget in kernel.budgets.iter() {
                budget.set(most);
            }
            kernel.set_fragment_timeout(Duration::from_secs(2)).unwrap();
        }
        self.load(&setting.services, setting.datapath);
        self.set_hop(setting.hop);
        // What is counted and not there: established connections, then half-open ones.
        let Sizes {
            connections,
            half_open,
            ..
        } = self.sizes;
        let occupied = |max: u32, free: Option<u32>| free.map_or(0, |free| u64::from(max - free));
        let established = occupied(connections, setting.free_connections);
        self.occupied = occupied(half_open, setting.free_half_open);
        let occupy = |totals: Option<&Totals>| {
            let totals = totals.unwrap();
            totals.opened.set(established + self.occupied);
            totals.completed.set(established);
        };
        occupy(self.memory.v4.totals());
        occupy(self.memory.v6.totals());
        if let Some(kernel) = &self.kernel {
            occupy(kernel.v4.totals());
            occupy(kernel.v6.totals());
        }
    }

    /// Gives the box other services; what it knows of connections, backends and tickets stays.
    pub fn load(&mut self, services: &str, datapath: &str) {
        let text = format!("[datapath]\ninterfaces = [\"eth0\", \"eth1\"]\n{datapath}\n{services}");
        let config = self.configs.entry(text).or_insert_with_key(|text| {
            config::parse("test.toml", text)
                .unwrap_or_else(|errors| panic!("{}: {errors:?}", self.about))
        });
        let ids = self.ids.of(config);
        let source_ports = config.datapath.source_ports;
        let image = compile(1, &config.services, &ids, source_ports, |name| match name {
            "eth0" => Some(CLIENT_SIDE),
            "eth1" => Some(BACKEND_SIDE),
            _ => None,
        });
        if let Some(kernel) = &mut self.kernel {
            kernel.set_image(&image).unwrap();
            // Frames of test runs are handed to nobody, whatever the program has decided.
            let links = match &self.slow_path {
                Some((_, links)) if self.memory.slow_path != Reception::Nobody => *links,
                _ => INTERFACES.map(|index| (index, Link::default())),
            };
            let mtu = self.memory.mtu;
            kernel
                .set_links(links.map(|(index, link)| (index, Link { mtu, ..link })))
                .unwrap();
        }
        self.memory.set_image(image);
    }

    /// Sets the way to every backend, as the daemon does before it lets flows ask again.
    pub fn set_hop(&mut self, hop: Hop) {
        for id in 0..IDS {
            let is_ipv4 = (self.ids.backends.get(id as usize))
                .is_none_or(|(_, address, _)| address.is_ipv4());
            let path = Path {
                hop,
                source: words(source(is_ipv4)),
            };
            self.memory.paths[id as usize] = path;
            if let Some(kernel) = &mut self.kernel {
                kernel.set_path(id, path).unwrap();
            }
        }
    }

    /// Makes every flow ask for its next hop again.
    pub fn invalidate_hops(&mut self) {
        if let Some(kernel) = &mut self.kernel {
            kernel.invalidate_hops().unwrap();
        }
        self.generation += 1;
        self.memory
            .hop_generation
            .store(self.generation, Ordering::Relaxed);
    }

    /// Gives back the lines of connections that are gone: the end of a sweeper's pass. No packet is under way.
    pub fn sweep(&mut self) {
        sweep(&self.memory.v4);
        sweep(&self.memory.v6);
        if let Some(kernel) = &self.kernel {
            sweep(&kernel.v4);
            sweep(&kernel.v6);
        }
    }

    /// Asserts that there is one connection, and where it stands.
    pub fn expect_phase(&self, phase: Phase) {
        fn phases<F: Family>(table: &FlowTable<F>) -> impl Iterator<Item = Phase> {
            table.connections().map(|connection| connection.phase())
        }
        let expect = |engine: &str, v4: &FlowTable<V4>, v6: &FlowTable<V6>| {
            let phases: Vec<Phase> = phases(v4).chain(phases(v6)).collect();
            assert_eq!(phases, [phase], "{}: {engine}", self.about);
        };
        expect("in user space", &self.memory.v4, &self.memory.v6);
        if let Some(kernel) = &self.kernel {
            expect("in the kernel", &kernel.v4, &kernel.v6);
        }
    }

    /// Forgets the datagrams of which fragments have come.
    pub fn forget_datagrams(&mut self) {
        self.memory.datagrams_v4.clear();
        self.memory.datagrams_v6.clear();
        if let Some(kernel) = &self.kernel {
            kernel.notes.clear();
        }
    }

    /// Takes a flow over IPv4 out of the tables, and leaves the other direction's.
    pub fn forget(&mut self, tuple: &Tuple<V4>) {
        let forget = |table: &FlowTable<V4>| {
            let flow = find(table, tuple).unwrap_or_else(|| panic!("{}", self.about));
            kill(flow);
            sweep(table);
        };
        forget(&self.memory.v4);
        if let Some(kernel) = &self.kernel {
            forget(&kernel.v4);
        }
    }

    /// Gives a frame to both: their verdict and the frame as they left it, which are the same.
    pub fn run(&mut self, interface: u32, input: &[u8]) -> (Verdict, Vec<u8>) {
        let (verdict, ours) = self.run_in_memory(interface, input);
        if self.kernel.is_some() && input.len() >= SHORTEST {
            let (counter, theirs) = self.run_in_kernel(interface, input);
            let about = &self.about;
            assert_eq!(
                name(counter),
                name(verdict.counter()),
                "{about}: the verdict in the kernel, and in user space, of {input:02x?}"
            );
            assert_eq!(
                theirs, ours,
                "{about}: out of the kernel, and of user space, with {verdict:?} for {input:02x?}"
            );
        }
        (verdict, ours)
    }

    /// Gives a frame to the one in user space only.
    pub fn run_in_memory(&mut self, interface: u32, input: &[u8]) -> (Verdict, Vec<u8>) {
        let steered = steer::wants(&input, &self.memory, interface);
        let is_known = is_known(&self.memory, input);
        let mut frame = input.to_vec();
        let verdict = process(&mut frame.as_mut_slice(), &self.memory, interface);
        // What it does not hand over gets what the pipeline says; of the rest little is the kernel's.
        let is_right = match (steered, verdict) {
            (Err(exit), verdict) => verdict == exit.into(),
            (Ok(_), Verdict::Pass(Pass::NotIp | Pass::NotUnicast)) => false,
            (Ok(_), Verdict::Pass(_)) => is_known,
            _ => true,
        };
        let about = &self.about;
        assert!(
            is_right,
            "{about}: {steered:?}, and {verdict:?} of the pipeline, for {input:02x?}"
        );
        (verdict, frame)
    }

    /// Gives a frame to the one in the kernel only. Of the verdict there is the number of its counter: where to a
    /// frame is redirected does not come out of a test run, but is in the flow's record.
    pub fn run_in_kernel(&mut self, interface: u32, input: &[u8]) -> (usize, Vec<u8>) {
        let kernel = self.kernel.as_mut().unwrap();
        let Ran {
            action: taken,
            output: mut frame,
        } = program::run(kernel.program().unwrap(), interface, input);
        let stats = kernel.stats().unwrap();
        let about = &self.about;
        let changed: Vec<usize> = (0..stats.verdicts.len())
            .filter(|&verdict| stats.verdicts[verdict] != self.stats.verdicts[verdict])
            .collect();
        let [counter] = changed[..] else {
            panic!("{about}: counted as {changed:?}");
        };
        self.stats.verdicts[counter] += 1;
        assert_eq!(stats, self.stats, "{about}: verdicts");
        let exit = Exit::of_counter(counter as u32);
        let handed_over =
            exit.is_punt() || exit.is_told() && self.memory.slow_path == Reception::Taken;
        let action = match counter {
            0 => 3,
            1 => 4,
            pass if pass < 2 + Pass::ALL.len() => 2,
            _ if handed_over => 4,
            _ => 1,
        };
        assert_eq!(taken, action, "{about}: {}", name(counter));
        if handed_over {
            // With a note before it.
            let note: Vec<u8> = frame.drain(..size_of::<Note>()).collect();
            assert_eq!(
                note[..4],
                (counter as u32).to_ne_bytes(),
                "{about}: the note"
            );
        }
        (counter, frame)
    }

    /// How many flows were entered by frames, and how many half-open connections.
    pub fn entered(&self) -> [usize; 2] {
        let (v4, v6) = (&self.memory.v4, &self.memory.v6);
        let half_open = v4.count_half_open() + v6.count_half_open() - 2 * self.occupied;
        [
            visible(v4).count() + visible(v6).count(),
            half_open as usize,
        ]
    }

    /// What all flows have counted: packets and bytes of the original direction, then of the reply.
    pub fn flow_counters(&self) -> [u64; 4] {
        fn add<F: Family>(table: &FlowTable<F>, sum: &mut [u64; 4]) {
            for flow in visible(table) {
                let direction = usize::from(flow.is_reply()) * 2;
                let (packets, bytes) = flow.counts();
                sum[direction] += packets;
                sum[direction + 1] += bytes;
            }
        }
        let mut sum = [0; 4];
        add(&self.memory.v4, &mut sum);
        add(&self.memory.v6, &mut sum);
        sum
    }

    /// Asserts that counters and tables are alike.
    pub fn compare(&self) {
        let Some(kernel) = &self.kernel else {
            return;
        };
        let about = &self.about;
        for (id, ours) in (0..).zip(self.memory.backends.lock().unwrap().iter()) {
            let theirs = kernel.backend_stats(id).unwrap();
            assert_eq!(theirs, *ours, "{about}: backend {id}");
        }
        for (id, ours) in (0..).zip(self.memory.services.lock().unwrap().iter()) {
            let theirs = kernel.service_stats(id).unwrap();
            assert_eq!(theirs, *ours, "{about}: service {id}");
            let ours = self.memory.tickets.get(&id).map_or(0, |tickets| *tickets);
            let theirs = kernel.tickets(id).unwrap();
            assert_eq!(theirs, ours, "{about}: tickets of service {id}");
        }
        self.same_tables(kernel, &kernel.v4, &self.memory.v4);
        self.same_tables(kernel, &kernel.v6, &self.memory.v6);
    }

    /// The same tuples are entered, with the same records but for the times.
    fn same_tables<F: Family>(&self, kernel: &Kernel, theirs: &FlowTable<F>, ours: &FlowTable<F>) {
        let about = &self.about;
        for flow in visible(theirs) {
            let tuple = flow.tuple();
            let same = find(ours, &tuple);
            let same = same.unwrap_or_else(|| panic!("{about}: only the kernel has {tuple:?}"));
            assert_eq!(
                record(flow, &kernel.hops),
                record(same, &self.memory.hops),
                "{about}: flow {tuple:?}"
            );
        }
        assert_eq!(
            visible(theirs).count(),
            visible(ours).count(),
            "{about}: flows"
        );
        let counts = |table: &FlowTable<F>| (table.count(), table.count_half_open());
        assert_eq!(
            counts(theirs),
            counts(ours),
            "{about}: connections, half-open ones"
        );
    }
}

/// The name of a verdict by its counter.
fn name(counter: usize) -> String {
    let passes = Pass::ALL.iter().map(|&reason| Verdict::Pass(reason));
    let drops = Drop::ALL.iter().map(|&reason| Verdict::Drop(reason));
    let punts = Punt::ALL.iter().map(|&reason| Verdict::Punt(reason));
    let verdict = passes
        .chain(drops)
        .chain(punts)
        .find(|verdict| verdict.counter() == counter);
    match (verdict, counter) {
        (Some(verdict), _) => format!("{verdict:?}"),
        (None, 0) => "Transmit".to_owned(),
        (None, _) => "Redirect".to_owned(),
    }
}

fn sweep<F: Family>(table: &FlowTable<F>) {
    for index in 0..table.geometry().lines() {
        free(table, index);
    }
}

fn clear<F: Family>(table: &mut FlowTable<F>) {
    table.clear();
    let totals = table.totals().unwrap();
    for word in [
        &totals.opened,
        &totals.completed,
        &totals.replaced,
        &totals.closed,
        &totals.half_closed,
    ] {
        word.set(0);
    }
}

/// What is the same in a flow's record on both engines.
fn record<F: Family>(
    flow: &Flow<F>,
    hops: &[HopCell],
) -> impl PartialEq + std::fmt::Debug + use<F> {
    // The next hop of an original is its backend's.
    let hop = flow
        .is_reply()
        .then(|| hops[usize::from(flow.hop().number)].get());
    let traits = (flow.is_reply(), flow.is_tagged(), flow.backend());
    let (new, side) = (flow.new_tuple(), flow.side(flow.meta()));
    (new, flow.new_ports(), hop, side, traits, flow.counts())
}

/// Whether a packet is a part of one, or has a flow, which may be on its way out.
fn is_known(memory: &Memory, frame: &[u8]) -> bool {
    fn is_known<F: InMemory>(memory: &Memory, frame: &[u8], l3: usize) -> bool {
        match parse::headers::<F, _>(&frame, l3) {
            Ok(headers) => find::<F, _>(memory, &headers.tuple).is_some(),
            Err(exit) => exit == Pass::Fragment.into(),
        }
    }
    match parse::ethernet(&frame) {
        Ok(l2) if l2.ethertype == ethertype::IPV4 => is_known::<V4>(memory, frame, l2.l3),
        Ok(l2) => is_known::<V6>(memory, frame, l2.l3),
        Err(_) => false,
    }
}
