//! The place that everything is measured in: a client, the box, a server with all backends.

use balancer_lab::{Host, Lab};

use crate::plan;

/// ```text
/// client eth0 ── eth0 box eth1 ── eth0 server
/// client eth1 ─────────────────── eth1 server
/// ```
///
/// The second wire brings frames back that are measured one way. Dropped, all of it goes.
pub struct Site {
    /// Has all clients' addresses behind it.
    pub client: Host,
    /// What is measured.
    pub balancer: Host,
    /// Has all backends' addresses behind it.
    pub server: Host,
    /// Owns them.
    pub lab: Lab,
}

impl Site {
    /// A new one, without any balancing.
    pub fn build() -> anyhow::Result<Self> {
        let lab = Lab::new("bench")?;
        let site = Self {
            client: lab.host("client")?,
            balancer: lab.host("balancer")?,
            server: lab.host("server")?,
            lab,
        };
        let Self {
            client,
            balancer,
            server,
            lab,
        } = &site;
        for host in [client, balancer, server] {
            // Neither router solicitations nor reports of multicast groups among the frames that are counted.
            host.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
            host.sysctl("net/ipv6/conf/all/disable_ipv6", "1")?;
        }
        lab.link(client, "eth0", balancer, "eth0")?;
        lab.link(server, "eth0", balancer, "eth1")?;
        lab.link(client, "eth1", server, "eth1")?;
        let neighbour = |address, host: &Host, device, own| -> anyhow::Result<String> {
            let mac = host.mac(device)?;
            Ok(format!(
                "neigh replace {address} lladdr {mac} dev {own} nud permanent"
            ))
        };
        client.ip_batch([
            format!("addr add {}/24 dev eth0", plan::CLIENT),
            format!("route add default via {}", plan::SERVICE),
            neighbour(plan::SERVICE, balancer, "eth0", "eth0")?,
        ])?;
        balancer.ip_batch([
            format!("addr add {}/24 dev eth0", plan::SERVICE),
            format!("addr add {}/24 dev eth1", plan::INSIDE),
            neighbour(plan::CLIENT, client, "eth0", "eth0")?,
            neighbour(plan::SERVER, server, "eth0", "eth1")?,
            format!(
                "route add {}/{} via {}",
                plan::CLIENTS,
                plan::CLIENTS_PREFIX,
                plan::CLIENT
            ),
            format!(
                "route add {}/{} via {}",
                plan::BACKENDS,
                plan::BACKENDS_PREFIX,
                plan::SERVER
            ),
        ])?;
        server.ip_batch([
            format!("addr add {}/24 dev eth0", plan::SERVER),
            format!("route add default via {}", plan::INSIDE),
            neighbour(plan::INSIDE, balancer, "eth1", "eth0")?,
        ])?;
        balancer.sysctl("net/ipv4/ip_forward", "1")?;
        Ok(site)
    }
}
