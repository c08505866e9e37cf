//! From a configuration to a running daemon, and to its end.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::paths::Paths;
use super::preflight;
use super::reload::Reloader;
use super::requests::Requests;
use super::shared::Shared;
use super::supervisor;
use super::surroundings;
use super::sweeper;
use super::tables::Tables;
use crate::config::{Config, Engine, OnDaemonLoss, OnExit};
use crate::control::{ControlListener, serve};
use crate::datapath::attach;
use crate::datapath::kernel::{Back, Kernel, Sizes, Work};
use crate::datapath::netlink::{Link, Netlink};
use crate::datapath::pins::Pins;
use crate::slow_path::{Program, SlowPath};
use crate::userspace::{Habits, Workers};

/// Runs the daemon until it is told to end.
///
/// # Errors
/// What kept it from starting, or from taking everything away at the end.
pub fn run(path: &Path, config: Config) -> anyhow::Result<()> {
    preflight::check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(daemon(path, config))
}

async fn daemon(path: &Path, config: Config) -> anyhow::Result<()> {
    // From here on they do not end the process at once.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let netlink = Netlink::connect()?;
    let links = netlink.links().await?;
    surroundings::check_interfaces(&config, &links)?;
    surroundings::check_cpus(&config)?;
    surroundings::check(&config)?;
    let on_exit = config.daemon.on_exit;
    let listener = ControlListener::bind(&config.daemon.control_socket)?;
    let pins = Arc::new(Pins::open(&config.daemon.pin_path)?);
    let adopts = !pins.links()?.is_empty();
    surroundings::tell(&config, &netlink).await;
    let forwarding = forward(Arc::clone(&pins), config, links).await;
    if forwarding.is_err() && !adopts {
        // Nothing was forwarded before; nothing is left behind.
        if let Err(error) = pins.remove() {
            tracing::warn!(%error, "what the start had pinned is still there");
        }
    }
    let (tables, paths) = forwarding?;
    let reloader = Arc::new(Reloader::new(
        path.to_owned(),
        tables.clone(),
        paths.clone(),
    ));
    let requests = Arc::new(Requests::new(tables.clone(), Arc::clone(&reloader)));
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let server = tokio::spawn(serve(listener, requests, async move {
        stopped.notified().await;
    }));
    let sweeper = tokio::spawn(sweeper::run(tables.clone(), paths.clone()));
    let supervisor = tokio::spawn(supervisor::run(tables.clone()));
    tracing::info!(
        adopted = adopts,
        services = tables.with(|tables| tables.config.services.len()).await,
        "ready"
    );
    notify(&[NotifyState::Ready]);

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                if let Ok(now) = NotifyState::monotonic_usec_now() {
                    notify(&[NotifyState::Reloading, now]);
                }
                reloader.reload().await;
                notify(&[NotifyState::Ready]);
            }
        }
    }
    notify(&[NotifyState::Stopping]);
    stop.notify_one();
    server.await??;
    for task in [sweeper, supervisor] {
        task.abort();
        // An aborted task has given back what it held when it is waited for.
        let _ = task.await;
    }
    if on_exit == OnExit::Keep {
        tables.with(Tables::end).await?;
        tracing::info!("ended; forwarding goes on");
        return Ok(());
    }
    paths.end().await;
    pins.remove()?;
    tracing::info!("ended; nothing is forwarded any more");
    Ok(())
}

/// Loads the program, fills its maps, and lets packets in.
async fn forward(
    pins: Arc<Pins>,
    config: Config,
    links: Vec<Link>,
) -> anyhow::Result<(Shared<Tables>, Paths)> {
    let sizes = Sizes {
        connections: config.datapath.max_connections,
        half_open: config.datapath.max_half_open,
        lookup: config.datapath.flow_lookup,
    };
    for link in &links {
        if config.datapath.interfaces.contains(&link.name) {
            attach::check(&pins, link, config.datapath.xdp_mode)?;
            if config.datapath.engine == Engine::Userspace {
                attach::check_mtu(link)?;
            }
        }
    }
    pins.check(sizes)?;
    let attached = &config.datapath.interfaces;
    let is_veth = |link: &Link| link.is_veth && attached.contains(&link.name);
    let back = if links.iter().any(is_veth) {
        Back::Redirect
    } else {
        Back::Transmit
    };
    let work = match config.datapath.engine {
        Engine::Kernel => Work::Kernel(back),
        Engine::Userspace => Work::Userspace {
            drops_on_loss: config.datapath.on_daemon_loss == OnDaemonLoss::Drop,
        },
    };
    let mut kernel = Kernel::load(sizes, work, Some(pins.path()))?;
    let workers = match kernel.maps.clone() {
        Some(maps) => {
            let habits = Habits {
                cpus: config
                    .datapath
                    .worker_cpus
                    .iter()
                    .map(|&cpu| cpu as usize)
                    .collect(),
                spins: config.datapath.busy_poll,
            };
            Some(Workers::new(maps, kernel.injector()?, habits))
        }
        None => None,
    };
    let slow_path = SlowPath::start(Program::of(&mut kernel, workers.as_ref())?)
        .inspect_err(|error| tracing::warn!(%error, "there is no slow path"))
        .ok();
    if let (Some(workers), Some(slow_path)) = (&workers, &slow_path) {
        workers.set_slow_path(slow_path.handover());
    }
    let tables = Tables::new(kernel, pins, config.clone(), workers, slow_path)?;
    let tables = Shared::new(tables);
    let named = {
        let indexes = links.clone();
        tables
            .with(move |tables| {
                tables.know(&indexes);
                tables.name(config)
            })
            .await?
    };
    let paths = Paths::start(tables.clone()).await?;
    paths.follow(named.targets().collect()).await?;
    // Backends that are no longer in the configuration, and have connections of an earlier daemon.
    let left = tables.with(|tables| tables.left_behind()).await?;
    if let Err(error) = paths.follow(left).await {
        tracing::warn!(%error, "the ways to backends of an earlier configuration are not followed");
    }
    tables
        .with(move |tables| {
            // What may fail first: until the image is swapped, packets see what an earlier daemon left.
            let new = tables.attach_new(&links)?;
            if let Err(error) = tables.apply(named) {
                tables.take_off(&new);
                return Err(error.into());
            }
            tables.attach(&links)?;
            tables.detach_others()?;
            anyhow::Ok(())
        })
        .await?;
    Ok((tables, paths))
}

fn notify(states: &[NotifyState<'_>]) {
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(states);
}
