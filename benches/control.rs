//! What the daemon's work costs: reading and applying configurations, sweeping, answering.
//!
//! ```text
//! cargo bench -p balancer-bench --bench control
//! ```
//!
//! What needs the kernel needs root.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use balancer::config::{self, Config, FlowLookup};
use balancer::daemon::tables::Tables;
use balancer::datapath::compile::{ServiceIds, compile};
use balancer::datapath::flows::{FlowTable, Pass};
use balancer::datapath::kernel::{Back, Kernel, Sizes, Work};
use balancer::datapath::pins::Pins;
use balancer::datapath::schedule;
use balancer_common::family::{Family as _, V4};
use balancer_common::table::enter::{Connection, enter};
use balancer_common::table::tick::Tick;
use balancer_common::tuple::{PortsProtocol, Tuple};
use balancer_common::wire::protocol;
use criterion::{BatchSize, Criterion};

const SIZES: [u32; 3] = [10, 1_000, 10_000];
const FLOWS: u32 = 1_000_000;

fn main() -> anyhow::Result<()> {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    configurations(&mut criterion)?;
    schedules(&mut criterion);
    sweeper(&mut criterion)?;
    if nix::unistd::geteuid().is_root() {
        kernel(&mut criterion)?;
    } else {
        eprintln!("left out: what needs the kernel needs root");
    }
    criterion.final_summary();
    Ok(())
}

/// A service with so many backends, in a network of its own.
fn text(backends: u32, network: u8) -> String {
    let list = (0..backends).map(|number| {
        let [_, _, high, low] = (number + 1).to_be_bytes();
        format!("  {{ address = \"10.{network}.{high}.{low}:8080\" }},\n")
    });
    format!(
        "[datapath]\ninterfaces = [\"lo\"]\n[[service]]\nname = \"web\"\nlisten = \"192.0.2.10:80\"\n\
         protocol = \"tcp\"\nbackend = [\n{}]\n",
        list.collect::<String>()
    )
}

fn parse(text: &str) -> anyhow::Result<Config> {
    config::parse("bench.toml", text).map_err(|errors| anyhow::anyhow!("{errors:?}"))
}

fn configurations(criterion: &mut Criterion) -> anyhow::Result<()> {
    for size in SIZES {
        let (old, new) = (text(size, 0), text(size, 1));
        criterion.bench_function(&format!("parse/{size}"), |bencher| {
            bencher.iter(|| parse(black_box(&new)).is_ok());
        });
        let (old, new) = (parse(&old)?, parse(&new)?);
        ensure!(config::diff(&old, &old).is_empty() && !config::diff(&old, &new).is_empty());
        criterion.bench_function(&format!("diff/{size}"), |bencher| {
            bencher.iter(|| config::diff(black_box(&old), black_box(&new)));
        });
        let ids = [ServiceIds {
            service: 0,
            backends: (0..size).collect(),
        }];
        criterion.bench_function(&format!("compile/{size}"), |bencher| {
            let ports = new.datapath.source_ports;
            bencher.iter(|| compile(1, black_box(&new.services), &ids, ports, |_| Some(1)));
        });
    }
    Ok(())
}

fn schedules(criterion: &mut Criterion) {
    for size in SIZES {
        let weights: Vec<u16> = (0..size).map(|number| 1 + (number % 7) as u16).collect();
        criterion.bench_function(&format!("schedule/nth/{size}"), |bencher| {
            bencher.iter(|| schedule::nth(black_box(&weights)));
        });
        let shares: Vec<f64> = weights.iter().map(|&weight| f64::from(weight)).collect();
        criterion.bench_function(&format!("schedule/random/{size}"), |bencher| {
            bencher.iter(|| schedule::random(black_box(&shares)));
        });
    }
}

/// A table of [`FLOWS`] flows, seen at `now`.
fn table(now: Tick) -> anyhow::Result<FlowTable<V4>> {
    let sizes = Sizes {
        connections: FLOWS / 2,
        half_open: FLOWS / 2,
        lookup: FlowLookup::Table,
    };
    let table = FlowTable::anonymous(sizes.geometry([
        0x9216_d5d9_8979_fb1b,
        0xd131_0ba6_98df_b5ad,
        0x2ffd_72db_d01a_dfb7,
        0xb8e1_afed_6a26_7e97,
        0xba7c_9045_f12c_7f99,
    ]))?;
    for number in 0..FLOWS / 2 {
        let port = 1024 + (number % 60_000) as u16;
        let tuple = |from, to, ports: (u16, u16)| Tuple {
            addresses: V4::pair(from, to),
            ports: PortsProtocol::new(ports.0, ports.1, protocol::TCP),
        };
        let mut connection = Connection {
            reply: tuple(2 + number / 60_000, 1, (8080, port)),
            now,
            ..Connection::of(tuple(number, 7, (port, 80)))
        };
        ensure!(enter(&table, &mut connection, || 0).is_ok(), "{number}");
    }
    ensure!(table.count() == u64::from(FLOWS / 2));
    Ok(table)
}

fn sweeper(criterion: &mut Criterion) -> anyhow::Result<()> {
    let timeouts = parse(&text(1, 0))?.timeouts;
    let now = Tick(1 << 30);
    let pass = |table: &mut FlowTable<V4>| {
        let mut pass = Pass::default();
        while table.look(&mut pass, &timeouts, now) {}
        table.free(&pass);
        pass.removed
    };
    let mut busy = table(now)?;
    criterion.bench_function("sweep/1000000 flows, none idle", |bencher| {
        bencher.iter(|| pass(&mut busy));
    });
    ensure!(busy.count() == u64::from(FLOWS / 2));
    criterion.bench_function("count_active/1000000 flows", |bencher| {
        bencher.iter(|| {
            let mut counts = std::collections::HashMap::new();
            busy.count_active(&mut counts);
            counts
        });
    });
    drop(busy);
    let mut failure = None;
    criterion.bench_function("sweep/1000000 flows, all idle", |bencher| {
        bencher.iter_batched(
            || table(Tick(0)),
            |made| {
                let swept = made.and_then(|mut table| {
                    let removed = pass(&mut table);
                    ensure!(
                        removed == u64::from(FLOWS / 2),
                        "only {removed} were removed"
                    );
                    Ok(table)
                });
                swept.map_err(|error| failure = Some(error)).ok()
            },
            BatchSize::PerIteration,
        );
    });
    failure.map_or(Ok(()), Err)
}

/// What writes to maps, in the way that the daemon does.
fn kernel(criterion: &mut Criterion) -> anyhow::Result<()> {
    let path = PathBuf::from(format!("/sys/fs/bpf/balancer-bench-{}", std::process::id()));
    let pins = Arc::new(Pins::open(&path)?);
    let result = in_kernel(criterion, &pins);
    pins.remove()?;
    result
}

fn in_kernel(criterion: &mut Criterion, pins: &Arc<Pins>) -> anyhow::Result<()> {
    let sizes = Sizes {
        connections: 262_144,
        half_open: 65_536,
        lookup: FlowLookup::Table,
    };
    for size in SIZES {
        // Each configuration replaces every backend of the one before; ids are given anew.
        let configs = [parse(&text(size, 0))?, parse(&text(size, 1))?];
        let kernel = Kernel::load(sizes, Work::Kernel(Back::Transmit), None)?;
        let mut tables = Tables::new(kernel, Arc::clone(pins), configs[0].clone(), None, None)?;
        let mut turn = 0;
        let mut failure = None;
        criterion.bench_function(&format!("apply/{size}"), |bencher| {
            bencher.iter_custom(|iterations| {
                let start = Instant::now();
                for _ in 0..iterations {
                    turn += 1;
                    let config = configs[turn % 2].clone();
                    let result = tables.name(config).and_then(|named| tables.apply(named));
                    failure = failure.take().or(result.err());
                }
                start.elapsed()
            });
        });
        if let Some(error) = failure {
            return Err(error).context("a configuration was not applied");
        }
        ensure!(tables.services()?.services[0].backends.len() == size as usize);
        criterion.bench_function(&format!("services/{size}"), |bencher| {
            bencher.iter(|| tables.services());
        });
    }
    Ok(())
}
