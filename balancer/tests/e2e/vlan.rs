//! Real VLAN devices, which not every kernel has.

use std::fs;
use std::net::SocketAddr;

use balancer::control::document::XdpMode;
use balancer_lab::{Host, Need, TcpEcho};

use crate::schedule::{backend, nth};
use crate::site::{Shape, Site, greeting};

/// A VLAN device by its tags, the outer first.
struct Vlan {
    /// The device's name behind that of the interface.
    suffix: &'static str,
    /// Kind and number of each tag.
    tags: &'static [(&'static str, u16)],
}

const ONE: Vlan = Vlan {
    suffix: ".10",
    tags: &[("802.1Q", 10)],
};
const OTHER: Vlan = Vlan {
    suffix: ".20",
    tags: &[("802.1Q", 20)],
};
/// `QinQ` (IEEE 802.1ad): a provider's tag around the customer's.
const TWO: Vlan = Vlan {
    suffix: ".100.10",
    tags: &[("802.1ad", 100), ("802.1Q", 10)],
};

/// Makes a VLAN device of `port`. A veth would carry the outer tag beside the frame, if it might: in it is where the
/// program looks.
fn make(host: &Host, port: &str, vlan: &Vlan) {
    host.run(
        "ethtool",
        ["-K", port, "txvlan", "off", "tx-vlan-stag-hw-insert", "off"],
    )
    .unwrap();
    let mut below = port.to_owned();
    for (kind, number) in vlan.tags {
        let device = format!("{below}.{number}");
        host.ip_batch([
            format!("link add link {below} name {device} type vlan proto {kind} id {number}"),
            format!("link set {device} up"),
        ])
        .unwrap();
        below = device;
    }
    assert_eq!(below, format!("{port}{}", vlan.suffix));
}

/// Whether this kernel has VLAN devices.
fn are_there(test: &str, site: &Site) -> bool {
    let host = &site.client;
    let tried = host.ip("link add link eth0 name try type vlan id 1");
    match tried {
        Ok(()) => host.ip("link del try").unwrap(),
        Err(error) => {
            let reason = format!("this kernel has no VLAN devices ({error})");
            Need::Modules.leave_out(test, &reason);
            return false;
        }
    }
    true
}

/// The addresses that the tests use, besides those of the site.
const CLIENT: [&str; 2] = ["198.51.100.1/24", "2001:db8:100::1/64"];
const CLIENT_SIDE: [&str; 2] = ["198.51.100.10/24", "2001:db8:100::10/64"];
const BACKEND: [&str; 2] = ["10.0.20.3/24", "2001:db8:20::3/64"];
const BACKEND_SIDE: [&str; 2] = ["10.0.20.1/24", "2001:db8:20::1/64"];

/// Gives a device an address of each family.
fn address(host: &Host, device: &str, addresses: [&str; 2]) {
    for address in addresses {
        host.address(device, address).unwrap();
    }
}

fn services() -> String {
    [
        ("198.51.100.10:7", "10.0.20.3:7", "web"),
        ("[2001:db8:100::10]:7", "[2001:db8:20::3]:7", "web6"),
    ]
    .map(|(listen, to, name)| {
        nth(listen, &[backend(to)]).replace("\"web\"", &format!("\"{name}\""))
    })
    .concat()
}

/// How many packets a device has received.
fn received(host: &Host, device: &str) -> u64 {
    // Of the thread: the process is in another namespace.
    let read = || fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let table = host.enter(read).unwrap();
    let mut devices = table.lines().filter_map(|line| line.split_once(':'));
    let (_, counts) = devices.find(|(name, _)| name.trim() == device).unwrap();
    counts.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Connections of each family, whose packets come by these devices of client and backend.
fn talk(site: &Site, at_client: &str, at_backend: &str) {
    let count = || {
        [
            received(&site.client, at_client),
            received(&site.backends[0], at_backend),
        ]
    };
    let before = count();
    for (to, seen) in [
        ("198.51.100.10:7", "10.0.20.1"),
        ("[2001:db8:100::10]:7", "2001:db8:20::1"),
    ] {
        let to: SocketAddr = to.parse().unwrap();
        for _ in 0..3 {
            let (name, peer) = greeting(&site.client, to, None);
            assert_eq!(
                (name.as_str(), peer.ip().to_string().as_str()),
                ("b1", seen)
            );
        }
    }
    let connections = site.services().into_iter();
    let counts = connections.map(|service| service.backends[0].connections_total);
    assert_eq!(counts.collect::<Vec<_>>(), [3, 3]);
    // At least two packets of each connection: either end would take them by any of its devices.
    for (before, after) in before.into_iter().zip(count()) {
        assert!(
            after >= before + 12,
            "{before} packets before, {after} after"
        );
    }
}

/// Clients and backends in VLANs of their own: the program is on the VLAN devices, behind which there are no tags.
fn between_vlans(name: &str, clients: &Vlan, backends: &Vlan) {
    let Some(mut site) = Site::new(name, Shape::Links, 1) else {
        return;
    };
    if !are_there(name, &site) {
        return;
    }
    let (near, far) = (
        format!("eth0{}", clients.suffix),
        format!("eth1{}", backends.suffix),
    );
    let on_backend = format!("eth0{}", backends.suffix);
    make(&site.client, "eth0", clients);
    make(&site.balancer, "eth0", clients);
    make(&site.balancer, "eth1", backends);
    make(&site.backends[0], "eth0", backends);
    address(&site.client, &near, CLIENT);
    address(&site.balancer, &near, CLIENT_SIDE);
    address(&site.balancer, &far, BACKEND_SIDE);
    address(&site.backends[0], &on_backend, BACKEND);
    let _echo = TcpEcho::start(&site.backends[0], [7]).unwrap();
    site.replace_head("\"eth0\", \"eth1\"", &format!("\"{near}\", \"{far}\""));
    site.start(&services());
    site.expect_modes(&[(&near, XdpMode::Generic), (&far, XdpMode::Generic)]);
    talk(&site, &near, &on_backend);
}

#[test]
fn clients_and_backends_are_in_different_vlans() {
    between_vlans("vlans", &ONE, &OTHER);
}

#[test]
fn clients_are_behind_two_tags() {
    between_vlans("vlan-qinq", &TWO, &OTHER);
}

/// Clients and backends in one VLAN: the program is on the ports, native, and keeps the tags. The way to a backend has
/// to be by the port then.
fn in_one_vlan(name: &str, vlan: &Vlan) {
    let Some(mut site) = Site::new(name, Shape::Links, 1) else {
        return;
    };
    if !are_there(name, &site) {
        return;
    }
    let device = |port: &str| format!("{port}{}", vlan.suffix);
    make(&site.client, "eth0", vlan);
    make(&site.balancer, "eth0", vlan);
    make(&site.balancer, "eth1", vlan);
    make(&site.backends[0], "eth0", vlan);
    address(&site.client, &device("eth0"), CLIENT);
    address(&site.balancer, &device("eth0"), CLIENT_SIDE);
    address(&site.balancer, &device("eth1"), BACKEND_SIDE);
    address(&site.backends[0], &device("eth0"), BACKEND);
    let mac = site.backends[0].mac("eth0").unwrap();
    let ways = BACKEND.iter().zip(BACKEND_SIDE).flat_map(|(to, from)| {
        let without_length = |address: &str| address.split('/').next().unwrap().to_owned();
        let (to, from) = (without_length(to), without_length(from));
        [
            format!("route add {to} dev eth1 src {from}"),
            format!("neigh add {to} lladdr {mac} dev eth1 nud permanent"),
        ]
    });
    site.balancer.ip_batch(ways).unwrap();
    let _echo = TcpEcho::start(&site.backends[0], [7]).unwrap();
    site.start(&services());
    site.expect_modes(&[("eth0", XdpMode::Native), ("eth1", XdpMode::Native)]);
    talk(&site, &device("eth0"), &device("eth0"));
}

#[test]
fn one_tag_is_kept() {
    in_one_vlan("vlan-one", &ONE);
}

#[test]
fn two_tags_are_kept() {
    in_one_vlan("vlan-two", &TWO);
}
