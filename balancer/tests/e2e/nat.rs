//! What backends see, and what comes back.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};

use balancer_lab::{TcpEcho, UdpEcho, eventually};
use socket2::{Domain, Socket, Type};

use crate::schedule::{backend, nth};
use crate::site::{PATIENCE, SOON, Shape, Site, greeting};

fn service(listen: &str, protocol: &str, source_nat: &str, to: &str) -> String {
    format!(
        "[[service]]\nname = \"{protocol}-{source_nat}\"\nlisten = \"{listen}\"\nprotocol = \"{protocol}\"\n\
         source_nat = \"{source_nat}\"\nbackend = [{{ address = \"{to}\" }}]\n"
    )
}

/// Hairpin: a backend is a client of the service that it serves, and may get itself.
#[test]
fn a_backend_is_its_own_services_client() {
    let Some(mut site) = Site::new("hairpin", Shape::Links, 2) else {
        return;
    };
    let _echo = site.tcp_echo();
    site.start(&site.both_families("tcp", 7));
    for (to, sees) in [
        ("192.0.2.10:7", ["10.0.1.1", "10.0.2.1"]),
        ("[2001:db8::10]:7", ["2001:db8:1::1", "2001:db8:2::1"]),
    ] {
        let mut answers = BTreeSet::new();
        for _ in 0..4 {
            let (name, peer) = greeting(&site.backends[0], to.parse().unwrap(), None);
            answers.insert((name, peer.ip().to_string()));
        }
        let expected = [("b1", sees[0]), ("b2", sees[1])];
        let expected = expected.map(|(name, peer)| (name.to_owned(), peer.to_owned()));
        assert_eq!(answers, BTreeSet::from(expected), "{to}");
    }
}

/// Clients whose own ports are not among those for source NAT, so that each connection gets one by chance.
#[test]
fn every_source_port_is_used_before_one_is_refused() {
    const PORTS: u32 = 4000;
    let Some(mut site) = Site::new("ports", Shape::Links, 1) else {
        return;
    };
    let echo = UdpEcho::start(&site.backends[0], [9]).unwrap();
    site.datapath_key("source_ports = \"10000-13999\"");
    site.start(
        &nth("192.0.2.10:9", &[backend("10.0.1.3:9")])
            .replace("name = \"web\"", "name = \"udp\"\nprotocol = \"udp\""),
    );
    let ask = |port: u32| {
        let socket = site.udp(&format!("192.0.2.1:{port}"), "192.0.2.10:9");
        socket.send(b"?").unwrap();
        socket.recv(&mut [0; 16])
    };
    for number in 0..PORTS {
        ask(20_000 + number).unwrap_or_else(|error| {
            let status = site.status();
            panic!("{number}: {error}: {:?}", status.slow_path)
        });
    }
    assert_eq!(echo.datagrams(), u64::from(PORTS));
    // Each was another one.
    assert_eq!(echo.peers().len(), PORTS as usize);
    let status = site.status();
    assert!(status.slow_path.held["ports"] > 0, "{:?}", status.slow_path);
    assert_eq!(status.packets.dropped, 0);

    // There is none left: this one is told, and counted.
    let error = ask(30_000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    assert_eq!(site.services()[0].refused.ports_exhausted, 1);
    assert_eq!(site.drops().drops["ports_exhausted"], 1);
    // One that is given back is found again. For a second it is remembered that there was none.
    site.ctl(&["flush", "connections"]).unwrap();
    eventually("a port to be found", PATIENCE, || ask(30_000).is_ok()).unwrap();
}

#[test]
fn backends_see_who_the_configuration_says() {
    let Some(mut site) = Site::new("source", Shape::Links, 1) else {
        return;
    };
    let tcp = TcpEcho::start(&site.backends[0], [7, 8, 9]).unwrap();
    let udp = UdpEcho::start(&site.backends[0], [7, 8, 9]).unwrap();
    site.balancer.address("eth1", "10.0.1.77/24").unwrap();
    // Not preferred, or the kernel might take it for its own source, and so would `masquerade`.
    site.balancer
        .ip("addr add 2001:db8:1::77/64 dev eth1 nodad preferred_lft 0")
        .unwrap();
    let cases = [
        ("192.0.2.10:7", "masquerade", "10.0.1.3:7", "10.0.1.1"),
        ("192.0.2.10:8", "none", "10.0.1.3:8", "192.0.2.1"),
        ("192.0.2.10:9", "10.0.1.77", "10.0.1.3:9", "10.0.1.77"),
        (
            "[2001:db8::10]:7",
            "masquerade",
            "[2001:db8:1::3]:7",
            "2001:db8:1::1",
        ),
        (
            "[2001:db8::10]:8",
            "none",
            "[2001:db8:1::3]:8",
            "2001:db8::1",
        ),
        (
            "[2001:db8::10]:9",
            "2001:db8:1::77",
            "[2001:db8:1::3]:9",
            "2001:db8:1::77",
        ),
    ];
    let services: Vec<String> = cases
        .iter()
        .enumerate()
        .flat_map(|(number, (listen, source_nat, to, _))| {
            ["tcp", "udp"].map(|protocol| {
                service(listen, protocol, source_nat, to)
                    .replacen("name = \"", &format!("name = \"{number}-"), 1)
                    .replace(
                        &format!("{protocol}-{source_nat}\""),
                        &format!("{protocol}\""),
                    )
            })
        })
        .collect();
    site.start(&services.concat());
    for (listen, source_nat, _, seen) in cases {
        let address: SocketAddr = listen.parse().unwrap();
        let (_, peer) = greeting(&site.client, address, Some(5000));
        assert_eq!(peer.ip().to_string(), seen, "{source_nat} over TCP");
        if source_nat != "masquerade" {
            assert_eq!(peer.port(), 5000, "a port that is free is kept");
        }
        site.client
            .udp_exchange(address, Some(5001), b"?", SOON)
            .unwrap();
        let peers = udp.peers();
        assert!(
            peers
                .keys()
                .any(|peer| peer.ip().to_string() == seen && peer.port() == 5001),
            "{source_nat} over UDP: {peers:?}"
        );
    }
    drop(tcp);
}

/// Twenty clients with the same source port, over TCP and over UDP, to one backend behind `masquerade`.
fn one_source_port(name: &str, clients: &[IpAddr], listen: &str, to: &str) {
    let Some(mut site) = Site::new(name, Shape::Links, 1) else {
        return;
    };
    let tcp = TcpEcho::start(&site.backends[0], [7]).unwrap();
    let udp = UdpEcho::start(&site.backends[0], [7]).unwrap();
    let addresses = clients.iter().map(|client| {
        let length = if client.is_ipv4() { 24 } else { 64 };
        format!("addr add {client}/{length} dev eth0")
    });
    site.client.ip_batch(addresses).unwrap();
    site.start(
        &[
            service(listen, "tcp", "masquerade", to),
            service(listen, "udp", "masquerade", to),
        ]
        .concat(),
    );
    let listen: SocketAddr = listen.parse().unwrap();
    let connect = |client: IpAddr| {
        let from = SocketAddr::new(client, 6000);
        let socket = Socket::new(Domain::for_address(from), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&from.into()).unwrap();
        socket.connect_timeout(&listen.into(), SOON).unwrap();
        let stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    };
    let talk = || {
        let mut streams: Vec<TcpStream> = clients.iter().copied().map(connect).collect();
        // Each talks, while all are open.
        for (client, stream) in clients.iter().zip(&mut streams) {
            let text = format!("from {client}\n");
            stream.write_all(text.as_bytes()).unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(text.as_bytes()) {
                let mut buffer = [0; 256];
                let length = stream.read(&mut buffer).unwrap();
                assert!(length > 0, "{client}: cut off after {answer:?}");
                answer.extend(&buffer[..length]);
            }
        }
        for &client in clients {
            let socket = UdpSocket::bind(SocketAddr::new(client, 6001)).unwrap();
            socket.set_read_timeout(Some(SOON)).unwrap();
            socket.send_to(b"?", listen).unwrap();
            socket.recv(&mut [0; 64]).unwrap();
        }
    };
    site.client.enter(talk).unwrap();
    let peers: BTreeSet<SocketAddr> = tcp.peers().into_iter().collect();
    assert_eq!(peers.len(), clients.len(), "no two share a port: {peers:?}");
    assert_eq!(
        peers.iter().filter(|peer| peer.port() == 6000).count(),
        1,
        "the first keeps its port"
    );
    assert_eq!(udp.peers().len(), clients.len());
}

#[test]
fn clients_with_one_source_port_share_a_backend() {
    let clients: Vec<IpAddr> = (100..120).map(|n| [192, 0, 2, n].into()).collect();
    one_source_port("same-port", &clients, "192.0.2.10:7", "10.0.1.3:7");
}

#[test]
fn clients_with_one_source_port_share_a_backend_over_ipv6() {
    let clients: Vec<IpAddr> = (0x100..0x114)
        .map(|n| [0x2001, 0xdb8, 0, 0, 0, 0, 0, n].into())
        .collect();
    one_source_port(
        "same-port6",
        &clients,
        "[2001:db8::10]:7",
        "[2001:db8:1::3]:7",
    );
}
