//! The daemon dies: forwarding does not.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use balancer_lab::{Host, KeepAlive, WebConfig, eventually};

use crate::schedule::{backend, nth};
use crate::site::{PATIENCE, SOON, Shape, Site};

/// One request, on a connection of its own.
fn request(client: &Host, address: SocketAddr) -> balancer_lab::Result<String> {
    KeepAlive::connect(client, address, None, SOON)?.get("/")
}

/// Requests one after the other, each on a connection of its own, until they are told to end.
struct Load {
    made: Arc<AtomicU64>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<balancer_lab::Result<()>>,
}

impl Load {
    fn start(client: &Host, address: SocketAddr) -> Self {
        let (made, done) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (client, counter, end) = (client.clone(), Arc::clone(&made), Arc::clone(&done));
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                request(&client, address)?;
                counter.fetch_add(1, Ordering::Relaxed);
                // The other connections want the machine too.
                thread::sleep(Duration::from_millis(5));
            }
            Ok(())
        });
        Self { made, done, thread }
    }

    /// How many connections it has made.
    fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Ends it: how many connections it has made, or why one failed.
    fn end(self) -> balancer_lab::Result<u64> {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()?;
        Ok(self.made.load(Ordering::Relaxed))
    }
}

#[test]
fn kill_nine_stops_nobody() {
    let Some(mut site) = Site::new("kill", Shape::Links, 3) else {
        return;
    };
    site.set_engine("kernel");
    let large = 24 << 20;
    let web = WebConfig {
        large,
        // Longer than the time without a daemon.
        limit_rate: Some(large / 14),
        ..WebConfig::default()
    };
    let _web = site.nginx(&web);
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
    // Load that goes on all the time: while the daemon dies, while there is none, while the next one takes over.
    let load = Load::start(&site.client, address);
    eventually("the load to run", PATIENCE, || load.made() >= 20).unwrap();
    let before = load.made();
    let uncounted = site.uncounted();
    site.kill();

    // 1,000 more connections, spread over ten seconds without a daemon.
    let start = Instant::now();
    let mut failures = Vec::new();
    for number in 0..1000 {
        let due = Duration::from_millis(10) * number;
        thread::sleep(due.saturating_sub(start.elapsed()));
        failures.extend(request(&site.client, address).err());
    }
    assert!(
        failures.is_empty(),
        "{} of 1000: {failures:?}",
        failures.len()
    );
    assert!(start.elapsed() >= Duration::from_millis(9990));
    let without = load.made();
    assert!(without > before + 100, "{before}, then {without}");

    site.start_again();
    assert!(site.daemon().stderr().contains("adopted=true"));
    let connections = site.connections();
    assert!(
        connections
            .connections
            .iter()
            .any(|connection| connection.client == from),
        "the download is known: {from}"
    );
    eventually("the load to go on", PATIENCE, || load.made() > without + 20).unwrap();
    let made = load.end().unwrap();
    // The download, the load, the thousand: counted as if nothing had happened.
    let total: u64 = site.services()[0]
        .backends
        .iter()
        .map(|backend| backend.connections_total)
        .sum();
    assert_eq!(total, 1 + made + 1000);
    // Nor was there a moment in which a frame went past the program.
    assert_eq!(site.uncounted(), uncounted);
    assert_eq!(reader.join().unwrap(), large, "the download is whole");
    // The next generation of the program balances too.
    let answers: BTreeSet<String> = (0..3)
        .map(|_| site.curl("http://192.0.2.10/").unwrap())
        .collect();
    assert_eq!(answers.len(), 3);
    println!(
        "{} connections over a kill and a restart, 0 failed",
        made + 1000
    );
}

/// Packets come while one daemon after the other is killed in the middle of its start.
#[test]
fn a_daemon_killed_while_it_starts_leaves_forwarding_on() {
    let Some(mut site) = Site::new("kill-start", Shape::Links, 2) else {
        return;
    };
    site.set_engine("kernel");
    let _web = site.nginx(&WebConfig::default());
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
