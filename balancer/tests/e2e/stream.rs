//! Bulk data both ways, and frames that are longer than a program takes natively.

use balancer::control::document::XdpMode;
use balancer_lab::Process;

use crate::schedule::{backend, nth};
use crate::site::{PATIENCE, Shape, Site};

/// Where iperf3 listens, behind the service of the same port.
const PORT: u16 = 5201;
/// How much is sent each way.
const BYTES: u64 = 50_000_000;
/// Packets of this length do not fit into the one page that a program natively takes.
const JUMBO: u32 = 9000;
const PAGE: u64 = 4096;

fn service() -> String {
    nth(
        &format!("192.0.2.10:{PORT}"),
        &[backend(&format!("10.0.1.3:{PORT}"))],
    )
}

/// The server on the backend.
fn server(site: &Site) -> Process {
    let port = PORT.to_string();
    let server = site.backends[0]
        .spawn("iperf3", ["--server", "--forceflush", "--port", &port])
        .unwrap();
    server.wait_for_line("Server listening", PATIENCE).unwrap();
    server
}

/// Sends so much with these options, and says how many bytes arrived.
fn transfer(site: &Site, options: &[&str]) -> u64 {
    let (port, bytes) = (PORT.to_string(), BYTES.to_string());
    let mut arguments = vec![
        "--client",
        "192.0.2.10",
        "--port",
        &port,
        "--bytes",
        &bytes,
        "--json",
    ];
    arguments.extend(options);
    let output = site.client.run("iperf3", arguments).unwrap().stdout;
    let report: serde_json::Value = serde_json::from_str(&output).unwrap();
    let end = &report["end"];
    let sum = end
        .get("sum_received")
        .unwrap_or_else(|| panic!("{output}"));
    sum["bytes"].as_u64().unwrap()
}

/// Sends that both ways, of which nothing is dropped.
fn both_ways(site: &Site) {
    let _server = server(site);
    for options in [&[][..], &["--reverse"]] {
        let arrived = transfer(site, options);
        // What is under way when the sender ends is not counted.
        assert!(arrived > BYTES / 2, "{options:?}: {arrived}");
    }
    let drops = site.drops().drops;
    assert!(drops.values().all(|&count| count == 0), "{drops:?}");
}

#[test]
fn streams_go_both_ways() {
    let Some(mut site) = Site::new("stream", Shape::Links, 1) else {
        return;
    };
    site.start(&service());
    both_ways(&site);
}

#[test]
fn jumbo_frames_are_for_generic_mode() {
    let Some(mut site) = Site::new("jumbo", Shape::Links, 1) else {
        return;
    };
    for (host, device) in [
        (&site.client, "eth0"),
        (&site.balancer, "eth0"),
        (&site.balancer, "eth1"),
        (&site.backends[0], "eth0"),
    ] {
        host.ip(&format!("link set dev {device} mtu {JUMBO}"))
            .unwrap();
    }
    let head = "xdp_mode = \"native\"";
    site.datapath_key(head);
    site.configure(&service());
    let error = site.start_refused();
    assert!(error.contains("eth0") && error.contains("MTU"), "{error}");
    site.replace_head(head, "");
    site.configure(&service());
    if !site.is_in_kernel() {
        let error = site.start_refused();
        assert!(error.contains("eth0") && error.contains("3786"), "{error}");
        return;
    }
    site.start_again();
    let log = site.daemon().stderr();
    assert!(log.contains("generic mode") && log.contains("MTU"), "{log}");
    site.expect_modes(&[("eth0", XdpMode::Generic), ("eth1", XdpMode::Generic)]);
    both_ways(&site);
    let backend = &site.services()[0].backends[0];
    for there in [&backend.forward, &backend.reply] {
        // Half of them acknowledge the other way's.
        assert!(there.bytes / there.packets > PAGE, "{there:?}");
    }
}
