//! Starting, ending, expiring.

use std::io::{BufRead as _, BufReader, Write as _};
use std::time::Duration;

use balancer::control::document::XdpMode;
use balancer_lab::{Signal, TcpEcho, UdpEcho, eventually};

use crate::schedule::{backend, nth};
use crate::site::{PATIENCE, SOON, Shape, Site, greeting};

const TO: ([u8; 4], u16) = ([192, 0, 2, 10], 7);

/// The XDP programs in the balancer's namespace, as `ip` shows them.
fn attached(site: &Site) -> usize {
    let links = site
        .balancer
        .run("ip", ["-details", "link"])
        .unwrap()
        .stdout;
    links.matches("prog/xdp").count()
}

/// So many programs are attached, in a moment: the kernel detaches behind the removal of a pin.
fn expect_attached(site: &Site, count: usize) {
    eventually("the programs to be attached or detached", SOON, || {
        attached(site) == count
    })
    .unwrap();
}

fn service() -> String {
    nth("192.0.2.10:7", &[backend("10.0.1.3:7")])
}

#[test]
fn detach_takes_everything_away() {
    let Some(mut site) = Site::new("detach", Shape::Links, 1) else {
        return;
    };
    let _echo = TcpEcho::start(&site.backends[0], [7]).unwrap();
    site.start(&service());
    greeting(&site.client, TO.into(), None);
    expect_attached(&site, 2);
    let neighbours = || site.balancer.run("ip", ["neigh"]).unwrap().stdout;
    assert!(neighbours().contains("managed"), "{}", neighbours());
    site.terminate();
    expect_attached(&site, 0);
    assert!(!site.pins.exists() && !site.directory().join("control.sock").exists());
    let neighbours = site.balancer.run("ip", ["neigh"]).unwrap().stdout;
    assert!(!neighbours.contains("managed"), "{neighbours}");
    let refused = site
        .client
        .connect(TO.into(), None, SOON)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("refused"), "{refused}");
    let error = site.ctl(&["status"]).unwrap_err();
    assert!(error.contains("not running"), "{error}");
}

#[test]
fn keep_goes_on_until_balancerctl_detaches() {
    let Some(mut site) = Site::new("keep", Shape::Links, 1) else {
        return;
    };
    site.set_engine("kernel");
    let _echo = TcpEcho::start(&site.backends[0], [7]).unwrap();
    site.daemon_key("on_exit = \"keep\"");
    site.start(&service());
    let path = site.pins.display().to_string();
    let error = site.ctl(&["detach", "--pin-path", &path]).unwrap_err();
    assert!(error.contains("balancerd runs"), "{error}");
    site.terminate();
    expect_attached(&site, 2);
    greeting(&site.client, TO.into(), None);
    // Its pins cannot be misread by a daemon with other sizes.
    site.datapath_key("max_connections = 4096\nmax_half_open = 1024");
    site.configure(&service());
    let error = site.start_refused();
    assert!(
        error.contains("FLOWS_V4") && error.contains("balancerctl detach"),
        "{error}"
    );
    greeting(&site.client, TO.into(), None);
    let text = site.ctl(&["detach", "--pin-path", &path]).unwrap();
    assert!(
        text.contains("link-eth0") && text.contains("FLOWS_V6"),
        "{text}"
    );
    expect_attached(&site, 0);
    assert!(!site.pins.exists());
    let text = site.ctl(&["detach", "--pin-path", &path]).unwrap();
    assert!(text.contains("nothing to detach"), "{text}");
    site.start_again();
    greeting(&site.client, TO.into(), None);
}

#[test]
fn a_daemon_started_after_keep_takes_over() {
    let Some(mut site) = Site::new("keep-on", Shape::Links, 1) else {
        return;
    };
    site.set_engine("kernel");
    let _echo = TcpEcho::start(&site.backends[0], [7]).unwrap();
    site.daemon_key("on_exit = \"keep\"");
    site.start(&service());
    let mut held = site.client.connect(TO.into(), Some(5000), SOON).unwrap();
    let uncounted = site.uncounted();
    site.end(Signal::SIGINT);
    expect_attached(&site, 2);
    greeting(&site.client, TO.into(), None);
    site.start_again();
    assert!(site.daemon().stderr().contains("adopted=true"));
    assert_eq!(site.services()[0].backends[0].connections_total, 2);
    let list = site.connections().connections;
    assert!(
        list.iter()
            .any(|connection| connection.client == held.local_addr().unwrap()),
        "{list:?}"
    );
    held.set_read_timeout(Some(SOON)).unwrap();
    held.write_all(b"still there\n").unwrap();
    let mut lines = BufReader::new(held).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("b1 "));
    assert_eq!(lines.next().unwrap().unwrap(), "still there");
    assert_eq!(site.uncounted(), uncounted);
}

#[test]
fn what_a_killed_daemon_left_is_taken_away() {
    let Some(mut site) = Site::new("killed", Shape::Links, 1) else {
        return;
    };
    site.set_engine("kernel");
    let _echo = TcpEcho::start(&site.backends[0], [7]).unwrap();
    site.start(&service());
    site.kill();
    greeting(&site.client, TO.into(), None);
    let path = site.pins.display().to_string();
    let detach = || -> serde_json::Value { site.document(&["detach", "--pin-path", &path]) };
    let document = detach();
    assert_eq!(document["version"], 1);
    let detached: Vec<&str> = document["detached"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap())
        .collect();
    for pin in ["link-eth0", "link-eth1", "FLOWS_V4", "STATS"] {
        assert!(
            detached.iter().any(|line| line.contains(pin)),
            "{pin} in {detached:?}"
        );
    }
    expect_attached(&site, 0);
    assert!(!site.pins.exists());
    assert_eq!(detach()["detached"], serde_json::json!([]));
}

#[test]
fn it_runs_in_generic_mode() {
    let Some(mut site) = Site::new("generic", Shape::Links, 2) else {
        return;
    };
    let _echo = site.tcp_echo();
    site.datapath_key("xdp_mode = \"generic\"");
    site.start(&nth(
        "192.0.2.10:7",
        &[backend("10.0.1.3:7"), backend("10.0.2.3:7")],
    ));
    site.expect_modes(&["eth0", "eth1", "eth2"].map(|name| (name, XdpMode::Generic)));
    let who = [0; 6].map(|_| greeting(&site.client, TO.into(), None).0);
    assert_ne!(who[0], who[1]);
    assert!(who.chunks(2).all(|turn| turn == &who[..2]), "{who:?}");
}

#[test]
fn an_interface_without_native_xdp_gets_the_other_with_a_warning() {
    let Some(mut site) = Site::new("auto", Shape::Links, 1) else {
        return;
    };
    // The loopback device has none, and packets that are too long for the other engine.
    site.set_engine("kernel");
    site.replace_head("\"eth1\"", "\"eth1\", \"lo\"");
    site.start(&service());
    site.expect_modes(&[
        ("eth0", XdpMode::Native),
        ("eth1", XdpMode::Native),
        ("lo", XdpMode::Generic),
    ]);
    let log = site.daemon().stderr();
    let warning = log.lines().find(|line| line.contains("generic mode"));
    assert!(
        warning.is_some_and(|line| line.contains("WARN") && line.contains("\"lo\"")),
        "{log}"
    );
    // Asked for native, it does not settle for less.
    site.terminate();
    site.datapath_key("xdp_mode = \"native\"");
    site.configure(&service());
    let error = site.start_refused();
    assert!(error.contains("cannot be attached to lo"), "{error}");
    expect_attached(&site, 0);
}

#[test]
fn an_interface_left_out_at_a_restart_is_detached() {
    let Some(mut site) = Site::new("fewer", Shape::Links, 2) else {
        return;
    };
    site.start(&service());
    expect_attached(&site, 3);
    site.kill();
    site.replace_head(", \"eth2\"", "");
    site.configure(&service());
    site.start_again();
    expect_attached(&site, 2);
}

#[test]
fn idle_connections_expire() {
    let Some(mut site) = Site::new("expiry", Shape::Links, 1) else {
        return;
    };
    let _tcp = TcpEcho::start(&site.backends[0], [7]).unwrap();
    let _udp = UdpEcho::start(&site.backends[0], [9]).unwrap();
    site.start(&format!(
        "{}[[service]]\nname = \"udp\"\nlisten = \"192.0.2.10:9-10\"\nprotocol = \"udp\"\nbackend = [{{ address = \"10.0.1.3\" }}]\n\
         [timeouts]\ntcp_handshake = \"1s\"\ntcp_closing = \"2s\"\nudp = \"1s\"\nudp_stream = \"3s\"\n",
        service()
    ));
    let held = site.client.connect(TO.into(), None, SOON).unwrap();
    greeting(&site.client, TO.into(), None);
    site.client
        .udp_exchange("192.0.2.10:9".parse().unwrap(), None, b"?", SOON)
        .unwrap();
    // Nobody answers on port 10.
    let silent = site
        .client
        .udp_socket("0.0.0.0:0".parse().unwrap())
        .unwrap();
    silent.send_to(b"?", "192.0.2.10:10").unwrap();
    eventually("all of them to be there", PATIENCE, || {
        let connections = site.status().connections;
        (connections.current, connections.half_open) == (4, 1)
    })
    .unwrap();
    eventually("the silent one to go", Duration::from_secs(4), || {
        let connections = site.status().connections;
        connections.half_open == 0 && connections.current <= 3
    })
    .unwrap();
    eventually(
        "the closed and the idle one to go",
        Duration::from_secs(8),
        || site.status().connections.current == 1,
    )
    .unwrap();
    // What is established stays.
    assert_eq!(
        site.connections().connections[0].client,
        held.local_addr().unwrap()
    );
}

#[test]
fn who_was_refused_begins_anew() {
    let Some(mut site) = Site::new("refused", Shape::Links, 2) else {
        return;
    };
    // Nobody listens at the first backend.
    let _echo = TcpEcho::start(&site.backends[1], [7]).unwrap();
    site.start(&nth(
        "192.0.2.10:7",
        &[backend("10.0.1.3:7"), backend("10.0.2.3:7")],
    ));
    let error = site.client.connect(TO.into(), Some(4000), SOON);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
    let half_open = || site.status().connections.half_open;
    assert_eq!(half_open(), 1);
    // The same port once more is another connection, to the next backend.
    assert_eq!(greeting(&site.client, TO.into(), Some(4000)).0, "b2");
    // What was refused does not take up room for as long as a handshake may.
    let error = site.client.connect(TO.into(), Some(4001), SOON);
    assert!(error.is_err());
    eventually("the refused ones to go", Duration::from_secs(10), || {
        half_open() == 0
    })
    .unwrap();
}
