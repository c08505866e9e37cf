//! `cargo xtask demo`.

mod scene;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{bail, ensure};
use clap::Args;

use self::scene::Scene;
use crate::test::privilege;
use crate::{run, setup, workspace::Workspace};

/// The demo's options.
#[derive(Debug, Default, Args)]
pub struct DemoArgs {
    /// Leave the lab up at the end, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

/// Whether the user wants to end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Fails when the user wants to end; what was built up goes on the way out.
fn go_on() -> anyhow::Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

/// Runs setup, builds the release, then shows it at work. Fails when it does not do what it is shown for.
pub fn demo(workspace: &Workspace, args: &DemoArgs) -> anyhow::Result<()> {
    if let Some(reason) = privilege::missing() {
        bail!("the demo makes network namespaces and loads a program, which needs root ({reason})");
    }
    setup::setup(workspace)?;
    run::timed(
        "release build",
        &mut workspace.cargo(["build", "--release", "--package", "balancer"]),
    )?;
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))?;
    let start = Instant::now();
    // Dropped at the end, and on each error: everything goes.
    let scene = Scene::build(workspace)?;
    show(&scene)?;
    if args.keep {
        scene.keep();
    }
    drop(scene);
    println!(
        "\nEverything is taken away again. The demo took {:.0?}.",
        start.elapsed()
    );
    Ok(())
}

fn show(scene: &Scene) -> anyhow::Result<()> {
    println!(
        "\nNine requests, each a connection of its own; scheduler nth takes the servers in turn:\n"
    );
    let answers = scene.requests(9)?;
    println!("  {}", answers.join(" "));
    let (first, rest) = answers.split_at(3);
    let mut servers = first.to_vec();
    servers.sort();
    servers.dedup();
    ensure!(
        servers.len() == 3 && rest.chunks(3).all(|turn| turn == first),
        "that is no rotation over three servers"
    );
    println!("\nbalancerctl services:\n\n{}", scene.services()?);
    go_on()?;

    println!(
        "A long download begins, and its server is taken out of the configuration (SIGHUP):\n"
    );
    let download = scene.download()?;
    let server = scene.server_of(&download)?;
    let changes = scene.reload_without(&server)?;
    for change in changes {
        println!("  {change}");
    }
    let answers = scene.requests(6)?;
    println!("\nSix more requests meanwhile:\n\n  {}", answers.join(" "));
    ensure!(
        !answers.contains(&server.name) && answers.chunks(2).all(|turn| turn == &answers[..2]),
        "these should go to the other two in turn"
    );
    let table = scene.services()?;
    println!("\nThe server that is gone from the configuration still has the download:\n\n{table}");
    ensure!(
        table
            .lines()
            .any(|line| line.contains(&server.backend) && line.contains("removed")),
        "it is not shown as removed"
    );
    go_on()?;
    let (bytes, expected) = Scene::finish(&download)?;
    ensure!(
        bytes == expected,
        "the download was cut: {bytes} of {expected} bytes"
    );
    println!("The download is complete: {bytes} of {expected} bytes.");
    Ok(())
}
