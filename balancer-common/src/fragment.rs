//! Fragments: each follows the first of its datagram, in order.
//!
//! Only the first fragment has the ports (RFC 791, section 3.2; RFC 8200, section 4.5). It goes the way of any packet, and
//! what it got is noted; the others get the same by their datagram's addresses and identification. They go on in the order
//! of their offsets only: one that comes early is handed to the slow path, which waits for the one before it; one
//! that begins before the end of what went on already overlaps it, and is dropped (RFC 5722; RFC 1858). So the receiver
//! gets each byte once.
//!
//! A datagram is forgotten some time after its first fragment, or when many others have come since: a flood of fragments
//! makes others' fragments lost, and nothing else.

use crate::family::{Family, V4, V6};
use crate::packet::Packet;
use crate::parse::{self, Headers};
use crate::pipeline::{SHORT, Stage, forward_known, next_hop, patient, too_big};
use crate::table::find;
use crate::table::tick::Tick;
use crate::tables::{Reception, Tables};
use crate::tuple::{PortsProtocol, Tuple};
use crate::verdict::{Drop, Exit, Pass, Punt, Way};
use crate::wire::ETHERNET;

/// Which datagram a fragment is of. RFC 791, section 3.2, takes the protocol to it, RFC 8200, section 4.5, does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Key<F: Family> {
    /// Source and destination.
    pub addresses: F::Pair,
    /// The identification, as loaded.
    pub identification: u32,
    /// The protocol; 0 for IPv6.
    pub protocol: u32,
}

/// A datagram whose first fragment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Datagram<F: Family> {
    /// The tuple of its flow.
    pub tuple: Tuple<F>,
    /// What the first fragment got: the number of a counter.
    pub fate: u32,
    /// When that was.
    pub since: Tick,
    /// Up to where its data has gone on, in bytes; and [`COMPLETE`].
    pub progress: u64,
}

/// In [`Datagram::progress`]: the last fragment has gone on too.
pub const COMPLETE: u64 = 1 << 32;

impl<F: Family> Datagram<F> {
    /// Up to where its data has gone on, in bytes.
    #[inline(always)]
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.progress as u32
    }

    /// Whether nothing of it is missing.
    #[inline(always)]
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.progress & COMPLETE != 0
    }

    /// Whether it is too old to be the one of a fragment that comes now.
    #[inline(always)]
    #[must_use]
    pub const fn is_stale(&self, now: Tick, timeout: u32) -> bool {
        now.units_since(self.since) >= timeout
    }
}

const _: () = {
    assert!(size_of::<Key<V4>>() == 16 && size_of::<Datagram<V4>>() == 32);
    assert!(size_of::<Key<V6>>() == 40 && size_of::<Datagram<V6>>() == 56);
};

/// A fragment, as its headers say.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Fragment<F: Family> {
    /// Of which datagram.
    pub key: Key<F>,
    /// Where its data begins in the datagram's, in bytes.
    pub start: u32,
    /// Whether more is to come behind it.
    pub more: bool,
    /// Where its data begins in the frame.
    pub data: usize,
    /// How long that is, in bytes.
    pub length: u16,
    /// The protocol of the data, when it is the first.
    pub protocol: u8,
    /// The packet's length from the network header on, in bytes.
    pub total: u16,
}

/// Room for what is known of a fragment, where the stack has none.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Room<F: Family> {
    fragment: Fragment<F>,
    datagram: Datagram<F>,
}

impl<F: Family> Room<F> {
    /// Empty.
    pub const NONE: Self = Self {
        fragment: Fragment {
            key: Key {
                addresses: F::NO_PAIR,
                identification: 0,
                protocol: 0,
            },
            start: 0,
            more: false,
            data: 0,
            length: 0,
            protocol: 0,
            total: 0,
        },
        datagram: Datagram {
            tuple: Tuple {
                addresses: F::NO_PAIR,
                ports: PortsProtocol(0),
            },
            fate: 0,
            since: Tick(0),
            progress: 0,
        },
    };
}

impl<F: Family> Fragment<F> {
    /// Where its data ends in the datagram's.
    #[inline(always)]
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.start + self.length as u32
    }

    /// Whether no datagram can have it: of all but the last the length is a multiple of 8, and the whole has at most
    /// 65,535 bytes.
    #[inline(always)]
    const fn is_bad(&self) -> bool {
        self.length == 0 || self.more && self.length & 7 != 0 || self.end() > u16::MAX as u32
    }
}

/// Decides about packets of which [`Whole`](crate::pipeline::Whole) has said that they are fragments.
#[derive(Debug)]
pub struct Fragments;

impl Stage for Fragments {
    #[inline(always)]
    fn forward<F: Family, P: Packet, T: Tables<F>>(
        packet: &mut P,
        tables: &T,
        interface: u32,
        l3: usize,
    ) -> Result<Way, Exit> {
        tables.forward_fragment(packet, interface, l3)
    }
}

/// The way of a fragment whose network header is at `l3`.
///
/// # Errors
/// Why it is not sent on.
#[inline(always)]
pub fn forward<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    interface: u32,
    l3: usize,
    Room { fragment, datagram }: &mut Room<F>,
) -> Result<Way, Exit> {
    *fragment = F::fragment(packet, l3)?;
    if fragment.is_bad() {
        return Err(Drop::BadFragment.into());
    }
    let now = tables.now();
    let is_known = match tables.datagram(&fragment.key) {
        Some(known) => {
            *datagram = known;
            !known.is_stale(now, tables.fragment_timeout())
        }
        None => false,
    };
    if fragment.start > 0 {
        if !is_known {
            // It may be the kernel's; whose it is the first will show.
            return Err(early(tables, Pass::Fragment.into()));
        }
        let result = follow(packet, tables, interface, l3, fragment, datagram);
        return patient(tables, result);
    }
    // Of one that went to the kernel, or nowhere, the others are not followed: it may be complete.
    if is_known && Way::is_counter(datagram.fate) && !datagram.is_complete() {
        return Err(Drop::FragmentOverlap.into());
    }
    *datagram = Datagram {
        tuple: Tuple {
            addresses: fragment.key.addresses,
            ports: PortsProtocol(0),
        },
        fate: 0,
        since: now,
        progress: fragment.end().into(),
    };
    let result = first(packet, tables, interface, l3, fragment, &mut datagram.tuple);
    datagram.fate = match result {
        Ok(way) => way.counter() as u32,
        // It will come again.
        Err(exit) if exit.is_punt() => return result,
        Err(exit) => exit.counter() as u32,
    };
    tables.note_datagram(&fragment.key, datagram);
    result
}

/// The first fragment: it goes the way of a whole packet. Gives its tuple too.
#[inline(always)]
fn first<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    interface: u32,
    l3: usize,
    fragment: &Fragment<F>,
    tuple: &mut Tuple<F>,
) -> Result<Way, Exit> {
    let headers: Headers<F> = parse::first_fragment(packet, l3, fragment)?;
    *tuple = headers.tuple;
    patient(tables, forward_known(packet, tables, interface, &headers))
}

/// One of the others.
#[inline(always)]
fn follow<F: Family, P: Packet, T: Tables<F>>(
    packet: &mut P,
    tables: &T,
    interface: u32,
    l3: usize,
    fragment: &Fragment<F>,
    datagram: &Datagram<F>,
) -> Result<Way, Exit> {
    if Way::is_counter(datagram.fate) {
        if fragment.start < datagram.end() {
            return Err(Drop::FragmentOverlap.into());
        }
        // Behind the last one there is none: it is of another with the same identification.
        if datagram.is_complete() {
            return Err(early(tables, Pass::Fragment.into()));
        }
        if fragment.start > datagram.end() {
            return Err(early(tables, Drop::FragmentOrphan.into()));
        }
    } else if Exit::of_counter(datagram.fate).is_drop() {
        return Err(Drop::FragmentOrphan.into());
    } else {
        return Err(Pass::Fragment.into());
    }
    let flow = find(tables, &datagram.tuple).ok_or(Drop::FragmentOrphan)?;
    let hop = next_hop(tables, interface, flow);
    if !hop.is_known() {
        return Err(Drop::NoNextHop.into());
    }
    if fragment.total > SHORT && !tables.fits(hop.interface(), fragment.total.into()) {
        return Err(too_big::<F, P, T>(packet, tables, l3));
    }
    if F::ttl(packet, l3).ok_or(Drop::Truncated)? <= 1 {
        return Err(Drop::TtlExceeded.into());
    }
    // Another CPU may have one that begins where this does: one of them goes on.
    let progress = u64::from(fragment.end()) | if fragment.more { 0 } else { COMPLETE };
    if !tables.advance_datagram(&fragment.key, datagram.progress, progress) {
        return Err(Drop::FragmentOverlap.into());
    }
    let (_, delta, _) = flow.new_ports();
    F::rewrite(packet, l3, &flow.new_addresses(), delta)?;
    hop.write(packet.window_mut::<ETHERNET>(0).ok_or(Drop::Truncated)?);
    flow.count(fragment.total);
    tables.count_packet(flow.backend(), flow.is_reply(), fragment.total);
    Ok(Way::by(&hop, interface))
}

/// A fragment that comes before its time.
#[inline(always)]
fn early<F: Family, T: Tables<F>>(tables: &T, without: Exit) -> Exit {
    match tables.offer(Punt::Fragment) {
        Reception::Taken => Punt::Fragment.into(),
        // Neither the kernel is to have what is too much for the daemon.
        Reception::Full => Drop::FragmentOrphan.into(),
        Reception::Nobody => without,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_known_until_its_time_is_over() {
        let datagram = Datagram {
            since: Tick(u32::MAX),
            ..Room::<V4>::NONE.datagram
        };
        for (now, is_stale) in [(u32::MAX, false), (98, false), (99, true), (1 << 30, true)] {
            assert_eq!(datagram.is_stale(Tick(now), 100), is_stale, "{now}");
        }
    }

    #[test]
    fn a_datagram_ends_within_16_bits() {
        for (start, length, more, is_bad) in [
            (0xfff8, 7, false, false),
            (0xfff8, 8, false, true),
            (0xfff0, 8, true, false),
            (8, 7, false, false),
            (8, 7, true, true),
            (8, 0, false, true),
        ] {
            let fragment = Fragment {
                start,
                more,
                length,
                ..Room::<V4>::NONE.fragment
            };
            assert_eq!(fragment.is_bad(), is_bad, "{fragment:?}");
        }
    }
}
