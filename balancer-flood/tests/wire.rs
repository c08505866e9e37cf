//! What the generator sends arrives: as many frames as it says, of as many flows, each of them right.
//!
//! Needs root.

#![allow(clippy::unwrap_used, reason = "a test that unwraps in vain has failed")]

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use balancer_flood::{Ended, Error, Interface, Receiver, Scenario, Sender};
use balancer_lab::{Host, Lab, Process, RawPort, Signal, eventually};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);
static GO: AtomicBool = AtomicBool::new(false);

/// A sender and a receiver with a link between them.
struct Wire {
    lab: Lab,
    from: Host,
    to: Host,
}

impl Wire {
    fn new() -> Option<Self> {
        let lab = Lab::for_test("flood")?;
        let [from, to] = ["from", "to"].map(|name| lab.host(name).unwrap());
        lab.link(&from, "eth0", &to, "eth0").unwrap();
        Some(Self { lab, from, to })
    }

    /// A scenario for the receiver; `more` has the keys that are not here.
    fn scenario_text(&self, family: u8, more: &str) -> String {
        let (source, destination) = match family {
            4 => ("198.18.0.1-198.18.0.4", "192.0.2.10"),
            _ => ("2001:db8::1-2001:db8::4", "2001:db8::10"),
        };
        format!(
            "name = \"test\"\nfamily = {family}\ndestination_mac = \"{}\"\nsource = \"{source}\"\n\
             destination = \"{destination}\"\nsource_ports = \"1024-1273\"\ndestination_port = 80\nframe_size = 80\n\
             {more}\n",
            self.to.mac("eth0").unwrap()
        )
    }

    fn scenario(&self, family: u8, more: &str) -> Scenario {
        Scenario::parse("test.toml", &self.scenario_text(family, more)).unwrap()
    }

    fn send(&self, scenario: &Scenario) -> balancer_flood::Sent {
        self.from.enter(|| send(scenario)).unwrap().unwrap()
    }

    fn receiver(&self, port: Option<u16>) -> Receiver {
        let attach = || Receiver::attach(&Interface::find("eth0")?, port);
        self.to.enter(attach).unwrap().unwrap()
    }
}

fn send(scenario: &Scenario) -> Result<balancer_flood::Sent, Error> {
    let interface = Interface::find("eth0")?;
    Sender::new(&interface, scenario)?.send(&GO)
}

fn receive(receiver: &Receiver, count: u64) -> balancer_flood::Received {
    receiver.receive(PATIENCE, Some(count), &GO).unwrap()
}

/// What a process printed; it must end well.
fn output(process: &Process) -> String {
    let status = process.wait(PATIENCE).unwrap();
    assert!(status.success(), "{status}: {}", process.stderr());
    process.stdout()
}

#[test]
fn as_many_frames_arrive_as_were_sent() {
    let Some(wire) = Wire::new() else { return };
    for family in [4, 6] {
        for (protocol, order) in [("tcp", "round-robin"), ("udp", "random")] {
            let receiver = wire.receiver(None);
            let scenario = wire.scenario(
                family,
                &format!(
                    "protocol = \"{protocol}\"\nmode = \"established\"\norder = \"{order}\"\nflows = 1000\ncount = 100000"
                ),
            );
            let sent = wire.send(&scenario);
            assert_eq!(
                (sent.sent, sent.dropped),
                (100_000, 0),
                "{family} {protocol}"
            );
            assert_eq!(sent.ended, Ended::Count);
            let came = receive(&receiver, 100_000);
            assert_eq!(came.received, 100_000, "{family} {protocol}");
            assert_eq!(came.bytes, 100_000 * 80);
            println!("{family} {protocol}: {sent}; {came}");
        }
    }
}

#[test]
fn only_the_port_that_is_asked_for_is_counted() {
    let Some(wire) = Wire::new() else { return };
    for family in [4, 6] {
        let receiver = wire.receiver(Some(81));
        let mut scenario = wire.scenario(
            family,
            "protocol = \"udp\"\nmode = \"established\"\ncount = 300",
        );
        wire.send(&scenario);
        scenario.destination_port = 81;
        scenario.count = NonZeroU64::new(200);
        wire.send(&scenario);
        assert_eq!(receive(&receiver, 200).received, 200);
    }
}

/// Each flow as often as it should come, and each frame as user space makes it. The receiver's stack changes nothing.
#[test]
fn frames_arrive_as_they_are_meant() {
    let Some(wire) = Wire::new() else { return };
    for family in [4, 6] {
        for protocol in ["tcp", "udp"] {
            let port = RawPort::open(&wire.to, "eth0").unwrap();
            let scenario = wire.scenario(
                family,
                &format!(
                    "protocol = \"{protocol}\"\nmode = \"established\"\nflows = 1000\ncount = 3000"
                ),
            );
            wire.send(&scenario);
            let source = wire.from.mac("eth0").unwrap().0;
            let frames = port
                .capture(3000, PATIENCE, |frame| {
                    frame[6..12] == source && frame.len() == 80
                })
                .unwrap();
            let expected = balancer_flood::frame::Frames::new(&scenario, source, 0);
            let mut missing: BTreeMap<Vec<u8>, u32> =
                (0..1000).map(|flow| (expected.of_flow(flow), 3)).collect();
            for frame in &frames {
                let left = missing.get_mut(frame);
                *left.unwrap_or_else(|| panic!("{frame:02x?}")) -= 1;
            }
            assert_eq!(missing.values().sum::<u32>(), 0);
        }
    }
}

#[test]
fn new_flows_end_when_there_is_no_other() {
    let Some(wire) = Wire::new() else { return };
    let receiver = wire.receiver(None);
    let scenario = wire.scenario(4, "protocol = \"tcp\"\nmode = \"new\"\nduration = \"20s\"");
    let sent = wire.send(&scenario);
    assert_eq!((sent.sent, sent.ended), (1000, Ended::Flows));
    assert_eq!(receive(&receiver, 1000).received, 1000);
}

#[test]
fn the_rate_and_the_duration_are_bounds() {
    let Some(wire) = Wire::new() else { return };
    let receiver = wire.receiver(None);
    let scenario = wire.scenario(
        4,
        "protocol = \"tcp\"\nmode = \"established\"\nrate = 10000\nduration = \"500ms\"",
    );
    let start = Instant::now();
    let sent = wire.send(&scenario);
    let took = start.elapsed();
    assert_eq!(sent.ended, Ended::Duration);
    assert!(took >= Duration::from_millis(500), "{took:?}");
    // Never more; a machine that is busy may send less.
    assert!((1000..=5001).contains(&sent.sent), "{sent}");
    assert_eq!(receive(&receiver, sent.sent).received, sent.sent);
}

#[test]
fn the_command_prints_what_it_did_and_ends_at_a_signal() {
    let Some(wire) = Wire::new() else { return };
    let flood = env!("CARGO_BIN_EXE_balancer-flood");
    let file = wire.lab.directory().join("scenario.toml");
    let text = wire.scenario_text(
        4,
        "protocol = \"tcp\"\nmode = \"established\"\nrate = 1000\ncount = 1000000",
    );
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();

    let receiver = [
        "--receive",
        "--interface",
        "eth0",
        "--for",
        "20s",
        "--count",
        "500",
        "--json",
    ];
    let receiver = wire.to.spawn(flood, receiver).unwrap();
    receiver
        .wait_for_line("counting on eth0", PATIENCE)
        .unwrap();
    let sender = [
        "--interface",
        "eth0",
        file,
        "--count",
        "500",
        "--rate",
        "0",
        "--json",
    ];
    let sent: Value = serde_json::from_str(&wire.from.run(flood, sender).unwrap().stdout).unwrap();
    assert_eq!(
        (&sent["sent"], &sent["ended"]),
        (&500.into(), &"count".into())
    );
    let came: Value = serde_json::from_str(&output(&receiver)).unwrap();
    assert_eq!(
        (&came["received"], &came["bytes"]),
        (&500.into(), &40_000.into())
    );

    let sender = wire
        .from
        .spawn(flood, ["--interface", "eth0", file])
        .unwrap();
    let before = wire
        .from
        .enter(|| Interface::find("eth0").unwrap().counters().unwrap())
        .unwrap();
    eventually("frames to be sent", PATIENCE, || {
        let now = wire
            .from
            .enter(|| Interface::find("eth0").unwrap().counters().unwrap());
        now.unwrap().sent > before.sent + 10
    })
    .unwrap();
    sender.kill(Signal::SIGINT).unwrap();
    let said = output(&sender);
    assert!(said.contains("(interrupted)"), "{said}");
}

#[test]
fn an_interface_that_cannot_send_is_named() {
    let Some(wire) = Wire::new() else { return };
    let scenario = wire.scenario(4, "protocol = \"tcp\"\nmode = \"established\"\ncount = 10");
    let error = |device: &'static str| {
        let attempt = || Sender::new(&Interface::find(device)?, &scenario)?.send(&GO);
        wire.from.enter(attempt).unwrap().unwrap_err().to_string()
    };
    assert!(error("eth7").contains("eth7: no such interface"));
    assert!(error("lo").contains("Ethernet address"));
    wire.from.link_down("eth0").unwrap();
    assert!(error("eth0").contains("eth0 is down"));
}
