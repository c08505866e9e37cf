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

    /// Whether a packet with these TCP control bits (for UDP those of [`Segment::DATAGRAM`]) can change nothing, so that the
    /// other direction need not be looked at.
    ///
    /// [`Segment::DATAGRAM`]: crate::table::segment::Segment::DATAGRAM
    #[inline(always)]
    #[must_use]
    pub const fn is_settled(self, flags: u8) -> bool {
        is_settled(flags) && self.has(Self::ESTABLISHED)
    }

    /// The state after a datagram of UDP, of the original direction or of the reply; `peer` is the state of the other one. TCP
    /// has [rules of its own](crate::table::segment::advance).
    ///
    /// TCP is established by the client's first ACK after the backend's SYN-ACK (RFC 9293, section 3.5), UDP by the
    /// first answer (RFC 4787, section 4.3). So it is one direction that completes a connection, the same one
    /// each time: [`State::completes`].
    #[inline(always)]
    #[must_use]
    pub const fn after_datagram(self, reply: bool, peer: Self) -> Self {
        let shown = if reply {
            Self::ESTABLISHED
        } else {
            peer.0 & Self::ESTABLISHED
        };
        Self(self.0 | shown)
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

/// Whether nothing comes of these control bits once a connection is established.
#[inline(always)]
#[must_use]
pub const fn is_settled(flags: u8) -> bool {
    flags & (SYN | FIN | RST | ACK) == ACK
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
    use super::*;

    #[test]
    fn udp_is_established_by_the_answer() {
        use Phase::{Established, HalfOpen};
        let (mut original, mut reply) = (State(0), State(0));
        let mut completed = 0;
        let seen = [false, false, true, true, false].map(|is_reply| {
            let (own, peer) = if is_reply {
                (&mut reply, original)
            } else {
                (&mut original, reply)
            };
            let after = own.after_datagram(is_reply, peer);
            completed += u32::from(own.completes(after, protocol::UDP, is_reply));
            *own = after;
            Phase::of(original, reply)
        });
        assert_eq!(
            seen,
            [HalfOpen, HalfOpen, Established, Established, Established]
        );
        assert_eq!(completed, 1);
        assert!(original.has(State::ESTABLISHED));
    }
}
