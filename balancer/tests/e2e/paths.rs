//! Neighbours, links and routes change.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use balancer::control::document::BackendState;
use balancer_lab::{
    Announce, KeepAlive, MacAddress, TcpEcho, UdpEcho, WebConfig, WebServer, eventually,
};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Ipv4RecvErr;

use crate::schedule::{backend, nth};
use crate::site::{PATIENCE, SOON, Shape, Site, greeting};

const TO: ([u8; 4], u16) = ([192, 0, 2, 10], 7);

fn site(name: &str, count: usize) -> Option<(Site, Vec<TcpEcho>)> {
    let mut site = Site::new(name, Shape::Links, count)?;
    let echo = site.tcp_echo();
    let backends: Vec<String> = (1..=count)
        .map(|number| backend(&format!("10.0.{number}.3:7")))
        .collect();
    site.start(&nth("192.0.2.10:7", &backends));
    Some((site, echo))
}

/// A packet for which there is no way waits for one, and is sent when it comes. If none comes, its sender hears of it.
#[test]
fn a_packet_without_a_way_waits() {
    let Some(mut site) = Site::new("waits", Shape::Links, 1) else {
        return;
    };
    let echo = UdpEcho::start(&site.backends[0], [7]).unwrap();
    site.start(&site.both_families("udp", 7));
    let socket = site.udp("192.0.2.1:7001", "192.0.2.10:7");
    // Else the kernel keeps to itself that a host is unreachable.
    setsockopt(&socket, Ipv4RecvErr, &true).unwrap();
    let ask = || {
        socket.send(b"?").unwrap();
        socket.recv(&mut [0; 16])
    };
    ask().unwrap();
    let is = |state| {
        eventually("the daemon to follow the routes", PATIENCE, || {
            site.services()[0].backends[0].state == state
        })
        .unwrap();
    };
    site.balancer.ip("route del 10.0.1.0/24 dev eth1").unwrap();
    is(BackendState::Unresolved);
    socket.send(b"?").unwrap();
    eventually("the packet to wait", PATIENCE, || {
        site.status().slow_path.held["next_hop"] == 1
    })
    .unwrap();
    assert_eq!(echo.datagrams(), 1);
    site.balancer
        .ip("route add 10.0.1.0/24 dev eth1 src 10.0.1.1")
        .unwrap();
    socket.recv(&mut [0; 16]).unwrap();
    assert_eq!(echo.datagrams(), 2);

    site.balancer.ip("route del 10.0.1.0/24 dev eth1").unwrap();
    is(BackendState::Unresolved);
    // Else it may be taken for one that the way has come too late for. Only time makes the difference: that way came 20 ms ago or less.
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    let error = ask().unwrap_err();
    let status = site.status();
    assert_eq!(
        error.kind(),
        ErrorKind::HostUnreachable,
        "{error}: {:?} {:?}",
        status.slow_path,
        status.packets
    );
    assert!(start.elapsed() >= Duration::from_millis(900));
    let status = site.status();
    assert_eq!(status.slow_path.expired, 1, "{:?}", status.slow_path);
    assert_eq!(status.packets.dropped, 0, "{:?}", status.packets);
}

#[test]
fn the_first_packet_to_a_flushed_neighbour_is_not_lost() {
    let Some(mut site) = Site::new("flush", Shape::Links, 1) else {
        return;
    };
    let _echo = TcpEcho::start(&site.backends[0], [7]).unwrap();
    site.start(&site.both_families("tcp", 7));
    for (listen, neighbour) in [
        ("192.0.2.10:7", "10.0.1.3"),
        ("[2001:db8::10]:7", "2001:db8:1::3"),
    ] {
        for _ in 0..20 {
            // Not by `ip neigh flush`, which gives up when the entry is there again before it has looked.
            // There is none to delete until the daemon has had the last one made anew.
            eventually("the entry to be deleted", SOON, || {
                let line = format!("neigh del {neighbour} dev eth1");
                site.balancer.ip(&line).is_ok()
            })
            .unwrap();
            let start = Instant::now();
            greeting(&site.client, listen.parse().unwrap(), None);
            // A lost SYN would come again after a second.
            let took = start.elapsed();
            assert!(took < Duration::from_millis(500), "{listen}: {took:?}");
        }
    }
}

#[test]
fn a_new_mac_address_is_followed_within_a_second() {
    let Some(mut site) = Site::new("mac", Shape::Links, 1) else {
        return;
    };
    let _web = WebServer::start(&site.backends[0], WebConfig::default()).unwrap();
    site.start(&site.both_families("tcp", 80));
    let mut last = 0;
    for listen in ["192.0.2.10:80", "[2001:db8::10]:80"] {
        let address: SocketAddr = listen.parse().unwrap();
        let mut kept = KeepAlive::connect(&site.client, address, None, SOON).unwrap();
        kept.get("/").unwrap();
        // The backend's, then the client's, to whom the answers go.
        for host in [&site.backends[0], &site.client]
            .into_iter()
            .cycle()
            .take(6)
        {
            last += 1;
            host.set_mac("eth0", MacAddress([2, 0, 0, 0, 9, last]), Announce::Yes)
                .unwrap();
            // Asked again and again: one lost SYN comes again only after a second.
            let what = format!(
                "a connection to {listen} with {}'s new address",
                host.name()
            );
            eventually(&what, Duration::from_secs(1), || {
                let timeout = Duration::from_millis(100);
                site.client.connect(address, None, timeout).is_ok()
            })
            .unwrap();
            kept.get("/").unwrap();
        }
    }
}

#[test]
fn an_entry_that_an_operator_made_is_left_alone() {
    let Some(mut site) = Site::new("fixed", Shape::Links, 1) else {
        return;
    };
    let _echo = TcpEcho::start(&site.backends[0], [7]).unwrap();
    let mac = site.backends[0].mac("eth0").unwrap();
    let line = format!("neigh replace 10.0.1.3 dev eth1 lladdr {mac} nud permanent");
    site.balancer.ip(&line).unwrap();
    let is_left = |site: &Site| {
        let shown = site.balancer.run("ip", ["neigh", "show", "10.0.1.3"]);
        let entry = shown.unwrap().stdout;
        assert!(entry.contains("PERMANENT"), "{entry}");
    };
    // Nobody is sent to the second: it shows when ways have been asked for.
    let far = "{ address = \"203.0.113.1:7\", weight = 0 }".to_owned();
    let services = nth("192.0.2.10:7", &[backend("10.0.1.3:7"), far]);
    site.start(&services);
    greeting(&site.client, TO.into(), None);
    is_left(&site);
    let state = || site.services()[0].backends[1].state;
    assert_eq!(state(), BackendState::Unresolved);
    site.balancer.route("203.0.113.0/24", "10.0.1.3").unwrap();
    eventually("all ways to be asked for anew", PATIENCE, || {
        state() == BackendState::Up
    })
    .unwrap();
    is_left(&site);
    site.reload(&nth("192.0.2.10:7", &[backend("10.0.1.4:7")]));
    site.reload(&services);
    greeting(&site.client, TO.into(), None);
    is_left(&site);
}

#[test]
fn a_backend_that_is_not_there_yet_joins_when_it_comes() {
    let Some(mut site) = Site::new("late", Shape::Links, 2) else {
        return;
    };
    let _echo = site.tcp_echo();
    site.backends[1]
        .remove_address("eth0", "10.0.2.3/24")
        .unwrap();
    site.start(&nth(
        "192.0.2.10:7",
        &[backend("10.0.1.3:7"), backend("10.0.2.3:7")],
    ));
    let states = || {
        let services = site.services();
        [services[0].backends[0].state, services[0].backends[1].state]
    };
    assert_eq!(states(), [BackendState::Up, BackendState::Unresolved]);
    // The others get its connections meanwhile.
    for _ in 0..4 {
        assert_eq!(greeting(&site.client, TO.into(), None).0, "b1");
    }
    site.backends[1].address("eth0", "10.0.2.3/24").unwrap();
    site.backends[1].default_route("10.0.2.1").unwrap();
    eventually("the backend to be resolved", PATIENCE, || {
        states() == [BackendState::Up; 2]
    })
    .unwrap();
    let mut who = [0; 2].map(|_| greeting(&site.client, TO.into(), None).0);
    who.sort();
    assert_eq!(who, ["b1", "b2"]);
}

#[test]
fn a_link_that_is_made_anew_is_attached_again() {
    let Some((site, _echo)) = site("relink", 1) else {
        return;
    };
    greeting(&site.client, TO.into(), None);
    site.balancer.ip("link del eth0").unwrap();
    site.lab
        .link(&site.client, "eth0", &site.balancer, "eth0")
        .unwrap();
    site.client.address("eth0", "192.0.2.1/24").unwrap();
    site.balancer.address("eth0", "192.0.2.10/24").unwrap();
    eventually("the new link to be attached", PATIENCE, || {
        site.status().interfaces.len() == 2
    })
    .unwrap();
    greeting(&site.client, TO.into(), None);
}

/// The route to the client is by the bridge, which XDP cannot send by: the answer goes the way the question came.
#[test]
fn a_client_behind_a_port_of_a_bridge_is_answered() {
    let Some(mut site) = Site::new("bridge", Shape::Links, 1) else {
        return;
    };
    let _echo = TcpEcho::start(&site.backends[0], [7]).unwrap();
    site.balancer
        .ip_batch([
            "addr flush dev eth0",
            "link add br0 type bridge",
            "link set eth0 master br0",
            "link set br0 up",
        ])
        .unwrap();
    site.balancer.address("br0", "192.0.2.10/24").unwrap();
    let client = [192, 0, 2, 1].into();
    eventually("the bridge to forward", PATIENCE, || {
        site.balancer
            .ping(client, Duration::from_millis(200))
            .is_ok()
    })
    .unwrap();
    site.start(&nth("192.0.2.10:7", &[backend("10.0.1.3:7")]));
    for _ in 0..3 {
        greeting(&site.client, TO.into(), None);
    }
    assert_eq!(site.services()[0].backends[0].connections_total, 3);
}

#[test]
fn a_route_to_backends_behind_a_router_is_followed() {
    let Some(mut site) = Site::new("routed", Shape::Links, 2) else {
        return;
    };
    // 10.9.0.1 is behind both backends; which of them is the router, the route says.
    let _echo: Vec<TcpEcho> = site
        .backends
        .iter()
        .map(|host| {
            host.address("lo", "10.9.0.1/32").unwrap();
            TcpEcho::start(host, [7]).unwrap()
        })
        .collect();
    site.balancer.route("10.9.0.0/24", "10.0.1.3").unwrap();
    site.start(&nth("192.0.2.10:7", &[backend("10.9.0.1:7")]));
    assert_eq!(greeting(&site.client, TO.into(), None).0, "b1");
    site.balancer.route("10.9.0.0/24", "10.0.2.3").unwrap();
    eventually(
        "the new route to be followed",
        Duration::from_secs(1),
        || greeting(&site.client, TO.into(), None).0 == "b2",
    )
    .unwrap();
    site.balancer.ip("route del 10.9.0.0/24").unwrap();
    eventually("the backend to be out of reach", PATIENCE, || {
        site.services()[0].backends[0].state == BackendState::Unresolved
    })
    .unwrap();
    site.balancer.route("10.9.0.0/24", "10.0.1.3").unwrap();
    eventually("the backend to be back", PATIENCE, || {
        site.services()[0].backends[0].state == BackendState::Up
    })
    .unwrap();
    assert_eq!(greeting(&site.client, TO.into(), None).0, "b1");
}
