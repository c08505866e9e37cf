//! The daemon dies: forwarding does not.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use balancer_lab::{KeepAlive, Nginx, WebConfig};

use crate::schedule::{backend, nth};
use crate::site::{SOON, Shape, Site};

#[test]
fn kill_nine_stops_nobody() {
    let Some(mut site) = Site::new("kill", Shape::Links, 3) else {
        return;
    };
    let large = 24 << 20;
    let web = WebConfig {
        large,
        // Longer than the time without a daemon.
        limit_rate: Some(large / 14),
        ..WebConfig::default()
    };
    let _web: Vec<Nginx> = site
        .backends
        .iter()
        .map(|host| Nginx::start(host, &web).unwrap())
        .collect();
    let backends = [1, 2, 3].map(|number| backend(&format!("10.0.{number}.3:80")));
    site.start(&nth("192.0.2.10:80", &backends));
    let address = SocketAddr::from(([192, 0, 2, 10], 80));

    let mut download = KeepAlive::connect(&site.client, address, None, SOON).unwrap();
    assert_eq!(download.download("/large").unwrap() as u64, large);
    let from = download.local_address().unwrap();
    let reader = thread::spawn(move || {
        let (mut buffer, mut got) = (vec![0; 65_536], 0);
        while got < large {
            got += download.read(&mut buffer).unwrap() as u64;
        }
        got
    });
    let connect = || {
        KeepAlive::connect(&site.client, address, None, SOON)
            .and_then(|mut connection| connection.get("/"))
    };
    for _ in 0..9 {
        connect().unwrap();
    }
    let before = site.services();
    site.kill();

    let connect = || {
        KeepAlive::connect(&site.client, address, None, SOON)
            .and_then(|mut connection| connection.get("/"))
    };
    // 1,000 connections, spread over ten seconds without a daemon.
    let start = Instant::now();
    let mut failures = Vec::new();
    for number in 0..1000 {
        let due = Duration::from_millis(10) * number;
        thread::sleep(due.saturating_sub(start.elapsed()));
        failures.extend(connect().err().map(|error| error.to_string()));
    }
    assert!(
        failures.is_empty(),
        "{} of 1000: {failures:?}",
        failures.len()
    );
    assert!(start.elapsed() >= Duration::from_millis(9990));

    site.start_again();
    let connections = site.connections();
    assert!(
        connections
            .connections
            .iter()
            .any(|connection| connection.client == from),
        "the download is known: {from}"
    );
    let totals = |services: &[balancer::control::document::Service]| -> u64 {
        services[0]
            .backends
            .iter()
            .map(|backend| backend.connections_total)
            .sum()
    };
    assert_eq!(totals(&site.services()), totals(&before) + 1000);
    assert!(site.daemon().stderr().contains("adopted=true"));
    assert_eq!(reader.join().unwrap(), large, "the download is whole");
    // The next generation of the program balances too.
    let answers: Vec<String> = (0..3)
        .map(|_| site.curl("http://192.0.2.10/").unwrap())
        .collect();
    assert_eq!(
        answers
            .iter()
            .collect::<std::collections::BTreeSet<_>>()
            .len(),
        3
    );
    println!(
        "1000 connections in {:.1?} without a daemon, 0 failed",
        start.elapsed()
    );
}

/// Packets come while one daemon after the other is killed in the middle of its start.
#[test]
fn a_daemon_killed_while_it_starts_leaves_forwarding_on() {
    let Some(mut site) = Site::new("kill-start", Shape::Links, 2) else {
        return;
    };
    let _web: Vec<Nginx> = site
        .backends
        .iter()
        .map(|host| Nginx::start(host, &WebConfig::default()).unwrap())
        .collect();
    let backends = [1, 2].map(|number| backend(&format!("10.0.{number}.3:80")));
    site.start(&nth("192.0.2.10:80", &backends));
    site.kill();
    let address = SocketAddr::from(([192, 0, 2, 10], 80));
    let mut kept = KeepAlive::connect(&site.client, address, None, SOON).unwrap();
    let home = kept.get("/").unwrap();
    for milliseconds in (0..400).step_by(20) {
        site.start_and_kill_after(Duration::from_millis(milliseconds));
        assert_eq!(kept.get("/").unwrap(), home);
        site.curl("http://192.0.2.10/").unwrap();
    }
    site.start_again();
    assert_eq!(kept.get("/").unwrap(), home);
}
