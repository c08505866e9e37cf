//! Hosts, links and switches carry what they should, and every server and client of the lab works across them.

#![allow(clippy::unwrap_used, reason = "a test that unwraps in vain has failed")]

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use balancer_lab::{
    Announce, Dnsmasq, Host, HttpServer, KeepAlive, Lab, LinkOptions, MacAddress, Need, Nginx,
    RawPort, TcpEcho, UdpEcho, WebConfig, WebKind, WebServer, dig, eventually,
};

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(5);
const SERVER4: &str = "192.0.2.2";
const SERVER6: &str = "2001:db8::2";

/// A client and a server, with addresses of both families on `eth0`.
struct Pair {
    client: Host,
    server: Host,
    _lab: Lab,
}

fn address_both(client: &Host, server: &Host) {
    for (host, number) in [(client, 1), (server, 2)] {
        host.address("eth0", &format!("192.0.2.{number}/24"))
            .unwrap();
        host.address("eth0", &format!("2001:db8::{number}/64"))
            .unwrap();
    }
}

fn pair(name: &str) -> Option<Pair> {
    let lab = Lab::for_test(name)?;
    let (client, server) = (lab.host("client").unwrap(), lab.host("server").unwrap());
    lab.link(&client, "eth0", &server, "eth0").unwrap();
    address_both(&client, &server);
    Some(Pair {
        client,
        server,
        _lab: lab,
    })
}

fn pair_with_nginx(name: &str) -> Option<Pair> {
    if Nginx::installed() {
        return pair(name);
    }
    Need::Lab.leave_out(name, "nginx is not installed");
    None
}

fn both_families(port: u16) -> [SocketAddr; 2] {
    [SERVER4, SERVER6].map(|address| SocketAddr::new(address.parse().unwrap(), port))
}

fn url(address: SocketAddr, path: &str) -> String {
    format!("http://{address}{path}")
}

/// An Ethernet frame of the type that is kept for experiments.
fn frame(to: MacAddress, from: MacAddress, tags: &[[u8; 4]], payload: &[u8]) -> Vec<u8> {
    [&to.0[..], &from.0, &tags.concat(), &[0x88, 0xb5], payload].concat()
}

#[test]
fn two_hosts_on_a_link_reach_each_other() {
    let Some(pair) = pair("link") else { return };
    for address in both_families(0) {
        pair.client.ping(address.ip(), SECOND).unwrap();
    }
    let nobody: IpAddr = "192.0.2.77".parse().unwrap();
    pair.client
        .ping(nobody, Duration::from_millis(50))
        .unwrap_err();
}

#[test]
fn hosts_on_a_switch_reach_each_other_and_one_more_can_be_plugged_in() {
    let Some(lab) = Lab::for_test("switch") else {
        return;
    };
    let (client, server) = (lab.host("client").unwrap(), lab.host("server").unwrap());
    let switch = lab
        .switch("lan", &[(&client, "eth0"), (&server, "eth0")])
        .unwrap();
    address_both(&client, &server);
    for address in both_families(0) {
        client.ping(address.ip(), SECOND).unwrap();
    }
    let late = lab.host("late").unwrap();
    switch.attach(&lab, &late, "eth0").unwrap();
    late.address("eth0", "192.0.2.3/24").unwrap();
    late.ping(SERVER4.parse().unwrap(), SECOND).unwrap();
}

#[test]
fn a_router_between_two_links_forwards() {
    let Some(lab) = Lab::for_test("router") else {
        return;
    };
    let [client, router, server] =
        ["client", "router", "server"].map(|name| lab.host(name).unwrap());
    lab.link(&client, "eth0", &router, "eth0").unwrap();
    lab.link_with(
        &router,
        "eth1",
        &server,
        "eth0",
        LinkOptions {
            mtu: 1400,
            queues: 2,
        },
    )
    .unwrap();
    client.address("eth0", "192.0.2.1/24").unwrap();
    client.address("eth0", "2001:db8:1::1/64").unwrap();
    router
        .ip_batch([
            "addr add 192.0.2.254/24 dev eth0",
            "addr add 2001:db8:1::fe/64 dev eth0",
            "addr add 198.51.100.254/24 dev eth1",
            "addr add 2001:db8:2::fe/64 dev eth1",
        ])
        .unwrap();
    server.address("eth0", "198.51.100.1/24").unwrap();
    server.address("eth0", "2001:db8:2::1/64").unwrap();
    client.route("198.51.100.0/24", "192.0.2.254").unwrap();
    client.route("2001:db8:2::/64", "2001:db8:1::fe").unwrap();
    server.default_route("198.51.100.254").unwrap();
    server.default_route("2001:db8:2::fe").unwrap();
    let addresses: [IpAddr; 2] =
        ["198.51.100.1", "2001:db8:2::1"].map(|address| address.parse().unwrap());
    for address in addresses {
        client.ping(address, Duration::from_millis(50)).unwrap_err();
    }
    router.sysctl("net/ipv4/ip_forward", "1").unwrap();
    router.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
    assert_eq!(router.read_sysctl("net/ipv4/ip_forward").unwrap(), "1");
    assert_eq!(server.read_sysctl("net/ipv4/ip_forward").unwrap(), "0");
    for address in addresses {
        client.ping(address, SECOND).unwrap();
    }
    let shown = server.run("ip", ["link", "show", "eth0"]).unwrap().stdout;
    assert!(shown.contains("mtu 1400"), "{shown}");
}

/// Both web servers have to be alike for whoever uses them.
fn check_web(client: &Host, port: u16) {
    for address in both_families(port) {
        let mut connection = KeepAlive::connect(client, address, Some(40_000), LONG).unwrap();
        assert_eq!(connection.get("/").unwrap(), "server");
        let me = connection.local_address().unwrap();
        assert_eq!(me.port(), 40_000);
        assert_eq!(
            connection.get("/whoami").unwrap(),
            format!("{} 40000", me.ip())
        );
        assert_eq!(connection.request("/nothing").unwrap().status, 404);
        let large = connection.request("/large").unwrap();
        assert_eq!((large.status, large.body.len()), (200, 1 << 20));
        assert_eq!(connection.get("/").unwrap(), "server");
        let shown = client
            .run("curl", ["-sS", "-m", "5", &url(address, "/")])
            .unwrap();
        assert_eq!(shown.stdout, "server\n");
    }
}

fn check_health_and_log(client: &Host, web: &WebServer, port: u16) {
    let [address, _] = both_families(port);
    let mut connection = KeepAlive::connect(client, address, Some(40_001), LONG).unwrap();
    assert_eq!(connection.get("/healthz").unwrap(), "ok");
    web.set_healthy(false).unwrap();
    assert_eq!(connection.request("/healthz").unwrap().status, 503);
    web.set_healthy(true).unwrap();
    assert_eq!(connection.get("/healthz").unwrap(), "ok");
    let seen = || -> Vec<_> {
        let requests = web.requests().unwrap();
        let ours = requests
            .into_iter()
            .filter(|request| request.peer.port() == 40_001);
        ours.map(|request| (request.line, request.status)).collect()
    };
    let line = "GET /healthz HTTP/1.1".to_owned();
    let expected = [200, 503, 200].map(|status| (line.clone(), status));
    eventually("the log to have three requests", SECOND, || {
        seen() == expected
    })
    .unwrap();
}

fn small_files(port: u16) -> WebConfig {
    WebConfig {
        http: vec![port],
        large: 1 << 20,
        ..WebConfig::default()
    }
}

#[test]
fn nginx_serves_both_families() {
    let Some(pair) = pair_with_nginx("nginx") else {
        return;
    };
    let web = WebServer::start(&pair.server, small_files(8080)).unwrap();
    assert_eq!(web.kind(), WebKind::Nginx);
    check_web(&pair.client, 8080);
    check_health_and_log(&pair.client, &web, 8080);
}

#[test]
fn the_embedded_web_server_serves_the_same() {
    let Some(pair) = pair("embedded") else { return };
    let web = WebServer::Embedded(HttpServer::start(&pair.server, small_files(8080)).unwrap());
    check_web(&pair.client, 8080);
    check_health_and_log(&pair.client, &web, 8080);
}

#[test]
fn nginx_speaks_tls_and_says_why_it_cannot_start() {
    let Some(pair) = pair_with_nginx("tls") else {
        return;
    };
    let config = WebConfig {
        https: vec![443],
        ..WebConfig::default()
    };
    let _web = Nginx::start(&pair.server, &config).unwrap();
    let shown = pair
        .client
        .run("curl", ["-sSk", "-m", "5", "https://192.0.2.2/"])
        .unwrap();
    assert_eq!(shown.stdout, "server\n");
    let error = Nginx::start(&pair.server, &config).unwrap_err().to_string();
    assert!(error.contains("Address already in use"), "{error}");
}

#[test]
fn a_limited_download_takes_its_time() {
    let Some(pair) = pair("limit") else { return };
    let config = WebConfig {
        // nginx sends a second's share at once.
        large: 800_000,
        limit_rate: Some(400_000),
        ..small_files(8080)
    };
    let embedded = HttpServer::start(&pair.server, config.clone()).unwrap();
    check_slow(&pair.client);
    drop(embedded);
    if Nginx::installed() {
        let _nginx = Nginx::start(&pair.server, &config).unwrap();
        check_slow(&pair.client);
    }
}

fn check_slow(client: &Host) {
    let [address, _] = both_families(8080);
    let mut connection = KeepAlive::connect(client, address, None, LONG).unwrap();
    let start = Instant::now();
    assert_eq!(connection.request("/large").unwrap().body.len(), 800_000);
    assert!(
        start.elapsed() > Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn dnsmasq_answers_over_udp_and_tcp() {
    let Some(pair) = pair("dns") else { return };
    let web: IpAddr = "203.0.113.9".parse().unwrap();
    let _dns = Dnsmasq::start(&pair.server, 53, &[("web.test", web)]).unwrap();
    for address in both_families(53) {
        for tcp in [false, true] {
            let ask = |name, kind| dig(&pair.client, address, name, kind, tcp).unwrap();
            assert_eq!(ask("web.test", "A"), ["203.0.113.9"]);
            assert_eq!(ask("web.test", "TXT"), ["server"]);
            assert_eq!(ask("whoami.test", "TXT"), ["server"]);
            assert!(ask("nobody.test", "A").is_empty());
        }
    }
}

#[test]
fn the_udp_echo_counts_and_answers_from_the_address_it_was_asked_at() {
    let Some(pair) = pair("udp") else { return };
    pair.server.address("eth0", "192.0.2.20/24").unwrap();
    pair.server.address("eth0", "2001:db8::20/64").unwrap();
    let echo = UdpEcho::start(&pair.server, 5000..=5003).unwrap();
    let mut sent = 0;
    for address in ["192.0.2.2", "192.0.2.20", "2001:db8::2", "2001:db8::20"] {
        for port in 5000..=5003 {
            let to = SocketAddr::new(address.parse().unwrap(), port);
            // A connected socket takes the answer only from the address it asked.
            let answer = pair
                .client
                .udp_exchange(to, Some(41_000), b"x", SECOND)
                .unwrap();
            assert_eq!(answer, b"server");
            sent += 1;
        }
    }
    assert_eq!(echo.datagrams(), sent);
    let peers: Vec<_> = echo.peers().into_iter().collect();
    let expected =
        ["192.0.2.1:41000", "[2001:db8::1]:41000"].map(|peer| (peer.parse().unwrap(), 8));
    assert_eq!(peers, expected);
}

#[test]
fn the_tcp_echo_holds_many_connections() {
    let Some(pair) = pair("tcp") else { return };
    let echo = TcpEcho::start(&pair.server, [7000, 7001]).unwrap();
    let mut held = Vec::new();
    for source in 20_000..20_500 {
        for address in both_families(7001) {
            held.push(pair.client.connect(address, Some(source), LONG).unwrap());
        }
    }
    eventually("all to be accepted", LONG, || echo.open() == 1000).unwrap();
    for stream in &held {
        let me = stream.local_addr().unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, format!("server {} {}\n", me.ip(), me.port()));
        reader.get_mut().write_all(b"again\n").unwrap();
        line.clear();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "again\n");
    }
    drop(held);
    eventually("all to be over", LONG, || echo.open() == 0).unwrap();
    assert_eq!(echo.accepted(), 1000);
    let ports: BTreeSet<_> = echo.peers().iter().map(SocketAddr::port).collect();
    assert_eq!(ports, (20_000..20_500).collect());
}

#[test]
fn raw_frames_cross_a_link_as_they_are() {
    let Some(pair) = pair("raw") else { return };
    let sender = RawPort::open(&pair.client, "eth0").unwrap();
    let receiver = RawPort::open(&pair.server, "eth0").unwrap();
    let from = pair.client.mac("eth0").unwrap();
    let elsewhere = MacAddress([2, 0, 0, 0, 0, 0x77]);
    let tags = [[0x81, 0x00, 0x60, 0x64], [0x88, 0xa8, 0x00, 0xc8]];
    let cases = [
        ("untagged", frame(elsewhere, from, &[], b"plain")),
        ("one tag", frame(elsewhere, from, &tags[..1], b"tagged")),
        (
            "two tags, the outer one 802.1ad",
            frame(elsewhere, from, &[tags[1], tags[0]], b"twice"),
        ),
        (
            "as long as the MTU allows",
            frame(elsewhere, from, &tags[..1], &[7; 1500]),
        ),
        ("no payload", frame(elsewhere, from, &[], b"")),
    ];
    // The hosts themselves speak too.
    let is_ours = |frame: &[u8]| frame[..6] == elsewhere.0;
    for (what, sent) in cases {
        sender.send(&sent).unwrap();
        let arrived = receiver.receive(SECOND, is_ours).unwrap();
        assert_eq!(arrived.as_ref(), Some(&sent), "{what}");
    }
    let other = RawPort::open(&pair.server, "eth0").unwrap();
    let [forgotten, last] =
        [b"forgotten", b"afterward"].map(|payload| frame(elsewhere, from, &[], payload));
    sender.send(&forgotten).unwrap();
    sender.send(&last).unwrap();
    // Frames keep their order: once the other port has the last, this one has the first.
    assert!(
        other
            .receive(SECOND, |frame| frame == last)
            .unwrap()
            .is_some()
    );
    assert!(receiver.clear().unwrap() > 0);
    let found = receiver.receive(Duration::ZERO, |frame| frame == forgotten);
    assert_eq!(found.unwrap(), None);
    for number in 0..5 {
        sender
            .send(&frame(elsewhere, from, &[], &[number]))
            .unwrap();
    }
    let captured = receiver
        .capture(5, SECOND, |frame| is_ours(frame) && frame.len() == 15)
        .unwrap();
    let numbers: Vec<_> = captured.iter().map(|frame| frame[14]).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
}

#[test]
fn packets_of_a_stream_arrive_one_by_one_and_with_whole_checksums() {
    let Some(pair) = pair("offloads") else { return };
    let port = RawPort::open(&pair.client, "eth0").unwrap();
    let _web = HttpServer::start(&pair.server, small_files(80)).unwrap();
    let [address, _] = both_families(80);
    let mut connection = KeepAlive::connect(&pair.client, address, None, LONG).unwrap();
    assert_eq!(connection.request("/large").unwrap().body.len(), 1 << 20);
    let is_tcp = |frame: &[u8]| frame[12..14] == [8, 0] && frame[23] == 6;
    let frames = port.capture(500, SECOND, is_tcp).unwrap();
    assert_eq!(frames.len(), 500);
    for frame in frames {
        assert!(frame.len() <= 1514, "{} bytes", frame.len());
        let (header, rest) = frame[14..].split_at(20);
        let length = usize::from(u16::from_be_bytes([header[2], header[3]])) - 20;
        let segment = &rest[..length];
        let pseudo = [&header[12..20], &[0, 6], &(length as u16).to_be_bytes()].concat();
        assert_eq!(sum(&[&pseudo[..], segment].concat()), 0xffff);
    }
}

/// The sum of RFC 1071, not inverted: 0xffff over bytes that carry their right checksum.
fn sum(bytes: &[u8]) -> u32 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

#[test]
fn a_new_ethernet_address_is_announced_or_not() {
    let Some(pair) = pair("mac") else { return };
    let port = RawPort::open(&pair.client, "eth0").unwrap();
    let first: MacAddress = "02:00:00:00:00:01".parse().unwrap();
    let second: MacAddress = "02:00:00:00:00:02".parse().unwrap();
    let is_arp = |frame: &[u8]| frame[12..14] == [8, 6];
    pair.server.set_mac("eth0", first, Announce::Yes).unwrap();
    assert_eq!(pair.server.mac("eth0").unwrap(), first);
    let arp = port
        .receive(SECOND, |frame| is_arp(frame) && frame[6..12] == first.0)
        .unwrap();
    assert!(arp.is_some());
    pair.server.set_mac("eth0", second, Announce::No).unwrap();
    let arp = port.receive(Duration::from_millis(100), |frame| {
        is_arp(frame) && frame[6..12] == second.0
    });
    assert_eq!(arp.unwrap(), None);
    pair.client.flush_neighbours("eth0").unwrap();
    for address in both_families(0) {
        pair.client.ping(address.ip(), SECOND).unwrap();
    }
    let neighbours = pair.client.run("ip", ["neigh"]).unwrap().stdout;
    assert!(
        neighbours.contains("192.0.2.2 dev eth0 lladdr 02:00:00:00:00:02"),
        "{neighbours}"
    );
    pair.client.flush_neighbours("eth0").unwrap();
    let neighbours = pair.client.run("ip", ["neigh"]).unwrap().stdout;
    assert!(!neighbours.contains("02:00:00:00:00:02"), "{neighbours}");
}

#[test]
fn addresses_outlive_a_pulled_cable() {
    let Some(pair) = pair("cable") else { return };
    pair.server.link_down("eth0").unwrap();
    pair.client
        .ping(SERVER4.parse().unwrap(), Duration::from_millis(50))
        .unwrap_err();
    pair.server.link_up("eth0").unwrap();
    for address in both_families(0) {
        let reached = || {
            pair.client
                .ping(address.ip(), Duration::from_millis(100))
                .is_ok()
        };
        eventually("the link to be back", LONG, reached).unwrap();
    }
}

#[test]
fn a_closure_runs_in_the_namespace_and_its_panic_comes_back() {
    let Some(pair) = pair("enter") else { return };
    let bind =
        || std::net::UdpSocket::bind("192.0.2.1:6000").map(|socket| socket.local_addr().unwrap());
    bind().unwrap_err();
    let bound = pair.client.enter(bind).unwrap().unwrap();
    assert_eq!(bound, "192.0.2.1:6000".parse().unwrap());
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        pair.client.enter(|| panic!("on purpose")).unwrap();
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"on purpose"));
}

#[test]
fn labs_beside_each_other_do_not_meet() {
    let labs: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| pair("beside"))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let Some(labs) = labs.into_iter().collect::<Option<Vec<_>>>() else {
        return;
    };
    for pair in &labs {
        pair.client.ping(SERVER4.parse().unwrap(), SECOND).unwrap();
    }
    let names: BTreeSet<_> = labs.iter().map(|pair| pair.client.namespace()).collect();
    assert_eq!(names.len(), 4);
}
