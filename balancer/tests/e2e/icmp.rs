//! ICMP errors about connections.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use balancer_lab::{WebConfig, WebServer};

use crate::schedule::{backend, nth};
use crate::site::{SOON, Shape, Site};

/// A service over IPv4 and the same over IPv6, on backend 1.
fn both_families(protocol: &str, port: u16) -> String {
    let service = |name: &str, listen: &str, to: &str| {
        let backend = backend(&format!("{to}:{port}"));
        nth(&format!("{listen}:{port}"), &[backend]).replace(
            "name = \"web\"",
            &format!("name = \"{name}\"\nprotocol = \"{protocol}\""),
        )
    };
    [
        service("over4", "192.0.2.10", "10.0.1.3"),
        service("over6", "[2001:db8::10]", "[2001:db8:1::3]"),
    ]
    .concat()
}

#[test]
fn a_client_hears_that_nobody_listens() {
    let Some(mut site) = Site::new("unreachable", Shape::Links, 1) else {
        return;
    };
    site.start(&both_families("udp", 9));
    for (from, to) in [
        ("0.0.0.0:0", "192.0.2.10:9"),
        ("[::]:0", "[2001:db8::10]:9"),
    ] {
        let socket = site.client.udp_socket(from.parse().unwrap()).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        // An error comes to a connected socket only if it says that it is about this very connection.
        socket.connect(to.parse::<SocketAddr>().unwrap()).unwrap();
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
    site.start(&both_families("tcp", 80));
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
