//! What backends see, and what comes back.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use balancer_lab::{TcpEcho, UdpEcho};

use crate::site::{SOON, Shape, Site, greeting};

fn service(listen: &str, protocol: &str, source_nat: &str, to: &str) -> String {
    format!(
        "[[service]]\nname = \"{protocol}-{source_nat}\"\nlisten = \"{listen}\"\nprotocol = \"{protocol}\"\n\
         source_nat = \"{source_nat}\"\nbackend = [{{ address = \"{to}\" }}]\n"
    )
}

#[test]
fn backends_see_who_the_configuration_says() {
    let Some(mut site) = Site::new("source", Shape::Links, 1) else {
        return;
    };
    let tcp = TcpEcho::start(&site.backends[0], [7, 8, 9]).unwrap();
    let udp = UdpEcho::start(&site.backends[0], [7, 8, 9]).unwrap();
    site.balancer.address("eth1", "10.0.1.77/24").unwrap();
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

#[test]
fn two_clients_with_one_source_port_share_a_backend() {
    let Some(mut site) = Site::new("same-port", Shape::Links, 1) else {
        return;
    };
    let tcp = TcpEcho::start(&site.backends[0], [7]).unwrap();
    let udp = UdpEcho::start(&site.backends[0], [7]).unwrap();
    let clients: Vec<String> = (0..20)
        .map(|n| format!("addr add 192.0.2.{}/24 dev eth0", 100 + n))
        .collect();
    site.client.ip_batch(clients).unwrap();
    site.start(
        &[
            service("192.0.2.10:7", "tcp", "masquerade", "10.0.1.3:7"),
            service("192.0.2.10:7", "udp", "masquerade", "10.0.1.3:7"),
        ]
        .concat(),
    );
    let streams = site
        .client
        .enter(|| {
            use std::io::{Read as _, Write as _};
            let mut streams: Vec<std::net::TcpStream> = (0..20)
                .map(|number| {
                    let socket =
                        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
                            .unwrap();
                    socket.set_reuse_address(true).unwrap();
                    socket
                        .bind(&SocketAddr::from(([192, 0, 2, 100 + number], 6000)).into())
                        .unwrap();
                    socket
                        .connect(&SocketAddr::from(([192, 0, 2, 10], 7)).into())
                        .unwrap();
                    let stream: std::net::TcpStream = socket.into();
                    stream.set_read_timeout(Some(SOON)).unwrap();
                    stream
                })
                .collect();
            // Each talks, while all are open.
            for (number, stream) in streams.iter_mut().enumerate() {
                let text = format!("to {number}\n");
                stream.write_all(text.as_bytes()).unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(text.as_bytes()) {
                    let mut buffer = [0; 256];
                    let length = stream.read(&mut buffer).unwrap();
                    assert!(length > 0, "{number}: cut off after {answer:?}");
                    answer.extend(&buffer[..length]);
                }
            }
            streams
        })
        .unwrap();
    let peers: BTreeSet<SocketAddr> = tcp.peers().into_iter().collect();
    assert_eq!(peers.len(), 20, "no two share a port: {peers:?}");
    assert_eq!(
        peers.iter().filter(|peer| peer.port() == 6000).count(),
        1,
        "the first keeps its port"
    );
    drop(streams);
    site.client
        .enter(|| {
            for number in 0..20 {
                let socket =
                    std::net::UdpSocket::bind(SocketAddr::from(([192, 0, 2, 100 + number], 6001)))
                        .unwrap();
                socket.set_read_timeout(Some(SOON)).unwrap();
                socket.send_to(b"?", "192.0.2.10:7").unwrap();
                socket.recv(&mut [0; 64]).unwrap();
            }
        })
        .unwrap();
    assert_eq!(udp.peers().len(), 20);
}
