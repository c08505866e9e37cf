//! Opening a connection: choosing a backend and entering both its flows.

use crate::family::Family;
use crate::hop::{self, Hop};
use crate::image::{self, Service, SourceNat};
use crate::screen;
use crate::table;
use crate::table::enter::{Connection, Refused, SourcePorts};
use crate::table::flow::HopId;
use crate::table::segment::Segment;
use crate::table::state::is_opening;
use crate::tables::Tables;
use crate::tuple::{PortsProtocol, Tuple};
use crate::verdict::{Drop, Exit, Pass};

/// A packet that no flow knows, beside its tuple.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// The way that it came.
    pub back: Hop,
    /// The kinds of listeners that its port may have: see [`crate::ports`].
    pub kinds: u32,
    /// It as a segment.
    pub segment: Segment,
    /// Whether it was VLAN-tagged.
    pub tagged: bool,
    /// Whether its TTL ends here.
    pub expired: bool,
}

/// Opens a connection if the packet is for a service; `connection` has its tuple, and room for the rest.
///
/// # Errors
/// What the packet gets instead. When another CPU opened the same connection meanwhile that is no error.
#[inline(always)]
pub fn open<F: Family, T: Tables<F>>(
    tables: &T,
    opening: &Opening,
    connection: &mut Connection<F>,
) -> Result<(), Exit> {
    tables.plan(opening, connection)?;
    match tables.enter(connection) {
        Err(exit) if exit == Drop::PortsExhausted.into() => {}
        result => return result,
    }
    let result = match tables.search_port(connection) {
        Ok(()) => tables.enter(connection),
        refused => refused,
    };
    if let Err(exit) = result
        && exit == Drop::PortsExhausted.into()
    {
        tables.count_refused(connection.service.into(), Drop::PortsExhausted);
    }
    result
}

/// Decides what connection a packet opens: finds the service and chooses a backend.
///
/// # Errors
/// What the packet gets instead.
#[inline(always)]
pub fn plan<F: Family, T: Tables<F>>(
    tables: &T,
    opening: &Opening,
    connection: &mut Connection<F>,
) -> Result<(), Exit> {
    let image = tables.image().ok_or(Pass::NoService)?;
    let interface = opening.back.interface();
    let service =
        image::find(&image, &connection.tuple, interface, opening.kinds).ok_or(Pass::NoService)?;
    if !is_opening(connection.tuple.ports.protocol(), opening.segment.flags()) {
        return Err(Drop::NoConnection.into());
    }
    // It will not be sent on, so it must not take a turn, a port and room: a traceroute to a service would.
    if opening.expired {
        return Err(Drop::TtlExceeded.into());
    }
    if !screen::passes(tables, &connection.tuple, opening.segment.sequence()) {
        return Err(Drop::FirstPacket.into());
    }
    let service = image::service(&image, service).ok_or(Drop::NotReady)?;
    plan_for(tables, &image, &service, opening, connection).map_err(|reason| {
        tables.count_refused(service.id, reason);
        reason.into()
    })
}

#[inline(always)]
fn plan_for<F: Family, T: Tables<F>>(
    tables: &T,
    image: &T::Image,
    service: &Service,
    opening: &Opening,
    connection: &mut Connection<F>,
) -> Result<(), Drop> {
    let backend = image::choose(
        image,
        service,
        || tables.ticket(service.id),
        || tables.random(),
    )
    .ok_or(Drop::NoBackend)?;
    let path = tables.path(backend.id).ok_or(Drop::NotReady)?;
    if !path.hop.is_known() {
        return Err(Drop::NoNextHop);
    }
    let Tuple { addresses, ports } = connection.tuple;
    let source_ports = match service.source_nat {
        SourceNat::None => SourcePorts::NONE,
        _ => SourcePorts {
            first: service.first_port,
            last: service.last_port,
        },
    };
    let source = match service.source_nat {
        SourceNat::None => F::source(addresses),
        SourceNat::Masquerade => F::unmapped(path.source),
        SourceNat::Address => F::unmapped(service.source),
    };
    // The client's own port, if it is within bounds.
    let port = match ports.source() {
        port if source_ports.allow(port) => port,
        _ => source_ports.any(tables.random(), 0),
    };
    let backend_port = match backend.port {
        0 => ports.destination(),
        port => port,
    };
    // One by one: a loop over bytes would copy the tuple, were it all written at once.
    connection.reply = Tuple {
        addresses: F::pair(F::unmapped(backend.address), source),
        ports: PortsProtocol::new(backend_port, port, ports.protocol()),
    };
    connection.source_ports = source_ports;
    connection.service = service.id as u16;
    connection.backend = backend.id as u16;
    connection.tagged = opening.tagged;
    connection.back = HopId {
        number: hop::note(tables, &opening.back),
        // Of none: the kernel is asked for the way to the client when the backend answers.
        generation: tables.hop_generation().wrapping_sub(1),
    };
    connection.segment = opening.segment;
    connection.now = tables.now();
    Ok(())
}

/// Enters the connection that was decided on.
///
/// # Errors
/// What the packet gets instead.
#[inline(always)]
pub fn enter<F: Family, T: Tables<F>>(
    tables: &T,
    connection: &mut Connection<F>,
) -> Result<(), Exit> {
    let reason = match table::enter::enter(tables, connection, || tables.random()) {
        Ok(()) => {
            tables.count_connection(connection.backend.into());
            return Ok(());
        }
        // Another CPU was first: one backend, one pair. (Of nth, a ticket is then lost.)
        Err(Refused::Exists) => return Ok(()),
        Err(Refused::Full) => Drop::TableFull,
        Err(Refused::HalfOpenFull) => Drop::HalfOpenFull,
        Err(Refused::Taken) if connection.source_ports == SourcePorts::NONE => Drop::TupleInUse,
        // Not before every port was looked at.
        Err(Refused::Taken) => return Err(Drop::PortsExhausted.into()),
        Err(Refused::Busy) => Drop::Contended,
    };
    tables.count_refused(connection.service.into(), reason);
    Err(reason.into())
}
