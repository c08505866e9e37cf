//! The workers of engine `userspace`: on which queues they are, and that traffic outlives what happens to them.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use balancer::control::document::{Engine, Worker};
use balancer_lab::{KeepAlive, TcpEcho, UdpEcho, WebConfig, eventually, eventually_some};

use crate::site::{PATIENCE, SOON, Shape, Site, greeting};

/// How many clients ask; each is in a queue by chance.
const CLIENTS: u16 = 100;

/// A site with an echo over TCP and UDP behind the workers, `keys` under `[datapath]`.
fn site(name: &str, shape: Shape, keys: &str) -> Option<(Site, TcpEcho, UdpEcho)> {
    let mut site = Site::new(name, shape, 1)?;
    let tcp = TcpEcho::start(&site.backends[0], [7]).unwrap();
    let udp = UdpEcho::start(&site.backends[0], [7]).unwrap();
    site.set_engine("userspace");
    site.datapath_key(keys);
    Some((site, tcp, udp))
}

fn services(site: &Site) -> String {
    site.both_families("tcp", 7) + &site.both_families("udp", 7)
}

/// Asks by many connections of both protocols and families; all are answered.
fn ask_all(site: &Site) {
    for (from, to) in [
        ("192.0.2.1:0", "192.0.2.10:7"),
        ("[2001:db8::1]:0", "[2001:db8::10]:7"),
    ] {
        let sockets: Vec<_> = (0..CLIENTS).map(|_| site.udp(from, to)).collect();
        for socket in &sockets {
            for _ in 0..3 {
                socket.send(b"?").unwrap();
                socket.recv(&mut [0; 64]).unwrap();
            }
        }
        for _ in 0..CLIENTS / 10 {
            greeting(&site.client, to.parse().unwrap(), None);
        }
    }
}

/// The workers, once nothing is on its way any more: each answers, and no frame of their memory is missing.
fn workers(site: &Site) -> Vec<Worker> {
    let status = site.status();
    assert_eq!(status.engine, Engine::Userspace);
    for worker in &status.workers.threads {
        assert!(worker.answers, "{worker:?}");
        assert_eq!(worker.frames.missing, 0, "{worker:?}");
    }
    status.workers.threads
}

/// The queues of each.
fn queues(workers: &[Worker]) -> Vec<Vec<&str>> {
    fn of(worker: &Worker) -> Vec<&str> {
        let mut names: Vec<_> = worker.queues.iter().map(String::as_str).collect();
        names.sort_unstable();
        names
    }
    workers.iter().map(of).collect()
}

/// What comes by the clients' second queue leaves by the socket of the first worker: the backend's link has one queue.
#[test]
fn what_one_worker_receives_another_sends() {
    let Some((mut site, _tcp, _udp)) = site("two-queues", Shape::Queues(2, 1), "") else {
        return;
    };
    site.start(&services(&site));
    ask_all(&site);
    let workers = workers(&site);
    assert_eq!(queues(&workers), [vec!["eth0:0", "eth1:0"], vec!["eth0:1"]]);
    for worker in &workers {
        assert!(worker.received > 50, "{workers:?}");
    }
    let status = site.status();
    assert!(status.pressure.values().all(|&count| count == 0));
    // Each connection opened once, whichever worker got its packets.
    let total = |service: usize| site.services()[service].backends[0].connections_total;
    assert_eq!(total(0), u64::from(CLIENTS / 10));
    assert_eq!(total(2), u64::from(CLIENTS));
}

/// Each frame leaves by the worker that received it, in both directions.
#[test]
fn each_worker_has_a_queue_of_each_interface() {
    let Some((mut site, _tcp, _udp)) = site("queues", Shape::Queues(2, 2), "") else {
        return;
    };
    site.start(&services(&site));
    ask_all(&site);
    let workers = workers(&site);
    assert_eq!(
        queues(&workers),
        [vec!["eth0:0", "eth1:0"], vec!["eth0:1", "eth1:1"]]
    );
    for worker in &workers {
        assert!(worker.received > 50, "{workers:?}");
    }
}

/// A link may have more queues to receive than to send by.
#[test]
fn a_queue_that_only_receives_has_a_socket() {
    let Some((mut site, _tcp, _udp)) = site("receive-only", Shape::Queues(2, 1), "") else {
        return;
    };
    site.balancer
        .run("ethtool", ["-L", "eth0", "tx", "1"])
        .unwrap();
    site.start(&services(&site));
    ask_all(&site);
    let workers = workers(&site);
    assert_eq!(queues(&workers), [vec!["eth0:0", "eth1:0"], vec!["eth0:1"]]);
    assert!(workers[1].received > 50, "{workers:?}");
}

/// The CPUs that threads may be on, by the threads' names.
fn cpus(pid: u32) -> BTreeMap<String, String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of = |path: std::path::PathBuf| {
        let name = fs::read_to_string(path.join("comm")).unwrap();
        let status = fs::read_to_string(path.join("status")).unwrap();
        let list = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        (name.trim().to_owned(), list.unwrap().trim().to_owned())
    };
    threads.map(|entry| of(entry.unwrap().path())).collect()
}

/// More queues than workers: one has them all, is where it should be, and never sleeps.
#[test]
fn a_worker_that_spins_has_all_queues() {
    let keys = "worker_cpus = [0]\nbusy_poll = true";
    let Some((mut site, _tcp, _udp)) = site("spins", Shape::Queues(2, 2), keys) else {
        return;
    };
    site.start(&services(&site));
    ask_all(&site);
    let workers = workers(&site);
    let [worker] = &workers[..] else {
        panic!("{workers:?}");
    };
    assert_eq!(
        queues(&workers),
        [vec!["eth0:0", "eth0:1", "eth1:0", "eth1:1"]]
    );
    assert_eq!(worker.cpu, Some(0));
    assert_eq!(cpus(site.daemon().pid())["worker-0"], "0");
}

/// Three queues, two workers on CPUs of their own.
#[test]
fn queues_are_dealt_out_to_the_workers() {
    let last = thread::available_parallelism().unwrap().get() - 1;
    let keys = format!("worker_cpus = [{last}, 0]");
    if last == 0 {
        return;
    }
    let Some((mut site, _tcp, _udp)) = site("dealt", Shape::Queues(3, 1), &keys) else {
        return;
    };
    site.start(&services(&site));
    ask_all(&site);
    let workers = workers(&site);
    assert_eq!(
        queues(&workers),
        [vec!["eth0:0", "eth0:2", "eth1:0"], vec!["eth0:1"]]
    );
    let cpus = cpus(site.daemon().pid());
    assert_eq!(cpus["worker-0"], last.to_string());
    assert_eq!(cpus["worker-1"], "0");
}

/// Asks by one connection again and again until it is dropped; an answer may be missing.
struct Traffic<'a> {
    answered: &'a AtomicU64,
    is_over: &'a AtomicBool,
}

impl<'a> Traffic<'a> {
    fn start<'scope>(
        scope: &'scope thread::Scope<'scope, '_>,
        site: &Site,
        answered: &'a AtomicU64,
        is_over: &'a AtomicBool,
    ) -> Self
    where
        'a: 'scope,
    {
        let socket = site.udp("192.0.2.1:7001", "192.0.2.10:7");
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        scope.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                // The link may be gone for a moment.
                if socket.send(b"?").is_err() {
                    thread::sleep(Duration::from_millis(1));
                }
                if socket.recv(&mut [0; 64]).is_ok() {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { answered, is_over }
    }

    /// Waits until it is answered again.
    fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        eventually("the traffic to go on", PATIENCE, || {
            self.answered.load(Ordering::Relaxed) > before + 20
        })
        .unwrap();
    }
}

impl Drop for Traffic<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// Once that of the backend, once that of the client.
#[test]
fn a_link_made_anew_under_traffic_is_worked_on_again() {
    let Some((mut site, _tcp, _udp)) = site("relink-userspace", Shape::Queues(2, 2), "") else {
        return;
    };
    site.start(&services(&site));
    let (answered, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let traffic = Traffic::start(scope, &site, &answered, &is_over);
        traffic.goes_on();
        let backend = &site.backends[0];
        for round in 0..4 {
            let (host, device) = if round % 2 == 0 {
                (backend, "eth1")
            } else {
                (&site.client, "eth0")
            };
            site.balancer.ip(&format!("link del {device}")).unwrap();
            site.lab
                .link_with(
                    host,
                    "eth0",
                    &site.balancer,
                    device,
                    balancer_lab::LinkOptions {
                        queues: 2,
                        ..balancer_lab::LinkOptions::default()
                    },
                )
                .unwrap();
            if round % 2 == 0 {
                backend.address("eth0", "10.0.1.3/24").unwrap();
                backend.default_route("10.0.1.1").unwrap();
                site.balancer.address("eth1", "10.0.1.1/24").unwrap();
            } else {
                site.client.address("eth0", "192.0.2.1/24").unwrap();
                site.balancer.address("eth0", "192.0.2.10/24").unwrap();
            }
            traffic.goes_on();
        }
    });
    assert_eq!(
        queues(&workers(&site)),
        [vec!["eth0:0", "eth1:0"], vec!["eth0:1", "eth1:1"]]
    );
}

/// Lets a process open no more than so many files: `poll` refuses to look at more.
fn limit_files(pid: u32, most: &str) {
    let status = Command::new("prlimit")
        .args([&format!("--pid={pid}"), &format!("--nofile={most}:")])
        .status()
        .unwrap();
    assert!(status.success());
}

/// All workers end since the kernel refuses what they ask it; others take their places, with new sockets.
#[test]
fn workers_that_die_are_begun_again() {
    let Some((mut site, _tcp, _udp)) = site("dies", Shape::Queues(2, 1), "") else {
        return;
    };
    site.start(&services(&site));
    let (answered, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let traffic = Traffic::start(scope, &site, &answered, &is_over);
        traffic.goes_on();
        assert_eq!(site.status().workers.begun_again, 0);
        let pid = site.daemon().pid();
        limit_files(pid, "1");
        site.daemon()
            .wait_for_line("a worker has ended", PATIENCE)
            .unwrap();
        limit_files(pid, "1024");
        site.daemon()
            .wait_for_line("another takes its place", PATIENCE)
            .unwrap();
        traffic.goes_on();
    });
    let begun_again = eventually_some("all workers to be begun again", PATIENCE, || {
        let workers = site.status().workers;
        let all = workers.threads.iter().all(|worker| worker.answers);
        let all = all && queues(&workers.threads) == [vec!["eth0:0", "eth1:0"], vec!["eth0:1"]];
        all.then_some(workers.begun_again)
    })
    .unwrap();
    assert!(begun_again >= 1);
    ask_all(&site);
    workers(&site);
    let text = site.ctl(&["status"]).unwrap();
    assert!(
        text.contains(&format!("{begun_again} begun again")),
        "{text}"
    );
}

/// Eight connections ask all the time while the daemon is killed and started again, each time with the other engine.
#[test]
fn connections_under_load_outlive_a_change_of_the_engine() {
    let Some(mut site) = Site::new("engines-load", Shape::Queues(2, 1), 1) else {
        return;
    };
    let _web = site.nginx(&WebConfig::default());
    site.set_engine("kernel");
    site.start(&site.both_families("tcp", 80));
    let address = SocketAddr::from(([192, 0, 2, 10], 80));
    let (asked, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let (asked, is_over) = (&asked, &is_over);
    let ask = || {
        // A segment that is lost while there is no worker comes again, ever later.
        let mut kept = KeepAlive::connect(&site.client, address, None, 5 * SOON).unwrap();
        move || {
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(kept.get("/").unwrap(), "b1");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let clients: Vec<_> = (0..8).map(|_| ask()).collect();
    let mut connections = 0;
    thread::scope(|scope| {
        let over = Over(is_over);
        let clients: Vec<_> = clients.into_iter().map(|it| scope.spawn(it)).collect();
        let goes_on = || {
            let before = asked.load(Ordering::Relaxed);
            eventually("the load to go on", PATIENCE, || {
                asked.load(Ordering::Relaxed) > before + 500
            })
            .unwrap();
        };
        goes_on();
        for engine in ["userspace", "kernel", "userspace", "userspace", "kernel"] {
            site.kill();
            site.set_engine(engine);
            site.start(&site.both_families("tcp", 80));
            assert!(site.daemon().stderr().contains("adopted=true"));
            goes_on();
        }
        connections = site.connections().total;
        drop(over);
        for client in clients {
            client.join().unwrap();
        }
    });
    assert_eq!(connections, 8, "nobody has begun another");
}

/// Dropped, also by a panic, it is over.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
