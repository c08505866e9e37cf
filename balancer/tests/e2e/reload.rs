//! Changing the configuration under traffic.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use balancer::control::document::{Backend, BackendState, ReloadDocument, ReloadResult};
use balancer_lab::{KeepAlive, Signal, TcpEcho, WebConfig, eventually, eventually_some};

use crate::schedule::{backend, nth};
use crate::site::{PATIENCE, SOON, Shape, Site, greeting};

const ADDRESS: ([u8; 4], u16) = ([192, 0, 2, 10], 80);

#[test]
fn connections_outlive_fifty_reloads() {
    let Some(mut site) = Site::new("reloads", Shape::Links, 4) else {
        return;
    };
    let _web = site.nginx(&WebConfig::default());
    let of = |numbers: &[u32]| {
        let backends: Vec<String> = numbers
            .iter()
            .map(|number| backend(&format!("10.0.{number}.3:80")))
            .collect();
        nth("192.0.2.10:80", &backends)
    };
    site.start(&of(&[1, 2, 3, 4]));
    let address = SocketAddr::from(ADDRESS);
    let mut kept = KeepAlive::connect(&site.client, address, None, SOON).unwrap();
    let home = kept.get("/").unwrap();

    let done = AtomicBool::new(false);
    let (made, failures) = thread::scope(|scope| {
        let connections = scope.spawn(|| {
            let (mut made, mut failures) = (0, Vec::new());
            while made < 2000 || !done.load(Ordering::Relaxed) {
                let answer = KeepAlive::connect(&site.client, address, None, SOON)
                    .and_then(|mut connection| connection.get("/"));
                failures.extend(answer.err().map(|error| error.to_string()));
                made += 1;
            }
            (made, failures)
        });
        // Added, removed, reordered; the kept connection's own backend comes and goes.
        let sets: [&[u32]; 5] = [&[2, 3], &[3, 2, 4], &[4, 1], &[1, 2, 3, 4], &[4, 3, 2, 1]];
        for round in 0..50 {
            site.reload(&of(sets[round % sets.len()]));
            assert_eq!(kept.get("/").unwrap(), home, "after reload {round}");
        }
        done.store(true, Ordering::Relaxed);
        connections.join().unwrap()
    });
    assert!(made >= 2000);
    assert!(
        failures.is_empty(),
        "{} of {made}: {failures:?}",
        failures.len()
    );
    let status = site.status();
    assert_eq!((status.generation, status.reload.succeeded), (51, 50));
    println!("{made} connections, 0 failed, over 50 reloads");
}

#[test]
fn every_backend_of_a_large_configuration_is_replaced() {
    const BACKENDS: u16 = 10_000;
    let Some(mut site) = Site::new("large", Shape::Links, 2) else {
        return;
    };
    let of = |first: u16| {
        let ports = first..first + BACKENDS;
        let backends: Vec<String> = ports
            .map(|port| backend(&format!("10.0.1.3:{port}")))
            .collect();
        nth("192.0.2.10:80", &backends)
    };
    site.start(&of(1));
    for first in [20_001, 40_001, 1, 10_001] {
        let start = Instant::now();
        site.reload(&of(first));
        println!("replaced in {:.1?}", start.elapsed());
        let services = site.services();
        assert_eq!(services[0].backends.len(), usize::from(BACKENDS));
        assert_eq!(services[0].backends[0].address, format!("10.0.1.3:{first}"));
    }
    assert_eq!(site.status().generation, 5);
    // By now every id has been given; the next backend gets that of another, and not its way.
    let _echo = TcpEcho::start(&site.backends[1], [7]).unwrap();
    site.reload(&nth("192.0.2.10:7", &[backend("10.0.2.3:7")]));
    let to = SocketAddr::from(([192, 0, 2, 10], 7));
    assert_eq!(greeting(&site.client, to, None).0, "b2");
    let backends = &site.services()[0].backends;
    assert_eq!(
        (backends[0].state, backends[0].connections_total),
        (BackendState::Up, 1)
    );
}

#[test]
fn a_wrong_configuration_changes_nothing() {
    let Some(mut site) = Site::new("wrong", Shape::Links, 2) else {
        return;
    };
    let _echo = site.tcp_echo();
    let good = nth(
        "192.0.2.10:7",
        &[backend("10.0.1.3:7"), backend("10.0.2.3:7")],
    );
    site.start(&good);
    let to = SocketAddr::from(([192, 0, 2, 10], 7));
    let rotation = || [0; 4].map(|_| greeting(&site.client, to, None).0);
    let before = rotation();
    // Until the last packets of those connections have been counted.
    let settled = || {
        let services = site.services();
        thread::sleep(Duration::from_millis(100));
        let is_open = |backend: &Backend| backend.connections_active > 0;
        let is_over = !services[0].backends.iter().any(is_open);
        (is_over && services == site.services()).then_some(services)
    };
    let services = eventually_some("the connections to end", PATIENCE, settled).unwrap();

    site.configure(&good.replace("scheduler", "schedular"));
    site.daemon().kill(Signal::SIGHUP).unwrap();
    eventually("the reload to be refused", PATIENCE, || {
        site.status().reload.failed == 1
    })
    .unwrap();
    let status = site.status();
    assert_eq!(
        (status.generation, status.reload.result),
        (1, ReloadResult::Error)
    );
    let error = status.reload.error.unwrap();
    assert!(
        error.contains("lb.toml:11:1: unknown key `schedular`"),
        "{error}"
    );
    assert_eq!(site.services(), services);
    assert_eq!(rotation(), before, "nth goes on where it was");

    // The tool says so too, and exits with 1.
    let error = site.ctl(&["reload"]).unwrap_err();
    assert!(error.contains("unknown key `schedular`"), "{error}");
    // What needs a restart is refused as a whole.
    site.datapath_key("max_connections = 4096");
    site.configure(&nth("192.0.2.10:7", &[backend("10.0.1.3:7")]));
    let error = site.ctl(&["reload"]).unwrap_err();
    assert!(
        error.contains("datapath.max_connections is not the same"),
        "{error}"
    );
    assert_eq!(site.services()[0].backends.len(), 2);
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let Some(mut site) = Site::new("dry-run", Shape::Links, 2) else {
        return;
    };
    site.start(&nth("192.0.2.10:7", &[backend("10.0.1.3:7")]));
    site.configure(&nth(
        "192.0.2.10:7",
        &[backend("10.0.1.3:7"), backend("10.0.2.3:7")],
    ));
    let reload = site
        .document::<ReloadDocument>(&["reload", "--dry-run"])
        .reload;
    assert_eq!(
        reload.changes,
        ["~ service web: + backend 10.0.2.3:7 weight 1"]
    );
    assert!(!reload.applied && reload.generation == 1 && reload.errors.is_empty());
    assert_eq!(site.services()[0].backends.len(), 1);
    let reload = site.document::<ReloadDocument>(&["reload"]).reload;
    assert!(reload.applied && reload.generation == 2);
    let states: Vec<BackendState> = site.services()[0]
        .backends
        .iter()
        .map(|backend| backend.state)
        .collect();
    assert_eq!(states, [BackendState::Up, BackendState::Up]);
}

#[test]
fn a_removed_backend_is_shown_until_its_last_connection_ends() {
    let Some(mut site) = Site::new("removed", Shape::Links, 2) else {
        return;
    };
    let _echo = site.tcp_echo();
    site.start(&nth("192.0.2.10:7", &[backend("10.0.1.3:7")]));
    let to = SocketAddr::from(([192, 0, 2, 10], 7));
    let held = site.client.connect(to, None, SOON).unwrap();
    site.reload(&nth("192.0.2.10:7", &[backend("10.0.2.3:7")]));
    assert_eq!(greeting(&site.client, to, None).0, "b2");
    let find = || {
        let services = site.services();
        services[0]
            .backends
            .iter()
            .find(|backend| backend.address == "10.0.1.3:7")
            .cloned()
    };
    let removed = find().unwrap();
    assert_eq!(
        (removed.state, removed.connections_active),
        (BackendState::Removed, 1)
    );
    // Back again, it is the same backend with the same counters.
    site.reload(&nth(
        "192.0.2.10:7",
        &[backend("10.0.2.3:7"), backend("10.0.1.3:7")],
    ));
    let back = find().unwrap();
    assert_eq!((back.state, back.connections_total), (BackendState::Up, 1));
    site.reload(&nth("192.0.2.10:7", &[backend("10.0.2.3:7")]));
    drop(held);
    eventually("the removed backend to go", PATIENCE, || find().is_none()).unwrap();
}

#[test]
fn a_removed_service_is_shown_and_can_be_cut() {
    let Some(mut site) = Site::new("removed", Shape::Links, 1) else {
        return;
    };
    let _echo = TcpEcho::start(&site.backends[0], [7, 8]).unwrap();
    let old = nth("192.0.2.10:7", &[backend("10.0.1.3:7")]).replace("web", "old");
    site.start(&old);
    let to = SocketAddr::from(([192, 0, 2, 10], 7));
    let held = site.client.connect(to, None, SOON).unwrap();
    site.reload(&nth("192.0.2.10:8", &[backend("10.0.1.3:8")]));
    let services = site.services();
    let names: Vec<&str> = services.iter().map(|service| &*service.name).collect();
    assert_eq!(names, ["web", "old"]);
    assert_eq!(services[1].listen, "removed");
    let left = &services[1].backends[0];
    assert_eq!(
        (left.state, left.connections_active),
        (BackendState::Removed, 1)
    );
    assert!(site.ctl(&["services"]).unwrap().contains("removed"));
    let listed = site.ctl(&["connections", "--service", "old"]).unwrap();
    let client = held.local_addr().unwrap().to_string();
    assert!(listed.contains(&client), "{listed}");
    site.ctl(&["flush", "connections", "--service", "old"])
        .unwrap();
    assert_eq!(site.services().len(), 1);
    assert!(site.ctl(&["connections", "--service", "new"]).is_err());
}
