//! Which backend a new connection gets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use balancer_lab::{Dnsmasq, TcpEcho, WebConfig, dig};

use crate::site::{SOON, Shape, Site, greeting};

/// A service with nth over backends whose addresses are made from their number.
pub fn nth(listen: &str, backends: &[String]) -> String {
    format!(
        "[[service]]\nname = \"web\"\nlisten = \"{listen}\"\nscheduler = \"nth\"\nbackend = [{}]\n",
        backends.join(", ")
    )
}

pub fn backend(address: &str) -> String {
    format!("{{ address = \"{address}\" }}")
}

fn weighted(address: &str, weight: u16) -> String {
    format!("{{ address = \"{address}\", weight = {weight} }}")
}

/// 30 connections, ten to each of three backends, in strict rotation.
fn rotation(site: &Site, url: &str) {
    let answers: Vec<String> = (0..30).map(|_| site.curl(url).unwrap()).collect();
    let first = &answers[..3];
    let mut sorted = first.to_vec();
    sorted.sort();
    assert_eq!(sorted, ["b1", "b2", "b3"]);
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(
            *answer,
            first[index % 3],
            "connection {index} of {answers:?}"
        );
    }
    let totals: Vec<u64> = site.services()[0]
        .backends
        .iter()
        .map(|backend| backend.connections_total)
        .collect();
    assert_eq!(totals, [10, 10, 10]);
}

#[test]
fn nth_rotates_over_backends_on_different_links() {
    let Some(mut site) = Site::new("nth", Shape::Links, 3) else {
        return;
    };
    let _web = site.nginx(&WebConfig::default());
    let backends = [1, 2, 3].map(|number| backend(&format!("10.0.{number}.3:80")));
    site.start(&nth("192.0.2.10:80", &backends));
    rotation(&site, "http://192.0.2.10/");
}

#[test]
fn nth_rotates_over_ipv6() {
    let Some(mut site) = Site::new("nth6", Shape::Links, 3) else {
        return;
    };
    let _web = site.nginx(&WebConfig::default());
    let backends = [1, 2, 3].map(|number| backend(&format!("[2001:db8:{number}::3]:80")));
    site.start(&nth("[2001:db8::10]:80", &backends));
    rotation(&site, "http://[2001:db8::10]/");
}

#[test]
fn client_and_backends_share_one_link() {
    let Some(mut site) = Site::new("one-arm", Shape::OneArm, 3) else {
        return;
    };
    let _web = site.nginx(&WebConfig::default());
    let backends = [101, 102, 103].map(|number| backend(&format!("192.0.2.{number}:80")));
    site.start(&nth("192.0.2.10:80", &backends));
    rotation(&site, "http://192.0.2.10/");
}

#[test]
fn client_and_backends_share_one_link_over_ipv6() {
    let Some(mut site) = Site::new("one-arm6", Shape::OneArm, 3) else {
        return;
    };
    let _web = site.nginx(&WebConfig::default());
    let backends = [101, 102, 103].map(|number| backend(&format!("[2001:db8::{number}]:80")));
    site.start(&nth("[2001:db8::10]:80", &backends));
    rotation(&site, "http://[2001:db8::10]/");
}

/// Thirty UDP flows over each family, in strict rotation over three backends.
fn datagrams(name: &str, shape: Shape) {
    let Some(mut site) = Site::new(name, shape, 3) else {
        return;
    };
    let _echo = site.udp_echo();
    site.start(&site.both_families("udp", 9));
    let listens = ["192.0.2.10:9", "[2001:db8::10]:9"];
    for (index, listen) in listens.into_iter().enumerate() {
        let to = listen.parse().unwrap();
        // From a port of its own each: one that the kernel had given before would be the same connection.
        let ask = |port| {
            let answer = site.client.udp_exchange(to, Some(port), b"?", SOON);
            String::from_utf8(answer.unwrap()).unwrap()
        };
        let answers: Vec<String> = (20_000..20_030).map(ask).collect();
        let turn: BTreeSet<&String> = answers[..3].iter().collect();
        assert_eq!(turn.len(), 3, "{listen}: {answers:?}");
        assert!(
            answers.chunks(3).all(|turn| turn == &answers[..3]),
            "{listen}: {answers:?}"
        );
        for backend in &site.services()[index].backends {
            assert_eq!(
                (backend.forward.packets, backend.reply.packets),
                (10, 10),
                "{listen}"
            );
        }
    }
}

#[test]
fn nth_rotates_over_udp() {
    datagrams("nth-udp", Shape::Links);
}

#[test]
fn nth_rotates_over_udp_on_one_link() {
    datagrams("one-arm-udp", Shape::OneArm);
}

#[test]
fn weights_are_exact_and_interleaved() {
    let Some(mut site) = Site::new("weights", Shape::Links, 3) else {
        return;
    };
    let _echo = site.tcp_echo();
    let backends = [(1, 5), (2, 3), (3, 1)]
        .map(|(number, weight)| weighted(&format!("10.0.{number}.3:7"), weight));
    site.start(&nth("192.0.2.10:7", &backends));
    let to = SocketAddr::from(([192, 0, 2, 10], 7));
    let answers: Vec<String> = (0..36)
        .map(|_| greeting(&site.client, to, None).0)
        .collect();
    for nine in answers.chunks(9) {
        let count = |name: &str| nine.iter().filter(|answer| *answer == name).count();
        assert_eq!(
            [count("b1"), count("b2"), count("b3")],
            [5, 3, 1],
            "{nine:?}"
        );
        assert_eq!(nine, &answers[..9], "the same order each time");
    }
    // Smooth: never three of the second in a row, nor more than two of the first.
    let longest = answers.chunk_by(|a, b| a == b).map(<[String]>::len).max();
    assert!(longest <= Some(2), "{answers:?}");
}

/// How many UDP flows are spread by chance.
const FLOWS: u32 = 10_000;

#[test]
fn random_keeps_its_probabilities() {
    let Some(mut site) = Site::new("random", Shape::Links, 3) else {
        return;
    };
    let echo = site.udp_echo();
    site.start(
        "[[service]]\nname = \"udp\"\nlisten = \"192.0.2.10:9\"\nprotocol = \"udp\"\nscheduler = \"random\"\nbackend = [\
         { address = \"10.0.1.3:9\", probability = 0.5 }, { address = \"10.0.2.3:9\", probability = 0.3 },\
         { address = \"10.0.3.3:9\", probability = 0.2 }]\n",
    );
    // 10,000 flows: 40 addresses of the client, 250 ports each. An answer to each, so that none stays half-open.
    let addresses: Vec<String> = (0..40)
        .map(|n| format!("addr add 192.0.2.{}/24 dev eth0", 100 + n))
        .collect();
    site.client.ip_batch(addresses).unwrap();
    let sample = |first_port: u32| {
        let ask = || {
            let mut answers = BTreeMap::<String, u32>::new();
            for flow in 0..FLOWS {
                let from = SocketAddr::from((
                    [192, 0, 2, 100 + (flow % 40) as u8],
                    (first_port + flow / 40) as u16,
                ));
                let socket = std::net::UdpSocket::bind(from).unwrap();
                socket.set_read_timeout(Some(SOON)).unwrap();
                socket.send_to(b"?", "192.0.2.10:9").unwrap();
                let mut buffer = [0; 64];
                let length = socket.recv(&mut buffer).unwrap();
                *answers
                    .entry(String::from_utf8_lossy(&buffer[..length]).into_owned())
                    .or_default() += 1;
            }
            answers
        };
        let answers = site.client.enter(ask).unwrap();
        [("b1", 0.5), ("b2", 0.3), ("b3", 0.2)]
            .into_iter()
            .all(|(name, probability)| {
                let expected = f64::from(FLOWS) * probability;
                let deviation = (expected * (1.0 - probability)).sqrt();
                let found = f64::from(answers[name]);
                println!("{name}: {found} of {FLOWS}, expected {expected} ± {deviation:.0}");
                (found - expected).abs() <= 3.0 * deviation
            })
    };
    // Chance alone goes beyond three standard deviations in one of 150 samples, and in one of three million thrice.
    let samples = [20_000, 22_000, 24_000];
    assert!(samples.into_iter().any(sample), "three samples are off");
    // What the servers saw and what is counted is the same, to the packet and the byte.
    let length = 20 + 8;
    for (backend, echo) in site.services()[0].backends.iter().zip(&echo) {
        assert_eq!(backend.connections_total, echo.datagrams());
        assert_eq!(backend.forward.packets, echo.datagrams());
        assert_eq!(backend.forward.bytes, echo.datagrams() * (length + 1));
        assert_eq!(backend.reply.packets, echo.datagrams());
        assert_eq!(backend.reply.bytes, echo.datagrams() * (length + 2));
    }
}

#[test]
fn dns_is_served_over_both_families() {
    let Some(mut site) = Site::new("dns", Shape::Links, 2) else {
        return;
    };
    let address: IpAddr = [198, 51, 100, 7].into();
    let _dns: Vec<Dnsmasq> = site
        .backends
        .iter()
        .map(|host| Dnsmasq::start(host, 53, &[("www.test", address)]).unwrap())
        .collect();
    let service = |name, listen, protocol, one: &str, two: &str| {
        nth(listen, &[backend(one), backend(two)]).replace(
            "name = \"web\"",
            &format!("name = \"{name}\"\nprotocol = \"{protocol}\""),
        )
    };
    site.start(
        &[
            service("dns", "192.0.2.10:53", "udp", "10.0.1.3", "10.0.2.3"),
            service(
                "dns6",
                "[2001:db8::10]:53",
                "udp",
                "[2001:db8:1::3]:53",
                "[2001:db8:2::3]:53",
            ),
            service("dns-tcp", "*:53", "tcp", "10.0.1.3", "10.0.2.3"),
        ]
        .concat(),
    );
    for (server, tcp) in [
        ("192.0.2.10:53", false),
        ("[2001:db8::10]:53", false),
        ("192.0.2.10:53", true),
    ] {
        let server = server.parse().unwrap();
        let mut who = Vec::new();
        for _ in 0..4 {
            assert_eq!(
                dig(&site.client, server, "www.test", "A", tcp).unwrap(),
                ["198.51.100.7"]
            );
            who.extend(dig(&site.client, server, "whoami.test", "TXT", tcp).unwrap());
        }
        who.sort();
        who.dedup();
        assert_eq!(
            who.len(),
            1,
            "every second question goes to the same one of two: {who:?}\n{}",
            site.ctl(&["connections"]).unwrap()
        );
    }
    let totals: Vec<u64> = site
        .services()
        .iter()
        .flat_map(|service| &service.backends)
        .map(|backend| backend.connections_total)
        .collect();
    assert_eq!(totals, [4; 6], "{}", site.ctl(&["connections"]).unwrap());
}

#[test]
fn services_are_told_apart_by_address_port_and_interface() {
    let Some(mut site) = Site::new("services", Shape::Links, 3) else {
        return;
    };
    let _echo: Vec<TcpEcho> = site
        .backends
        .iter()
        .map(|host| TcpEcho::start(host, 7000..7004).unwrap())
        .collect();
    site.client.address("eth0", "198.51.100.1/24").unwrap();
    site.balancer.address("eth0", "192.0.2.11/24").unwrap();
    site.balancer.address("eth0", "192.0.2.12/24").unwrap();
    let service = |name: &str, listen: &str, keys: &str, to: &str| {
        format!(
            "[[service]]\nname = \"{name}\"\nlisten = \"{listen}\"\n{keys}\nbackend = [{{ address = \"{to}\" }}]\n"
        )
    };
    site.start(
        &[
            service("exact", "192.0.2.10:7000", "", "10.0.1.3:7000"),
            service("any", "*:7000", "", "10.0.2.3:7000"),
            service("range", "192.0.2.10:7001-7003", "", "10.0.3.3"),
            service(
                "here",
                "192.0.2.11:7001",
                "interface = \"eth0\"",
                "10.0.1.3:7001",
            ),
            service("anywhere", "192.0.2.11:7001", "", "10.0.2.3:7001"),
            service(
                "elsewhere",
                "192.0.2.12:7001",
                "interface = \"eth1\"",
                "10.0.1.3:7001",
            ),
        ]
        .concat(),
    );
    let who = |address: [u8; 4], port: u16| greeting(&site.client, (address, port).into(), None).0;
    assert_eq!(who([192, 0, 2, 10], 7000), "b1");
    assert_eq!(who([192, 0, 2, 11], 7000), "b2");
    for port in 7001..=7003 {
        assert_eq!(who([192, 0, 2, 10], port), "b3");
    }
    // By eth0 comes what is for the service there; by eth2 what is for the one without an interface.
    assert_eq!(who([192, 0, 2, 11], 7001), "b1");
    let by_another = greeting(&site.backends[1], ([192, 0, 2, 11], 7001).into(), None);
    assert_eq!(by_another.0, "b2");
    // The service on eth1 does not take what comes by eth0: nobody listens there.
    let refused = site
        .client
        .connect(([192, 0, 2, 12], 7001).into(), None, SOON);
    assert!(refused.unwrap_err().to_string().contains("refused"));
}
