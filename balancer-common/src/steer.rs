//! What of the traffic is for the whole pipeline, where that runs elsewhere: with engine `userspace` a small program hands it to
//! the daemon, and decides about the rest as the pipeline would.

use crate::family::{Family, V4, V6};
use crate::icmp;
use crate::image;
use crate::packet::Packet;
use crate::parse::{self, Headers};
use crate::table::find;
use crate::tables::Tables;
use crate::verdict::{Exit, Pass};
use crate::wire::ethertype;

/// Why a packet is for the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is of a connection, or an error about one.
    Connection,
    /// It may open one.
    Opening,
    /// Only the pipeline knows whose fragment it is.
    Fragment,
}

/// Whether, and why, a packet is for the pipeline that came in by the interface with index `interface`.
///
/// # Errors
/// What the pipeline would say of it, if it is not.
#[inline(always)]
pub fn wants<P: Packet, T: Tables<V4> + Tables<V6>>(
    packet: &P,
    tables: &T,
    interface: u32,
) -> Result<Claim, Exit> {
    let l2 = parse::ethernet(packet)?;
    match l2.ethertype {
        ethertype::IPV4 => wants_ip::<V4, P, T>(packet, tables, interface, l2.l3),
        ethertype::IPV6 => wants_ip::<V6, P, T>(packet, tables, interface, l2.l3),
        _ => Err(Pass::NotIp.into()),
    }
}

#[inline(always)]
fn wants_ip<F: Family, P: Packet, T: Tables<F>>(
    packet: &P,
    tables: &T,
    interface: u32,
    l3: usize,
) -> Result<Claim, Exit> {
    let headers: Headers<F> = match parse::headers(packet, l3) {
        Ok(headers) => headers,
        Err(exit) if exit == Pass::Fragment.into() => return Ok(Claim::Fragment),
        Err(exit) if exit == Pass::OtherProtocol.into() => {
            let tuple = icmp::quoted_flow::<F, P>(packet, l3)?;
            let flow = find(tables, &tuple);
            return flow.map(|_| Claim::Connection).ok_or(exit);
        }
        Err(exit) => return Err(exit),
    };
    if find(tables, &headers.tuple).is_some() {
        return Ok(Claim::Connection);
    }
    let kinds = tables.kinds(headers.tuple.ports);
    if kinds == 0 {
        return Err(Pass::NoService.into());
    }
    let image = tables.image().ok_or(Pass::NoService)?;
    let service = image::find(&image, &headers.tuple, interface, kinds);
    service
        .map(|_| Claim::Opening)
        .ok_or(Pass::NoService.into())
}
