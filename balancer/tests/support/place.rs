//! A network namespace with the interfaces that the vectors name, for test runs of the program: the kernel takes an
//! ingress interface only if it is there.

use std::net::SocketAddr;

use balancer_lab::{Lab, MacAddress};

use super::{
    BACKEND_SIDE, BOX_MAC, CLIENT_SIDE, OTHER_BOX_MAC, OTHER_SIDE, ROUTED, ROUTED6, ROUTER_MAC,
};

/// Runs `work` there, or says why not.
pub fn in_the_box(name: &str, work: impl FnOnce() + Send) {
    let Some(lab) = Lab::for_test(name) else {
        return;
    };
    let host = lab.host("box").unwrap();
    let devices = [
        ("eth0", CLIENT_SIDE, BOX_MAC),
        ("eth1", BACKEND_SIDE, BOX_MAC),
        ("eth2", OTHER_SIDE, OTHER_BOX_MAC),
    ];
    let router = MacAddress(ROUTER_MAC);
    let links = devices.iter().flat_map(|&(device, index, mac)| {
        let mac = MacAddress(mac);
        [
            format!(
                "link add {device} address {mac} index {index} type veth peer name {device}-wire"
            ),
            format!("link set {device}-wire up"),
            format!("link set {device} up"),
        ]
    });
    let ways = [ROUTED, ROUTED6].into_iter().flat_map(|client| {
        let client = client.parse::<SocketAddr>().unwrap().ip();
        [
            format!("route add {client} dev eth2"),
            format!("neigh add {client} lladdr {router} dev eth2 nud permanent"),
        ]
    });
    host.ip_batch(links.chain(ways)).unwrap();
    // Without forwarding the kernel tells of no route.
    for family in ["ipv4", "ipv6"] {
        host.sysctl(&format!("net/{family}/conf/all/forwarding"), "1")
            .unwrap();
    }
    host.enter(work).unwrap();
}
