//! Starting, ending, expiring.

use std::time::Duration;

use balancer_lab::{TcpEcho, UdpEcho, eventually};

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
    assert_eq!(attached(&site), 2);
    let neighbours = || site.balancer.run("ip", ["neigh"]).unwrap().stdout;
    assert!(neighbours().contains("managed"), "{}", neighbours());
    site.terminate();
    assert_eq!(attached(&site), 0);
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
    let _echo = TcpEcho::start(&site.backends[0], [7]).unwrap();
    site.daemon_key("on_exit = \"keep\"");
    site.start(&service());
    let path = site.pins.display().to_string();
    let error = site.ctl(&["detach", "--pin-path", &path]).unwrap_err();
    assert!(error.contains("balancerd runs"), "{error}");
    site.terminate();
    assert_eq!(attached(&site), 2);
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
    assert_eq!(attached(&site), 0);
    assert!(!site.pins.exists());
    let text = site.ctl(&["detach", "--pin-path", &path]).unwrap();
    assert!(text.contains("nothing to detach"), "{text}");
    site.start_again();
    greeting(&site.client, TO.into(), None);
}

#[test]
fn an_interface_left_out_at_a_restart_is_detached() {
    let Some(mut site) = Site::new("fewer", Shape::Links, 2) else {
        return;
    };
    site.start(&service());
    assert_eq!(attached(&site), 3);
    site.kill();
    site.replace_head(", \"eth2\"", "");
    site.configure(&service());
    site.start_again();
    assert_eq!(attached(&site), 2);
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
