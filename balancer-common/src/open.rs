//! Opening a connection: choosing a backend and claiming both tuples.
//!
//! # The claim
//! The reply tuple is entered first, only if free: that reserves the source port. Then the original tuple, only
//! if free: that decides between two CPUs which both got a first packet of the connection. What was entered is
//! taken back when a later step fails, so at rest both are there or neither.
//!
//! - *Two CPUs, one new connection.* Both may choose a backend and reserve a port; one enters the original tuple.
//!   The other takes its reply tuple back and goes on with the winner's flow: one backend, one pair. (Of nth, a
//!   ticket is then lost.) With the same source port wanted by both, the loser of the reply tuple takes another
//!   port and fails at the original tuple.
//! - *A reply before the original tuple is in.* There is none: the packet that it would answer has not left.
//! - *The half-open count.* It is entered under the original tuple before the pair. A loser finds it there, knows
//!   that it is not its own, and leaves it. One left behind by a connection that is gone is taken over by the
//!   next connection of that tuple; the daemon's sweeper removes those that nobody takes over.

use crate::abi::Path;
use crate::family::Family;
use crate::flow::{self, Flow, State};
use crate::hop::Hop;
use crate::image::{self, Backend, Service, SourceNat};
use crate::tables::{Refused, Tables};
use crate::tuple::{PortsProtocol, Tuple};
use crate::verdict::{Drop, Exit, Pass};

/// How many source ports are tried.
const PORT_TRIES: u32 = 8;

/// A packet that no flow knows.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Opening<F: Family> {
    /// Its tuple.
    pub tuple: Tuple<F>,
    /// The way that it came.
    pub back: Hop,
    /// TCP's control bits; 0 for UDP.
    pub flags: u8,
    /// Whether it was VLAN-tagged.
    pub tagged: bool,
    /// Whether its TTL ends here.
    pub expired: bool,
}

/// Opens a connection if the packet is for a service.
///
/// # Errors
/// What the packet gets instead. When another CPU opened the same connection meanwhile that is no error.
#[inline(always)]
pub fn open<F: Family, T: Tables<F>>(tables: &T, opening: &Opening<F>) -> Result<(), Exit> {
    let image = tables.image().ok_or(Pass::NoService)?;
    let interface = opening.back.interface();
    let service = image::find(&image, &opening.tuple, interface).ok_or(Pass::NoService)?;
    if !flow::is_opening(opening.tuple.ports.protocol(), opening.flags) {
        return Err(Drop::NoConnection.into());
    }
    // It will not be sent on, so it must not take a turn, a port and room: a traceroute to a service would.
    if opening.expired {
        return Err(Drop::TtlExceeded.into());
    }
    let service = image::service(&image, service).ok_or(Drop::NotReady)?;
    claim(tables, &image, &service, opening).map_err(|reason| {
        tables.count_refused(service.id, reason);
        reason.into()
    })
}

#[inline(always)]
fn claim<F: Family, T: Tables<F>>(
    tables: &T,
    image: &T::Image,
    service: &Service,
    opening: &Opening<F>,
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
    let counted_in = match tables.enter_half_open(&opening.tuple) {
        Ok(()) => true,
        Err(Refused::Exists) => false,
        Err(Refused::Full) => return Err(Drop::HalfOpenFull),
    };
    let result = claim_pair(tables, service, opening, &backend, &path);
    if let Err(reason) = result {
        if counted_in {
            tables.remove_half_open(&opening.tuple);
        }
        return reason.map_or(Ok(()), Err);
    }
    tables.count_connection(backend.id);
    Ok(())
}

/// `Err(None)`: another CPU was first.
#[inline(always)]
fn claim_pair<F: Family, T: Tables<F>>(
    tables: &T,
    service: &Service,
    opening: &Opening<F>,
    backend: &Backend,
    path: &Path,
) -> Result<(), Option<Drop>> {
    let original = &opening.tuple;
    let tagged = if opening.tagged { State::TAGGED } else { 0 };
    let now = tables.now();
    let client = F::source(original.addresses);
    let source = match service.source_nat {
        SourceNat::None => client,
        SourceNat::Masquerade => F::unmapped(path.source),
        SourceNat::Address => F::unmapped(service.source),
    };
    let protocol = original.ports.protocol();
    let backend_port = if backend.port == 0 {
        original.ports.destination()
    } else {
        backend.port
    };
    let span = u32::from(service.last_port - service.first_port) + 1;
    let any_port =
        || service.first_port + ((u64::from(tables.random()) * u64::from(span)) >> 32) as u16;
    let translates = service.source_nat != SourceNat::None;
    let mut port = original.ports.source();
    if translates && (port < service.first_port || port > service.last_port) {
        port = any_port();
    }
    let mut reply = Tuple {
        addresses: F::pair(F::unmapped(backend.address), source),
        ports: PortsProtocol::new(backend_port, port, protocol),
    };
    let mut tries = 0;
    loop {
        let state = State::REPLY | tagged;
        let flow = Flow::new(
            &reply,
            original.reversed(),
            opening.back,
            state,
            backend.id,
            now,
        );
        match tables.enter(&reply, flow) {
            Ok(()) => break,
            Err(Refused::Full) => return Err(Some(Drop::TableFull)),
            Err(Refused::Exists) if !translates => {
                // Another CPU may have opened this very connection.
                return Err(tables.flow(original).is_none().then_some(Drop::TupleInUse));
            }
            Err(Refused::Exists) => {}
        }
        tries += 1;
        if tries == PORT_TRIES {
            return Err(Some(Drop::PortsExhausted));
        }
        reply.ports = PortsProtocol::new(backend_port, any_port(), protocol);
    }
    let flow = Flow::new(
        original,
        reply.reversed(),
        path.hop,
        tagged,
        backend.id,
        now,
    );
    match tables.enter(original, flow) {
        Ok(()) => Ok(()),
        Err(refused) => {
            tables.remove(&reply);
            Err(match refused {
                Refused::Exists => None,
                Refused::Full => Some(Drop::TableFull),
            })
        }
    }
}
