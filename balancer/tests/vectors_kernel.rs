//! The table of packet vectors, on both engines: the compiled program does what the table says, and what the pipeline
//! in user space does, byte for byte.
//!
//! Needs root.

mod support;
mod table;

use balancer::config::FlowLookup;
use balancer::datapath::kernel::Sizes;
use support::engines::Engines;
use support::place::in_the_box;
use support::properties;
use support::vector::run_all;

/// However the compiled program finds its flows.
const LOOKUPS: [FlowLookup; 2] = [FlowLookup::Table, FlowLookup::Hash];

fn engines(lookup: FlowLookup) -> Engines {
    Engines::both(Sizes {
        connections: 2 * table::HALF_OPEN,
        half_open: table::HALF_OPEN,
        lookup,
    })
}

#[test]
fn every_vector_holds_on_both_engines() {
    for lookup in LOOKUPS {
        in_the_box("vectors", || run_all(&table::all(), &mut engines(lookup)));
    }
}

#[test]
fn what_holds_of_many_frames_holds_in_the_kernel() {
    for lookup in LOOKUPS {
        in_the_box("properties", || {
            let mut engines = engines(lookup);
            let run: properties::Run =
                |engines, interface, frame| engines.run_in_kernel(interface, frame).1;
            properties::no_tuple_is_given_twice(&mut engines, run);
            properties::every_port_is_found(&mut engines, run);
            properties::random_gives_each_its_share(&mut engines, run);
        });
    }
}
