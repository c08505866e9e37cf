//! What a packet costs, in nanoseconds, without what it takes to measure it.
//!
//! ```text
//! cargo bench -p balancer-bench                      all
//! cargo bench -p balancer-bench -- xdp/v4            those whose names have this in them
//! BALANCER_FLOWS=1,131072 cargo bench …              with other numbers of connections
//! ```
//!
//! `xdp/…` is the XDP program under the kernel's test run and needs root; `memory/…` is the pipeline in user space; `lane/…` is the
//! same as a worker of engine `userspace` runs it, with maps of the kernel, counters and time, and needs root too.
//! Before a case is measured, its frames go through both engines, which must agree on every byte, and the program's
//! counters must say that each run got the verdict that the case is about; and they must say so again afterwards.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use balancer::datapath::flows::FlowTable;
use balancer::datapath::kernel::Kernel;
use balancer::datapath::mapped::Mapped;
use balancer::datapath::memory::Memory;
use balancer_bench::net::{Sample, Samples, Summary, thread_time};
use balancer_bench::scene::{Control, ELSEWHERE, INGRESS, Scene, Version, Worker, action, tcp};
use balancer_bench::wrapper::Wrapper;
use balancer_common::family::{Family, V4, V6};
use balancer_common::pipeline::process;
use balancer_common::tables::Tables;
use balancer_common::verdict::{Drop, Pass, Verdict};
use balancer_common::word::Word;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};

/// How many runs a sample has, whatever criterion asks for: the kernel takes milliseconds to prepare a test run (the
/// program enters a dispatcher, for which it waits for all CPUs), so few runs at a time would take for ever.
const RUNS: u32 = 300_000;

/// How many connections a table has room for by default.
const USUAL: u32 = 262_144;

/// Room for connections beside those that are measured.
const SPARE: u32 = 1024;

/// Frames, and what becomes of them.
struct Case {
    name: String,
    version: Version,
    frames: Vec<Vec<u8>>,
    verdict: Verdict,
}

fn main() -> anyhow::Result<()> {
    let counts = flow_counts()?;
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("left out: the XDP program's part needs root");
    }
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(50))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    let mut lines = Vec::new();
    // In a table of the default size what fits there; the rest in one that is full of them.
    let (usual, many): (Vec<u32>, Vec<u32>) = counts
        .into_iter()
        .partition(|&count| count <= USUAL - SPARE);
    let most = many.iter().copied().max().unwrap_or_default();
    for (counts, size) in [(usual, USUAL), (many, most + SPARE)] {
        if counts.is_empty() {
            continue;
        }
        let mut scene = Scene::new(size, is_root)?;
        let mut cases = cases(&mut scene, &counts)?;
        if size == USUAL {
            cases.extend(others(&mut scene)?);
        }
        established(&mut criterion, &mut scene, &cases, &mut lines)?;
    }
    if is_root {
        for (version, name) in [
            (Version::V4, "xdp/v4/new_udp"),
            (Version::V6, "xdp/v6/new_tcp"),
        ] {
            let mut group = criterion.benchmark_group(name);
            group.sampling_mode(SamplingMode::Flat);
            let samples = new_flows(&mut group, version)?;
            lines.extend(samples.summary().map(|summary| line(name, summary)));
        }
        for (version, name) in [
            (Version::V4, "lane/v4/new_udp"),
            (Version::V6, "lane/v6/new_tcp"),
        ] {
            let mut group = criterion.benchmark_group(name);
            group.sampling_mode(SamplingMode::Flat);
            let samples = new_flows_of_a_worker(&mut group, version)?;
            lines.extend(samples.summary().map(|summary| line(name, summary)));
        }
    }
    criterion.final_summary();
    println!("ns a packet, net               least   median  (wrapper)");
    println!("{}", lines.join("\n"));
    println!("one load that waits for the one before, from as much memory as the default table:");
    for lines in [1024, 131_072, 262_144] {
        println!(
            "{:26} {:8.1}",
            format!("of {lines} of its lines"),
            load(lines)?
        );
    }
    Ok(())
}

/// What the machine's memory takes just now: nanoseconds for a load from one of so many lines at random places of as
/// much memory, each of which says where the next one is.
fn load(lines: usize) -> anyhow::Result<f64> {
    const LINES: usize = USUAL as usize / 8 * 31;
    const WORDS: usize = 64 / size_of::<Word>();
    const LOADS: u32 = 1_000_000;
    let table: Mapped<Word> = Mapped::anonymous(LINES * WORDS)?;
    let mut places: Vec<usize> = (0..LINES).map(|line| line * WORDS).collect();
    shuffle(&mut places);
    places.truncate(lines);
    for (&at, &next) in places.iter().zip(places.iter().cycle().skip(1)) {
        table[at].set(next as u64);
    }
    let mut at = places[0];
    let before = thread_time()?;
    for _ in 0..LOADS {
        at = black_box(table[at].get() as usize);
    }
    let took = thread_time()?.saturating_sub(before);
    Ok(took.as_secs_f64() * 1e9 / f64::from(LOADS))
}

/// Measures the cases in both engines, and adds their lines to the table.
fn established(
    criterion: &mut Criterion,
    scene: &mut Scene,
    cases: &[Case],
    lines: &mut Vec<String>,
) -> anyhow::Result<()> {
    for engine in ["xdp", "memory", "lane"] {
        let mut group = criterion.benchmark_group(engine);
        group.sampling_mode(SamplingMode::Flat);
        for case in cases {
            let samples = match (engine, &mut scene.kernel, &scene.lane) {
                ("memory", ..) => in_user_space(&mut group, case, &scene.memory)?,
                ("lane", _, Some(worker)) => in_user_space(&mut group, case, &worker.lane)?,
                ("xdp", Some(kernel), _) => in_kernel(&mut group, case, &scene.memory, kernel)?,
                _ => continue,
            };
            if let Some(summary) = samples.summary() {
                lines.push(line(&format!("{engine}/{}", case.name), summary));
            }
        }
    }
    Ok(())
}

fn line(name: &str, summary: Summary) -> String {
    let Summary {
        least,
        median,
        wrapper,
    } = summary;
    format!("{name:26} {least:8.1} {median:8.1} {wrapper:10.1}")
}

/// Measures first packets: each opens a connection, in a table that has room for it.
fn new_flows(
    group: &mut BenchmarkGroup<'_, WallTime>,
    version: Version,
) -> anyhow::Result<Samples> {
    const CONNECTIONS: u32 = 65_536;
    let mut scene = Scene::new(2 * CONNECTIONS, true)?;
    let frames = Scene::first_packets(version, 0..CONNECTIONS);
    let kernel = scene.kernel.as_mut().context("there is no kernel")?;
    let fd = kernel.program()?.fd()?.try_clone()?;
    let mut target = Wrapper::new(Some(&fd), version, &frames)?;
    let mut reply = Wrapper::new(None, version, &frames)?;
    sample(group, "65536", || {
        let before = kernel.stats()?;
        let gross = target.time(CONNECTIONS)?;
        let forwarded = kernel.stats()?.verdicts[Verdict::Transmit.counter()]
            - before.verdicts[Verdict::Transmit.counter()];
        let entered = match version {
            Version::V4 => kernel.v4.count(),
            Version::V6 => kernel.v6.count(),
        };
        ensure!(
            (forwarded, entered) == (CONNECTIONS.into(), CONNECTIONS.into()),
            "{forwarded} packets were forwarded and {entered} connections entered"
        );
        kernel.v4.clear();
        kernel.v6.clear();
        Ok(Sample {
            runs: CONNECTIONS,
            gross,
            wrapper: reply.time(CONNECTIONS)?,
        })
    })
}

/// How many connections to have packets of: `BALANCER_FLOWS`, numbers with commas.
fn flow_counts() -> anyhow::Result<Vec<u32>> {
    let text =
        std::env::var("BALANCER_FLOWS").unwrap_or_else(|_| "1,1024,131072,1048576".to_owned());
    text.split(',')
        .map(|count| count.trim().parse().context("BALANCER_FLOWS"))
        .collect()
}

/// Packets of so many established connections, each way.
fn cases(scene: &mut Scene, counts: &[u32]) -> anyhow::Result<Vec<Case>> {
    let most = counts.iter().copied().max().unwrap_or(1);
    let mut cases = Vec::new();
    for (version, family) in [(Version::V4, "v4"), (Version::V6, "v6")] {
        let connections = scene.connect(version, 80, 0..most)?;
        for &count in counts {
            // Not in the order in which they were entered: their elements would lie in sequence in memory.
            let mut of_this: Vec<_> = connections.iter().take(count as usize).collect();
            shuffle(&mut of_this);
            for (direction, name) in [(0, "original"), (1, "reply")] {
                cases.push(Case {
                    name: format!("{family}/{name}/{count}"),
                    version,
                    frames: of_this.iter().map(|both| both[direction].clone()).collect(),
                    verdict: Verdict::Transmit,
                });
            }
        }
    }
    Ok(cases)
}

/// What is not a matter of how many connections there are.
fn others(scene: &mut Scene) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (version, family) in [(Version::V4, "v4"), (Version::V6, "v6")] {
        let [original, _] = scene.connect(version, 81, 0..1)?.remove(0);
        cases.push(Case {
            name: format!("{family}/redirect/1"),
            version,
            frames: vec![original],
            verdict: Verdict::Redirect(ELSEWHERE),
        });
        let (client, other) = match version {
            Version::V4 => ("198.18.0.1:2000", "192.0.2.10:9999"),
            Version::V6 => ("[2001:db8:2::1]:2000", "[2001:db8::10]:9999"),
        };
        let frame = tcp(client.parse()?, other.parse()?, Control::Ack);
        let mut malformed = frame.clone();
        let reason = match version {
            Version::V4 => Drop::BadChecksum,
            Version::V6 => Drop::BadTotalLength,
        };
        // The header's checksum of IPv4; the payload length of IPv6.
        malformed[if version == Version::V4 { 24 } else { 18 }] ^= 0xff;
        for (name, frame, verdict) in [
            ("no_service", frame, Verdict::Pass(Pass::NoService)),
            ("malformed", malformed, Verdict::Drop(reason)),
        ] {
            cases.push(Case {
                name: format!("{family}/{name}"),
                version,
                frames: vec![frame],
                verdict,
            });
        }
    }
    Ok(cases)
}

/// Another order, always the same.
fn shuffle<T>(items: &mut [T]) {
    let mut state = 1_u64;
    for last in (1..items.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        items.swap(last, (state >> 33) as usize % (last + 1));
    }
}

/// Measures the XDP program.
fn in_kernel(
    group: &mut BenchmarkGroup<'_, WallTime>,
    case: &Case,
    memory: &Memory,
    kernel: &mut Kernel,
) -> anyhow::Result<Samples> {
    let fd = kernel.program()?.fd()?.try_clone()?;
    let mut target = Wrapper::new(Some(&fd), case.version, &case.frames)?;
    let mut reply = Wrapper::new(None, case.version, &case.frames)?;
    prove(case, memory, kernel, &mut target)
        .with_context(|| format!("{} does not do what it says", case.name))?;
    let before = kernel.stats()?;
    let samples = sample(group, &case.name, || {
        Ok(Sample {
            runs: RUNS,
            gross: target.time(RUNS)?,
            wrapper: reply.time(RUNS)?,
        })
    })?;
    let after = kernel.stats()?;
    let counter = case.verdict.counter();
    ensure!(
        after.verdicts[counter] - before.verdicts[counter] == samples.runs(),
        "{}: not every run was a {:?}",
        case.name,
        case.verdict
    );
    Ok(samples)
}

/// Lets the program have each flow some times, and compares all that can be seen with what the case is about.
fn prove(
    case: &Case,
    memory: &Memory,
    kernel: &Kernel,
    target: &mut Wrapper,
) -> anyhow::Result<()> {
    let flows = case.frames.len();
    // The last round is not a whole one, so that it matters which flow comes when.
    let runs = flows * 3 + flows.div_ceil(2);
    let before = (kernel.stats()?, packets(kernel, case.version));
    let outcome = target.run(runs as u32)?;
    let after = (kernel.stats()?, packets(kernel, case.version));

    let mut expected = case.frames[(runs - 1) % flows].clone();
    let input = expected.clone();
    let verdict = process(&mut expected.as_mut_slice(), memory, INGRESS);
    ensure!(verdict == case.verdict, "the pipeline says {verdict:?}");
    ensure!(
        outcome.action == action(verdict),
        "the program's action is {}",
        outcome.action
    );
    ensure!(
        outcome.output.starts_with(&expected),
        "the program's frame is not the pipeline's"
    );
    let forwards = matches!(verdict, Verdict::Transmit | Verdict::Redirect(_));
    ensure!(
        (input != expected) == forwards,
        "what is forwarded is rewritten, and nothing else"
    );
    let counter = verdict.counter();
    let such = after.0.verdicts[counter] - before.0.verdicts[counter];
    ensure!(
        such == runs as u64,
        "{such} of {runs} runs were counted as {verdict:?}"
    );
    let changes: Vec<_> = after
        .1
        .iter()
        .zip(&before.1)
        .map(|(after, before)| after - before)
        .filter(|&change| change > 0)
        .collect();
    let (of, each) = if forwards { (flows, 3..=4) } else { (0, 0..=0) };
    ensure!(
        changes.len() == of
            && changes.iter().all(|change| each.contains(change))
            && changes.iter().sum::<u64>() == if forwards { runs as u64 } else { 0 },
        "the counters of {} flows have changed, for {runs} runs over {of} flows",
        changes.len()
    );
    Ok(())
}

/// The packet counters of all flows, ordered by their tuples.
fn packets(kernel: &Kernel, version: Version) -> Vec<u64> {
    fn of<F: Family>(table: &FlowTable<F>) -> Vec<u64> {
        let flows = table.flows().map(|flow| (flow.tuple(), flow.counts().0));
        let mut flows: Vec<_> = flows.collect();
        flows.sort_unstable();
        flows.into_iter().map(|(_, packets)| packets).collect()
    }
    match version {
        Version::V4 => of(&kernel.v4),
        Version::V6 => of(&kernel.v6),
    }
}

/// Measures the pipeline in user space.
fn in_user_space(
    group: &mut BenchmarkGroup<'_, WallTime>,
    case: &Case,
    tables: &(impl Tables<V4> + Tables<V6>),
) -> anyhow::Result<Samples> {
    let mut first = case.frames[0].clone();
    let verdict = process(&mut first.as_mut_slice(), tables, INGRESS);
    ensure!(verdict == case.verdict, "{}: {verdict:?}", case.name);
    sample(group, &case.name, || {
        Ok(Sample {
            runs: RUNS,
            gross: ring(&case.frames, RUNS, |mut frame| {
                process(&mut frame, tables, INGRESS)
            })?,
            wrapper: ring(&case.frames, RUNS, |frame| frame.len())?,
        })
    })
}

/// Measures first packets in user space: each opens a connection.
fn new_flows_of_a_worker(
    group: &mut BenchmarkGroup<'_, WallTime>,
    version: Version,
) -> anyhow::Result<Samples> {
    const CONNECTIONS: u32 = 65_536;
    let scene = Scene::new(2 * CONNECTIONS, true)?;
    let frames = Scene::first_packets(version, 0..CONNECTIONS);
    let Worker { lane, mut kernel } = scene.lane.context("there is no worker")?;
    sample(group, "65536", || {
        let mut forwarded = 0;
        let gross = ring(&frames, CONNECTIONS, |mut frame| {
            let verdict = process(&mut frame, &lane, INGRESS);
            forwarded += u32::from(verdict == Verdict::Transmit);
        })?;
        ensure!(
            forwarded == CONNECTIONS,
            "{forwarded} packets were forwarded"
        );
        kernel.v4.clear();
        kernel.v6.clear();
        Ok(Sample {
            runs: CONNECTIONS,
            gross,
            wrapper: ring(&frames, CONNECTIONS, |frame| frame.len())?,
        })
    })
}

/// Runs `target` so many times on the frames in turn, in a ring of eight, each made new seven runs before its turn: as
/// the wrapper in the kernel does.
fn ring<T>(
    frames: &[Vec<u8>],
    runs: u32,
    mut target: impl FnMut(&mut [u8]) -> T,
) -> anyhow::Result<Duration> {
    let mut fresh = frames.iter().cycle();
    let mut slots = [(); 8].map(|()| fresh.next().cloned().unwrap_or_default());
    let before = thread_time()?;
    for _ in 0..runs / 8 {
        for slot in &mut slots {
            black_box(target(slot));
            if let Some(frame) = fresh.next() {
                slot.copy_from_slice(black_box(frame));
            }
        }
    }
    Ok(thread_time()?.saturating_sub(before))
}

/// Has criterion take samples of `run`, and keeps them.
fn sample(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    mut run: impl FnMut() -> anyhow::Result<Sample>,
) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    let mut failure = None;
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let sample = run().unwrap_or_else(|error| {
                failure.get_or_insert(error);
                Sample::default()
            });
            samples.push(sample);
            Duration::from_secs_f64(sample.net() * f64::from(iterations as u32) / 1e9)
        });
    });
    failure.map_or(Ok(samples), Err)
}
