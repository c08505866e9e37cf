//! How far a connection is.

use crate::wire::protocol;
use crate::wire::tcp::flags::{ACK, FIN, RST, SYN};

/// What the packets of one direction have shown. Bits are only ever added, but for a connection that begins anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State(pub u8);

impl State {
    /// The handshake is complete (TCP), or both directions were seen (UDP).
    pub const ESTABLISHED: u8 = 1;
    /// The backend answered the SYN.
    pub const SYN_ACK: u8 = 2;
    /// This direction sent FIN.
    pub const FIN: u8 = 4;
    /// This direction sent RST.
    pub const RST: u8 = 8;

    /// Whether all of `bits` are set.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, bits: u8) -> bool {
        self.0 & bits == bits
    }

    /// Whether a packet with these TCP control bits (0: UDP) can change nothing, so that the other direction need
    /// not be looked at.
    #[inline(always)]
    #[must_use]
    pub const fn is_settled(self, flags: u8) -> bool {
        flags & (SYN | FIN | RST) == 0 && self.has(Self::ESTABLISHED)
    }

    /// The state after a packet with these TCP control bits (0: UDP) of the original direction or of the reply;
    /// `peer` is the state of the other one.
    ///
    /// TCP is established by the client's first ACK after the backend's SYN-ACK (RFC 9293, section 3.5), UDP by the
    /// first answer (RFC 4787, section 4.3). So it is one direction that completes a connection, the same one
    /// each time: [`State::completes`].
    #[inline(always)]
    #[must_use]
    pub const fn after(self, protocol: u8, reply: bool, flags: u8, peer: Self) -> Self {
        let mut state = self.0;
        if protocol == protocol::TCP {
            if flags & FIN != 0 {
                state |= Self::FIN;
            }
            if flags & RST != 0 {
                state |= Self::RST;
            }
            if reply {
                if flags & (SYN | ACK) == SYN | ACK {
                    state |= Self::SYN_ACK;
                }
                state |= peer.0 & Self::ESTABLISHED;
            } else if flags & (SYN | ACK | RST) == ACK && peer.has(Self::SYN_ACK) {
                state |= Self::ESTABLISHED;
            }
        } else if reply {
            state |= Self::ESTABLISHED;
        } else {
            state |= peer.0 & Self::ESTABLISHED;
        }
        Self(state)
    }

    /// Whether going from this state to `after` ended the connection's being half-open.
    #[inline(always)]
    #[must_use]
    pub const fn completes(self, after: Self, protocol: u8, reply: bool) -> bool {
        !self.has(Self::ESTABLISHED)
            && after.has(Self::ESTABLISHED)
            && (protocol == protocol::TCP) != reply
    }
}

/// Whether these control bits ask for a new connection.
#[inline(always)]
#[must_use]
pub const fn is_opening(protocol: u8, flags: u8) -> bool {
    protocol != protocol::TCP || flags & (SYN | ACK | RST | FIN) == SYN
}

/// Where a connection stands, seen from both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// TCP's handshake is not complete; of UDP one direction was seen.
    HalfOpen,
    /// TCP: there was a RST instead of a handshake.
    Refused,
    /// Both directions talk.
    Established,
    /// TCP: both have sent FIN, or one RST.
    Closing,
}

impl Phase {
    /// From the states of the two directions.
    #[inline(always)]
    #[must_use]
    pub const fn of(original: State, reply: State) -> Self {
        let either = original.0 | reply.0;
        let both = original.0 & reply.0;
        if either & State::ESTABLISHED == 0 {
            if either & State::RST == 0 {
                Self::HalfOpen
            } else {
                Self::Refused
            }
        } else if either & State::RST != 0 || both & State::FIN != 0 {
            Self::Closing
        } else {
            Self::Established
        }
    }

    /// Whether there is nothing more to come, so that the client may begin anew from the same port.
    #[inline(always)]
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Refused | Self::Closing)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate alloc;

    use alloc::vec::Vec;

    use super::*;

    /// Steps a connection through packets of (from the client?, control bits) and gives the phases, and how often it
    /// was completed.
    fn phases(protocol: u8, packets: &[(bool, u8)]) -> (Vec<Phase>, usize) {
        let (mut original, mut reply) = (State(0), State(0));
        let mut completed = 0;
        let phases = packets
            .iter()
            .map(|&(from_client, flags)| {
                let (own, peer) = if from_client {
                    (&mut original, reply)
                } else {
                    (&mut reply, original)
                };
                let after = own.after(protocol, !from_client, flags, peer);
                completed += usize::from(own.completes(after, protocol, !from_client));
                *own = after;
                Phase::of(original, reply)
            })
            .collect();
        (phases, completed)
    }

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
    fn a_refused_connection_is_over() {
        let (seen, completed) = phases(protocol::TCP, &[(true, SYN), (false, RST | ACK)]);
        assert_eq!(seen, [Phase::HalfOpen, Phase::Refused]);
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
}
