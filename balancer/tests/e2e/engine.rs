//! What is different with engine `userspace`, and what is not: connections outlive a change from the one to the other.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use balancer_lab::{Signal, TcpEcho, UdpEcho};

use crate::site::{SOON, Shape, Site, greeting};

const TO: ([u8; 4], u16) = ([192, 0, 2, 10], 7);

#[test]
fn connections_outlive_a_change_of_the_engine() {
    let Some(mut site) = Site::new("engines", Shape::Links, 1) else {
        return;
    };
    let _echo = TcpEcho::start(&site.backends[0], [7]).unwrap();
    site.daemon_key("on_exit = \"keep\"");
    site.set_engine("kernel");
    site.start(&site.both_families("tcp", 7));
    let held = site.client.connect(TO.into(), None, SOON).unwrap();
    held.set_read_timeout(Some(SOON)).unwrap();
    let mut held = BufReader::new(held);
    let mut line = String::new();
    held.read_line(&mut line).unwrap();
    for (number, engine) in (1..).zip(["userspace", "kernel", "userspace"]) {
        if number % 2 == 1 {
            site.end(Signal::SIGTERM);
        } else {
            site.kill();
        }
        site.set_engine(engine);
        site.start(&site.both_families("tcp", 7));
        assert!(site.daemon().stderr().contains("adopted=true"));
        let word = format!("{engine} {number}\n");
        held.get_mut().write_all(word.as_bytes()).unwrap();
        line.clear();
        held.read_line(&mut line).unwrap();
        assert_eq!(line, word);
        greeting(&site.client, TO.into(), None);
        // That one, the one that is held, and those of before; what was counted last goes with a worker that is killed.
        let total = site.services()[0].backends[0].connections_total;
        let all = 1 + number;
        let least = if number == 1 { all } else { all - 1 };
        assert!((least..=all).contains(&total), "{total} of {all}");
    }
}

/// Whether a datagram to the service is answered, and by whom: the box has an echo of its own there.
fn ask(site: &Site) -> Option<String> {
    let socket = site
        .client
        .udp_socket("192.0.2.1:0".parse().unwrap())
        .unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    socket.send_to(b"who", SocketAddr::from(TO)).unwrap();
    let mut answer = [0; 100];
    let (length, _) = socket.recv_from(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer[..length]).into_owned();
    text.split(' ').next().map(str::to_owned)
}

#[test]
fn without_its_daemon_packets_pass_or_are_dropped() {
    for (on_loss, who) in [("pass", Some("balancer")), ("drop", None)] {
        let Some(mut site) = Site::new(&format!("loss-{on_loss}"), Shape::Links, 1) else {
            return;
        };
        let _there = UdpEcho::start(&site.backends[0], [7]).unwrap();
        let _here = UdpEcho::start(&site.balancer, [7]).unwrap();
        site.set_engine("userspace");
        site.datapath_key(&format!("on_daemon_loss = \"{on_loss}\""));
        site.start(&site.both_families("udp", 7));
        assert_eq!(ask(&site).as_deref(), Some("b1"));
        site.kill();
        assert_eq!(ask(&site).as_deref(), who, "{on_loss}");
        site.start_again();
        assert_eq!(ask(&site).as_deref(), Some("b1"));
    }
}
