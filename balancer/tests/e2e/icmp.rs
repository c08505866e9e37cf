//! ICMP errors about connections.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use balancer_lab::{Host, UdpEcho, WebConfig, WebServer, eventually};

use crate::site::{PATIENCE, SOON, Shape, Site};

#[test]
fn a_client_hears_that_nobody_listens() {
    let Some(mut site) = Site::new("unreachable", Shape::Links, 1) else {
        return;
    };
    site.start(&site.both_families("udp", 9));
    for (from, to) in [
        ("0.0.0.0:0", "192.0.2.10:9"),
        ("[::]:0", "[2001:db8::10]:9"),
    ] {
        // An error comes to a connected socket only if it says that it is about this very connection.
        let socket = site.udp(from, to);
        socket.send(b"?").unwrap();
        let start = Instant::now();
        let error = socket.recv(&mut [0; 16]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}: {error}");
        assert!(start.elapsed() < Duration::from_secs(1));
    }
}

/// The way to a client gets narrow behind the first router. The backend learns it from that router, through the balancer.
#[test]
fn a_backend_finds_the_path_mtu() {
    const LENGTH: u64 = 200_000;
    let Some(mut site) = Site::new("mtu", Shape::Links, 1) else {
        return;
    };
    let config = WebConfig {
        large: LENGTH,
        ..WebConfig::default()
    };
    let _web = WebServer::start(&site.backends[0], config).unwrap();
    let far = site.lab.host("far").unwrap();
    site.lab.link(&site.client, "eth1", &far, "eth0").unwrap();
    for (near, there, gateway) in [
        ("198.51.100.1/24", "198.51.100.2/24", "198.51.100.1"),
        (
            "2001:db8:100::1/64",
            "2001:db8:100::2/64",
            "2001:db8:100::1",
        ),
    ] {
        site.client.address("eth1", near).unwrap();
        far.address("eth0", there).unwrap();
        far.default_route(gateway).unwrap();
    }
    // Only the router's end is narrow: the client's own offer of a segment size does not tell.
    site.client.ip("link set eth1 mtu 1300").unwrap();
    site.client.sysctl("net/ipv4/ip_forward", "1").unwrap();
    site.client
        .sysctl("net/ipv6/conf/all/forwarding", "1")
        .unwrap();
    site.balancer.route("198.51.100.0/24", "192.0.2.1").unwrap();
    site.balancer
        .route("2001:db8:100::/64", "2001:db8::1")
        .unwrap();
    site.start(&site.both_families("tcp", 80));
    for server in ["192.0.2.10", "[2001:db8::10]"] {
        let output = far
            .command("curl")
            .unwrap()
            .args(["-sS", "--max-time", "5", "-o", "/dev/null"])
            .args(["-w", "%{size_download}", &format!("http://{server}/large")])
            .output()
            .unwrap();
        let got = String::from_utf8(output.stdout).unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(got, LENGTH.to_string(), "{server}: {told}");
    }
}

/// Takes connections, reads each to its end, and tells how many bytes that were.
fn counter(host: &Host, connections: usize) -> JoinHandle<()> {
    let listener = host
        .enter(|| TcpListener::bind("[::]:80").unwrap())
        .unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(connections) {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            let mut got = Vec::new();
            stream.read_to_end(&mut got).unwrap();
            writeln!(stream, "{}", got.len()).unwrap();
        }
    })
}

/// The balancer's end of the link to the backend is narrow, and both ends of the connection offer segments for a wide one: the
/// balancer itself says that they are too big.
#[test]
fn a_client_finds_the_mtu_of_the_backends_link() {
    const LENGTH: usize = 200_000;
    let Some(mut site) = Site::new("narrow", Shape::Links, 1) else {
        return;
    };
    let counter = counter(&site.backends[0], 2);
    site.balancer.ip("link set eth1 mtu 1300").unwrap();
    site.start(&site.both_families("tcp", 80));
    for to in ["192.0.2.10:80", "[2001:db8::10]:80"] {
        let mut stream = site
            .client
            .connect(to.parse().unwrap(), None, SOON)
            .unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(&vec![b'x'; LENGTH]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        assert_eq!(got.trim(), LENGTH.to_string(), "{to}");
    }
    counter.join().unwrap();
    assert!(site.drops().drops["too_big"] >= 2);
    assert!(site.status().slow_path.told >= 2);
}

/// Datagrams that may be cut are, and others are not any more when the link gets wider.
#[test]
fn datagrams_are_cut_for_a_narrow_link() {
    let Some(mut site) = Site::new("cut", Shape::Links, 1) else {
        return;
    };
    let echo = UdpEcho::start(&site.backends[0], [80]).unwrap();
    site.balancer.ip("link set eth1 mtu 1300").unwrap();
    // Datagrams go without "don't fragment".
    site.client.sysctl("net/ipv4/ip_no_pmtu_disc", "1").unwrap();
    site.start(&site.both_families("udp", 80));
    let socket = site.udp("192.0.2.1:7001", "192.0.2.10:80");
    let ask = |length: u32| {
        let question: Vec<u8> = (0..length).map(|byte| (byte % 253) as u8).collect();
        socket.send(&question).unwrap();
        // Its kernel has found the checksum right.
        let answer = socket.recv(&mut [0; 16]);
        answer.unwrap_or_else(|error| panic!("{length}: {error}: {:?}", site.status()));
    };
    let lengths = [1272, 1273, 1472, 1473, 5000, 60_000];
    lengths.into_iter().for_each(ask);
    assert_eq!(echo.datagrams(), lengths.len() as u64);
    let status = site.status();
    let cut = status.slow_path.held["too_big"];
    assert!(cut >= 4, "{:?}", status.slow_path);
    assert_eq!(status.slow_path.failed, 0);
    assert_eq!(status.packets.dropped, 0, "{:?}", site.drops());

    site.balancer.ip("link set eth1 mtu 1500").unwrap();
    eventually("the daemon to follow the link", PATIENCE, || {
        let before = site.status().slow_path.held["too_big"];
        ask(1472);
        site.status().slow_path.held["too_big"] == before
    })
    .unwrap();
}
