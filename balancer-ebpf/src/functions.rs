//! The parts of the pipeline that are functions of their own, for each family.
//!
//! Global functions: the verifier proves each once and for all, not anew for each way that leads to it. It knows nothing of the
//! arguments then, not even that a pointer points to something.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use balancer_common::family::{Family, V4, V6};
use balancer_common::hop::Hop;
use balancer_common::open::{self, Opening};
use balancer_common::parse;
use balancer_common::pipeline;
use balancer_common::search;
use balancer_common::table;
use balancer_common::table::enter::{self, Connection, Refused};
use balancer_common::table::flow::Flow;
use balancer_common::table::segment::{self, Advanced, Segment, Side};
use balancer_common::table::tick::Tick;
use balancer_common::table::touch::{self, Touched};
use balancer_common::tuple::Tuple;
use balancer_common::verdict::{Drop, Exit};

use crate::maps::Maps;
use crate::packet::{Frame, opaque};

/// A family's functions.
pub trait Functions: Family {
    /// [`open::plan`].
    fn plan(opening: &Opening, connection: &mut Connection<Self>) -> Result<(), Exit>;
    /// [`open::enter`].
    fn enter(connection: &mut Connection<Self>) -> Result<(), Exit>;
    /// [`search::ask`].
    fn search_port(context: *mut c_void, connection: &mut Connection<Self>) -> Result<(), Exit>;
    /// [`pipeline::ask`].
    fn ask(context: *mut c_void, flow: &Flow<Self>, interface: u32) -> Hop;
    /// [`Tables::touch`].
    fn touch(
        context: *mut c_void,
        flow: &Flow<Self>,
        start: usize,
        end: usize,
        now: Tick,
    ) -> Touched;
    /// [`touch::try_touch`].
    fn try_touch(flow: &Flow<Self>, segment: Segment, now: Tick) -> Touched;
    /// [`table::find_displaced`].
    fn find_displaced(tuple: &Tuple<Self>, home: u32, places: u32) -> Option<u32>;
    /// [`enter::give_way`].
    fn give_way(old: &Flow<Self>) -> bool;
    /// [`enter::claim`].
    fn claim(home: u32) -> Option<u32>;
    /// [`enter::enter_pair`].
    fn enter_pair(connection: &Connection<Self>, place: u32) -> Result<(), Refused>;
}

/// The maps where there is no packet.
const MAPS: Maps = Maps {
    context: ptr::null_mut(),
};

macro_rules! functions {
    ($family:ident: $plan:ident, $enter:ident, $search_port:ident, $ask:ident, $touch:ident, $try_touch:ident, $find_displaced:ident, $give_way:ident, $claim:ident, $enter_pair:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $plan(opening: *const Opening, connection: *mut Connection<$family>) -> u32 {
            // SAFETY: null, or what a caller of this program has as references.
            let arguments = unsafe { (opening.as_ref(), connection.as_mut()) };
            Exit::encode(match arguments {
                (Some(opening), Some(connection)) => open::plan(&MAPS, opening, connection),
                _ => Err(Drop::NotReady.into()),
            })
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $enter(connection: *mut Connection<$family>) -> u32 {
            // SAFETY: as above.
            Exit::encode(match unsafe { connection.as_mut() } {
                Some(connection) => open::enter(&MAPS, connection),
                None => Err(Drop::NotReady.into()),
            })
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $search_port(
            context: *mut xdp_md,
            connection: *mut Connection<$family>,
        ) -> u32 {
            let maps = Maps {
                context: context.cast(),
            };
            // SAFETY: as above.
            Exit::encode(match unsafe { connection.as_mut() } {
                Some(connection) => search::ask(&maps, connection),
                None => Err(Drop::NotReady.into()),
            })
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $ask(
            context: *mut xdp_md,
            flow: *const Flow<$family>,
            interface: u32,
            hop: *mut Hop,
        ) -> u32 {
            let maps = Maps {
                context: context.cast(),
            };
            // SAFETY: as above.
            if let (Some(flow), Some(hop)) = unsafe { (flow.as_ref(), hop.as_mut()) } {
                *hop = pipeline::ask(&maps, flow, interface);
            }
            0
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $touch(
            context: *mut xdp_md,
            flow: *const Flow<$family>,
            start: u32,
            end: u32,
            now: u32,
        ) -> u32 {
            let frame = Frame::new(&XdpContext::new(context));
            // SAFETY: as above.
            match unsafe { flow.as_ref() } {
                Some(flow) => {
                    let (start, end) = (start as usize & 0x7fff, end as usize);
                    let segment = parse::segment_of(&frame, flow.protocol(), start, end);
                    touch::touch(&MAPS, flow, segment, Tick(now)) as u32
                }
                None => Touched::Gone as u32,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $try_touch(
            flow: *const Flow<$family>,
            now: u32,
            segment: u64,
            acknowledgement: u32,
        ) -> u32 {
            let segment = Segment::from_word(segment, acknowledgement);
            // SAFETY: as above.
            match unsafe { flow.as_ref() } {
                Some(flow) => touch::try_touch(&MAPS, flow, segment, Tick(now)) as u32,
                None => Touched::Gone as u32,
            }
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $find_displaced(tuple: *const Tuple<$family>, home: u32, places: u32) -> u32 {
            // SAFETY: as above.
            let tuple = unsafe { tuple.as_ref() };
            let index = tuple.and_then(|tuple| table::find_displaced(&MAPS, tuple, home, places));
            index.unwrap_or(NONE)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $give_way(old: *const Flow<$family>) -> u32 {
            // SAFETY: as above.
            let old = unsafe { old.as_ref() };
            old.is_some_and(|old| enter::give_way(&MAPS, old)).into()
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $claim(home: u32) -> u32 {
            enter::claim::<$family, _>(&MAPS, home).unwrap_or(NONE)
        }

        #[unsafe(no_mangle)]
        #[inline(never)]
        extern "C" fn $enter_pair(connection: *const Connection<$family>, place: u32) -> u32 {
            // SAFETY: as above.
            Refused::encode(match unsafe { connection.as_ref() } {
                Some(connection) => enter::enter_pair(&MAPS, connection, place),
                None => Err(Refused::Full),
            })
        }

        impl Functions for $family {
            #[inline(always)]
            fn plan(opening: &Opening, connection: &mut Connection<Self>) -> Result<(), Exit> {
                Exit::decode(unknown($plan(opening, connection)))
            }

            #[inline(always)]
            fn enter(connection: &mut Connection<Self>) -> Result<(), Exit> {
                Exit::decode(unknown($enter(connection)))
            }

            #[inline(always)]
            fn search_port(
                context: *mut c_void,
                connection: &mut Connection<Self>,
            ) -> Result<(), Exit> {
                Exit::decode(unknown($search_port(context.cast(), connection)))
            }

            #[inline(always)]
            fn ask(context: *mut c_void, flow: &Flow<Self>, interface: u32) -> Hop {
                let mut hop = Hop::default();
                $ask(context.cast(), flow, interface, &raw mut hop);
                hop
            }

            #[inline(always)]
            fn touch(
                context: *mut c_void,
                flow: &Flow<Self>,
                start: usize,
                end: usize,
                now: Tick,
            ) -> Touched {
                let touched = $touch(context.cast(), flow, start as u32, end as u32, now.0);
                Touched::decode(unknown(touched))
            }

            #[inline(always)]
            fn try_touch(flow: &Flow<Self>, segment: Segment, now: Tick) -> Touched {
                let touched = $try_touch(flow, now.0, segment.to_word(), segment.acknowledgement);
                Touched::decode(unknown(touched))
            }

            #[inline(always)]
            fn find_displaced(tuple: &Tuple<Self>, home: u32, places: u32) -> Option<u32> {
                some(unknown($find_displaced(tuple, home, places)))
            }

            #[inline(always)]
            fn give_way(old: &Flow<Self>) -> bool {
                unknown($give_way(old)) != 0
            }

            #[inline(always)]
            fn claim(home: u32) -> Option<u32> {
                some(unknown($claim(home)))
            }

            #[inline(always)]
            fn enter_pair(connection: &Connection<Self>, place: u32) -> Result<(), Refused> {
                Refused::decode(unknown($enter_pair(connection, place)))
            }
        }
    };
}

functions!(V4: plan_v4, enter_v4, search_port_v4, ask_v4, touch_v4, try_touch_v4, find_displaced_v4, give_way_v4, claim_v4, enter_pair_v4);
functions!(V6: plan_v6, enter_v6, search_port_v6, ask_v6, touch_v6, try_touch_v6, find_displaced_v6, give_way_v6, claim_v6, enter_pair_v6);

/// [`segment::advance`], a global function like these.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn advance(reply: u32, own: u64, peer: u64, segment: u64, acknowledgement: u32) -> u64 {
    let (own, peer) = (Side::from_word(own), Side::from_word(peer));
    let segment = Segment::from_word(segment, acknowledgement);
    Advanced::encode(segment::advance(reply != 0, own, peer, segment))
}

/// The same, called.
#[inline(always)]
pub fn advance_by_words(reply: bool, own: Side, peer: Side, segment: Segment) -> Option<Advanced> {
    let (own, peer, ack) = (own.to_word(), peer.to_word(), segment.acknowledgement);
    let advanced = advance(reply.into(), own, peer, segment.to_word(), ack);
    Advanced::decode(opaque(advanced as usize) as u64)
}

/// No number, of functions that give one.
const NONE: u32 = u32::MAX;

#[inline(always)]
fn some(number: u32) -> Option<u32> {
    (number != NONE).then_some(number)
}

/// What a global function returned. The compiler, which sees more of it than the verifier does, would leave out checks that
/// the verifier wants to see.
#[inline(always)]
fn unknown(word: u32) -> u32 {
    opaque(word as usize) as u32
}
