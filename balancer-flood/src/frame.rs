//! The frames of a scenario.

use std::net::IpAddr;

use etherparse::{IpFragOffset, IpHeaders, Ipv4Extensions, Ipv4Header, PacketBuilder};

use crate::plan::{Plan, WORDS, fold};
use crate::scenario::{Fragment, Mode, Order, Protocol, Scenario};

const HOP_LIMIT: u8 = 64;
const WINDOW: u16 = 1024;
/// Where a later fragment's data begins.
const LATER: IpFragOffset = match IpFragOffset::try_new(1480 / 8) {
    Ok(offset) => offset,
    Err(_) => IpFragOffset::ZERO,
};

/// Where things are in a frame.
#[derive(Clone, Copy, Debug)]
struct Layout {
    /// The last four bytes of the source address.
    source: usize,
    /// The checksum of the IPv4 header.
    header: Option<usize>,
    /// The source port.
    port: usize,
    /// The transport's checksum.
    transport: usize,
}

impl Layout {
    fn of(scenario: &Scenario) -> Self {
        let checksum = match scenario.protocol {
            Protocol::Tcp => 16,
            Protocol::Udp => 6,
        };
        let (source, header, port) = match scenario.destination {
            IpAddr::V4(_) => (26, Some(24), 34),
            IpAddr::V6(_) => (34, None, 54),
        };
        Self {
            source,
            header,
            port,
            transport: port + checksum,
        }
    }
}

/// The frames of a scenario: the plan that the program follows, and what it makes of it.
#[derive(Clone, Debug)]
pub struct Frames {
    plan: Plan,
    layout: Layout,
    is_udp: bool,
    first: Vec<u8>,
}

impl Frames {
    /// Those from `source_mac`, to leave by the interface of that index.
    #[must_use]
    pub fn new(scenario: &Scenario, source_mac: [u8; 6], interface: u32) -> Self {
        let layout = Layout::of(scenario);
        let first = first(scenario, source_mac);
        let mut template = [0; WORDS];
        for (word, bytes) in template.iter_mut().zip(first.as_chunks().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        let (source, port) = (
            scenario.source.low(),
            u32::from(scenario.source_ports.first),
        );
        // RFC 1624: the checksum without a field is that with the field's complement added to the sum.
        let without = |checksum: usize, port: u16| {
            let sum = !u16::from_be_bytes([first[checksum], first[checksum + 1]]);
            let fields = [(source >> 16) as u16, source as u16, port];
            let rest = fields.into_iter().map(|field| u32::from(!field));
            u32::from(fold(u32::from(sum) + rest.sum::<u32>()))
        };
        let plan = Plan {
            template,
            interface,
            flows: scenario.flows,
            source,
            port,
            ports: scenario.source_ports.count(),
            header_sum: layout.header.map_or(0, |checksum| without(checksum, 0)),
            transport_sum: without(layout.transport, port as u16),
            random: u32::from(scenario.order == Order::Random),
        };
        Self {
            plan,
            layout,
            is_udp: scenario.protocol == Protocol::Udp,
            first,
        }
    }

    /// What the program is to do.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A frame of the first flow.
    #[must_use]
    pub fn first(&self) -> &[u8] {
        &self.first
    }

    /// A frame of a flow, as the program makes it.
    #[must_use]
    pub fn of_flow(&self, flow: u32) -> Vec<u8> {
        let mut frame = self.first.clone();
        let patch = self.plan.patch(flow);
        let transport = match patch.transport {
            0 if self.is_udp => 0xffff,
            sum => sum,
        };
        let mut put = |at: usize, bytes: &[u8]| frame[at..at + bytes.len()].copy_from_slice(bytes);
        put(self.layout.source, &patch.source.to_be_bytes());
        put(self.layout.port, &patch.port.to_be_bytes());
        if let Some(header) = self.layout.header {
            put(header, &patch.header.to_be_bytes());
        }
        put(self.layout.transport, &transport.to_be_bytes());
        frame
    }
}

/// A whole frame of the first flow; its payload is zeros.
fn first(scenario: &Scenario, source_mac: [u8; 6]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2(source_mac, scenario.destination_mac);
    let ip = match (scenario.source.first, scenario.destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = Ipv4Header {
                time_to_live: HOP_LIMIT,
                dont_fragment: scenario.fragment.is_none(),
                more_fragments: scenario.fragment.is_some(),
                fragment_offset: match scenario.fragment {
                    Some(Fragment::Later) => LATER,
                    _ => IpFragOffset::ZERO,
                },
                source: from.octets(),
                destination: to.octets(),
                ..Ipv4Header::default()
            };
            ethernet.ip(IpHeaders::Ipv4(header, Ipv4Extensions::default()))
        }
        (from, to) => ethernet.ipv6(octets(from), octets(to), HOP_LIMIT),
    };
    let (from, to) = (scenario.source_ports.first, scenario.destination_port);
    let size = usize::from(scenario.frame_size);
    let mut frame = Vec::with_capacity(size);
    // Memory takes whatever is written, and the size has been checked with the scenario.
    let _ = match scenario.protocol {
        Protocol::Tcp => {
            let tcp = ip.tcp(from, to, 1, WINDOW);
            let tcp = match scenario.mode {
                Mode::Established => tcp.ack(1),
                Mode::New => tcp.syn(),
            };
            let payload = vec![0; size.saturating_sub(tcp.size(0))];
            tcp.write(&mut frame, &payload)
        }
        Protocol::Udp => {
            let udp = ip.udp(from, to);
            let payload = vec![0; size.saturating_sub(udp.size(0))];
            udp.write(&mut frame, &payload)
        }
    };
    frame
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
