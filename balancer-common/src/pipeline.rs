//! The way of a packet.
//!
//! ```text
//! packet ──► parse ──► flow lookup ──hit──► advance state ──► next hop ──► rewrite ──► out
//!                          │ miss                 ▲
//!                          ▼                      │
//!                       service ► schedule ► claim both tuples        every exit is a Verdict with a named reason
//! ```

use crate::family::{Family, V4, V6};
use crate::flow::{self, Flow, Phase, State};
use crate::hop::Hop;
use crate::nat;
use crate::open::Opening;
use crate::packet::Packet;
use crate::parse::{self, Headers, L2};
use crate::tables::Tables;
use crate::tuple::Tuple;
use crate::verdict::{Drop, Exit, Pass, Verdict, Way};
use crate::wire::{ethertype, protocol};

/// Decides what `packet`, which came in by the interface with index `interface`, gets, and rewrites it if it is
/// to be sent on.
#[inline(always)]
pub fn process<P: Packet, T: Tables<V4> + Tables<V6>>(
    packet: &mut P,
    tables: &T,
    interface: u32,
) -> Verdict {
    decide(packet, tables, interface).into()
}

/// The same, for an engine that has no use for the reason's name: a number is one word.
///
/// # Errors
/// Why the packet is not sent on.
#[inline(always)]
pub fn decide<P: Packet, T: Tables<V4> + Tables<V6>>(
    packet: &mut P,
    tables: &T,
    interface: u32,
) -> Result<Way, Exit> {
    let l2 = parse::ethernet(packet)?;
    match l2.ethertype {
        ethertype::IPV4 => forward::<V4, P, T>(packet, tables, interface, l2),
        ethertype::IPV6 => forward::<V6, P, T>(packet, tables, interface, l2),
        _ => Err(Pass::NotIp.into()),
    }
}

/// The way of an IP packet.
#[inline(always)]
fn forward<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    interface: u32,
    l2: L2,
) -> Result<Way, Exit> {
    let headers: Headers<F> = parse::headers(packet, l2.l3)?;
    let (tuple, flags) = (&headers.tuple, headers.flags);
    let flow = match tables.flow(tuple) {
        Some(flow) if flow.is_settled(flags) || advance(tables, tuple, &flow, flags) => flow,
        _ => open(packet, tables, interface, l2, &headers)?,
    };
    let hop = next_hop(tables, interface, &flow);
    nat::rewrite(packet, &headers, &flow, &hop)?;
    flow.count(headers.length, tables.now());
    tables.count_packet(flow.backend, flow.is_reply(), headers.length);
    Ok(if hop.interface() == interface {
        Way::Transmit
    } else {
        Way::Redirect(hop.interface())
    })
}

/// Advances the state of a connection by a packet with these TCP control bits (0: UDP).
///
/// Says whether the connection goes on. It does not when a SYN comes to one that is over: then both flows are
/// removed, and the packet opens a new one (RFC 9293, section 3.6.1, allows it before the time-wait delay has
/// passed).
#[inline(never)]
fn advance<F: Family, T: Tables<F>>(
    tables: &T,
    tuple: &Tuple<F>,
    flow: &Flow<F>,
    flags: u8,
) -> bool {
    let protocol = tuple.ports.protocol();
    let peer_tuple = flow.peer();
    let peer = tables.flow(&peer_tuple).map(|peer| peer.state());
    let opens = protocol == protocol::TCP && !flow.is_reply() && flow::is_opening(protocol, flags);
    // Without its other half a connection is of no use.
    if opens && peer.is_none_or(|peer| Phase::of(flow.state(), peer) == Phase::Closing) {
        tables.remove(&peer_tuple);
        tables.remove(tuple);
        return false;
    }
    if flow.advance(protocol, flags, peer.unwrap_or(State(0))) {
        tables.remove_half_open(if flow.is_reply() { &peer_tuple } else { tuple });
    }
    true
}

/// No flow knows the packet: opens a connection if it is for a service.
#[inline(always)]
fn open<'a, F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &'a T,
    interface: u32,
    l2: L2,
    headers: &Headers<F>,
) -> Result<T::FlowRef<'a>, Exit> {
    tables.open(Opening {
        tuple: headers.tuple,
        back: Hop::back(interface, packet.window(0).ok_or(Drop::Truncated)?),
        flags: headers.flags,
        tagged: l2.is_tagged(),
        expired: F::ttl(packet, headers.l3).ok_or(Drop::Truncated)? <= 1,
    })?;
    Ok(tables.flow(&headers.tuple).ok_or(Drop::NotReady)?)
}

/// Where a flow's packet goes. What the flow remembers is right until the daemon says that neighbours, links or
/// routes have changed; then it is asked for again, once a flow.
#[inline(always)]
fn next_hop<F: Family, T: Tables<F>>(tables: &T, interface: u32, flow: &Flow<F>) -> Hop {
    let generation = tables.hop_generation();
    if !flow.hop_is_of(generation) {
        flow.set_hop(generation, ask(tables, interface, flow));
    }
    flow.hop()
}

#[inline(always)]
fn ask<F: Family, T: Tables<F>>(tables: &T, interface: u32, flow: &Flow<F>) -> Option<Hop> {
    let state = flow.state();
    let hop = if state.has(State::TAGGED | State::REPLY) {
        return None;
    } else if state.has(State::REPLY) {
        tables.route(&flow.new.addresses, interface)?
    } else {
        tables.path(flow.backend)?.hop
    };
    hop.is_known().then_some(hop)
}
