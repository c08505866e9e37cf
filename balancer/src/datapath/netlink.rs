//! What the kernel knows of links, routes and neighbours.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkInfo, LinkMessage, LinkXdp, XdpAttached,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage,
    NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia,
};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder};
use tokio::sync::mpsc;

/// How many questions wait for their answers at a time: the kernel has room for these.
const AT_ONCE: usize = 32;

/// Why the kernel did not tell.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket.
    #[error("netlink: {0}")]
    Socket(#[from] io::Error),
    /// The kernel's answer.
    #[error("netlink: {0}")]
    Answer(#[from] rtnetlink::Error),
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// The longest packet that it takes, from the network header on, in bytes.
    pub mtu: u32,
    /// Whether it is an end of a veth pair.
    pub is_veth: bool,
    /// The XDP program on it: its id, and whether it is native.
    pub xdp: Option<(u32, bool)>,
}

/// The way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Out of the box.
    Out {
        /// The link's index.
        interface: u32,
        /// The router, or the destination itself.
        next_hop: IpAddr,
        /// The box's address towards it.
        source: IpAddr,
    },
    /// The destination is the box.
    Local,
    /// There is none.
    None,
}

/// What a neighbour entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The link's index.
    pub interface: u32,
    /// Whose entry it is.
    pub address: IpAddr,
    /// Its MAC address, while the entry is valid.
    pub mac: Option<[u8; 6]>,
    /// Whether somebody has set the entry by hand, or a control plane has (`permanent`, `noarp`, `extern_learn`): the
    /// kernel does not resolve it, and would make it an entry like any other if it were told to.
    pub is_fixed: bool,
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Links, addresses or routes: ways may be others.
    Ways,
    /// A neighbour.
    Neighbour(Neighbour),
    /// A neighbour's entry is gone.
    Forgotten(Neighbour),
    /// Events were lost: everything may have changed.
    Lost,
}

/// A connection to the kernel.
#[derive(Clone, Debug)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Connects, in the network namespace of this thread; a task of the current runtime carries the messages.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn connect() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// All links.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let links: Vec<LinkMessage> = self.handle.link().get().execute().try_collect().await?;
        Ok(links.into_iter().map(link).collect())
    }

    /// All neighbour entries, of both families.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, NetlinkError> {
        let entries: Vec<NeighbourMessage> = self
            .handle
            .neighbours()
            .get()
            .execute()
            .try_collect()
            .await?;
        Ok(entries.iter().filter_map(neighbour).collect())
    }

    /// The way to a destination, as the kernel's routing decides.
    ///
    /// # Errors
    /// [`NetlinkError`]; that there is no route is none.
    pub async fn way(&self, destination: IpAddr) -> Result<Way, NetlinkError> {
        let bits = if destination.is_ipv4() { 32 } else { 128 };
        let message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination, bits)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))?
            .build();
        let mut answers = std::pin::pin!(self.handle.route().get(message).execute());
        match answers.next().await {
            Some(Ok(route)) => Ok(way(&route, destination)),
            // No route, or one that says so.
            Some(Err(rtnetlink::Error::NetlinkError(error)))
                if matches!(
                    error.raw_code().unsigned_abs().cast_signed(),
                    libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL
                ) =>
            {
                Ok(Way::None)
            }
            Some(Err(error)) => Err(error.into()),
            None => Ok(Way::None),
        }
    }

    /// The ways to destinations, each asked for once.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub async fn ways(
        &self,
        destinations: impl Iterator<Item = IpAddr>,
    ) -> Result<HashMap<IpAddr, Way>, NetlinkError> {
        let destinations: HashSet<IpAddr> = destinations.collect();
        let ask = |destination| async move { Ok((destination, self.way(destination).await?)) };
        stream::iter(destinations.into_iter().map(ask))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Makes the kernel resolve a neighbour now and keep it resolved, also when the daemon is gone: traffic that XDP
    /// forwards would not (`NTF_EXT_MANAGED`, Linux 5.16; before that it is resolved once).
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub async fn resolve(&self, interface: u32, address: IpAddr) -> Result<(), NetlinkError> {
        match self.use_neighbour(interface, address, true).await {
            Err(rtnetlink::Error::NetlinkError(_)) => {
                Ok(self.use_neighbour(interface, address, false).await?)
            }
            other => Ok(other?),
        }
    }

    /// Leaves a neighbour to the kernel: takes back that it is kept resolved.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub async fn release(&self, interface: u32, address: IpAddr) -> Result<(), NetlinkError> {
        Ok(self.use_neighbour(interface, address, false).await?)
    }

    async fn use_neighbour(
        &self,
        interface: u32,
        address: IpAddr,
        managed: bool,
    ) -> Result<(), rtnetlink::Error> {
        let mut request = self
            .handle
            .neighbours()
            .add(interface, address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        if managed {
            request
                .message_mut()
                .attributes
                .push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        }
        request.execute().await
    }

    /// Changes from now on.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn watch() -> Result<mpsc::UnboundedReceiver<Event>, NetlinkError> {
        let (connection, _, mut messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ])?;
        tokio::spawn(connection);
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            use rtnetlink::packet_core::NetlinkPayload;
            while let Some((message, _)) = messages.next().await {
                let event = match message.payload {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(message)) => {
                        neighbour(&message).map(Event::Neighbour)
                    }
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(message)) => {
                        neighbour(&message).map(Event::Forgotten)
                    }
                    NetlinkPayload::InnerMessage(_) => Some(Event::Ways),
                    NetlinkPayload::Overrun(_) => Some(Event::Lost),
                    _ => None,
                };
                if event.is_some_and(|event| sender.send(event).is_err()) {
                    break;
                }
            }
        });
        Ok(receiver)
    }
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: [0; 6],
        mtu: 0,
        is_veth: false,
        xdp: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(address) => link.mac = address.try_into().unwrap_or_default(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Xdp(parts) => link.xdp = xdp(&parts),
            LinkAttribute::LinkInfo(infos) => {
                link.is_veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
            }
            _ => {}
        }
    }
    link
}

fn xdp(parts: &[LinkXdp]) -> Option<(u32, bool)> {
    let native = parts.contains(&LinkXdp::Attached(XdpAttached::Driver));
    parts.iter().find_map(|part| match part {
        LinkXdp::ProgId(id) => Some((*id, native)),
        _ => None,
    })
}

fn neighbour(message: &NeighbourMessage) -> Option<Neighbour> {
    let address = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => {
                Some(IpAddr::V4(*address))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
                Some(IpAddr::V6(*address))
            }
            _ => None,
        })?;
    let mac = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
            _ => None,
        });
    let valid = matches!(
        message.header.state,
        NeighbourState::Permanent
            | NeighbourState::Noarp
            | NeighbourState::Reachable
            | NeighbourState::Probe
            | NeighbourState::Stale
            | NeighbourState::Delay
    );
    let is_fixed = matches!(
        message.header.state,
        NeighbourState::Permanent | NeighbourState::Noarp
    ) || message.header.flags.contains(NeighbourFlags::ExtLearned);
    Some(Neighbour {
        interface: message.header.ifindex,
        address,
        mac: mac.filter(|_| valid),
        is_fixed,
    })
}

fn way(route: &RouteMessage, destination: IpAddr) -> Way {
    match route.header.kind {
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast => return Way::Local,
        RouteType::Unicast => {}
        _ => return Way::None,
    }
    let ip = |address: &RouteAddress| match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    };
    let (mut interface, mut next_hop, mut source) = (None, destination, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(address) => next_hop = ip(address).unwrap_or(next_hop),
            RouteAttribute::Via(RouteVia::Inet(address)) => next_hop = IpAddr::V4(*address),
            RouteAttribute::Via(RouteVia::Inet6(address)) => next_hop = IpAddr::V6(*address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            _ => {}
        }
    }
    match (interface, source) {
        (Some(interface), Some(source)) => Way::Out {
            interface,
            next_hop,
            source,
        },
        _ => Way::None,
    }
}
