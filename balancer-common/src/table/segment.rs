//! What a TCP segment does to its connection (RFC 5382, section 5; RFC 7857, section 2.2).
//!
//! Who is not on the way of a connection may guess its addresses and ports, but not its sequence numbers (RFC 5961). So a
//! segment changes something only when it has numbers that the connection can have come to. One that has not is sent on,
//! since its receiver may have to answer it (RFC 5961, sections 3 to 5), and changes nothing: no state, no time.
//!
//! A flow has one number of its own, its [`Side::ack`]: the highest that its packets have acknowledged, which is what their
//! sender expects next. It is so the left edge of the window in which the other direction's segments are. The right edge is not
//! known, only how far away it is at most: 65,535 by the [`Scale`].
//!
//! # Handshake
//! While a connection is half-open the two numbers are what the SYN and its answer say:
//! - The reply's is the SYN's number and one, which the backend has to acknowledge, with a RST too (RFC 9293, section 3.10.7.3).
//! - The original's is the end of the SYN: another number that may be acknowledged, when the SYN carries data (RFC 7413) or is
//!   another one than the first, of a client that gave up and begins anew. The answer makes it the backend's number and one.
//!
//! A SYN of another number takes the answer's place so, whoever has sent it; but the backend answers each that
//! reaches it, and what it says then puts things right.

use crate::table::state::State;
use crate::wire::tcp::flags::{ACK, FIN, RST, SYN};

/// What of a segment concerns its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// One word, since an engine may read it in a function of its own: bits 0–31 the sequence number, 32–47 how many bytes it
    /// carries, 48–51 of a SYN the [`Scale`] that it offers, 56–63 the control bits.
    word: u64,
    /// The acknowledgement number.
    pub acknowledgement: u32,
}

impl Segment {
    /// What stands for one where there is none (UDP): it passes as any segment that changes nothing.
    pub const DATAGRAM: Self = Self::new(ACK, 0, 0);

    /// A segment without data; if it is a SYN, without options.
    #[inline(always)]
    #[must_use]
    pub const fn new(flags: u8, sequence: u32, acknowledgement: u32) -> Self {
        let word = sequence as u64 | (flags as u64) << 56;
        Self {
            word,
            acknowledgement,
        }
        .offering(Scale::NONE)
    }

    /// The same with so many bytes of data.
    #[inline(always)]
    #[must_use]
    pub const fn carrying(self, length: u16) -> Self {
        let word = self.word & !(0xffff << 32) | (length as u64) << 32;
        Self { word, ..self }
    }

    /// The same with this scale.
    #[inline(always)]
    #[must_use]
    pub const fn offering(self, scale: Scale) -> Self {
        let word = self.word & !(15 << 48) | (scale.0 as u64) << 48;
        Self { word, ..self }
    }

    /// Its word.
    #[inline(always)]
    #[must_use]
    pub const fn to_word(self) -> u64 {
        self.word
    }

    /// The inverse.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64, acknowledgement: u32) -> Self {
        Self {
            word,
            acknowledgement,
        }
    }

    /// The sequence number.
    #[inline(always)]
    #[must_use]
    pub const fn sequence(&self) -> u32 {
        self.word as u32
    }

    /// How many bytes it carries.
    #[inline(always)]
    const fn length(&self) -> u32 {
        (self.word >> 32) as u32 & 0xffff
    }

    /// Of a SYN: the scale that it offers.
    #[inline(always)]
    #[must_use]
    pub const fn scale(&self) -> Scale {
        Scale((self.word >> 48) as u8 & 15)
    }

    /// The control bits.
    #[inline(always)]
    #[must_use]
    pub const fn flags(&self) -> u8 {
        (self.word >> 56) as u8
    }

    /// Whether any of these control bits are set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags() & flags != 0
    }

    /// The number of its first byte. A SYN has one before it.
    #[inline(always)]
    #[must_use]
    pub const fn first(&self) -> u32 {
        self.sequence().wrapping_add(self.has(SYN) as u32)
    }

    /// The number behind its last byte.
    #[inline(always)]
    #[must_use]
    pub const fn end(&self) -> u32 {
        self.first().wrapping_add(self.length())
    }
}

/// How far a window is shifted (RFC 7323, section 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Scale(pub u8);

impl Scale {
    /// The largest: what is taken where nothing is known for sure.
    pub const MOST: Self = Self(14);
    /// Not offered. Four bits, like the others.
    pub const NONE: Self = Self(15);

    /// The widest window.
    #[inline(always)]
    #[must_use]
    pub const fn window(self) -> u32 {
        NARROW << self.0
    }

    /// What is known of it when the other direction has offered `peer`: both must (RFC 7323, section 2.2).
    #[inline(always)]
    const fn if_offered(self, peer: Self) -> Self {
        if peer.0 == Self::NONE.0 { peer } else { self }
    }

    /// What holds in the end.
    #[inline(always)]
    const fn agreed(self, peer: Self) -> Self {
        match self.if_offered(peer) {
            Self::NONE => Self(0),
            scale => scale,
        }
    }

    /// The wider one of two that a client has offered.
    #[inline(always)]
    const fn or(self, other: Self) -> Self {
        if other.0 != Self::NONE.0 && (self.0 == Self::NONE.0 || other.0 > self.0) {
            other
        } else {
            self
        }
    }
}

/// The widest window that is not scaled; those of SYNs never are, so it bounds what the other side can have sent before the
/// handshake is complete.
const NARROW: u32 = 0xffff;

/// Whether a number is not before `from`, and not more than `window` behind it.
#[inline(always)]
const fn is_within(number: u32, from: u32, window: u32) -> bool {
    number.wrapping_sub(from) <= window
}

/// Whether two numbers are not further apart than a window: of old segments that were sent again or overtaken, or ask whether
/// anybody is still there (RFC 9293, section 3.8.4), the number is before the window.
///
/// Compared in the units of the scale, rounded down: it is done for each packet.
#[inline(always)]
#[must_use]
pub const fn is_near(number: u32, other: u32, scale: Scale) -> bool {
    let units = number.wrapping_sub(other).cast_signed() >> scale.0;
    is_within(units.cast_unsigned().wrapping_add(NARROW), 0, 2 * NARROW)
}

/// Whether a number is behind another.
#[inline(always)]
#[must_use]
pub const fn is_later(number: u32, other: u32) -> bool {
    number.wrapping_sub(other).cast_signed() > 0
}

/// One direction, as its flow knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Side {
    /// What its packets have shown.
    pub state: State,
    /// What its sender's windows are scaled by.
    pub scale: Scale,
    /// What its sender expects next.
    pub ack: u32,
}

impl Side {
    /// As one word, for an engine that keeps [`advance`] in a function of its own: scale and state are where a flow's word has
    /// them, the number is in the upper half.
    #[inline(always)]
    #[must_use]
    pub const fn to_word(self) -> u64 {
        (self.scale.0 as u64) << 4 | (self.state.0 as u64) << 8 | (self.ack as u64) << 32
    }

    /// The inverse; whatever the other bits are.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        Self {
            state: State((word >> 8) as u8),
            scale: Scale((word >> 4) as u8 & 15),
            ack: (word >> 32) as u32,
        }
    }

    #[inline(always)]
    const fn with(self, bits: u8) -> Self {
        Self {
            state: State(self.state.0 | bits),
            ..self
        }
    }

    /// Takes a number that was acknowledged, if the connection can have come to it. Says whether.
    #[inline(always)]
    pub const fn acknowledge(&mut self, number: u32) -> bool {
        if !is_near(number, self.ack, self.scale) {
            return false;
        }
        if is_later(number, self.ack) {
            self.ack = number;
        }
        true
    }
}

/// What a segment changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advanced {
    /// Its own direction becomes this.
    pub own: Side,
    /// It is what answers a SYN: the sender of the other direction's packets expects now its [first byte](Segment::first).
    pub is_answer: bool,
}

impl Advanced {
    /// As [`Side::to_word`], with two of the other bits; 0: nothing.
    #[inline(always)]
    #[must_use]
    pub const fn encode(advanced: Option<Self>) -> u64 {
        match advanced {
            Some(Self { own, is_answer }) => own.to_word() | (is_answer as u64) << 1 | 1,
            None => 0,
        }
    }

    /// The inverse.
    #[inline(always)]
    #[must_use]
    pub const fn decode(word: u64) -> Option<Self> {
        if word & 1 == 0 {
            return None;
        }
        Some(Self {
            own: Side::from_word(word),
            is_answer: word & 2 != 0,
        })
    }
}

impl From<Side> for Advanced {
    #[inline(always)]
    fn from(own: Side) -> Self {
        Self {
            own,
            is_answer: false,
        }
    }
}

/// What a segment of a direction changes, the reply's or the original's; `None`: nothing.
#[inline(always)]
#[must_use]
pub fn advance(reply: bool, own: Side, peer: Side, segment: Segment) -> Option<Advanced> {
    if (own.state.0 | peer.state.0) & State::ESTABLISHED != 0 {
        go_on(own, peer, segment).map(Advanced::from)
    } else if reply {
        answer(own, peer, segment)
    } else {
        ask(own, peer, segment).map(Advanced::from)
    }
}

/// The connection is established.
#[inline(always)]
fn go_on(own: Side, peer: Side, segment: Segment) -> Option<Side> {
    // Who gets it answers with the number that is right, and who has lost the connection resets it by that (RFC 5961,
    // section 4).
    if segment.has(SYN) {
        return None;
    }
    let scale = peer.scale.agreed(own.scale);
    if segment.has(RST) {
        return is_within(segment.sequence(), peer.ack, scale.window())
            .then(|| own.with(State::RST));
    }
    if !segment.has(ACK) {
        return None;
    }
    let mut own = Side {
        scale: own.scale.agreed(peer.scale),
        ..own.with(State::ESTABLISHED)
    };
    let in_window = is_near(segment.sequence(), peer.ack, scale);
    let acknowledges = own.acknowledge(segment.acknowledgement);
    if !in_window && (segment.has(FIN) || !acknowledges) {
        return None;
    }
    if !acknowledges {
        // What the flow had cannot be right.
        own.ack = segment.acknowledgement;
    } else if segment.has(FIN) {
        own = own.with(State::FIN);
    }
    Some(own)
}

/// The connection is half-open, and the client says something.
#[inline(always)]
fn ask(own: Side, peer: Side, segment: Segment) -> Option<Side> {
    if segment.has(RST) {
        return is_within(segment.sequence(), peer.ack, NARROW).then(|| own.with(State::RST));
    }
    if segment.has(SYN) {
        let is_known = segment.first() == peer.ack;
        return match segment.flags() & (ACK | FIN) {
            0 => Some(Side {
                scale: own.scale.or(segment.scale()),
                ack: if is_known { own.ack } else { segment.end() },
                ..own
            }),
            // Both began at the same time (RFC 9293, section 3.5).
            ACK if is_known => Some(own),
            _ => None,
        };
    }
    let is_answer = segment.has(ACK)
        && peer.state.has(State::SYN_ACK)
        && is_within(segment.acknowledgement, own.ack, NARROW)
        && is_near(segment.sequence(), peer.ack, Scale(0));
    let fin = if segment.has(FIN) { State::FIN } else { 0 };
    is_answer.then(|| Side {
        scale: own.scale.agreed(peer.scale),
        ack: segment.acknowledgement,
        ..own.with(State::ESTABLISHED | fin)
    })
}

/// The connection is half-open, and the backend says something.
#[inline(always)]
fn answer(own: Side, peer: Side, segment: Segment) -> Option<Advanced> {
    let number = segment.acknowledgement;
    let acknowledges = segment.has(ACK) && (number == own.ack || number == peer.ack);
    let is_known = own.state.has(State::SYN_ACK) && is_within(segment.sequence(), peer.ack, NARROW);
    if segment.has(RST) {
        return (acknowledges || is_known).then(|| own.with(State::RST).into());
    }
    let is_syn = segment.has(SYN);
    // Of what the client sent behind its SYN it may acknowledge more.
    let goes_on = segment.has(ACK) && !is_syn && is_within(number, own.ack, NARROW);
    if !acknowledges && !goes_on {
        return None;
    }
    let fin = if segment.has(FIN) { State::FIN } else { 0 };
    Some(Advanced {
        own: Side {
            scale: if is_syn {
                segment.scale().if_offered(peer.scale)
            } else {
                own.scale
            },
            ack: number,
            ..own.with(State::SYN_ACK | fin)
        },
        is_answer: is_syn || !is_known,
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::table::state::Phase;

    /// The numbers of the SYNs, so that those behind them wrap around soon.
    const CLIENT: u32 = u32::MAX - 2;
    const BACKEND: u32 = 0xffff_fff0;

    /// Both directions of a connection.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Pair {
        original: Side,
        reply: Side,
    }

    impl Pair {
        /// As a SYN enters them.
        fn opened(syn: Segment) -> Self {
            let side = |scale, ack| Side {
                state: State(0),
                scale,
                ack,
            };
            Self {
                original: side(syn.scale(), syn.end()),
                reply: side(Scale::MOST, syn.first()),
            }
        }

        /// Gives a segment of the client or the backend to them. Says whether it changed anything, if only the time.
        fn takes(&mut self, from_client: bool, segment: Segment) -> bool {
            let (own, peer) = if from_client {
                (&mut self.original, &mut self.reply)
            } else {
                (&mut self.reply, &mut self.original)
            };
            let advanced = advance(!from_client, *own, *peer, segment);
            assert_eq!(Advanced::decode(Advanced::encode(advanced)), advanced);
            let Some(Advanced {
                own: after,
                is_answer,
            }) = advanced
            else {
                return false;
            };
            *own = after;
            if is_answer {
                peer.ack = segment.first();
            }
            true
        }

        fn phase(&self) -> Phase {
            Phase::of(self.original.state, self.reply.state)
        }
    }

    /// A segment of the client: bytes that it sent before, bytes that it got.
    fn client(flags: u8, sent: u32, got: u32) -> Segment {
        Segment::new(
            flags,
            CLIENT.wrapping_add(1).wrapping_add(sent),
            BACKEND.wrapping_add(1).wrapping_add(got),
        )
    }

    /// One of the backend likewise.
    fn backend(flags: u8, sent: u32, got: u32) -> Segment {
        let Segment {
            acknowledgement, ..
        } = client(flags, sent, got);
        Segment::new(
            flags,
            acknowledgement.wrapping_sub(got).wrapping_add(sent),
            CLIENT.wrapping_add(1).wrapping_add(got),
        )
    }

    fn syn() -> Segment {
        Segment::new(SYN, CLIENT, 0)
    }

    fn syn_ack() -> Segment {
        Segment::new(SYN | ACK, BACKEND, CLIENT.wrapping_add(1))
    }

    /// After the handshake, with these scales.
    fn established(client_scale: Scale, backend_scale: Scale) -> Pair {
        let mut pair = Pair::opened(syn().offering(client_scale));
        assert!(pair.takes(false, syn_ack().offering(backend_scale)));
        assert_eq!(pair.phase(), Phase::HalfOpen);
        assert!(pair.takes(true, client(ACK, 0, 0)));
        assert_eq!(pair.phase(), Phase::Established);
        pair
    }

    #[test]
    fn a_word_keeps_a_segment() {
        let segment = Segment::new(SYN | ACK, 0x8123_4567, 9)
            .carrying(0xfedc)
            .offering(Scale(11));
        assert_eq!(Segment::from_word(segment.to_word(), 9), segment);
        assert_eq!(segment.flags(), SYN | ACK);
        assert_eq!(segment.scale(), Scale(11));
        assert_eq!(segment.sequence(), 0x8123_4567);
        assert_eq!(segment.end(), 0x8123_4568 + 0xfedc);
        assert_eq!(Segment::new(ACK, 5, 6).end(), 5);
    }

    #[test]
    fn a_connection_lives_and_closes() {
        let mut pair = established(Scale::NONE, Scale::NONE);
        for (from_client, segment) in [
            (true, client(ACK, 0, 0).carrying(1000)),
            (false, backend(ACK, 0, 1000).carrying(60_000)),
            (true, client(FIN | ACK, 1000, 60_000)),
            (false, backend(ACK, 60_000, 1001)),
        ] {
            assert!(pair.takes(from_client, segment));
            assert_eq!(pair.phase(), Phase::Established, "one side may go on");
        }
        assert!(pair.takes(false, backend(FIN | ACK, 60_000, 1001)));
        assert_eq!(pair.phase(), Phase::Closing);
        assert!(pair.takes(true, client(ACK, 1001, 60_001)));
    }

    #[test]
    fn a_reset_has_to_be_in_the_window() {
        for (shift, window) in [(Scale::NONE, 0xffff), (Scale(3), 0xffff << 3)] {
            let mut pair = established(shift, shift);
            assert!(pair.takes(true, client(ACK, 500, 0)));
            assert!(pair.takes(false, backend(ACK, 0, 500)));
            // With or without an acknowledgement, which is of no account.
            for flags in [RST, RST | ACK] {
                for (offset, is_right) in [
                    (u32::MAX, false),
                    (0, true),
                    (window, true),
                    (window + 1, false),
                    (1 << 31, false),
                ] {
                    let mut there = pair;
                    let segment = client(flags, 500_u32.wrapping_add(offset), 77 << 24);
                    assert_eq!(there.takes(true, segment), is_right, "{offset}");
                    assert_eq!(there.phase() == Phase::Closing, is_right);
                    let mut back = pair;
                    let segment = backend(flags, offset, 77 << 24);
                    assert_eq!(back.takes(false, segment), is_right, "{offset}");
                    assert_eq!(back.phase() == Phase::Closing, is_right);
                }
            }
        }
    }

    #[test]
    fn a_fin_has_to_be_in_the_window_and_to_acknowledge() {
        let pair = established(Scale::NONE, Scale::NONE);
        for (from_client, right) in [
            (true, client as fn(u8, u32, u32) -> Segment),
            (false, backend),
        ] {
            for (sent, got, is_fin) in [
                (0, 0, true),
                (0xffff, 0xffff, true),
                (0x1_0000, 0, false),
                (0, 0x1_0000, false),
                (u32::MAX - 0x1_0000, 0, false),
                (1 << 31, 1 << 31, false),
            ] {
                let mut pair = pair;
                pair.takes(from_client, right(FIN | ACK, sent, got));
                let own = if from_client {
                    pair.original
                } else {
                    pair.reply
                };
                assert_eq!(own.state.has(State::FIN), is_fin, "{sent} {got}");
            }
            let mut pair = pair;
            assert!(!pair.takes(from_client, right(FIN, 0, 0)), "without ACK");
            // In the window, it tells what is acknowledged all the same.
            let fin = right(FIN | ACK, 0, 1 << 30);
            assert!(pair.takes(from_client, fin));
            let own = if from_client {
                pair.original
            } else {
                pair.reply
            };
            assert_eq!(own.ack, fin.acknowledgement);
        }
    }

    /// Of a handshake's last segment, and of the answer to data of the SYN.
    #[test]
    fn a_fin_may_come_early() {
        let mut pair = Pair::opened(syn().carrying(100));
        assert!(pair.takes(false, syn_ack()));
        assert!(pair.takes(false, backend(FIN | ACK, 0, 100)));
        assert!(pair.takes(true, client(FIN | ACK, 100, 1)));
        assert_eq!(pair.phase(), Phase::Closing);
    }

    #[test]
    fn one_byte_more_is_later() {
        for number in [0, u32::MAX] {
            assert!(is_later(number.wrapping_add(1), number));
            assert!(!is_later(number, number));
            assert!(!is_later(number, number.wrapping_add(1)));
        }
    }

    #[test]
    fn a_syn_changes_nothing_of_what_is_established() {
        let pair = established(Scale(7), Scale(7));
        for segment in [
            syn(),
            syn_ack(),
            client(SYN, 9, 0),
            backend(SYN | ACK, 9, 0),
        ] {
            for from_client in [true, false] {
                let mut after = pair;
                assert!(!after.takes(from_client, segment));
                assert_eq!(after, pair);
            }
        }
    }

    #[test]
    fn what_is_nowhere_near_changes_nothing() {
        let pair = established(Scale(2), Scale(2));
        let far: u32 = 1 << 18;
        for (sent, got) in [(far, far), (far, 1 << 31), (1 << 31, far.wrapping_neg())] {
            let mut after = pair;
            assert!(!after.takes(true, client(ACK, sent, got)));
            assert!(!after.takes(false, backend(ACK, sent, got)));
            assert_eq!(after, pair);
        }
        // Nor does what has no acknowledgement.
        let mut after = pair;
        assert!(!after.takes(true, client(0, 0, 0)));
        assert_eq!(after, pair);
        // One number that is near is enough.
        assert!(after.takes(true, client(ACK, far, 0)));
        assert!(after.takes(true, client(ACK, 0, far)));
    }

    #[test]
    fn a_probe_is_a_sign_of_life() {
        let mut pair = established(Scale::NONE, Scale::NONE);
        assert!(pair.takes(true, client(ACK, u32::MAX, 0)));
        assert!(pair.takes(false, backend(ACK, u32::MAX, 0)));
    }

    #[test]
    fn a_number_that_was_led_astray_is_found_again() {
        let mut pair = established(Scale::NONE, Scale::NONE);
        let right = pair.original.ack;
        // Somebody guessed the sequence number.
        assert!(pair.takes(true, client(ACK, 0, 1 << 30)));
        assert_ne!(pair.original.ack, right);
        assert!(pair.takes(true, client(ACK, 0, 0)));
        assert_eq!(pair.original.ack, right);
    }

    #[test]
    fn only_the_right_answer_counts() {
        let mut pair = Pair::opened(syn());
        for number in [0, CLIENT, CLIENT.wrapping_add(2), CLIENT ^ 1 << 31] {
            assert!(!pair.takes(false, Segment::new(SYN | ACK, BACKEND, number)));
            assert!(!pair.takes(false, Segment::new(RST | ACK, 0, number)));
        }
        assert!(!pair.takes(false, Segment::new(RST, 0, CLIENT.wrapping_add(1))));
        assert!(!pair.takes(true, client(ACK, 0, 0)), "nobody has answered");
        let mut refused = pair;
        assert!(refused.takes(false, Segment::new(RST | ACK, 0, CLIENT.wrapping_add(1))));
        assert_eq!(refused.phase(), Phase::Refused);

        assert!(pair.takes(false, syn_ack()));
        for got in [u32::MAX, 0x1_0000, 1 << 31] {
            assert!(!pair.takes(true, client(ACK, 0, got)));
        }
        assert!(!pair.takes(true, client(ACK, 1 << 20, 0)));
        assert_eq!(pair.phase(), Phase::HalfOpen);
        // The backend thinks better of it, and the client knows nothing of it.
        let mut refused = pair;
        assert!(!refused.takes(false, backend(RST, 1 << 20, 0)));
        assert!(refused.takes(false, backend(RST, 0, 1 << 20)));
        assert_eq!(refused.phase(), Phase::Refused);
        let mut refused = pair;
        assert!(!refused.takes(true, client(RST, 1 << 20, 0)));
        assert!(!refused.takes(true, client(RST, u32::MAX, 0)));
        assert!(refused.takes(true, client(RST, 0, 1 << 20)));
        assert_eq!(refused.phase(), Phase::Refused);
    }

    #[test]
    fn a_syn_may_carry_data() {
        for acknowledged in [0, 700] {
            let mut pair = Pair::opened(syn().carrying(700));
            let answer = CLIENT.wrapping_add(1 + acknowledged);
            assert!(!pair.takes(
                false,
                Segment::new(SYN | ACK, BACKEND, answer.wrapping_add(1))
            ));
            assert!(pair.takes(false, Segment::new(SYN | ACK, BACKEND, answer)));
            // The backend may go on without waiting.
            assert!(pair.takes(false, backend(ACK, 0, acknowledged).carrying(1400)));
            assert!(pair.takes(false, backend(ACK | FIN, 1400, acknowledged)));
            assert!(pair.takes(true, client(ACK, acknowledged, 0)));
            assert_eq!(pair.phase(), Phase::Established);
        }
    }

    #[test]
    fn a_syn_sent_again_changes_nothing() {
        let mut pair = Pair::opened(syn());
        let opened = pair;
        assert!(pair.takes(true, syn()));
        assert_eq!(pair, opened);
        assert!(pair.takes(false, syn_ack()));
        let answered = pair;
        // Sent before the answer came.
        assert!(pair.takes(true, syn()));
        assert_eq!(pair, answered);
        assert!(pair.takes(false, syn_ack()));
        assert_eq!(pair, answered);
        assert!(pair.takes(true, client(ACK, 0, 0)));
        assert_eq!(pair.phase(), Phase::Established);
    }

    /// A client that gave up begins with another number, and the backend knows nothing of the first (RFC 4987: SYN cookies).
    #[test]
    fn a_client_begins_anew() {
        for answered in [false, true] {
            let mut pair = Pair::opened(syn());
            if answered {
                assert!(pair.takes(false, syn_ack()));
            }
            let [number, other] = [77_000, 99_000];
            assert!(pair.takes(true, Segment::new(SYN, number, 0)));
            assert!(pair.takes(false, Segment::new(SYN | ACK, other, number + 1)));
            assert!(!pair.takes(true, client(ACK, 0, 0)));
            assert!(pair.takes(true, Segment::new(ACK, number + 1, other + 1)));
            assert_eq!(pair.phase(), Phase::Established);
        }
    }

    #[test]
    fn a_forged_syn_does_not_keep_a_connection_from_being_established() {
        let forged = Segment::new(SYN, 77_000, 0);
        let mut pair = Pair::opened(syn());
        assert!(pair.takes(true, forged));
        assert!(pair.takes(false, syn_ack()));
        let mut before = pair;
        assert!(before.takes(true, client(ACK, 0, 0)));
        assert_eq!(before.phase(), Phase::Established);
        // Behind the answer: what the backend says to it (RFC 5961, section 4), or to the client's data, is as good.
        assert!(pair.takes(true, forged));
        assert!(!pair.takes(true, client(ACK, 0, 0)));
        assert!(pair.takes(false, backend(ACK, 0, 100)));
        assert!(pair.takes(true, client(ACK, 100, 0)));
        assert_eq!(pair.phase(), Phase::Established);
    }

    #[test]
    fn both_may_begin_at_the_same_time() {
        let mut pair = Pair::opened(syn());
        assert!(!pair.takes(false, Segment::new(SYN, BACKEND, 0)));
        assert!(!pair.takes(true, Segment::new(SYN | ACK, 77_000, 0)));
        assert!(pair.takes(
            true,
            Segment::new(SYN | ACK, CLIENT, BACKEND.wrapping_add(1))
        ));
        let mut crossed = pair;
        assert!(crossed.takes(false, syn_ack()));
        assert!(pair.takes(false, backend(ACK, 0, 0)));
        for mut pair in [pair, crossed] {
            assert!(pair.takes(true, client(ACK, 0, 0)));
            assert_eq!(pair.phase(), Phase::Established);
        }
    }

    #[test]
    fn windows_are_scaled_when_both_say_so() {
        for (scales, expected) in [
            ([Scale(7), Scale(9)], [7, 9]),
            ([Scale(0), Scale(14)], [0, 14]),
            ([Scale::NONE, Scale(9)], [0, 0]),
            ([Scale(7), Scale::NONE], [0, 0]),
        ] {
            let mut pair = established(scales[0], scales[1]);
            assert!(pair.takes(false, backend(ACK, 0, 0)));
            assert_eq!([pair.original.scale.0, pair.reply.scale.0], expected);
        }
        // Of SYNs sent again the best offer counts: whichever the backend answers.
        let mut pair = Pair::opened(syn().offering(Scale(7)));
        assert!(pair.takes(true, syn()));
        assert_eq!(pair.original.scale, Scale(7));
        assert!(pair.takes(true, syn().offering(Scale(8))));
        assert_eq!(pair.original.scale, Scale(8));
        assert_eq!(Scale::MOST.window(), 0xffff << 14);
        assert!(is_near(0, 0xffff << 14, Scale::MOST));
        assert!(!is_near(0, (0xffff << 14) + 1, Scale::MOST));
        assert!(is_near((1 << 30) - 1, 0, Scale::MOST));
        assert!(!is_near(1 << 30, 0, Scale::MOST));
    }
}
