//! A box so small and so forgetful that a short life meets all its bounds.

use std::sync::atomic::Ordering;
use std::time::Duration;

use balancer::config::{FlowLookup, Timeouts};
use balancer::datapath::flows::{FlowTable, Pass};
use balancer::datapath::kernel::Sizes;
use balancer::datapath::memory::Memory;
use balancer_common::family::Family;
use balancer_common::table::tick::Tick;

pub const SIZES: Sizes = Sizes {
    connections: 20,
    half_open: 8,
    lookup: FlowLookup::Table,
};

pub const TIMEOUTS: Timeouts = Timeouts {
    tcp_handshake: Duration::from_secs(3),
    tcp_established: Duration::from_secs(20),
    tcp_closing: Duration::from_secs(4),
    udp: Duration::from_secs(2),
    udp_stream: Duration::from_secs(10),
    fragment: Duration::from_secs(2),
};

/// The sweeper comes, at the box's own time.
pub fn sweep(memory: &mut Memory) {
    fn sweep<F: Family>(table: &mut FlowTable<F>, now: Tick) {
        let mut pass = Pass::default();
        while table.look(&mut pass, &TIMEOUTS, now) {}
        table.free(&pass);
    }
    let now = Tick::from_nanoseconds(memory.clock.load(Ordering::Relaxed));
    sweep(&mut memory.v4, now);
    sweep(&mut memory.v6, now);
}
