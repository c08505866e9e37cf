//! Fragments, in any order.

use std::net::Ipv6Addr;
use std::time::Duration;

use balancer_lab::{RawPort, UdpEcho, eventually};

use crate::hostile::right_checksum;
use crate::site::{PATIENCE, SOON, Shape, Site};

fn site(name: &str) -> Option<(Site, UdpEcho)> {
    let mut site = Site::new(name, Shape::Links, 1)?;
    let echo = UdpEcho::repeating(&site.backends[0], [9]).unwrap();
    site.start(&site.both_families("udp", 9));
    Some((site, echo))
}

/// Both ways, as the kernels of both ends cut and put together.
#[test]
fn large_datagrams_go_both_ways() {
    let Some((site, echo)) = site("large") else {
        return;
    };
    let mut sent = 0;
    for (from, to) in [
        ("192.0.2.1:7001", "192.0.2.10:9"),
        ("[2001:db8::1]:7001", "[2001:db8::10]:9"),
    ] {
        let socket = site.udp(from, to);
        let mut buffer = vec![0; 65_536];
        for length in [1472, 1473, 2000, 4096, 9000, 30_000, 60_000_u32] {
            let question: Vec<u8> = (0..length).map(|byte| (byte % 253) as u8).collect();
            socket.send(&question).unwrap();
            sent += 1;
            let got = socket.recv(&mut buffer).unwrap();
            // The answer begins with the name of who gives it and whom it sees.
            assert!(got > question.len(), "{to}: {length}");
            assert!(buffer[..got].ends_with(&question), "{to}: {length}");
        }
    }
    assert_eq!(echo.datagrams(), sent);
    assert_eq!(site.status().packets.dropped, 0);
}

/// An answer of more than 4 kB, by a real name server to a real client.
#[test]
fn a_large_answer_of_a_name_server_comes() {
    let Some(mut site) = Site::new("dns", Shape::Links, 1) else {
        return;
    };
    let mut command = site.backends[0].command("dnsmasq").unwrap();
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
        "--group=root",
        "--pid-file",
        "--log-facility=-",
        "--edns-packet-max=8192",
    ]);
    for number in 0..20 {
        let text = format!("{number:0>200}");
        command.arg(format!("--txt-record=large.test,{text}"));
    }
    let dnsmasq = site.backends[0].spawn_command(command).unwrap();
    dnsmasq.wait_for_line("started, version", PATIENCE).unwrap();
    site.start(&site.both_families("udp", 53));
    for server in ["192.0.2.10", "2001:db8::10"] {
        let arguments = ["+notcp", "+ignore", "+bufsize=8192", "+tries=1", "+time=3"];
        let server = format!("@{server}");
        let output = site
            .client
            .command("dig")
            .unwrap()
            .args(arguments)
            .args([&server, "large.test", "TXT"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("ANSWER: 20,"), "{server}: {text}");
        let received = text
            .lines()
            .find_map(|line| line.strip_prefix(";; MSG SIZE  rcvd: "));
        assert!(
            received.unwrap().parse::<u32>().unwrap() > 4096,
            "{server}: {text}"
        );
    }
}

/// A datagram in fragments.
struct Cut {
    frames: Vec<Vec<u8>>,
    payload: Vec<u8>,
}

/// A datagram of three fragments from port 7000 of the client to port 9 of the service.
fn cut(site: &Site, is_ipv6: bool, identification: u16) -> Cut {
    cut_long(site, is_ipv6, identification, 3000)
}

/// One with so much data.
fn cut_long(site: &Site, is_ipv6: bool, identification: u16, length: u32) -> Cut {
    let payload: Vec<u8> = (0..length)
        .map(|byte| (byte as u16).wrapping_mul(identification) as u8)
        .collect();
    let link = site.link_header();
    let mut whole = Vec::new();
    let headers = if is_ipv6 {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        link.ipv6(address("2001:db8::1"), address("2001:db8::10"), 64)
            .udp(7000, 9)
            .write(&mut whole, &payload)
            .unwrap();
        14 + 40
    } else {
        link.ipv4([192, 0, 2, 1], [192, 0, 2, 10], 64)
            .udp(7000, 9)
            .write(&mut whole, &payload)
            .unwrap();
        14 + 20
    };
    let (header, data) = whole.split_at(headers);
    let count = data.len().div_ceil(1200);
    let frames = data.chunks(1200).enumerate().map(|(index, piece)| {
        let more = u16::from(index + 1 < count);
        let offset = (index * 1200 / 8) as u16;
        let mut frame = header.to_vec();
        if is_ipv6 {
            frame[14 + 4..14 + 6].copy_from_slice(&(piece.len() as u16 + 8).to_be_bytes());
            frame[14 + 6] = 44;
            frame.extend([17, 0]);
            frame.extend((offset << 3 | more).to_be_bytes());
            frame.extend(u32::from(identification).to_be_bytes());
        } else {
            frame[14 + 2..14 + 4].copy_from_slice(&(piece.len() as u16 + 20).to_be_bytes());
            frame[14 + 4..14 + 6].copy_from_slice(&identification.to_be_bytes());
            frame[14 + 6..14 + 8].copy_from_slice(&(offset | more << 13).to_be_bytes());
            right_checksum(&mut frame);
        }
        frame.extend(piece);
        frame
    });
    Cut {
        frames: frames.collect(),
        payload,
    }
}

const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

/// Whatever order they come in, every datagram arrives, and its answer too.
#[test]
fn fragments_come_in_any_order() {
    const DATAGRAMS: u16 = 1000;
    any_order(site("order"), DATAGRAMS);
}

/// The same where the kernel runs the program after the driver.
#[test]
fn fragments_come_in_any_order_in_generic_mode() {
    let Some(mut site) = Site::new("generic", Shape::Links, 1) else {
        return;
    };
    let echo = UdpEcho::repeating(&site.backends[0], [9]).unwrap();
    site.datapath_key("xdp_mode = \"generic\"");
    site.start(&site.both_families("udp", 9));
    any_order(Some((site, echo)), 60);
}

fn any_order(site: Option<(Site, UdpEcho)>, datagrams: u16) {
    let Some((site, echo)) = site else {
        return;
    };
    let port = RawPort::open(&site.client, "eth0").unwrap();
    for (is_ipv6, client, service) in [
        (false, "192.0.2.1:7000", "192.0.2.10:9"),
        (true, "[2001:db8::1]:7000", "[2001:db8::10]:9"),
    ] {
        let before = echo.datagrams();
        let socket = site.udp(client, service);
        let mut buffer = vec![0; 8192];
        // A busy machine's veth loses a frame now and then before the program sees it: that one is asked again.
        let mut lost = 0;
        for number in 1..=datagrams {
            let mut ask = |identification: u16| {
                let cut = cut(&site, is_ipv6, identification);
                for index in ORDERS[usize::from(number) % ORDERS.len()] {
                    port.send(&cut.frames[index]).unwrap();
                }
                let got = socket.recv(&mut buffer).ok()?;
                assert!(buffer[..got].ends_with(&cut.payload), "datagram {number}");
                Some(())
            };
            if ask(number).is_none() {
                lost += 1;
                let status = site.status();
                println!(
                    "datagram {number} of {client}: {:?}, {:?}, {} arrived",
                    status.packets,
                    status.slow_path,
                    echo.datagrams() - before
                );
                ask(number + 10_000).unwrap();
            }
        }
        assert!(lost <= 2, "{lost}");
        assert_eq!(echo.datagrams() - before, u64::from(datagrams));
    }
    let status = site.status();
    let slow = status.slow_path;
    assert_eq!(status.packets.dropped, 0, "{slow:?}");
    // Of six orders three have one that waits and two have two.
    assert!(slow.held["fragment"] >= u64::from(datagrams), "{slow:?}");
    assert_eq!(
        slow.resumed + slow.expired,
        slow.held["fragment"],
        "{slow:?}"
    );
    assert_eq!((slow.overflowed, slow.failed), (0, 0));
}

/// Many that wait for the first go on at once when it comes.
#[test]
fn a_long_datagram_comes_backwards() {
    let Some((site, echo)) = site("backwards") else {
        return;
    };
    let port = RawPort::open(&site.client, "eth0").unwrap();
    for is_ipv6 in [false, true] {
        let before = echo.datagrams();
        let cut = cut_long(&site, is_ipv6, 5, 40_000);
        assert!(cut.frames.len() > 30);
        for frame in cut.frames.iter().rev() {
            port.send(frame).unwrap();
        }
        eventually("the whole to arrive", SOON, || echo.datagrams() > before).unwrap();
    }
    let slow = site.status().slow_path;
    assert_eq!((slow.expired, slow.overflowed, slow.failed), (0, 0, 0));
}

/// What never becomes whole is forgotten, and counted.
#[test]
fn a_fragment_whose_first_never_comes_is_dropped_in_time() {
    let Some((site, echo)) = site("late") else {
        return;
    };
    let port = RawPort::open(&site.client, "eth0").unwrap();
    let cut = cut(&site, false, 77);
    port.send(&cut.frames[2]).unwrap();
    port.send(&cut.frames[1]).unwrap();
    eventually("both to expire", PATIENCE, || {
        site.status().slow_path.expired == 2
    })
    .unwrap();
    port.send(&cut.frames[0]).unwrap();
    eventually("the first to go on", SOON, || {
        site.status().packets.forwarded == 1
    })
    .unwrap();
    // The first of the same datagram again: it is not complete, and the first is still known.
    port.send(&cut.frames[0]).unwrap();
    eventually("it to be dropped", SOON, || {
        site.drops().drops["fragment_overlap"] == 1
    })
    .unwrap();
    // What comes when the first is too old waits in vain, and not for ever. Only time makes it so, and nothing shows that it has
    // passed: `timeouts.fragment` of the first's note.
    std::thread::sleep(Duration::from_millis(2200));
    port.send(&cut.frames[1]).unwrap();
    eventually("it to expire", PATIENCE, || {
        site.status().slow_path.expired == 3
    })
    .unwrap();
    let held = site.status().packets.held;
    assert!(held < 10, "{held}");
    // That was long ago: it is another datagram.
    for frame in &cut.frames {
        port.send(frame).unwrap();
    }
    eventually("the whole to arrive", SOON, || echo.datagrams() == 1).unwrap();
}

/// The box's own fragments, and those that it routes, are the kernel's, in any order.
#[test]
fn other_fragments_reach_the_kernel_in_any_order() {
    let Some((site, echo)) = site("others") else {
        return;
    };
    let there = UdpEcho::start(&site.balancer, [5353]).unwrap();
    let port = RawPort::open(&site.client, "eth0").unwrap();
    for (number, order) in (1_u16..).zip(ORDERS) {
        let cut = cut(&site, false, number);
        for index in order {
            let mut frame = cut.frames[index].clone();
            if index == 0 {
                // Without a checksum, to another port.
                frame[14 + 20 + 2..14 + 20 + 4].copy_from_slice(&5353_u16.to_be_bytes());
                frame[14 + 20 + 6..14 + 20 + 8].fill(0);
            }
            port.send(&frame).unwrap();
        }
    }
    eventually("all to arrive", PATIENCE, || there.datagrams() == 6).unwrap();
    assert_eq!(echo.datagrams(), 0);
    assert_eq!(site.status().packets.dropped, 0);
}

/// While most of what waits waits for nothing, little of it is kept; and all again when that has ended.
#[test]
fn a_flood_of_fragments_is_not_kept() {
    const BATCH: u16 = 100;
    let Some((site, echo)) = site("orphans") else {
        return;
    };
    let port = RawPort::open(&site.client, "eth0").unwrap();
    let orphans = || site.drops().drops["fragment_orphan"];
    let mut number = 0_u16;
    eventually("what waits for nothing to be dropped", PATIENCE, || {
        for _ in 0..BATCH {
            number += 1;
            port.send(&cut(&site, false, number).frames[1]).unwrap();
        }
        orphans() > 0
    })
    .unwrap();
    let slow = site.status().slow_path;
    assert!(slow.held["fragment"] > 1000, "{slow:?}");
    // A batch has more that wait than are kept of a flood.
    eventually("a batch to arrive whole", PATIENCE, || {
        let (before, dropped) = (echo.datagrams(), orphans());
        for _ in 0..BATCH {
            number += 1;
            for frame in cut(&site, true, number).frames.iter().rev() {
                port.send(frame).unwrap();
            }
        }
        let all = before + u64::from(BATCH);
        eventually("it to arrive", SOON, || echo.datagrams() == all).is_ok() && orphans() == dropped
    })
    .unwrap();
    assert_eq!(site.status().slow_path.failed, 0);
}
