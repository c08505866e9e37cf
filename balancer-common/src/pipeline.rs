//! The way of a packet.
//!
//! ```text
//! packet ──► parse ──► flow lookup ──hit──► advance state ──► next hop ──► rewrite ──► out
//!              │           │ miss                     ▲
//!              │           ▼                          │
//!              │        service ► screen ► schedule ► claim both tuples     every exit is a Verdict with a named reason
//!              ▼
//!           fragment, ICMP error: another stage decides
//! ```

use crate::family::{Family, V4, V6};
use crate::fragment::Fragments;
use crate::hop::{self, Hop};
use crate::icmp::Errors;
use crate::nat;
use crate::open::Opening;
use crate::packet::Packet;
use crate::parse::{self, Headers};
use crate::table::find;
use crate::table::flow::{Flow, HopId, Meta};
use crate::table::state;
use crate::table::touch::{Touched, is_settled};
use crate::tables::{Reception, Tables};
use crate::verdict::{Drop, Exit, Pass, Punt, Verdict, Way};
use crate::wire::{ethertype, tcp};

/// Decides what `packet`, which came in by the interface with index `interface`, gets, and rewrites it if it is
/// to be sent on.
#[inline(always)]
pub fn process<P: Packet, T: Tables<V4> + Tables<V6>>(
    packet: &mut P,
    tables: &T,
    interface: u32,
) -> Verdict {
    let decision = decide::<Whole, P, T>(packet, tables, interface);
    match decision.map_err(Part::after) {
        Err(Some(Part::Fragments)) => decide::<Fragments, P, T>(packet, tables, interface),
        Err(Some(Part::Errors)) => decide::<Errors, P, T>(packet, tables, interface),
        _ => decision,
    }
    .into()
}

/// What decides about packets of a kind. In the kernel each is a program of its own: one stack has no room for all.
pub trait Stage {
    /// The way of an IP packet whose network header is at `l3`.
    ///
    /// # Errors
    /// Why it is not sent on.
    fn forward<F: Family, P: Packet, T: Tables<F>>(
        packet: &mut P,
        tables: &T,
        interface: u32,
        l3: usize,
    ) -> Result<Way, Exit>;
}

/// Decides about whole packets of TCP and UDP, which are nearly all, and leaves others to a [`Part`].
#[derive(Debug)]
pub struct Whole;

/// The number of a stage that goes on with packets that [`Whole`] leaves to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Part {
    /// [`Fragments`].
    Fragments,
    /// [`Errors`].
    Errors,
}

impl Part {
    /// Each, by its number.
    pub const ALL: [Self; 2] = [Self::Fragments, Self::Errors];

    /// The one that goes on with a packet that got `exit` from [`Whole`].
    #[inline(always)]
    #[must_use]
    pub fn after(exit: Exit) -> Option<Self> {
        if exit == Pass::Fragment.into() {
            Some(Self::Fragments)
        } else if exit == Pass::OtherProtocol.into() {
            Some(Self::Errors)
        } else {
            None
        }
    }
}

/// What a packet gets from one stage, for an engine that has no use for the reason's name: a number is one word.
///
/// # Errors
/// Why the packet is not sent on.
#[inline(always)]
pub fn decide<S: Stage, P: Packet, T: Tables<V4> + Tables<V6>>(
    packet: &mut P,
    tables: &T,
    interface: u32,
) -> Result<Way, Exit> {
    let l2 = parse::ethernet(packet)?;
    match l2.ethertype {
        ethertype::IPV4 => S::forward::<V4, P, T>(packet, tables, interface, l2.l3),
        ethertype::IPV6 => S::forward::<V6, P, T>(packet, tables, interface, l2.l3),
        _ => Err(Pass::NotIp.into()),
    }
}

impl Stage for Whole {
    #[inline(always)]
    fn forward<F: Family, P: Packet, T: Tables<F>>(
        packet: &mut P,
        tables: &T,
        interface: u32,
        l3: usize,
    ) -> Result<Way, Exit> {
        let headers: Headers<F> = parse::headers(packet, l3)?;
        patient(tables, forward_known(packet, tables, interface, &headers))
    }
}

/// What a packet gets for which there is no way: somebody may wait for one.
#[inline(always)]
pub(crate) fn patient<F: Family, T: Tables<F>>(
    tables: &T,
    result: Result<Way, Exit>,
) -> Result<Way, Exit> {
    match result {
        Err(exit) if exit == Drop::NoNextHop.into() && takes(tables, Punt::NextHop) => {
            Err(Punt::NextHop.into())
        }
        result => result,
    }
}

/// Whether the slow path takes a packet.
#[inline(always)]
pub(crate) fn takes<F: Family, T: Tables<F>>(tables: &T, reason: Punt) -> bool {
    tables.offer(reason) == Reception::Taken
}

/// The way of a packet whose headers are known.
#[inline(always)]
pub(crate) fn forward_known<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    interface: u32,
    headers: &Headers<F>,
) -> Result<Way, Exit> {
    let flow = match find(tables, &headers.tuple) {
        Some(flow) if goes_on(packet, tables, flow, headers) => flow,
        _ => open(packet, tables, interface, headers)?,
    };
    let hop = next_hop(tables, interface, flow);
    if !hop.is_known() {
        return Err(Drop::NoNextHop.into());
    }
    if headers.length > SHORT && !tables.fits(hop.interface(), headers.length.into()) {
        return Err(too_big::<F, P, T>(packet, tables, headers.l3));
    }
    nat::rewrite(packet, headers, flow, &hop)?;
    flow.count(headers.length);
    tables.count_packet(flow.backend(), flow.is_reply(), headers.length);
    Ok(Way::by(&hop, interface))
}

/// Packets up to this length, from the network header on, fit every link (RFC 791, section 3.1, of what every host takes; the
/// least of IPv6 is 1,280).
pub(crate) const SHORT: u16 = 576;

/// What a packet gets that is too long for the next link: its sender is told (RFC 1191; RFC 8201), or it is cut.
#[inline(always)]
pub(crate) fn too_big<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    l3: usize,
) -> Exit {
    if F::may_be_cut(packet, l3) && takes(tables, Punt::TooBig) {
        Punt::TooBig.into()
    } else {
        Drop::TooBig.into()
    }
}

/// Advances a flow by a packet, and says whether the connection goes on.
#[inline(always)]
fn goes_on<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    flow: &Flow<F>,
    headers: &Headers<F>,
) -> bool {
    let now = tables.now();
    let meta = flow.meta();
    if is_settled(meta, now) && (!headers.is_tcp() || changes_nothing(packet, flow, meta, headers))
    {
        return true;
    }
    tables.touch(packet, flow, headers.l4, headers.end(), now) == Touched::Alive
}

/// Whether a segment of an established connection is one of those that nothing comes of, but that what it acknowledges is
/// noted.
#[inline(always)]
fn changes_nothing<F: Family, P: Packet>(
    packet: &P,
    flow: &Flow<F>,
    meta: Meta,
    headers: &Headers<F>,
) -> bool {
    // Read anew: kept from when it was parsed, it would take room that the stack has not.
    let Some(header) = packet.window::<{ tcp::LENGTH }>(headers.l4) else {
        return false;
    };
    state::is_settled(tcp::flags(header)) && flow.acknowledge(meta, tcp::acknowledgement(header))
}

/// No flow knows the packet: opens a connection if it is for a service.
#[inline(always)]
fn open<'a, F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &'a T,
    interface: u32,
    headers: &Headers<F>,
) -> Result<&'a Flow<F>, Exit> {
    let kinds = tables.kinds(headers.tuple.ports);
    if kinds == 0 {
        return Err(Pass::NoService.into());
    }
    let opening = Opening {
        kinds,
        back: Hop::back(interface, packet.window(0).ok_or(Drop::Truncated)?),
        segment: {
            let protocol = headers.tuple.ports.protocol();
            parse::segment_of(packet, protocol, headers.l4, headers.end())
        },
        tagged: headers.is_tagged(),
        expired: F::ttl(packet, headers.l3).ok_or(Drop::Truncated)? <= 1,
    };
    tables.open(headers.tuple, opening)?;
    Ok(find(tables, &headers.tuple).ok_or(Drop::NotReady)?)
}

/// Where a flow's packet goes; not known when there is no way.
///
/// To a backend there is one way for all its flows. For the way to a client the kernel is asked, once a flow, and again
/// when the daemon says that neighbours, links or routes have changed. Until it answers, the way is the one that the
/// client's first packet came.
#[inline(always)]
pub(crate) fn next_hop<F: Family, T: Tables<F>>(tables: &T, interface: u32, flow: &Flow<F>) -> Hop {
    if !flow.is_reply() {
        return tables.path(flow.backend()).unwrap_or_default().hop;
    }
    let id = flow.hop();
    let hop = tables.hop(id.number);
    if id.generation == tables.hop_generation() && hop.is_known() {
        return hop;
    }
    tables.ask(flow, interface)
}

/// Asks for the way to a client, and notes the answer. Without an answer what the flow has is as good as any.
#[inline(always)]
pub fn ask<F: Family, T: Tables<F>>(tables: &T, flow: &Flow<F>, interface: u32) -> Hop {
    let generation = tables.hop_generation();
    let answer = if flow.is_tagged() {
        None
    } else {
        tables.route(&flow.new_addresses(), interface)
    };
    let number = match &answer {
        Some(hop) => hop::note(tables, hop),
        None => flow.hop().number,
    };
    flow.set_hop(HopId { number, generation });
    answer.unwrap_or_else(|| tables.hop(number))
}
