//! A flow: what is known of one direction of a connection.
//!
//! A connection is two flows: the *original* direction, from client to service, and the *reply*. Each is a line of its
//! own in the [flow table](crate::table), found by the tuple that its packets arrive with, and holds all that such
//! a packet needs: one lookup a packet, one cache line for IPv4.
//!
//! # Who writes what
//! - The tuple, what it becomes, and all that is fixed with them: the CPU that opens the connection, before the flow can
//!   be found; nobody afterwards.
//! - [`Meta`]: packets of the flow's own direction, and the daemon when it removes the connection; by exchanges only, so
//!   that of two one wins and the other sees it.
//! - The packet and byte counts: packets of the flow's own direction, without exchanges. They are exact as long as one
//!   CPU handles one direction, as NICs see to by hashing a direction to one queue; the counters of a backend are per
//!   CPU and always exact. The lower half of the packet count stands alone; what goes beyond is in [`Meta`], by who
//!   exchanges that.
//! - [What its sender expects next](crate::table::segment): likewise. Should one be lost to another CPU the next one puts it right.
//!   As long as the connection is half-open, an answer writes its original's too.
//! - The home word: see [`crate::table`]. It belongs to the line, not to the flow in it.

use crate::checksum::{TTL_DECREMENT, fold, replace};
use crate::family::{Family, PairCell as _};
use crate::table::segment::{Scale, Side, is_later, is_near};
use crate::table::state::State;
use crate::table::tick::Tick;
use crate::tuple::{PortsProtocol, Tuple};
use crate::word::{HalfWord, Word};

/// What a line is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Nothing.
    Free = 0,
    /// A CPU fills it; nobody else looks at it.
    Claimed = 1,
    /// A flow.
    Live = 2,
    /// A flow that the daemon is about to remove; its next packet revives it.
    Dying = 3,
    /// A flow that is gone; the line is not free until every packet that may have found it has ended.
    Dead = 4,
}

/// What of a flow changes with its packets, in one word: bits 0–2 the [`Stage`], 3 whether another connection has
/// [taken its place](Meta::replaced), 4–7 the [`Scale`] of its sender's windows, 8–15 the [`State`], 20–31 the upper bits
/// of the [packet count](Meta::counted), 32–63 the [`Tick`] of a recent packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta(pub u64);

impl Meta {
    /// From its parts.
    #[inline(always)]
    #[must_use]
    pub const fn new(stage: Stage, of: State, last_seen: Tick) -> Self {
        Self(stage as u64 | (of.0 as u64) << 8 | (last_seen.0 as u64) << 32)
    }

    /// Whether it is of this stage.
    #[inline(always)]
    #[must_use]
    pub const fn is(self, stage: Stage) -> bool {
        self.0 & 7 == stage as u64
    }

    /// Whether packets find the flow.
    #[inline(always)]
    #[must_use]
    pub const fn is_visible(self) -> bool {
        // Live and dying are the two stages with this bit alone above the lowest.
        self.0 & 6 == Stage::Live as u64
    }

    /// Whether the flow is live and its state established: one comparison, for each packet.
    #[inline(always)]
    #[must_use]
    pub const fn is_established(self) -> bool {
        const WANTED: u64 = Meta::new(Stage::Live, State(State::ESTABLISHED), Tick(0)).0;
        self.0 & (7 | WANTED) == WANTED
    }

    /// The same at another stage.
    #[inline(always)]
    #[must_use]
    pub const fn at(self, stage: Stage) -> Self {
        Self(self.0 & !7 | stage as u64)
    }

    /// The flow is dead, and a packet has opened another connection of the same tuple.
    #[inline(always)]
    #[must_use]
    pub const fn replaced(self) -> Self {
        Self(self.at(Stage::Dead).0 | REPLACED)
    }

    /// Whether it is.
    #[inline(always)]
    #[must_use]
    pub const fn is_replaced(self) -> bool {
        self.0 & REPLACED != 0
    }

    /// The state of this direction.
    #[inline(always)]
    #[must_use]
    pub const fn state(self) -> State {
        State((self.0 >> 8) as u8)
    }

    /// The same of another state.
    #[inline(always)]
    #[must_use]
    pub const fn of(self, state: State) -> Self {
        Self(self.0 & !(0xff << 8) | (state.0 as u64) << 8)
    }

    /// What the windows of its sender are scaled by.
    #[inline(always)]
    #[must_use]
    pub const fn scale(self) -> Scale {
        Scale((self.0 >> 4) as u8 & 15)
    }

    /// The same with another scale.
    #[inline(always)]
    #[must_use]
    pub const fn scaled(self, scale: Scale) -> Self {
        Self(self.0 & !(15 << 4) | (scale.0 as u64) << 4)
    }

    /// All of the packet count, of which `low` are the lowest 32 bits now. Here is what it was from bit 31 on, at most 2³¹ packets
    /// ago: that bit says whether it has gone on by one since.
    #[inline(always)]
    #[must_use]
    pub const fn count(self, low: u32) -> u64 {
        let upper = self.0 >> 20 & 0xfff;
        let half = low as u64 >> 31;
        (upper + ((upper ^ half) & 1)) << 31 | low as u64 & 0x7fff_ffff
    }

    /// The same with the packet count as it is, modulo 2⁴³.
    #[inline(always)]
    #[must_use]
    pub const fn counted(self, low: u32) -> Self {
        Self(self.0 & !(0xfff << 20) | (self.count(low) >> 31 & 0xfff) << 20)
    }

    /// The same of a packet at another time.
    #[inline(always)]
    #[must_use]
    pub const fn seen(self, now: Tick) -> Self {
        Self(self.0 & 0xffff_ffff | (now.0 as u64) << 32)
    }

    /// When a packet came, to [`PRECISION`] ticks: not before it.
    #[inline(always)]
    #[must_use]
    pub const fn last_seen(self) -> Tick {
        Tick((self.0 >> 32) as u32)
    }
}

/// The bit of [`Meta::replaced`].
const REPLACED: u64 = 1 << 3;

/// How far [`Meta::last_seen`] may lag behind a flow's last packet: a flow under traffic is not written to for each.
pub const PRECISION: u32 = 128;

/// One direction of a connection: a line of the flow table.
///
/// For IPv4 it has 64 bytes, a cache line; for IPv6 128, of which a lookup that fails reads the first 64.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Flow<F: Family> {
    /// [`Meta`].
    meta: Word,
    /// The addresses of its packets.
    addresses: F::PairWords,
    /// Bytes 0–4 as in [`PortsProtocol`], 5 [`REPLY`] and [`TAGGED`], 6–7 the backend's id.
    ports: Word,
    /// The new ports in the lower half; then what rewriting adds to the IPv4 header's sum, TTL included, and what it adds
    /// to the transport checksum.
    new_ports: Word,
    /// Of the line as a home: see [`crate::table`].
    pub(crate) home: HalfWord,
    /// Of an original flow the tick of its first packet; of a reply [`HopId`].
    extra: HalfWord,
    /// What the addresses become.
    new_addresses: F::PairWords,
    /// Packets: the lowest bits of their number.
    packets: HalfWord,
    /// What the sender of its packets expects next of the other direction; 0: UDP.
    ack: HalfWord,
    /// Their bytes, from the network header on.
    bytes: Word,
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Flow<crate::family::V4>>() == 64);
    assert!(size_of::<Flow<crate::family::V6>>() == 128);
};

/// In a flow's fixed bits: it is the reply direction.
const REPLY: u64 = 1 << 40;
/// The connection's first packet was VLAN-tagged: its way back is the way it came, never the kernel's FIB, which knows
/// the VLAN device and not the port under it.
const TAGGED: u64 = 1 << 41;
/// The bits of ports and protocol.
const TUPLE: u64 = (1 << 40) - 1;

/// Where a reply goes: a number of a next hop, and the lower half of the generation of next hops that it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopId {
    /// The number; 0: none.
    pub number: u16,
    /// The generation.
    pub generation: u16,
}

/// What is fixed of a flow beside its tuples and its own word: a register's worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// Whether it is the reply direction.
    pub reply: bool,
    /// Whether the connection's first packet was VLAN-tagged.
    pub tagged: bool,
    /// The backend's id.
    pub backend: u16,
    /// What its sender expects next.
    pub ack: u32,
}

impl<F: Family> Default for Flow<F> {
    fn default() -> Self {
        Self {
            meta: Word::default(),
            addresses: F::PairWords::default(),
            ports: Word::default(),
            new_ports: Word::default(),
            home: HalfWord::default(),
            extra: HalfWord::default(),
            new_addresses: F::PairWords::default(),
            packets: HalfWord::default(),
            ack: HalfWord::default(),
            bytes: Word::default(),
        }
    }
}

impl<F: Family> Flow<F> {
    /// Writes the flow of a tuple, whose other direction is that of `peer`, into a line that this CPU has claimed. It cannot
    /// be found before [`Flow::set_meta`]. `extra` is, see [`Flow`], when the connection began, or where the reply goes.
    #[inline(never)]
    pub(crate) fn fill(&self, tuple: &Tuple<F>, peer: &Tuple<F>, extra: u32, traits: Traits) {
        // The sums of what is new are those of `peer`: they do not know an order.
        let addresses = F::replaced(tuple.addresses, peer.addresses);
        let ports = replace(u64::from(tuple.ports.wire()), u64::from(peer.ports.wire()));
        let l3_delta = fold(addresses + TTL_DECREMENT);
        let l4_delta = fold(addresses + ports);
        let mut fixed = tuple.ports.0 | u64::from(traits.backend) << 48;
        if traits.reply {
            fixed |= REPLY;
        }
        if traits.tagged {
            fixed |= TAGGED;
        }
        self.addresses.set(tuple.addresses);
        self.ports.set(fixed);
        let new_ports = u64::from(peer.ports.reversed().wire());
        self.new_ports
            .set(new_ports | u64::from(l3_delta) << 32 | u64::from(l4_delta) << 48);
        self.extra.set(extra);
        self.new_addresses.set(F::reversed(peer.addresses));
        self.packets.set(0);
        self.ack.set(traits.ack);
        self.bytes.set(0);
    }

    /// What of it changes.
    #[inline(always)]
    pub fn meta(&self) -> Meta {
        Meta(self.meta.get())
    }

    /// Sets that, where nobody else does.
    #[inline(always)]
    pub(crate) fn set_meta(&self, meta: Meta) {
        self.meta.set(meta.0);
    }

    /// Exchanges it, if it is still `old`. Says whether it was.
    #[inline(always)]
    pub(crate) fn replace_meta(&self, old: Meta, new: Meta) -> bool {
        self.meta.replace(old.0, new.0)
    }

    /// Whether it is the flow of a tuple.
    #[inline(always)]
    pub fn is_of(&self, tuple: &Tuple<F>) -> bool {
        self.ports.get() & TUPLE == tuple.ports.0 && self.addresses.is(&tuple.addresses)
    }

    /// The tuple of its packets.
    #[inline(always)]
    pub fn tuple(&self) -> Tuple<F> {
        Tuple {
            addresses: self.addresses.get(),
            ports: PortsProtocol(self.ports.get() & TUPLE),
        }
    }

    /// What it becomes.
    #[inline(always)]
    pub fn new_tuple(&self) -> Tuple<F> {
        Tuple {
            addresses: self.new_addresses.get(),
            ports: PortsProtocol::from_wire(self.new_ports.get() as u32, self.protocol()),
        }
    }

    /// The tuple under which the other direction is found.
    #[inline(always)]
    pub fn peer(&self) -> Tuple<F> {
        self.new_tuple().reversed()
    }

    /// Whether the packets of `other` answer this flow's.
    #[inline(always)]
    pub fn is_answered_by(&self, other: &Self) -> bool {
        other.is_of(&self.peer())
    }

    /// What the addresses become.
    #[inline(always)]
    pub fn new_addresses(&self) -> F::Pair {
        self.new_addresses.get()
    }

    /// What rewriting needs beside the addresses: the new ports as in the packet, what it adds to the IPv4 header's
    /// sum, TTL included, and what it adds to the transport checksum.
    #[inline(always)]
    pub fn new_ports(&self) -> (u32, u16, u16) {
        let word = self.new_ports.get();
        (word as u32, (word >> 32) as u16, (word >> 48) as u16)
    }

    /// The IP protocol number.
    #[inline(always)]
    pub fn protocol(&self) -> u8 {
        (self.ports.get() >> 32) as u8
    }

    /// Whether it is the reply direction.
    #[inline(always)]
    pub fn is_reply(&self) -> bool {
        self.ports.get() & REPLY != 0
    }

    /// Whether the connection's first packet was VLAN-tagged.
    #[inline(always)]
    pub fn is_tagged(&self) -> bool {
        self.ports.get() & TAGGED != 0
    }

    /// The backend's id.
    #[inline(always)]
    pub fn backend(&self) -> u32 {
        (self.ports.get() >> 48) as u32
    }

    /// Of an original flow: when the connection's first packet came.
    #[inline(always)]
    pub fn created(&self) -> Tick {
        Tick(self.extra.get())
    }

    /// Of a reply: where it goes.
    #[inline(always)]
    pub fn hop(&self) -> HopId {
        let extra = self.extra.get();
        HopId {
            number: extra as u16,
            generation: (extra >> 16) as u16,
        }
    }

    /// Notes where a reply goes.
    #[inline(always)]
    pub fn set_hop(&self, hop: HopId) {
        self.extra.set(hop.to_bits());
    }

    /// What the rules of TCP want to know of it.
    #[inline(always)]
    pub fn side(&self, meta: Meta) -> Side {
        Side {
            state: meta.state(),
            scale: meta.scale(),
            ack: self.ack.get(),
        }
    }

    /// Notes a number that a packet acknowledges, if the connection can have come to it. Says whether. (As
    /// [`Side::acknowledge`], but that nothing is written where nothing changes.)
    #[inline(always)]
    pub fn acknowledge(&self, meta: Meta, number: u32) -> bool {
        let ack = self.ack.get();
        // As of most segments of whoever is the sender at the moment.
        if number == ack {
            return true;
        }
        if !is_near(number, ack, meta.scale()) {
            return false;
        }
        if is_later(number, ack) {
            self.ack.set(number);
        }
        true
    }

    /// Sets what its sender expects next.
    #[inline(always)]
    pub(crate) fn set_ack(&self, ack: u32) {
        self.ack.set(ack);
    }

    /// The lowest bits of the packet count.
    #[inline(always)]
    pub(crate) fn packets(&self) -> u32 {
        self.packets.get()
    }

    /// Packets and their bytes so far.
    pub fn counts(&self) -> (u64, u64) {
        // In this order: what is in the upper bits may be old, not the other way round.
        let meta = self.meta();
        (meta.count(self.packets.get()), self.bytes.get())
    }

    /// Counts a packet of `length` bytes.
    #[inline(always)]
    pub fn count(&self, length: u16) {
        self.packets.set(self.packets.get().wrapping_add(1));
        self.bytes
            .set(self.bytes.get().wrapping_add(u64::from(length)));
    }
}

impl HopId {
    /// As a flow keeps it.
    #[inline(always)]
    #[must_use]
    pub const fn to_bits(self) -> u32 {
        self.number as u32 | (self.generation as u32) << 16
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_packet_count_goes_beyond_its_word() {
        let mut meta = Meta::new(Stage::Live, State(5), Tick(7)).scaled(Scale(9));
        let mut count = 0_u64;
        for step in [0, 1, 0x7fff_fffe, 1, 0x7fff_ffff, 0x8000_0000, 12_345] {
            count += step;
            // Before the flow is exchanged, and after.
            assert_eq!(meta.count(count as u32), count);
            meta = meta.counted(count as u32);
            assert_eq!(meta.count(count as u32), count);
        }
        assert_eq!((meta.state(), meta.scale()), (State(5), Scale(9)));
        assert!(meta.is(Stage::Live) && meta.last_seen() == Tick(7));
        let last = meta.counted(0).0 | 0xfff << 20;
        assert_eq!(Meta(last).count(u32::MAX), (1 << 43) - 1);
    }

    #[test]
    fn a_flow_takes_the_numbers_that_its_side_takes() {
        let flow = Flow::<crate::family::V4>::default();
        let meta = Meta::new(Stage::Live, State(State::ESTABLISHED), Tick(7)).scaled(Scale(3));
        let window = meta.scale().window();
        let steps = [0, 1, 9, window, window + 8, 1 << 30, 1 << 31];
        for ack in [0, 5, u32::MAX - 5] {
            for step in steps
                .into_iter()
                .flat_map(|step| [step, step.wrapping_neg()])
            {
                flow.set_ack(ack);
                let mut side = flow.side(meta);
                let number = ack.wrapping_add(step);
                assert_eq!(flow.acknowledge(meta, number), side.acknowledge(number));
                assert_eq!(flow.side(meta), side, "{number} behind {ack}");
            }
        }
    }
}
