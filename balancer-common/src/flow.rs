//! A flow: what is known of one direction of a connection.
//!
//! A connection is two flows: the *original* direction, from client to service, and the *reply*. Each is an entry
//! of its own in the flow table, under the tuple that its packets arrive with, and holds all that such a packet
//! needs: one lookup a packet.
//!
//! # Who writes what
//! A flow's state word is written by packets of its own direction only, and reads the other direction's. A NIC
//! hashes one direction to one queue, hence to one CPU; where two CPUs do get packets of one direction at once,
//! both write bits that are only ever set, and a lost bit is set again by the next packet that shows it. The
//! counters likewise are exact as long as one CPU handles one direction; the counters of a backend are per CPU and
//! always exact.

use crate::checksum::{TTL_DECREMENT, fold, replace};
use crate::family::Family;
use crate::hop::{Hop, HopCell};
use crate::tuple::Tuple;
use crate::wire::protocol;
use crate::wire::tcp::flags::{ACK, FIN, RST, SYN};
use crate::word::Word;

/// A moment, in units of 2²⁰ ns (about 1.05 ms) of the monotonic clock, modulo 2³² (52 days).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(pub u32);

impl Tick {
    /// From nanoseconds of `CLOCK_MONOTONIC`.
    #[inline(always)]
    #[must_use]
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self((nanoseconds >> 20) as u32)
    }

    /// Milliseconds from `earlier` to here; 0 when `earlier` is later, as the clocks of two CPUs may differ by a
    /// unit.
    #[must_use]
    pub const fn milliseconds_since(self, earlier: Self) -> u64 {
        let ticks = self.0.wrapping_sub(earlier.0);
        if ticks > u32::MAX / 2 {
            0
        } else {
            (ticks as u64 * 1_048_576) / 1_000_000
        }
    }
}

/// The bits of a flow's state word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State(pub u32);

impl State {
    /// The reply direction.
    pub const REPLY: u32 = 1;
    /// The handshake is complete (TCP), or both directions were seen (UDP).
    pub const ESTABLISHED: u32 = 2;
    /// The backend answered the SYN.
    pub const SYN_ACK: u32 = 4;
    /// This direction sent FIN.
    pub const FIN: u32 = 8;
    /// This direction sent RST.
    pub const RST: u32 = 16;
    /// The connection's first packet was VLAN-tagged: its way back is the way it came, never the kernel's FIB,
    /// which knows the VLAN device and not the port under it.
    pub const TAGGED: u32 = 32;

    /// Whether all of `bits` are set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, bits: u32) -> bool {
        self.0 & bits == bits
    }
}

/// Where a connection stands, seen from both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// TCP's handshake is not complete; of UDP one direction was seen.
    HalfOpen,
    /// Both directions talk.
    Established,
    /// TCP: both have sent FIN, or one RST.
    Closing,
}

impl Phase {
    /// From the two state words.
    #[inline(always)]
    #[must_use]
    pub const fn of(original: State, reply: State) -> Self {
        let either = original.0 | reply.0;
        let both = original.0 & reply.0;
        if either & State::ESTABLISHED == 0 {
            Self::HalfOpen
        } else if either & State::RST != 0 || both & State::FIN != 0 {
            Self::Closing
        } else {
            Self::Established
        }
    }
}

/// One direction of a connection, as the flow table holds it.
#[repr(C)]
#[derive(Debug)]
pub struct Flow<F: Family> {
    /// What the packet's tuple becomes.
    pub new: Tuple<F>,
    /// Where it goes.
    hop: HopCell,
    /// Packets of this direction.
    pub packets: Word,
    /// Their bytes, from the network header on.
    pub bytes: Word,
    /// [`State`] in the lower half, [`Tick`] of the last packet in the upper: see [`Word`].
    meta: Word,
    /// The generation of next hops that `hop` is of in the lower half, [`Tick`] of the connection's first packet
    /// in the upper.
    stamp: Word,
    /// The backend's id.
    pub backend: u32,
    /// What rewriting adds to the IPv4 header's sum, TTL included.
    pub l3_delta: u16,
    /// What rewriting adds to the transport checksum.
    pub l4_delta: u16,
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Flow<crate::family::V4>>() == 72);
    assert!(size_of::<Flow<crate::family::V6>>() == 96);
};

#[inline(always)]
const fn join(low: u32, tick: Tick) -> u64 {
    low as u64 | (tick.0 as u64) << 32
}

impl<F: Family> Flow<F> {
    /// The flow that turns `tuple` into `new`.
    #[inline(always)]
    #[must_use]
    pub fn new(
        tuple: &Tuple<F>,
        new: Tuple<F>,
        hop: Hop,
        state: u32,
        backend: u32,
        now: Tick,
    ) -> Self {
        let addresses = F::replaced(tuple.addresses, new.addresses);
        let ports = replace(u64::from(tuple.ports.wire()), u64::from(new.ports.wire()));
        Self {
            new,
            hop: HopCell::new(hop),
            packets: Word::new(0),
            bytes: Word::new(0),
            meta: Word::new(join(state, now)),
            stamp: Word::new(join(0, now)),
            backend,
            l3_delta: fold(addresses + TTL_DECREMENT),
            l4_delta: fold(addresses + ports),
        }
    }

    /// The tuple under which the other direction is entered.
    #[inline(always)]
    pub fn peer(&self) -> Tuple<F> {
        self.new.reversed()
    }

    /// Its state word.
    #[inline(always)]
    pub fn state(&self) -> State {
        State(self.meta.get() as u32)
    }

    /// When its last packet came.
    #[inline(always)]
    pub fn last_seen(&self) -> Tick {
        Tick((self.meta.get() >> 32) as u32)
    }

    /// When the connection's first packet came.
    #[inline(always)]
    pub fn created(&self) -> Tick {
        Tick((self.stamp.get() >> 32) as u32)
    }

    /// Whether the next hop is of this generation.
    #[inline(always)]
    pub fn hop_is_of(&self, generation: u32) -> bool {
        // The stamp is written after the hop: who sees the generation sees the hop.
        self.stamp.get() as u32 == generation
    }

    /// The next hop.
    #[inline(always)]
    pub fn hop(&self) -> Hop {
        self.hop.get()
    }

    /// Notes the next hop of a generation; `None`: the one it has stands for this generation too.
    #[inline(always)]
    pub fn set_hop(&self, generation: u32, hop: Option<Hop>) {
        if let Some(hop) = hop {
            self.hop.set(hop);
        }
        self.stamp.set(join(generation, self.created()));
    }

    /// Whether it is the reply direction.
    #[inline(always)]
    pub fn is_reply(&self) -> bool {
        self.state().has(State::REPLY)
    }

    /// Counts a packet of `length` bytes, seen `now`.
    #[inline(always)]
    pub fn count(&self, length: u16, now: Tick) {
        let meta = self.meta.get();
        if (meta >> 32) as u32 != now.0 {
            self.meta.set(join(meta as u32, now));
        }
        self.packets.set(self.packets.get().wrapping_add(1));
        self.bytes
            .set(self.bytes.get().wrapping_add(u64::from(length)));
    }

    /// Whether a packet with these TCP control bits (0: UDP) can change nothing of the state, so that the other
    /// direction need not be looked up.
    #[inline(always)]
    pub fn is_settled(&self, flags: u8) -> bool {
        flags & (SYN | FIN | RST) == 0 && self.state().has(State::ESTABLISHED)
    }

    /// Advances the state by a packet of this direction; `peer` is the other one. Says whether the connection
    /// was half-open until now, and this packet ended that.
    ///
    /// TCP is established by the client's first ACK after the backend's SYN-ACK (RFC 9293, section 3.5), UDP by
    /// the first answer (RFC 4787, section 4.3). Exactly one direction can be the one that ends a half-open
    /// connection, so it happens once.
    #[inline(always)]
    pub fn advance(&self, protocol: u8, flags: u8, peer: State) -> bool {
        let before = self.state();
        let mut after = before.0;
        let mut completed = false;
        if protocol == protocol::TCP {
            if flags & FIN != 0 {
                after |= State::FIN;
            }
            if flags & RST != 0 {
                after |= State::RST;
            }
            if before.has(State::REPLY) {
                if flags & (SYN | ACK) == SYN | ACK {
                    after |= State::SYN_ACK;
                }
                after |= peer.0 & State::ESTABLISHED;
            } else if flags & (SYN | ACK | RST) == ACK && peer.has(State::SYN_ACK) {
                completed = !before.has(State::ESTABLISHED);
                after |= State::ESTABLISHED;
            }
        } else if before.has(State::REPLY) {
            completed = !before.has(State::ESTABLISHED);
            after |= State::ESTABLISHED;
        } else {
            after |= peer.0 & State::ESTABLISHED;
        }
        if after != before.0 {
            self.meta.set(join(after, self.last_seen()));
        }
        completed
    }
}

/// Whether these control bits ask for a new connection.
#[inline(always)]
#[must_use]
pub const fn is_opening(protocol: u8, flags: u8) -> bool {
    protocol != protocol::TCP || flags & (SYN | ACK | RST | FIN) == SYN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::V4;
    use crate::tuple::PortsProtocol;

    fn flow(state: u32) -> Flow<V4> {
        let tuple = Tuple {
            addresses: 1,
            ports: PortsProtocol::new(1, 2, protocol::TCP),
        };
        Flow::new(&tuple, tuple, Hop::default(), state, 0, Tick(0))
    }

    /// Steps a connection through packets of (from the client?, control bits) and gives the phases.
    fn phases(protocol: u8, packets: &[(bool, u8)]) -> (alloc::vec::Vec<Phase>, usize) {
        let (original, reply) = (flow(0), flow(State::REPLY));
        let mut completed = 0;
        let phases = packets
            .iter()
            .map(|&(from_client, flags)| {
                let (own, peer) = if from_client {
                    (&original, &reply)
                } else {
                    (&reply, &original)
                };
                completed += usize::from(own.advance(protocol, flags, peer.state()));
                Phase::of(original.state(), reply.state())
            })
            .collect();
        (phases, completed)
    }

    extern crate alloc;

    #[test]
    fn tcp_lives_and_closes() {
        use Phase::{Closing, Established, HalfOpen};
        let (seen, completed) = phases(
            protocol::TCP,
            &[
                (true, SYN),
                (false, SYN | ACK),
                (true, ACK),
                (false, ACK),
                (true, FIN | ACK),
                (false, ACK),
                (false, FIN | ACK),
                (true, ACK),
            ],
        );
        assert_eq!(
            seen,
            [
                HalfOpen,
                HalfOpen,
                Established,
                Established,
                Established,
                Established,
                Closing,
                Closing
            ]
        );
        assert_eq!(completed, 1);
    }

    #[test]
    fn an_ack_without_a_syn_ack_establishes_nothing() {
        let (seen, completed) = phases(protocol::TCP, &[(true, SYN), (true, ACK), (true, ACK)]);
        assert_eq!(seen, [Phase::HalfOpen; 3]);
        assert_eq!(completed, 0);
    }

    #[test]
    fn a_refused_connection_stays_half_open() {
        let (seen, completed) = phases(protocol::TCP, &[(true, SYN), (false, RST | ACK)]);
        assert_eq!(seen, [Phase::HalfOpen; 2]);
        assert_eq!(completed, 0);
    }

    #[test]
    fn a_reset_closes() {
        let (seen, _) = phases(
            protocol::TCP,
            &[(true, SYN), (false, SYN | ACK), (true, ACK), (true, RST)],
        );
        assert_eq!(seen[3], Phase::Closing);
    }

    #[test]
    fn udp_is_established_by_the_answer() {
        let (seen, completed) = phases(
            protocol::UDP,
            &[(true, 0), (true, 0), (false, 0), (false, 0), (true, 0)],
        );
        assert_eq!(seen[1..3], [Phase::HalfOpen, Phase::Established]);
        assert_eq!(completed, 1);
    }

    #[test]
    fn ticks_wrap() {
        assert_eq!(Tick(5).milliseconds_since(Tick(u32::MAX - 4)), 10);
        assert_eq!(Tick(4).milliseconds_since(Tick(5)), 0);
    }
}
