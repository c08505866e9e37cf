//! The pipeline in user space: packets in, verdicts, packets and counters out.

#![allow(clippy::unwrap_used, reason = "a test that fails here has failed")]

mod support;

use balancer::datapath::memory::Memory;
use balancer_common::pipeline::process;
use balancer_common::verdict::{Drop, Pass, Verdict};
use support::{
    BACKEND_MAC, BACKEND_SIDE, BOX_MAC, CLIENT_MAC, CLIENT_SIDE, L4, frame, memory, tuple,
};

fn run(memory: &Memory, interface: u32, frame: &mut Vec<u8>) -> Verdict {
    process(&mut frame.as_mut_slice(), memory, interface)
}

const WEB: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
protocol = "tcp"
scheduler = "nth"
  [[service.backend]]
  address = "10.0.0.3:8080"
  [[service.backend]]
  address = "10.0.0.4:8080"
  [[service.backend]]
  address = "10.0.0.5:8080"
"#;

#[test]
fn a_tcp_connection_is_translated_both_ways() {
    let memory = memory(WEB);
    let mut syn = frame(L4::Tcp("S"), "198.51.100.7:4000", "192.0.2.10:80", b"");
    assert_eq!(
        run(&memory, CLIENT_SIDE, &mut syn),
        Verdict::Redirect(BACKEND_SIDE)
    );
    assert_eq!(
        tuple(&syn),
        ("10.0.0.1:4000".into(), "10.0.0.3:8080".into())
    );
    assert_eq!(syn[..12], [BACKEND_MAC, BOX_MAC].concat());
    assert_eq!(syn[22], 63);
    let mut syn_ack = frame(L4::Tcp("SA"), "10.0.0.3:8080", "10.0.0.1:4000", b"");
    assert_eq!(
        run(&memory, BACKEND_SIDE, &mut syn_ack),
        Verdict::Redirect(CLIENT_SIDE)
    );
    assert_eq!(
        tuple(&syn_ack),
        ("192.0.2.10:80".into(), "198.51.100.7:4000".into())
    );
    assert_eq!(syn_ack[..12], [CLIENT_MAC, BOX_MAC].concat());
    assert_eq!(memory.v4.half_open.len(), 1);
    let mut ack = frame(
        L4::Tcp("A"),
        "198.51.100.7:4000",
        "192.0.2.10:80",
        b"GET / HTTP/1.1\r\n",
    );
    assert_eq!(
        run(&memory, CLIENT_SIDE, &mut ack),
        Verdict::Redirect(BACKEND_SIDE)
    );
    assert_eq!(
        tuple(&ack),
        ("10.0.0.1:4000".into(), "10.0.0.3:8080".into())
    );
    assert_eq!(memory.v4.half_open.len(), 0);
    let stats = memory.backends.lock().unwrap()[0];
    assert_eq!(
        (
            stats.connections,
            stats.forward_packets,
            stats.reply_packets
        ),
        (1, 2, 1)
    );
    assert_eq!((stats.forward_bytes, stats.reply_bytes), (40 + 56, 40));
}

#[test]
fn nth_rotates_strictly_and_connections_stay() {
    let memory = memory(WEB);
    let mut seen = Vec::new();
    for port in 5000..5030 {
        let client = format!("198.51.100.7:{port}");
        for _ in 0..2 {
            let mut syn = frame(L4::Tcp("S"), &client, "192.0.2.10:80", b"");
            run(&memory, CLIENT_SIDE, &mut syn);
            seen.push(tuple(&syn).1);
        }
    }
    let expected: Vec<String> = (0..60)
        .map(|index| format!("10.0.0.{}:8080", 3 + index / 2 % 3))
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn two_clients_with_one_source_port_share_a_backend() {
    let memory = memory(&WEB.replacen("scheduler = \"nth\"", "scheduler = \"random\"", 1));
    let mut ports = std::collections::HashSet::new();
    for client in 1..=200 {
        let mut syn = frame(
            L4::Tcp("S"),
            &format!("198.51.100.{client}:4000"),
            "192.0.2.10:80",
            b"",
        );
        assert_eq!(
            run(&memory, CLIENT_SIDE, &mut syn),
            Verdict::Redirect(BACKEND_SIDE)
        );
        assert!(ports.insert(tuple(&syn)), "a tuple given twice");
    }
    assert_eq!(memory.v4.flows.len(), 400);
}

#[test]
fn udp_over_ipv6_with_and_without_source_nat() {
    for (source_nat, source) in [
        ("masquerade", "[2001:db8:1::1]:4000"),
        ("none", "[2001:db8::7]:4000"),
    ] {
        let memory = memory(&format!(
            "[[service]]\nname = \"dns\"\nlisten = \"[2001:db8::10]:53\"\nprotocol = \"udp\"\nscheduler = \"nth\"\n\
             source_nat = \"{source_nat}\"\n[[service.backend]]\naddress = \"[2001:db8:1::3]:5353\"\n"
        ));
        let mut query = frame(L4::Udp, "[2001:db8::7]:4000", "[2001:db8::10]:53", b"odd");
        assert_eq!(
            run(&memory, CLIENT_SIDE, &mut query),
            Verdict::Redirect(BACKEND_SIDE)
        );
        assert_eq!(
            tuple(&query),
            (source.into(), "[2001:db8:1::3]:5353".into())
        );
        let mut answer = frame(L4::Udp, "[2001:db8:1::3]:5353", source, b"answer");
        assert_eq!(
            run(&memory, BACKEND_SIDE, &mut answer),
            Verdict::Redirect(CLIENT_SIDE)
        );
        assert_eq!(
            tuple(&answer),
            ("[2001:db8::10]:53".into(), "[2001:db8::7]:4000".into())
        );
        assert_eq!(memory.v6.half_open.len(), 0);
    }
}

#[test]
fn a_syn_reopens_what_is_over_and_nothing_else() {
    let memory = memory(WEB);
    let client = "198.51.100.7:4000";
    let send = |flags, from: &str, to: &str, side| {
        let mut packet = frame(L4::Tcp(flags), from, to, b"");
        (run(&memory, side, &mut packet), tuple(&packet))
    };
    send("S", client, "192.0.2.10:80", CLIENT_SIDE);
    send("SA", "10.0.0.3:8080", "10.0.0.1:4000", BACKEND_SIDE);
    send("A", client, "192.0.2.10:80", CLIENT_SIDE);
    let (_, (_, again)) = send("S", client, "192.0.2.10:80", CLIENT_SIDE);
    assert_eq!(again, "10.0.0.3:8080");
    send("FA", client, "192.0.2.10:80", CLIENT_SIDE);
    send("FA", "10.0.0.3:8080", "10.0.0.1:4000", BACKEND_SIDE);
    let (_, (_, reopened)) = send("S", client, "192.0.2.10:80", CLIENT_SIDE);
    assert_eq!(reopened, "10.0.0.4:8080");
    assert_eq!((memory.v4.flows.len(), memory.v4.half_open.len()), (2, 1));
}

#[test]
fn full_tables_refuse_and_leave_nothing_behind() {
    let cases: [(usize, usize, Drop); 3] = [
        (2, 10, Drop::TableFull),
        (3, 10, Drop::TableFull),
        (100, 1, Drop::HalfOpenFull),
    ];
    for (max_flows, max_half_open, reason) in cases {
        let mut memory = memory(WEB);
        (memory.max_flows, memory.max_half_open) = (max_flows, max_half_open);
        let mut first = frame(L4::Tcp("S"), "198.51.100.7:4000", "192.0.2.10:80", b"");
        assert_eq!(
            run(&memory, CLIENT_SIDE, &mut first),
            Verdict::Redirect(BACKEND_SIDE)
        );
        let mut second = frame(L4::Tcp("S"), "198.51.100.7:4001", "192.0.2.10:80", b"");
        assert_eq!(
            run(&memory, CLIENT_SIDE, &mut second),
            Verdict::Drop(reason)
        );
        assert_eq!((memory.v4.flows.len(), memory.v4.half_open.len()), (2, 1));
        assert_eq!(memory.services.lock().unwrap()[0].table_full, 1);
    }
}

/// Frames that open nothing: what is changed in a good SYN, and what it gets.
#[test]
fn what_is_malformed_or_not_ours() {
    type Change = fn(&mut Vec<u8>);
    let cases: &[(&str, Change, Verdict)] = &[
        (
            "too short for Ethernet",
            |f| f.truncate(13),
            Drop::Truncated.into(),
        ),
        (
            "too short for IPv4",
            |f| f.truncate(33),
            Drop::Truncated.into(),
        ),
        (
            "ARP",
            |f| f[12..14].copy_from_slice(&[8, 6]),
            Pass::NotIp.into(),
        ),
        ("to a group address", |f| f[0] |= 1, Pass::NotUnicast.into()),
        (
            "IPv6 in the version field",
            |f| f[14] = 0x65,
            Drop::BadVersion.into(),
        ),
        (
            "header length 16",
            |f| f[14] = 0x44,
            Drop::BadHeaderLength.into(),
        ),
        (
            "total length beyond the frame",
            |f| f[17] = 200,
            Drop::BadTotalLength.into(),
        ),
        (
            "a wrong header checksum",
            |f| f[24] ^= 1,
            Drop::BadChecksum.into(),
        ),
        ("port 0", |f| f[34..36].fill(0), Drop::PortZero.into()),
        (
            "TCP data offset 16",
            |f| f[46] = 0x40,
            Drop::BadTcpHeader.into(),
        ),
        (
            "TCP data offset beyond the packet",
            |f| f[46] = 0xf0,
            Drop::BadTcpHeader.into(),
        ),
        (
            "an ACK of no connection",
            |f| f[47] = 0x10,
            Drop::NoConnection.into(),
        ),
        ("SYN and FIN", |f| f[47] = 0x03, Drop::NoConnection.into()),
        ("another port", |f| f[37] = 81, Pass::NoService.into()),
    ];
    for (name, change, verdict) in cases {
        let memory = memory(WEB);
        let mut packet = frame(L4::Tcp("S"), "198.51.100.7:4000", "192.0.2.10:80", b"");
        change(&mut packet);
        let before = packet.clone();
        assert_eq!(run(&memory, CLIENT_SIDE, &mut packet), *verdict, "{name}");
        assert_eq!(packet, before, "{name}");
        assert!(
            memory.v4.flows.is_empty() && memory.v4.half_open.is_empty(),
            "{name}"
        );
    }
}

/// SYNs between addresses that no connection is opened for.
#[test]
fn addresses_that_cannot_be_or_are_not_ours() {
    let addresses: &[(&str, &str, Verdict)] = &[
        ("192.0.2.10:4000", "192.0.2.10:80", Drop::Land.into()),
        (
            "127.0.0.1:4000",
            "192.0.2.10:80",
            Drop::MartianSource.into(),
        ),
        ("0.1.2.3:4000", "192.0.2.10:80", Drop::MartianSource.into()),
        (
            "224.0.0.1:4000",
            "192.0.2.10:80",
            Drop::MartianSource.into(),
        ),
        ("198.51.100.7:4000", "224.0.0.1:80", Pass::NotUnicast.into()),
        ("0.0.0.0:68", "255.255.255.255:67", Pass::NotUnicast.into()),
        (
            "[::1]:4000",
            "[2001:db8::10]:80",
            Drop::MartianSource.into(),
        ),
        (
            "[ff02::1]:4000",
            "[2001:db8::10]:80",
            Drop::MartianSource.into(),
        ),
        ("[2001:db8::10]:1", "[2001:db8::10]:80", Drop::Land.into()),
        (
            "[2001:db8::7]:1",
            "[2001:db8::10]:80",
            Pass::NoService.into(),
        ),
    ];
    let memory = memory(WEB);
    for (source, destination, verdict) in addresses {
        let mut packet = frame(L4::Tcp("S"), source, destination, b"");
        assert_eq!(
            run(&memory, CLIENT_SIDE, &mut packet),
            *verdict,
            "{source} to {destination}"
        );
    }
}
