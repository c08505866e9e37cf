//! balancerctl against the live daemon.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use balancer::control::document::{
    BackendState, ChangeDocument, ConnectionState, FlushDocument, XdpMode,
};
use balancer_lab::{TcpEcho, UdpEcho, eventually};

use crate::schedule::{backend, nth};
use crate::site::{PATIENCE, SOON, Shape, Site, greeting};

const TO: ([u8; 4], u16) = ([192, 0, 2, 10], 7);

fn site(name: &str) -> Option<(Site, Vec<TcpEcho>)> {
    let mut site = Site::new(name, Shape::Links, 2)?;
    let echo = site
        .backends
        .iter()
        .map(|host| TcpEcho::start(host, [7]).unwrap())
        .collect();
    site.start(&nth(
        "192.0.2.10:7",
        &[backend("10.0.1.3:7"), backend("10.0.2.3:7")],
    ));
    Some((site, echo))
}

#[test]
fn a_drained_backend_keeps_what_it_has_and_gets_nothing_new() {
    let Some((site, _echo)) = site("drain") else {
        return;
    };
    let held = [0; 2].map(|_| site.client.connect(TO.into(), None, SOON).unwrap());
    let changed = site
        .document::<ChangeDocument>(&["drain", "web", "10.0.1.3:7"])
        .changed;
    assert_eq!(
        (changed.state, changed.connections_active),
        (BackendState::Drained, 1)
    );
    for _ in 0..4 {
        assert_eq!(greeting(&site.client, TO.into(), None).0, "b2");
    }
    // A reload does not take it back.
    site.reload(&nth(
        "192.0.2.10:7",
        &[backend("10.0.2.3:7"), backend("10.0.1.3:7")],
    ));
    assert_eq!(greeting(&site.client, TO.into(), None).0, "b2");
    // Waiting ends when the connection does.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| site.ctl(&["drain", "web", "10.0.1.3:7", "--wait"]));
        thread::sleep(Duration::from_millis(300));
        assert!(!waiting.is_finished());
        drop(held);
        waiting.join().unwrap().unwrap();
    });
    site.ctl(&["undrain", "web", "10.0.1.3:7"]).unwrap();
    let mut who = [0; 2].map(|_| greeting(&site.client, TO.into(), None).0);
    who.sort();
    assert_eq!(who, ["b1", "b2"]);

    let changed = site
        .document::<ChangeDocument>(&["weight", "web", "10.0.1.3:7", "3"])
        .changed;
    assert_eq!(changed.weight, 3);
    let who = [0; 8].map(|_| greeting(&site.client, TO.into(), None).0);
    assert_eq!(
        who.iter().filter(|name| *name == "b1").count(),
        6,
        "{who:?}"
    );
    let error = site.ctl(&["drain", "web", "10.0.1.4:7"]).unwrap_err();
    assert!(
        error.contains("has no backend \"10.0.1.4:7\" (backends: "),
        "{error}"
    );
}

#[test]
fn connections_are_listed_as_they_are_and_flushed() {
    let Some((site, _echo)) = site("connections") else {
        return;
    };
    let stream = site.client.connect(TO.into(), Some(5000), SOON).unwrap();
    let list = site.connections();
    assert_eq!((list.total, list.truncated), (1, false));
    let connection = &list.connections[0];
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    assert_eq!(
        (connection.service.as_str(), connection.protocol.as_str()),
        ("web", "tcp")
    );
    assert_eq!(connection.client, address("192.0.2.1:5000"));
    assert_eq!(connection.virtual_address, address("192.0.2.10:7"));
    let number = if connection.backend == "10.0.1.3:7" {
        1
    } else {
        2
    };
    assert_eq!(connection.source, address(&format!("10.0.{number}.1:5000")));
    assert_eq!(
        connection.destination,
        address(&format!("10.0.{number}.3:7"))
    );
    assert_eq!(connection.state, ConnectionState::Established);
    // SYN and ACK; SYN-ACK and the greeting, at least.
    assert!(connection.forward.packets >= 2 && connection.reply.packets >= 1);
    let text = site.ctl(&["connections", "--service", "web"]).unwrap();
    assert!(text.contains("192.0.2.1:5000"), "{text}");
    assert!(
        site.ctl(&["connections", "--service", "wbe"])
            .unwrap_err()
            .contains("no service \"wbe\"")
    );

    let flushed: FlushDocument = site.document(&["flush", "connections", "--service", "web"]);
    assert_eq!(flushed.flushed, 1);
    assert_eq!(site.connections().total, 0);
    assert_eq!(site.status().connections.current, 0);
    drop(stream);
    // Its FIN is no new connection.
    eventually("the FIN to be refused", PATIENCE, || {
        site.drops().drops["no_connection"] > 0
    })
    .unwrap();
    greeting(&site.client, TO.into(), None);
}

#[test]
fn every_packet_is_counted_once() {
    let Some(mut site) = Site::new("counters", Shape::Links, 1) else {
        return;
    };
    let echo = UdpEcho::start(&site.backends[0], [9]).unwrap();
    site.start(
        "[[service]]\nname = \"udp\"\nlisten = \"192.0.2.10:9\"\nprotocol = \"udp\"\nbackend = [{ address = \"10.0.1.3:9\" }]\n",
    );
    let socket = site
        .client
        .udp_socket("0.0.0.0:0".parse().unwrap())
        .unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    for size in 0..50_u16 {
        socket
            .send_to(&vec![b'x'; size.into()], "192.0.2.10:9")
            .unwrap();
        socket.recv(&mut [0; 64]).unwrap();
    }
    let backend = &site.services()[0].backends[0];
    assert_eq!(echo.datagrams(), 50);
    assert_eq!(
        (backend.connections_total, backend.connections_active),
        (1, 1)
    );
    assert_eq!(
        (backend.forward.packets, backend.forward.bytes),
        (50, 50 * 28 + 49 * 50 / 2)
    );
    assert_eq!((backend.reply.packets, backend.reply.bytes), (50, 50 * 30));
    let connection = &site.connections().connections[0];
    assert_eq!(connection.forward, backend.forward);
    assert_eq!(connection.reply, backend.reply);
    assert_eq!(connection.state, ConnectionState::Stream);

    let status = site.status();
    let packets = status.packets;
    assert_eq!(
        packets.received,
        packets.forwarded + packets.passed + packets.dropped
    );
    assert_eq!(packets.forwarded, 100);
    assert_eq!(packets.dropped, site.drops().drops.values().sum::<u64>());
    assert!(
        status.pressure.values().all(|count| *count == 0),
        "{:?}",
        status.pressure
    );
    let modes: Vec<(String, XdpMode)> = status
        .interfaces
        .into_iter()
        .map(|interface| (interface.name, interface.mode))
        .collect();
    assert_eq!(
        modes,
        [
            ("eth0".to_owned(), XdpMode::Native),
            ("eth1".to_owned(), XdpMode::Native)
        ]
    );
    assert!(site.ctl(&["status"]).unwrap().contains("eth1 (native"));
    assert!(site.ctl(&["services"]).unwrap().contains("10.0.1.3:9"));
}
