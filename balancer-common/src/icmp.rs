//! ICMP errors about connections: each takes the way of its connection, and what it quotes becomes what its receiver has
//! sent (RFC 5508, section 4; RFC 1812, section 4.3.2.3 for what is an error).
//!
//! An error goes against the packet that it quotes, so the flow that it belongs to is that of the quoted packet's
//! answers. As packets of that flow it gets the flow's new addresses; the quoted packet becomes one of the other direction as
//! that one's sender knows it. It changes nothing of the connection, and is no sign of life.

use crate::checksum::{self, TTL_DECREMENT, fold, replace};
use crate::family::Family;
use crate::hop::Hop;
use crate::packet::Packet;
use crate::pipeline::{Stage, next_hop};
use crate::table::find;
use crate::table::flow::Flow;
use crate::tables::Tables;
use crate::tuple::{PortsProtocol, Tuple};
use crate::verdict::{Drop, Exit, Pass, Way};
use crate::wire::{ETHERNET, protocol, put, tcp, u16_at, u32_at, udp};

/// The length of an error's header: type, code, checksum and four bytes by type.
pub const LENGTH: usize = 8;

/// Where its checksum is.
const CHECKSUM: usize = 2;

/// How much of the quoted transport header there must be: every error quotes so much (RFC 792).
const QUOTED: usize = 8;

/// An error about a connection, as it came.
#[derive(Clone, Copy, Debug)]
struct Quote<F: Family> {
    /// The tuple of the flow that it goes with.
    tuple: Tuple<F>,
    /// Its own addresses.
    outer: F::Pair,
    /// Where the ICMP header begins.
    header: usize,
    /// Where the quoted network header begins.
    network: usize,
    /// Where the quoted transport header begins.
    transport: usize,
    /// Where the packet ends.
    end: usize,
}

/// What an error quotes of a network header.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<F: Family> {
    /// Source and destination.
    pub addresses: F::Pair,
    /// TCP or UDP, or whatever else there is.
    pub protocol: u8,
    /// Where the transport header begins.
    pub l4: usize,
}

/// Decides about packets of which [`Whole`](crate::pipeline::Whole) has said that they are neither TCP nor UDP:
/// [`Pass::OtherProtocol`] for what is no error about a connection.
#[derive(Debug)]
pub struct Errors;

impl Stage for Errors {
    #[inline(always)]
    fn forward<F: Family, P: Packet, T: Tables<F>>(
        packet: &mut P,
        tables: &T,
        interface: u32,
        l3: usize,
    ) -> Result<Way, Exit> {
        let quote: Quote<F> = read(packet, l3)?;
        let flow = find(tables, &quote.tuple).ok_or(Pass::OtherProtocol)?;
        let hop = next_hop(tables, interface, flow);
        if !hop.is_known() {
            return Err(Drop::NoNextHop.into());
        }
        rewrite(packet, l3, &quote, flow, &hop)?;
        // Not counted with the flow's own: they may come on any CPU.
        Ok(Way::by(&hop, interface))
    }
}

/// The tuple of the flow that an error goes with.
///
/// # Errors
/// [`Pass::OtherProtocol`] for what is no error about a connection.
#[inline(always)]
pub(crate) fn quoted_flow<F: Family, P: Packet>(packet: &P, l3: usize) -> Result<Tuple<F>, Exit> {
    read(packet, l3).map(|quote| quote.tuple)
}

/// Reads an error and what it quotes.
#[inline(always)]
fn read<F: Family, P: Packet>(packet: &P, l3: usize) -> Result<Quote<F>, Exit> {
    let outer = F::parse(packet, l3)?;
    if outer.protocol != F::ICMP || usize::from(outer.payload) < LENGTH {
        return Err(Pass::OtherProtocol.into());
    }
    let header: &[u8; LENGTH] = packet.window(outer.l4).ok_or(Drop::Truncated)?;
    if !F::is_error(header[0]) {
        return Err(Pass::OtherProtocol.into());
    }
    let network = outer.l4 + LENGTH;
    let quoted = F::quoted(packet, network).ok_or(Pass::OtherProtocol)?;
    let end = outer.l4 + usize::from(outer.payload);
    if quoted.l4 + QUOTED > end
        || !matches!(quoted.protocol, protocol::TCP | protocol::UDP)
        // Errors go to who sent what they quote.
        || F::destination(outer.addresses) != F::source(quoted.addresses)
    {
        return Err(Pass::OtherProtocol.into());
    }
    let transport: &[u8; QUOTED] = packet.window(quoted.l4).ok_or(Pass::OtherProtocol)?;
    let ports = u32_at(transport, 0).rotate_left(16);
    Ok(Quote {
        tuple: Tuple {
            addresses: F::reversed(quoted.addresses),
            ports: PortsProtocol::from_wire(ports, quoted.protocol),
        },
        outer: outer.addresses,
        header: outer.l4,
        network,
        transport: quoted.l4,
        end,
    })
}

/// Translates an error and what it quotes. With an error the packet is as it was.
#[inline(always)]
fn rewrite<F: Family, P: Packet>(
    packet: &mut P,
    l3: usize,
    quote: &Quote<F>,
    flow: &Flow<F>,
    hop: &Hop,
) -> Result<(), Exit> {
    // The frame's first bytes before its others: the compiler knows that these are there if those are, the prover does not.
    let _: &[u8; ETHERNET] = packet.window(0).ok_or(Drop::Truncated)?;
    let new = flow.new_addresses();
    let (ports, _, transport_delta) = flow.new_ports();
    let outer_delta = F::replaced(quote.outer, new);
    let quoted_delta = F::replaced(quote.tuple.addresses, new);
    F::rewrite(packet, l3, &new, fold(outer_delta + TTL_DECREMENT))?;
    F::rewrite_quoted(packet, quote.network, &F::reversed(new), fold(quoted_delta))?;
    // What all this adds to the sum that the error's own checksum is of. An IPv4 header's checksum, which is quoted too,
    // has taken up the quoted addresses; that of ICMPv6 covers them and the error's own (RFC 4443, section 2.3).
    let mut delta = replace(u64::from(quote.tuple.ports.wire()), u64::from(ports));
    if F::VERSION == 6 {
        delta += outer_delta + quoted_delta;
    }
    let transport = quote.transport;
    let quoted: &mut [u8; QUOTED] = packet.window_mut(transport).ok_or(Drop::Truncated)?;
    put(quoted, 0, ports.rotate_left(16).to_ne_bytes());
    if quote.tuple.ports.protocol() == protocol::UDP {
        let old = u16_at(quoted, udp::CHECKSUM);
        let sum = checksum::update_udp(old, transport_delta);
        put(quoted, udp::CHECKSUM, sum.to_ne_bytes());
        delta += replace(old.into(), sum.into());
    } else if transport + tcp::CHECKSUM + 2 <= quote.end
        && let Some(quoted) = packet.window_mut::<2>(transport + tcp::CHECKSUM)
    {
        let old = u16::from_ne_bytes(*quoted);
        let sum = checksum::update(old, transport_delta);
        *quoted = sum.to_ne_bytes();
        delta += replace(old.into(), sum.into());
    }
    let header: &mut [u8; LENGTH] = packet.window_mut(quote.header).ok_or(Drop::Truncated)?;
    let sum = checksum::update(u16_at(header, CHECKSUM), fold(delta));
    put(header, CHECKSUM, sum.to_ne_bytes());
    hop.write(packet.window_mut(0).ok_or(Drop::Truncated)?);
    Ok(())
}
