//! Rewriting a packet as its flow says.

use crate::checksum;
use crate::family::Family;
use crate::hop::Hop;
use crate::packet::Packet;
use crate::parse::Headers;
use crate::table::flow::Flow;
use crate::verdict::{Drop, Exit};
use crate::wire::{protocol, put, tcp, u16_at, udp};

/// Rewrites addresses, ports, TTL, checksums and MAC addresses in place.
///
/// # Errors
/// [`Drop::TtlExceeded`]; the packet is as it was. [`Drop::Truncated`] cannot happen to a packet that was parsed.
#[inline(always)]
pub fn rewrite<F: Family, P: Packet>(
    packet: &mut P,
    headers: &Headers<F>,
    flow: &Flow<F>,
    hop: &Hop,
) -> Result<(), Exit> {
    let (ports, l3_delta, l4_delta) = flow.new_ports();
    F::rewrite(packet, headers.l3, &flow.new_addresses(), l3_delta)?;
    let ports = ports.to_ne_bytes();
    if headers.tuple.ports.protocol() == protocol::TCP {
        let header: &mut [u8; tcp::LENGTH] =
            packet.window_mut(headers.l4).ok_or(Drop::Truncated)?;
        put(header, 0, ports);
        let sum = checksum::update(u16_at(header, tcp::CHECKSUM), l4_delta);
        put(header, tcp::CHECKSUM, sum.to_ne_bytes());
    } else {
        let header: &mut [u8; udp::LENGTH] =
            packet.window_mut(headers.l4).ok_or(Drop::Truncated)?;
        put(header, 0, ports);
        let sum = checksum::update_udp(u16_at(header, udp::CHECKSUM), l4_delta);
        put(header, udp::CHECKSUM, sum.to_ne_bytes());
    }
    hop.write(packet.window_mut(0).ok_or(Drop::Truncated)?);
    Ok(())
}
