//! Every frame is counted, once, under what became of it.

use std::collections::BTreeMap;

use balancer::control::document::{ConnectionState, XdpMode};
use balancer_lab::{RawPort, UdpEcho, eventually};

use crate::hostile::changed;
use crate::site::{PATIENCE, SOON, Shape, Site};

const CLIENT: [u8; 4] = [192, 0, 2, 1];
const BALANCER: [u8; 4] = [192, 0, 2, 10];
/// Where the IPv4 header begins.
const IP: usize = 14;

fn service() -> &'static str {
    "[[service]]\nname = \"udp\"\nlisten = \"192.0.2.10:9\"\nprotocol = \"udp\"\nbackend = [{ address = \"10.0.1.3:9\" }]\n\
     [[service]]\nname = \"tcp\"\nlisten = \"192.0.2.10:9\"\nbackend = [{ address = \"10.0.1.3:9\" }]\n"
}

/// A datagram of the client to the balancer.
fn udp(site: &Site, source: [u8; 4], ttl: u8, source_port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    site.link_header()
        .ipv4(source, BALANCER, ttl)
        .udp(source_port, 9)
        .write(&mut frame, b"payload")
        .unwrap();
    frame
}

/// A segment of no connection.
fn ack(site: &Site) -> Vec<u8> {
    let mut frame = Vec::new();
    site.link_header()
        .ipv4(CLIENT, BALANCER, 64)
        .tcp(7000, 9, 1, 1000)
        .ack(1)
        .write(&mut frame, &[])
        .unwrap();
    frame
}

#[test]
fn every_frame_that_the_kernel_received_is_counted_under_its_reason() {
    let Some(mut site) = Site::new("reasons", Shape::Links, 1) else {
        return;
    };
    let echo = UdpEcho::start(&site.backends[0], [9]).unwrap();
    site.start(service());
    let uncounted = site.uncounted();
    let before = site.status().packets;

    let good = || udp(&site, CLIENT, 64, 7000);
    let cases = [
        ("bad_checksum", changed(good(), |it| it[IP + 10] ^= 1)),
        ("truncated", changed(good(), |it| it.truncate(IP + 10))),
        ("bad_version", changed(good(), |it| it[IP] = 0x65)),
        (
            "bad_total_length",
            changed(good(), |it| it.truncate(IP + 30)),
        ),
        ("land", udp(&site, BALANCER, 64, 7000)),
        ("martian_source", udp(&site, [127, 0, 0, 1], 64, 7000)),
        ("port_zero", udp(&site, CLIENT, 64, 0)),
        ("ttl_exceeded", udp(&site, CLIENT, 1, 7000)),
        ("bad_udp_length", changed(good(), |it| it[IP + 20 + 5] = 7)),
        ("no_connection", ack(&site)),
    ];
    let port = RawPort::open(&site.client, "eth0").unwrap();
    let mut expected: BTreeMap<String, u64> = site.drops().drops;
    assert!(expected.values().all(|&count| count == 0), "{expected:?}");
    for (count, (reason, frame)) in (1..).zip(&cases) {
        for _ in 0..count {
            port.send(frame).unwrap();
        }
        *expected.get_mut(*reason).unwrap() += count;
    }
    // What is for the kernel: echo requests; a question for a port without a service.
    for _ in 0..5 {
        site.client.ping(BALANCER.into(), SOON).unwrap();
    }
    let dropped: u64 = expected.values().sum();
    eventually("all of them to be counted", PATIENCE, || {
        site.status().packets.dropped >= dropped
    })
    .unwrap();
    assert_eq!(site.drops().drops, expected);
    let packets = site.status().packets;
    assert_eq!(packets.dropped, dropped);
    assert_eq!(packets.forwarded, before.forwarded);
    assert!(packets.passed >= before.passed + 5, "{packets:?}");
    assert_eq!(echo.datagrams(), 0);
    assert_eq!(site.status().connections.current, 0);

    // One that is as it should be gets through, and back, to somebody: else the client's kernel would send an error.
    let _open = site
        .client
        .udp_socket("192.0.2.1:7000".parse().unwrap())
        .unwrap();
    port.send(&good()).unwrap();
    eventually("it to come and to be answered", PATIENCE, || {
        site.status().packets.forwarded == before.forwarded + 2
    })
    .unwrap();
    assert_eq!(echo.datagrams(), 1);
    assert_eq!(site.uncounted(), uncounted);
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
    let socket = site.udp("0.0.0.0:0", "192.0.2.10:9");
    for size in 0..50_u16 {
        socket.send(&vec![b'x'; size.into()]).unwrap();
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
    assert_eq!(packets.forwarded, 100);
    assert_eq!(packets.dropped, site.drops().drops.values().sum::<u64>());
    assert!(
        status.pressure.values().all(|count| *count == 0),
        "{:?}",
        status.pressure
    );
    site.expect_modes(&[("eth0", XdpMode::Native), ("eth1", XdpMode::Native)]);
    assert!(site.ctl(&["status"]).unwrap().contains("eth1 (native"));
    assert!(site.ctl(&["services"]).unwrap().contains("10.0.1.3:9"));
}
