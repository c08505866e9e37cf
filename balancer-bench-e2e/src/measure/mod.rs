//! What is measured.

mod connections;
mod floods;
mod full_table;
mod memory;
mod one_way;
mod open_loop;
mod reload;
mod rounds;
mod start;
mod web;

use balancer_lab::{Nginx, WebConfig};
use clap::ValueEnum;

use crate::contender::{Contender, Setup, Task};
use crate::cpus::Cpus;
use crate::daemon::Binaries;
use crate::ends::{Ends, Way};
use crate::frame::Flow;
use crate::plan;
use crate::results::{Better, Figure};
use crate::site::Site;

/// A measurement: one or more figures that are taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Measurement {
    /// Packets that circulate through the box, both directions translated
    Rounds,
    /// Packets that go through the box one way
    OneWay,
    /// Packets that go through the box one way, more than it can take
    OpenLoop,
    /// New connections a second
    Connections,
    /// wrk against nginx
    Web,
    /// wrk against nginx, and new connections, while packets come that nobody wants
    Floods,
    /// wrk against nginx over a table of connections that is full, while others want in
    FullTable,
    /// Memory that a connection takes
    Memory,
    /// A reload that replaces all backends, under load
    Reload,
    /// From the start until ready
    Start,
}

/// One contender at one parameter, 0 where there is none or where a sample has them all.
pub type Case = (Contender, u32);

/// A value of the figure of that number, at a parameter.
pub type Value = (usize, u32, f64);

/// What every measurement needs.
pub struct Bench {
    /// The release.
    pub binaries: Binaries,
    /// Where everything runs.
    pub cpus: Cpus,
    /// Whether short samples will do.
    pub quick: bool,
}

impl Measurement {
    /// The figures, without rows.
    pub fn figures(self) -> Vec<Figure> {
        match self {
            Self::Rounds => rounds::figures(),
            Self::OneWay => one_way::figures(),
            Self::OpenLoop => open_loop::figures(),
            Self::Connections => connections::figures(),
            Self::Web => web::figures(),
            Self::Floods => floods::figures(),
            Self::FullTable => full_table::figures(),
            Self::Memory => memory::figures(),
            Self::Reload => reload::figures(),
            Self::Start => start::figures(),
        }
    }

    /// What is sampled in each repeat.
    pub fn cases(self) -> Vec<Case> {
        match self {
            Self::Rounds | Self::OneWay => Contender::AND_FLOOR
                .map(|contender| (contender, 0))
                .to_vec(),
            Self::Web => Contender::ALL.map(|contender| (contender, 0)).to_vec(),
            Self::OpenLoop => open_loop::cases(),
            Self::Connections => connections::cases(),
            Self::Floods => floods::cases(),
            Self::FullTable => full_table::cases(),
            Self::Memory => memory::cases(),
            Self::Reload | Self::Start => vec![(Contender::Balancerd, 0)],
        }
    }

    /// Takes one sample of each figure, on a site of its own.
    pub fn sample(self, bench: &Bench, case: Case) -> anyhow::Result<Vec<Value>> {
        match self {
            Self::Rounds => rounds::sample(bench, case.0),
            Self::OneWay => one_way::sample(bench, case.0),
            Self::OpenLoop => open_loop::sample(bench, case.0),
            Self::Connections => connections::sample(bench, case),
            Self::Web => web::sample(bench, case.0),
            Self::Floods => floods::sample(bench, case),
            Self::FullTable => full_table::sample(bench, case.1),
            Self::Memory => memory::sample(bench, case.0),
            Self::Reload => reload::sample(bench),
            Self::Start => start::sample(bench),
        }
    }

    /// The program that it needs beside the contenders'.
    pub fn tools(self) -> &'static [&'static str] {
        match self {
            Self::Web | Self::Floods | Self::FullTable => &["wrk", "nginx"],
            Self::OpenLoop => &["taskset"],
            _ => &[],
        }
    }
}

/// A figure without rows.
fn figure(name: &str, title: &str, unit: &str, better: Better, parameter: Option<&str>) -> Figure {
    Figure {
        name: name.to_owned(),
        title: title.to_owned(),
        unit: unit.to_owned(),
        better,
        parameter: parameter.map(str::to_owned),
        rows: Vec::new(),
    }
}

/// A contender at work between the far ends. Dropped in this order.
struct Stage {
    ends: Ends,
    setup: Setup,
    site: Site,
}

impl Stage {
    fn build(
        bench: &Bench,
        contender: Contender,
        task: Task,
        way: Way,
        room: u32,
    ) -> anyhow::Result<Self> {
        let site = Site::build()?;
        let setup = Setup::begin(contender, &site, &bench.binaries, task)?;
        let ends = Ends::attach(&site, bench.cpus, contender, way, room)?;
        Ok(Self { ends, setup, site })
    }
}

/// A site whose server has so many backends, each of which nginx serves a small page for. To be dropped after nginx.
fn web_site(backends: u32) -> anyhow::Result<(Site, Nginx)> {
    let site = Site::build()?;
    for number in 1..=backends {
        let address = format!("{}/32", plan::backend(number));
        site.server.address("lo", &address)?;
    }
    let web = WebConfig {
        log: false,
        ..WebConfig::default()
    };
    let nginx = Nginx::start(&site.server, &web)?;
    Ok((site, nginx))
}

/// The first so many flows to where a contender is asked.
fn flows(contender: Contender, count: u32) -> Vec<Flow> {
    let destination = (contender.destination(), plan::PORT);
    (0..count)
        .map(|index| Flow::new(index, destination))
        .collect()
}
