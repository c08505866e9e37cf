//! How many notes of first packets outlive a flood: what `screen.rs` and the documentation say.
#![cfg(not(loom))]

mod chance;

use balancer_common::family::{Family, KEYS, V4, V6};
use balancer_common::screen::{ROWS, Row, Screen, passes};
use balancer_common::table::flow::Flow;
use balancer_common::table::index::NoIndex;
use balancer_common::table::{Geometry, Lines, Totals};
use balancer_common::tuple::{PortsProtocol, Tuple};
use balancer_common::wire::protocol::TCP;
use chance::Chance;

const MILLION: u32 = 1_000_000;
/// How many clients note a packet before so many millions of the flood's.
const CLIENTS: u32 = 5000;

/// A screen that is on: all the room for half-open connections is taken.
struct Flooded {
    geometry: Geometry,
    totals: Totals,
    rows: Vec<Row>,
}

impl Flooded {
    fn new() -> Self {
        let mut chance = Chance(7);
        Self::with([(); KEYS].map(|()| chance.below(u64::MAX) | 1))
    }

    fn with(keys: [u64; KEYS]) -> Self {
        const ROOM: u32 = 1000;
        let totals = Totals::default();
        totals.opened.set(ROOM.into());
        Self {
            geometry: Geometry::new(keys, ROOM, ROOM),
            totals,
            rows: (0..ROWS).map(|_| Row::default()).collect(),
        }
    }
}

impl<F: Family> Lines<F> for Flooded {
    type Index = NoIndex;

    fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    fn line(&self, _: u32) -> Option<&Flow<F>> {
        None
    }

    fn totals(&self) -> Option<&Totals> {
        Some(&self.totals)
    }
}

impl Screen for Flooded {
    fn screen_row(&self, index: u32) -> Option<&Row> {
        self.rows.get(index as usize)
    }
}

/// A SYN: its tuple and its number.
type Syn<F> = (Tuple<F>, u32);

/// That of a word, which has the address in its lower half and the port above it, and a number.
fn v4((end, number): (u64, u32)) -> Syn<V4> {
    let tuple = Tuple {
        addresses: V4::pair(end as u32, 0x0a02_00c0),
        ports: PortsProtocol::new((end >> 32) as u16, 80, TCP),
    };
    (tuple, number)
}

/// The same over IPv6.
fn v6((end, number): (u64, u32)) -> Syn<V6> {
    let tuple = Tuple {
        addresses: V6::pair([0x20, end], [0x20, 10]),
        ports: PortsProtocol::new((end >> 32) as u16, 80, TCP),
    };
    (tuple, number)
}

/// The ends and numbers of clients on one network.
fn client(number: u32) -> (u64, u32) {
    let address = 0xc612_0000 + number;
    (u64::from(address.swap_bytes()) | 4000 << 32, 7 * number)
}

/// Gives the screen five million packets of `flood`, and before each million some of `client`, by their numbers. Asserts that of those
/// that come again behind one, three and five millions the shares are known that are said.
fn check_shares<F: Family>(client: impl Fn(u32) -> Syn<F>, mut flood: impl FnMut(u32) -> Syn<F>) {
    let screen = Flooded::new();
    let passes = |(tuple, number): Syn<F>| passes(&screen, &tuple, number);
    let known = |millions: u32| {
        let numbers = millions * CLIENTS..(millions + 1) * CLIENTS;
        numbers.filter(|&number| passes(client(number))).count() as u32
    };
    for millions in (1..=5).rev() {
        assert_eq!(known(millions), 0, "they have not come before");
        for number in 0..MILLION {
            assert!(!passes(flood(millions * MILLION + number)), "nor has this");
        }
    }
    let [one, three, five] = [1, 3, 5].map(known);
    let version = F::VERSION;
    println!("IPv{version}: {one}, {three} and {five} of {CLIENTS} are known");
    assert!(one > CLIENTS * 999 / 1000, "nearly all");
    assert!(
        three.abs_diff(CLIENTS * 4 / 5) < CLIENTS * 3 / 100,
        "four in five"
    );
    assert!(five.abs_diff(CLIENTS / 7) < CLIENTS / 50, "one in seven");
}

#[test]
fn of_the_notes_before_a_flood_those_shares_are_left() {
    let mut chance = Chance(1);
    let mut random = || (chance.below(1 << 48), chance.below(1 << 32) as u32);
    check_shares(|number| v4(client(number)), |_| v4(random()));
    check_shares(|number| v6(client(number)), |_| v6(random()));
}

/// One port and one number for all, and addresses that are counted up: of a generator that has no time for chance.
#[test]
fn a_flood_without_chance_leaves_as_many() {
    let end = |number: u32| u64::from(number.swap_bytes());
    check_shares(|number| v4(client(number)), |number| v4((end(number), 1)));
    check_shares(|number| v6(client(number)), |number| v6((end(number), 1)));
}

#[test]
fn what_comes_many_times_takes_the_room_of_one_note() {
    let screen = Flooded::new();
    let known = |(tuple, number)| passes(&screen, &tuple, number);
    let clients = || (0..CLIENTS).map(|number| v4(client(number)));
    assert_eq!(clients().filter(|&syn| known(syn)).count(), 0);
    for number in 0..MILLION / 10 {
        let end = u64::from(number.swap_bytes());
        let come = (0..50).map(|_| known(v4((end, 1)))).filter(|&known| known);
        assert_eq!(come.count(), 49);
    }
    assert!(clients().all(known));
}

/// Where there is no note there are 32 bits of 0.
#[test]
fn a_note_whose_bits_are_all_0_is_not_taken_for_known() {
    let keys = [1; KEYS];
    let screen = Flooded::with(keys);
    let mut tried = 0;
    for port in 1..=u16::MAX {
        let (tuple, _) = v4((u64::from(port) << 32 | 1, 0));
        // With these keys a note is of bits 14 to 45, of which those of the number are the lower ones.
        let hash = V4::keyed_hash(&tuple, &keys);
        if (hash >> 32).trailing_zeros() >= 14 {
            let number = (hash ^ hash >> 32) as u32;
            assert!(!passes(&screen, &tuple, number));
            assert!(passes(&screen, &tuple, number));
            tried += 1;
        }
    }
    assert!(tried > 0);
}
