//! The table of packet vectors, on the pipeline in user space.

mod support;
mod table;

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use balancer::config::FlowLookup;
use balancer::datapath::kernel::Sizes;
use balancer_common::family::V4;
use balancer_common::search::state;
use balancer_common::tables::Reception;
use balancer_common::verdict::{Drop, Pass, Punt, Verdict};
use balancer_common::wire::protocol::TCP;
use support::engines::{Engines, Setting};
use support::flows::tuple;
use support::frame::{tcp, udp};
use support::vector::run_all;
use support::{BACKEND_SIDE, CLIENT_SIDE, properties};

/// Verdicts that no frame can bring about, and why.
const NEVER: &[(Verdict, &str)] = &[
    (
        Verdict::Drop(Drop::Contended),
        "it takes two CPUs that enter connections at the same moment",
    ),
    (Verdict::Pass(Pass::NoDaemon), OTHER_ENGINE),
    (Verdict::Drop(Drop::NoDaemon), OTHER_ENGINE),
    (Verdict::Drop(Drop::QueueFull), OTHER_ENGINE),
];

const OTHER_ENGINE: &str = "it is for who hands frames to the pipeline with engine `userspace`";

fn engines() -> Engines {
    Engines::in_memory(Sizes {
        connections: 2 * table::HALF_OPEN,
        half_open: table::HALF_OPEN,
        lookup: FlowLookup::Table,
    })
}

#[test]
fn every_vector_holds_in_user_space() {
    run_all(&table::all(), &mut engines());
}

#[test]
fn every_vector_has_a_name_of_its_own() {
    let mut seen = HashSet::new();
    for vector in table::all() {
        assert!(seen.insert(vector.name), "{}", vector.name);
    }
}

#[test]
fn every_verdict_has_a_vector() {
    let reached: HashSet<usize> = table::all()
        .iter()
        .flat_map(|vector| vector.verdicts().map(Verdict::counter).collect::<Vec<_>>())
        .collect();
    let passes = Pass::ALL.iter().map(|&reason| reason.into());
    let drops = Drop::ALL.iter().map(|&reason| reason.into());
    let punts = Punt::ALL.iter().map(|&reason| reason.into());
    let sent = [Verdict::Transmit, Verdict::Redirect(BACKEND_SIDE)];
    for verdict in sent.into_iter().chain(passes).chain(drops).chain(punts) {
        let excuse = NEVER.iter().find(|(its, _)| *its == verdict);
        match (reached.contains(&verdict.counter()), excuse) {
            (true, None) => {}
            (true, Some((_, why))) => panic!("{verdict:?} is reached, although: {why}"),
            (false, Some((_, why))) => println!("{verdict:?} is not reached: {why}"),
            (false, None) => {
                panic!("no vector shows {verdict:?}: write one, or say in NEVER why none can")
            }
        }
    }
}

/// The frames that all is compared with are what another parser takes for right.
#[test]
fn frames_are_well_formed() {
    let frames = [
        tcp("S", "198.51.100.7:4000", "192.0.2.10:80").tcp_options(&[2, 4, 5, 0xb4]),
        tcp("PA", "[2001:db8::7]:4000", "[2001:db8::10]:80").payload(b"odd"),
        udp("198.51.100.7:4000", "192.0.2.10:80")
            .options(&[148, 4, 0, 0])
            .payload(b"even"),
        udp("[2001:db8::7]:4000", "[2001:db8::10]:80")
            .tag(0x88a8, 7)
            .tag(0x8100, 5)
            .extension(0, &[0, 0, 1, 4, 0, 0, 0, 0])
            .extension(60, &[0, 0, 1, 4, 0, 0, 0, 0])
            .payload(b"odd"),
    ];
    for frame in frames {
        let (source, destination) = properties::ends(&frame.build());
        assert_eq!((source.port(), destination.port()), (4000, 80));
    }
}

/// What the slow path notes of a search counts for a second, and for the service that it was for.
#[test]
fn a_port_that_was_found_is_taken_only_by_who_has_just_asked() {
    const SERVICE: &str = r#"
[[service]]
name = "web"
listen = "192.0.2.10:80"
backend = [{ address = "10.0.0.3:8080" }]
"#;
    const SECOND: u64 = 1_000_000_000;
    let mut engines = engines();
    let to = "192.0.2.10:80";
    let from = ["198.51.100.7:4000", "198.51.100.8:4000"];
    let syns = from.map(|from| tcp("S", from, to).build());
    let tuple = tuple::<V4>(from[1].parse().unwrap(), to.parse().unwrap(), TCP);
    let mut outcome = |found, later, other| {
        engines.set_up(&Setting {
            services: SERVICE.to_owned(),
            datapath: "source_ports = \"4000-4000\"",
            slow_path: Reception::Taken,
            ..Setting::default()
        });
        engines.run_in_memory(CLIENT_SIDE, &syns[0]);
        let (asked, _) = engines.run_in_memory(CLIENT_SIDE, &syns[1]);
        assert_eq!(asked, Punt::Ports.into());
        let memory = &engines.memory;
        let mut search = memory.searches_v4.get_mut(&tuple).unwrap();
        assert_eq!(search.state, state::WANTED);
        search.state = found;
        search.service += other;
        search.reply.ports = search.reply.ports.to(4001);
        drop(search);
        memory.clock.fetch_add(later, Ordering::Relaxed);
        engines.run_in_memory(CLIENT_SIDE, &syns[1])
    };
    let (verdict, sent) = outcome(state::FOUND, SECOND - 1_000_000, 0);
    assert_eq!(verdict, Verdict::Redirect(BACKEND_SIDE));
    assert_eq!(properties::ends(&sent).0.port(), 4001);
    let (refused, _) = outcome(state::NONE, SECOND - 1_000_000, 0);
    assert_eq!(refused, Drop::PortsExhausted.into());
    for found in [state::FOUND, state::NONE] {
        for (later, other) in [(SECOND + 1_000_000, 0), (0, 1)] {
            let (again, _) = outcome(found, later, other);
            assert_eq!(again, Punt::Ports.into(), "{found}, {later}, {other}");
        }
    }
}

#[test]
fn no_tuple_is_given_twice() {
    properties::no_tuple_is_given_twice(&mut engines(), |engines, interface, frame| {
        engines.run_in_memory(interface, frame).1
    });
}

#[test]
fn every_port_is_found() {
    properties::every_port_is_found(&mut engines(), |engines, interface, frame| {
        engines.run_in_memory(interface, frame).1
    });
}

#[test]
fn random_gives_each_its_share() {
    properties::random_gives_each_its_share(&mut engines(), |engines, interface, frame| {
        engines.run_in_memory(interface, frame).1
    });
}
