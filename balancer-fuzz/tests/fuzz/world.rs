//! A box that frames are given to, and what must hold after each.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use balancer::datapath::flows::FlowTable;
use balancer_common::family::{Family, V4, V6};
use balancer_common::hop::Hop;
use balancer_common::table::flow::Flow;
use balancer_common::table::segment::Side;
use balancer_common::tables::Reception;
use balancer_common::tuple::Tuple;
use balancer_common::verdict::Verdict;

use crate::layout::{self, Layout};
use crate::support::engines::{Engines, Setting};
use crate::support::flows::{counted, visible};
use crate::support::small::{SIZES, sweep};
use crate::support::{
    BACKEND_MAC, BACKEND_SIDE, BOX_MAC, CLIENT_SIDE, OTHER_BOX_MAC, OTHER_SIDE, ROUTER_MAC,
    SERVICES,
};

/// What is known of a flow: its tuples and numbers, its state with the time, what it has counted.
type Record<F> = (Tuple<F>, Tuple<F>, Side, u64, (u64, u64));

thread_local! {
    /// They know the configs that they have read.
    static ENGINES: RefCell<Engines> = RefCell::new(Engines::in_memory(SIZES));
}

/// The box, with [`SERVICES`].
pub struct World<'a> {
    engines: &'a mut Engines,
    /// How many packets went on by flows' own counters.
    counted: u64,
}

/// Does the work in a new box, for which the bits of `setting` say whether there is a slow path, a way back to clients by another
/// interface, and links that take no long packets.
pub fn in_a_box(setting: u8, work: impl FnOnce(&mut World<'_>)) {
    let is_set = |bit: u8| setting & bit != 0;
    ENGINES.with_borrow_mut(|engines| {
        engines.set_up(&Setting {
            services: SERVICES.to_owned(),
            slow_path: if is_set(1) {
                Reception::Taken
            } else {
                Reception::Nobody
            },
            route: is_set(2).then_some(Hop::new(OTHER_SIDE, ROUTER_MAC, OTHER_BOX_MAC)),
            mtu: if is_set(4) { 1300 } else { 65_535 },
            ..Setting::default()
        });
        work(&mut World {
            engines,
            counted: 0,
        });
    });
}

impl World<'_> {
    /// Gives it a frame: the verdict, and the frame as it is then.
    pub fn give(&mut self, interface: u32, input: &[u8]) -> (Verdict, Vec<u8>) {
        let (verdict, output) = self.engines.run_in_memory(interface, input);
        if matches!(verdict, Verdict::Transmit | Verdict::Redirect(_)) {
            self.check_sent(input, &output);
        } else {
            assert_eq!(output, input, "{verdict:?} leaves the frame as it is");
        }
        self.check();
        (verdict, output)
    }

    /// What is sent on is what came in, but for the addresses; and its checksums are as right or wrong.
    fn check_sent(&mut self, input: &[u8], output: &[u8]) {
        let before = layout::frame(input).expect("it was read");
        let after = layout::frame(output).expect("it is as long as before");
        assert_eq!(
            output[before.ttl()],
            input[before.ttl()] - 1,
            "one hop less"
        );
        assert_eq!(before.header_error(input), before.header_error(output));
        assert_eq!(before.header_error(input).unwrap_or(0), 0);
        assert_eq!(
            before.error(input),
            after.error(output),
            "transport checksum"
        );
        let mut may_change = vec![false; input.len()];
        may_change[..12].fill(true);
        may_change[before.ttl()] = true;
        allow(&mut may_change, &before, before.is_without(input));
        let quoted = before.quoted(input);
        if let Some(quoted) = quoted {
            let new = before.quoted(output).expect("it quotes a packet");
            assert_eq!(
                quoted.header_error(input),
                new.header_error(output),
                "checksum of the quoted header"
            );
            // One that ends behind the error is quoted in part.
            if quoted.end <= before.end {
                assert_eq!(
                    quoted.error(input),
                    new.error(output),
                    "quoted transport checksum"
                );
            }
            allow(&mut may_change, &quoted, quoted.is_without(input));
        } else {
            self.counted += 1;
        }
        for (at, may_change) in may_change.into_iter().enumerate() {
            assert!(
                may_change || input[at] == output[at],
                "byte {at} of {input:02x?} became {:02x}",
                output[at]
            );
        }
    }

    /// What must hold between packets.
    fn check(&self) {
        let memory = &self.engines.memory;
        for (count, half_open) in [whole(&memory.v4), whole(&memory.v6)] {
            assert!(count <= SIZES.connections as usize);
            assert!(half_open <= SIZES.half_open.into());
        }
        let backends = memory.backends.lock().unwrap();
        let packets = backends
            .iter()
            .map(|stats| stats.forward_packets + stats.reply_packets);
        assert_eq!(packets.sum::<u64>(), self.counted, "packets of backends");
    }

    /// All flows.
    pub fn records(&self) -> (Vec<Record<V4>>, Vec<Record<V6>>) {
        fn of<F: Family>(table: &FlowTable<F>) -> Vec<Record<F>> {
            let record = |flow: &Flow<F>| {
                let (from, to, meta) = (flow.tuple(), flow.new_tuple(), flow.meta());
                (from, to, flow.side(meta), meta.0, flow.counts())
            };
            visible(table).map(record).collect()
        }
        let memory = &self.engines.memory;
        (of(&memory.v4), of(&memory.v6))
    }

    /// The time, in milliseconds.
    pub fn now(&self) -> u64 {
        self.engines.memory.clock.load(Ordering::Relaxed) / 1_000_000
    }

    /// So many milliseconds pass.
    pub fn wait(&mut self, milliseconds: u64) {
        let clock = &self.engines.memory.clock;
        clock.fetch_add(milliseconds * 1_000_000, Ordering::Relaxed);
    }

    /// The sweeper comes.
    pub fn sweep(&mut self) {
        sweep(&mut self.engines.memory);
        self.check();
    }

    /// Another config: without the service of this number, if there are so many, and with these source ports.
    pub fn reload(&mut self, without: usize, source_ports: &str) {
        let header = "[[service]]";
        let services = SERVICES.split(header).skip(1).enumerate();
        let kept = services.filter(|(number, _)| *number != without);
        let text: String = kept.flat_map(|(_, service)| [header, service]).collect();
        self.engines.load(&text, source_ports);
    }

    /// The way to backends is known, or not any more; and the ways to clients are asked for again.
    pub fn ways(&mut self, is_known: bool) {
        self.engines.set_hop(if is_known {
            Hop::new(BACKEND_SIDE, BACKEND_MAC, BOX_MAC)
        } else {
            Hop::default()
        });
        self.engines.invalidate_hops();
    }
}

/// How many connections a table has, and how many of them are half-open.
fn whole<F: Family>(table: &FlowTable<F>) -> (usize, u64) {
    let mut half_open = 0;
    (counted(table, &mut half_open), half_open)
}

/// What of a packet is rewritten.
fn allow(may_change: &mut [bool], layout: &Layout, keeps_checksum: bool) {
    let mut allow = |at: usize, length: usize| {
        for may_change in may_change.iter_mut().skip(at).take(length) {
            *may_change = true;
        }
    };
    allow(layout.addresses().start, layout.addresses().len());
    if let Some(at) = layout.header_checksum() {
        allow(at, 2);
    }
    if layout.has_ports() {
        allow(layout.l4, 4);
    }
    if let Some(at) = layout.checksum()
        && !keeps_checksum
    {
        allow(at, 2);
    }
}

/// The interface of a number.
pub fn interface(number: usize) -> u32 {
    [CLIENT_SIDE, BACKEND_SIDE, OTHER_SIDE, 1][number % 4]
}
