//! `cargo xtask test`.

mod plan;
pub mod privilege;
mod summary;

use std::{process::Command, time::Instant};

use anyhow::bail;
use clap::Args;

use crate::{
    model::{self, ModelArgs},
    setup,
    test::{plan::Plan, summary::Summary},
    workspace::Workspace,
};

/// How many tests with network namespaces run at a time, unless `RUST_TEST_THREADS` says otherwise.
const ROOT_TEST_THREADS: &str = "2";

/// The test that runs again with the other way to find flows, and with the other engine.
const E2E: &str = "e2e";

/// The test task's options.
#[derive(Debug, Default, Args)]
pub struct TestArgs {
    /// Leave out the tests that need root, even as root
    #[arg(long)]
    no_root_tests: bool,
    /// Passed to `cargo test`, which then runs once: a name, `--package`, `--test`, `-- --nocapture`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo_args: Vec<String>,
}

/// Runs setup and all the tests that this user may run.
///
/// They run in release mode, as what users get, and as the XDP program, which knows no other. The packet pipeline is
/// also tested in debug mode, where a number that overflows is an error; the tasks are in that mode already.
pub fn test(workspace: &Workspace, args: &TestArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    setup::setup(workspace)?;
    let left_out = if args.no_root_tests {
        Some("--no-root-tests was given".to_owned())
    } else {
        privilege::missing()
    };
    if left_out.is_none() {
        privilege::mount_bpffs();
    }
    let mut summary = Summary::default();
    if args.cargo_args.is_empty() {
        let plan = Plan::of(workspace)?;
        run_all(workspace, &plan, left_out.as_deref(), &mut summary)?;
    } else {
        let mut cargo = workspace.cargo(["test", "--workspace", "--release"]);
        cargo.args(&args.cargo_args);
        limit_threads(&mut cargo);
        summary.run("tests", &mut cargo)?;
    }
    eprintln!("{summary} in {:.0} s", started.elapsed().as_secs_f32());
    if !summary.is_success() {
        bail!("tests failed");
    }
    Ok(())
}

fn run_all(
    workspace: &Workspace,
    plan: &Plan,
    left_out: Option<&str>,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let release = |more: &[&str]| {
        let mut cargo = workspace.cargo(["test", "--release", "--no-fail-fast", "--workspace"]);
        if left_out.is_none() {
            // What can be had here is not left out silently.
            cargo.env("BALANCER_LAB", "required");
        }
        cargo.args(["--exclude", "balancer-build", "--exclude", "xtask"]);
        cargo.args(more);
        cargo
    };
    let mut debug = workspace.cargo(["test", "--no-fail-fast"]);
    for package in ["balancer-common", "balancer-build", "xtask"] {
        debug.args(["--package", package]);
    }
    summary.run("packet pipeline and tasks, in debug mode", &mut debug)?;
    let mut unprivileged = release(&["--lib", "--bins"]);
    for test in &plan.unprivileged {
        unprivileged.args(["--test", test]);
    }
    summary.run("tests that need no root", &mut unprivileged)?;
    summary.run("examples in the documentation", &mut release(&["--doc"]))?;
    let mut model = model::test(workspace, &ModelArgs::default());
    summary.run("model of the flow table", &mut model)?;
    if let Some(why) = left_out {
        if !plan.root.is_empty() || plan.verifier {
            let verifier = plan.verifier.then_some("verifier");
            let tests: Vec<_> = plan
                .root
                .iter()
                .map(String::as_str)
                .chain(verifier)
                .collect();
            eprintln!("left out, {why}: {}", tests.join(", "));
        }
        return Ok(());
    }
    if !plan.root.is_empty() {
        let mut root = release(&[]);
        for test in &plan.root {
            root.args(["--test", test]);
        }
        limit_threads(&mut root);
        summary.run("tests that need root", &mut root)?;
    }
    if plan.root.iter().any(|test| test == E2E) {
        for (variable, value, key) in [
            ("BALANCER_FLOW_LOOKUP", "hash", "flow_lookup"),
            ("BALANCER_ENGINE", "userspace", "engine"),
        ] {
            let mut again = release(&["--test", E2E]);
            again.env(variable, value);
            limit_threads(&mut again);
            summary.run(&format!("end to end, with {key} = \"{value}\""), &mut again)?;
        }
    }
    if plan.verifier {
        // It prints the load time, the verified instructions and the stack of each program.
        let mut verifier = release(&["--test", "verifier", "--", "--nocapture"]);
        summary.run("the kernel's verifier", &mut verifier)?;
    }
    Ok(())
}

fn limit_threads(cargo: &mut Command) {
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        cargo.env("RUST_TEST_THREADS", ROOT_TEST_THREADS);
    }
}
