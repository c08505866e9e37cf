//! `cargo xtask kernels`: the program and the daemon on other kernels than this machine's, each in a guest of its own.

mod archive;
mod guest;
mod modules;
mod programs;
mod release;
mod report;

use std::{fs, time::Instant};

use anyhow::{Context as _, ensure};
use clap::{Args, builder::PossibleValuesParser};

use crate::{
    kernels::{
        guest::{Contents, QEMU, Task},
        release::{ALL, Kernel, Series, Store},
        report::Report,
    },
    progress::Step,
    setup::{self, packages},
    workspace::Workspace,
};

/// Frames by chance in a guest, enough that the test sees connections through their whole life.
const FRAMES: u32 = 30_000;

/// Instructions that the verifier of any kernel processes at most.
const LIMIT: u32 = 1_000_000;

/// The end-to-end tests that are run: each source NAT, both families and protocols; one link and several; what needs
/// pinned links and maps to be taken over.
const END_TO_END: [&str; 12] = [
    "nat::backends_see_who_the_configuration_says",
    "schedule::nth_rotates_over_udp_on_one_link",
    "life::detach_takes_everything_away",
    "life::a_daemon_started_after_keep_takes_over",
    "life::it_runs_in_generic_mode",
    "paths::the_first_packet_to_a_flushed_neighbour_is_not_lost",
    "icmp::a_client_hears_that_nobody_listens",
    "vlan::clients_and_backends_are_in_different_vlans",
    "vlan::clients_are_behind_two_tags",
    "vlan::one_tag_is_kept",
    "vlan::two_tags_are_kept",
    "loss::connections_survive_bad_links",
];

/// The options.
#[derive(Debug, Args)]
pub struct KernelsArgs {
    /// Which kernels; all, if none is named
    #[arg(value_name = "SERIES", value_parser = PossibleValuesParser::new(ALL.map(|series| series.name)))]
    series: Vec<String>,
    /// Fail where guests cannot be had: without qemu, or when Debian's packages cannot be fetched
    #[arg(long)]
    require: bool,
}

impl KernelsArgs {
    /// Those kernels, and no failure where they cannot be had.
    pub fn of(series: &[&str]) -> Self {
        Self {
            series: series.iter().map(ToString::to_string).collect(),
            require: false,
        }
    }
}

/// A kernel's line of the table.
struct Row {
    series: Series,
    report: Report,
    complaints: Vec<String>,
    seconds: f32,
}

/// Boots each kernel, and has it run the tests.
pub fn kernels(workspace: &Workspace, args: &KernelsArgs) -> anyhow::Result<()> {
    let chosen: Vec<Series> = ALL
        .into_iter()
        .filter(|series| {
            args.series.is_empty() || args.series.iter().any(|name| name == series.name)
        })
        .collect();
    setup::setup(workspace)?;
    let dir = workspace.target_dir().join("kernels");
    let (kernels, busybox) = match fetch(&dir, &chosen) {
        Ok(fetched) => fetched,
        Err(error) if args.require => return Err(error.context("guests cannot be had")),
        Err(error) => {
            // The first line names what failed; a program's whole report may follow.
            let error = format!("{error:#}");
            let why = error.lines().next().unwrap_or_default();
            eprintln!("left out: other kernels ({why})");
            return Ok(());
        }
    };
    let programs = programs::build(workspace, &dir.join("programs"))?;
    let plan = plan();
    let contents = Contents {
        programs: &programs,
        busybox: &busybox,
        plan: &plan,
    };
    let mut rows = Vec::new();
    for (series, kernel) in chosen.iter().zip(&kernels) {
        let started = Instant::now();
        let mut step = Step::start(&format!("Linux {}", series.name));
        let run = dir.join("runs").join(series.name);
        setup::fresh_dir(&run)?;
        let initramfs = run.join("initramfs");
        guest::write(&initramfs, kernel, &contents)?;
        let report = guest::boot(&mut step, kernel, &initramfs, &run)?;
        fs::remove_file(&initramfs)?;
        let tests: Vec<_> = plan.iter().map(|task| (task.name, task.tests)).collect();
        let complaints = report.complaints(&tests, &series.budget);
        if complaints.is_empty() {
            step.done(&format!("{} tests passed", report.passed()));
        } else {
            step.failed(&format!("see {}", run.join("output").display()));
        }
        rows.push(Row {
            series: *series,
            report,
            complaints,
            seconds: started.elapsed().as_secs_f32(),
        });
    }
    show(&rows);
    ensure!(
        rows.iter().all(|row| row.complaints.is_empty()),
        "other kernels failed"
    );
    Ok(())
}

/// Gets what the guests take.
fn fetch(
    dir: &std::path::Path,
    chosen: &[Series],
) -> anyhow::Result<(Vec<Kernel>, std::path::PathBuf)> {
    packages::ensure_these(
        "programs for guests",
        &[(QEMU, "qemu-system-x86"), ("xz", "xz-utils")],
        "guests with other kernels",
    )?;
    guest::check_tools()?;
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut step = Step::start("kernels");
    let mut store = Store::new(dir.to_owned());
    let mut kernels = Vec::new();
    for series in chosen {
        kernels.push(store.kernel(&mut step, *series)?);
    }
    let busybox = store.busybox(&mut step)?;
    store.close()?;
    let releases: Vec<_> = kernels
        .iter()
        .map(|kernel| kernel.release.as_str())
        .collect();
    step.done(&releases.join(", "));
    Ok((kernels, busybox))
}

/// What every guest runs.
fn plan() -> Vec<Task> {
    let lab = "env BALANCER_LAB=required BALANCER_MODULES=required RUST_TEST_THREADS=1";
    let task = |name, tests, command| Task {
        name,
        tests,
        command,
    };
    vec![
        // CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON and CAP_BPF: bits 12, 13, 38 and 39.
        task(
            "capabilities",
            0,
            "confined grep CapEff:.000000c000003000 /proc/self/status".to_owned(),
        ),
        // The budget is this task's business: it differs between kernels.
        task(
            "verifier",
            1,
            format!("confined env BALANCER_BUDGET={LIMIT} /tests/verifier --nocapture"),
        ),
        task("vectors", 2, format!("{lab} /tests/vectors_kernel")),
        task(
            "chance",
            1,
            format!("{lab} BALANCER_FRAMES={FRAMES} /tests/differential --nocapture"),
        ),
        task(
            "end to end",
            u32::try_from(END_TO_END.len()).unwrap_or(u32::MAX),
            format!("{lab} /tests/e2e --exact {}", END_TO_END.join(" ")),
        ),
        task("kernel log", 0, "quiet".to_owned()),
    ]
}

/// Prints the table, and what is wrong.
fn show(rows: &[Row]) {
    println!(
        "{:<26} {:>22} {:>22} {:>6} {:>8}",
        "kernel", "table, budget", "hash, budget", "tests", "seconds"
    );
    for row in rows {
        let release = row.report.release.as_deref().unwrap_or(row.series.name);
        print!("{release:<26}");
        for (lookup, budget) in row.series.budget {
            let verified = row
                .report
                .verified
                .get(lookup)
                .map_or_else(|| "?".to_owned(), u32::to_string);
            print!(" {:>22}", format!("{verified}, {budget}"));
        }
        println!(" {:>6} {:>8.0}", row.report.passed(), row.seconds);
    }
    for row in rows {
        for complaint in &row.complaints {
            println!("{}: {complaint}", row.series.name);
        }
    }
}
