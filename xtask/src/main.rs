//! The project's own tasks, called as `cargo xtask`.

mod apt;
mod bench;
mod demo;
mod fuzz;
mod kernels;
mod lint;
mod model;
mod progress;
mod run;
mod setup;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{
    bench::BenchArgs, demo::DemoArgs, fuzz::FuzzArgs, kernels::KernelsArgs, model::ModelArgs,
    test::TestArgs, workspace::Workspace,
};

/// The project's own tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Gets what the build and the tests need: rust-src, bpf-linker, and the programs of the lab
    ///
    /// Only what is missing is fetched. `BALANCER_RUST_SRC` says where rust-src comes from: `rustup`, `debian` (the
    /// package of that name, unpacked into target/tools), or `auto`, which tries them in this order.
    Setup,
    /// Runs setup, then all tests; as root also those that need it
    Test(TestArgs),
    /// Checks the formatting, the lints and the documentation
    Lint,
    /// Runs lint, then test, then the oldest and the newest of the other kernels
    Ci,
    /// Runs the flow table's code under a model checker
    Model(ModelArgs),
    /// Runs the fuzz targets under libFuzzer
    Fuzz(FuzzArgs),
    /// Runs tests on other kernels, which qemu boots: Debian's, fetched into target/kernels
    Kernels(KernelsArgs),
    /// Measures the load balancer end to end, beside iptables, nft and plain routing
    Bench(BenchArgs),
    /// Shows the load balancer at work, in network namespaces of its own
    Demo(DemoArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match task {
        Task::Setup => setup::setup(&workspace),
        Task::Test(args) => test::test(&workspace, args),
        Task::Lint => lint::lint(&workspace),
        Task::Ci => {
            lint::lint(&workspace)?;
            test::test(&workspace, &TestArgs::default())?;
            kernels::kernels(&workspace, &KernelsArgs::of(&["6.1", "7.2"]))
        }
        Task::Model(args) => model::model(&workspace, args),
        Task::Fuzz(args) => fuzz::fuzz(&workspace, args),
        Task::Kernels(args) => kernels::kernels(&workspace, args),
        Task::Bench(args) => bench::bench(&workspace, args),
        Task::Demo(args) => demo::demo(&workspace, args),
    }
}
