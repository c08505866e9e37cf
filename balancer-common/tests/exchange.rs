//! Two ends that exchange bytes through the box, over links that lose and reorder: whatever they send is taken for theirs.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "a test that fails here has failed")]

mod chance;

use std::collections::{BTreeMap, VecDeque};

use balancer_common::table::segment::{Advanced, Scale, Segment, Side, advance};
use balancer_common::table::state::{Phase, State};
use balancer_common::wire::tcp::flags::{ACK, FIN, RST, SYN};
use chance::Chance;

/// A segment as the ends see it: positions in the streams from the SYN on, which is at 0, and what the box sees of it.
#[derive(Clone, Copy, Debug)]
struct Sent {
    flags: u8,
    at: u64,
    length: u64,
    ack: u64,
    /// How far behind `ack` its sender takes bytes.
    window: u64,
}

/// One end. Its stream is SYN, `bytes`, FIN.
#[derive(Debug)]
struct End {
    /// The number of its SYN.
    first: u32,
    bytes: u64,
    /// Its greatest window.
    room: u64,
    /// What the other one has acknowledged, what was sent last, and how far that goes.
    acknowledged: u64,
    next: u64,
    furthest: u64,
    may_send_to: u64,
    /// What it expects next, and what came too early: beginnings to ends.
    expects: u64,
    early: BTreeMap<u64, u64>,
    /// Segments since it acknowledged last.
    silent: u32,
}

impl End {
    fn new(chance: &mut Chance, scale: Scale) -> Self {
        let widest = if scale == Scale::NONE {
            0xffff
        } else {
            u64::from(scale.window())
        };
        Self {
            // Often so that the numbers wrap around soon.
            first: (chance.below(4) as u32) << 30 | chance.below(1 << 16) as u32,
            bytes: chance.below(3_000_000),
            room: (2000 + chance.below(widest - 2000)).min(2_000_000),
            acknowledged: 0,
            next: 0,
            furthest: 0,
            may_send_to: 1,
            expects: 0,
            early: BTreeMap::new(),
            silent: 0,
        }
    }

    /// Where its stream ends, the FIN included.
    fn end(&self) -> u64 {
        self.bytes + 2
    }

    fn segment(&self, flags: u8, at: u64, length: u64) -> Sent {
        Sent {
            flags: if self.expects > 0 { flags | ACK } else { flags },
            at,
            length,
            ack: self.expects,
            window: self.room,
        }
    }

    /// The next segment that it may send, if any.
    fn say(&mut self, chance: &mut Chance) -> Option<Sent> {
        if self.next == 0 {
            self.next = 1;
            self.furthest = self.furthest.max(1);
            return Some(self.segment(SYN, 0, 0));
        }
        if self.expects == 0 || self.acknowledged == 0 {
            return None;
        }
        let (data, to) = (self.bytes + 1, self.may_send_to);
        if self.next < data && self.next < to {
            let length = (1 + chance.below(1460))
                .min(data - self.next)
                .min(to - self.next);
            let sent = self.segment(0, self.next, length);
            self.next += length;
            self.furthest = self.furthest.max(self.next);
            self.silent = 0;
            return Some(sent);
        }
        if self.next == data {
            self.next = self.end();
            self.furthest = self.next;
            self.silent = 0;
            return Some(self.segment(FIN, data, 0));
        }
        None
    }

    /// Takes a segment. Says whether it wants to answer at once.
    fn hear(&mut self, chance: &mut Chance, sent: Sent) -> bool {
        if sent.flags & ACK != 0 {
            self.acknowledged = self.acknowledged.max(sent.ack);
            self.next = self.next.max(self.acknowledged);
            self.may_send_to = self.may_send_to.max(sent.ack + sent.window);
        }
        let special = u64::from(sent.flags & (SYN | FIN) != 0);
        let end = sent.at + sent.length + special;
        if end == sent.at {
            // It asks whether anybody is there.
            return sent.at < self.expects && chance.below(2) == 0;
        }
        self.early.insert(
            sent.at,
            end.max(self.early.get(&sent.at).copied().unwrap_or(0)),
        );
        let before = self.expects;
        while let Some((&at, &end)) = self.early.first_key_value()
            && at <= self.expects
        {
            self.early.remove(&at);
            self.expects = self.expects.max(end);
        }
        self.silent += 1;
        special != 0 || before == self.expects || self.silent > 8 || chance.below(3) == 0
    }

    /// Nothing comes any more: it begins again where the other one is, or asks.
    fn lose_patience(&mut self, chance: &mut Chance) -> Option<Sent> {
        if self.acknowledged < self.furthest {
            self.next = self.acknowledged;
            return None;
        }
        let is_idle = self.expects > 0 && self.next > 1;
        (is_idle && chance.below(2) == 0).then(|| self.segment(0, self.next - 1, 0))
    }
}

/// The box between them, with what flows keep.
struct Between {
    sides: [Side; 2],
    first: [u32; 2],
}

impl Between {
    /// Whether a segment of `who` is taken for right.
    fn takes(&mut self, who: usize, sent: Sent, scale: Scale) -> bool {
        let number = |whose: usize, position: u64| self.first[whose].wrapping_add(position as u32);
        let segment = Segment::new(sent.flags, number(who, sent.at), number(1 - who, sent.ack))
            .carrying(sent.length as u16)
            .offering(if sent.flags & SYN == 0 {
                Scale::NONE
            } else {
                scale
            });
        let [own, peer] = [self.sides[who], self.sides[1 - who]];
        if own.state.is_settled(sent.flags) && self.sides[who].acknowledge(segment.acknowledgement)
        {
            return true;
        }
        let Some(Advanced { own, is_answer }) = advance(who == 1, own, peer, segment) else {
            return false;
        };
        self.sides[who] = own;
        if is_answer {
            self.sides[1 - who].ack = segment.first();
        }
        true
    }

    fn phase(&self) -> Phase {
        Phase::of(self.sides[0].state, self.sides[1].state)
    }
}

/// A link that loses one of so many segments, and lets one be overtaken by some.
struct Link {
    waiting: VecDeque<(Sent, u32)>,
    lossy: u64,
}

impl Link {
    fn put(&mut self, chance: &mut Chance, sent: Sent) {
        if chance.below(self.lossy) > 0 {
            self.waiting.push_back((sent, 0));
        }
    }

    fn take(&mut self, chance: &mut Chance) -> Option<Sent> {
        const OVERTAKEN: u32 = 3;
        let first = self.waiting.front_mut()?;
        let at = if first.1 < OVERTAKEN && chance.below(4) == 0 {
            first.1 += 1;
            chance.below(self.waiting.len().min(4) as u64) as usize
        } else {
            0
        };
        self.waiting.remove(at).map(|(sent, _)| sent)
    }
}

fn exchange(seed: u64) {
    let mut chance = Chance(seed);
    let scale = |chance: &mut Chance| match chance.below(3) {
        0 => Scale::NONE,
        _ => Scale(chance.below(15) as u8),
    };
    let scales = [scale(&mut chance), scale(&mut chance)];
    let agreed = if scales.contains(&Scale::NONE) {
        [Scale::NONE; 2]
    } else {
        scales
    };
    let mut ends = agreed.map(|scale| End::new(&mut chance, scale));
    let first = [ends[0].first, ends[1].first];
    let lossy = 5 + chance.below(200);
    // To the box and from it, of each end.
    let mut links = [(); 4].map(|()| Link {
        waiting: VecDeque::new(),
        lossy,
    });
    let mut between: Option<Between> = None;
    let mut closed = false;
    for step in 0..20_000_000_u64 {
        let who = chance.below(2) as usize;
        match chance.below(4) {
            // It says something, the server not before it was spoken to.
            0 if who == 0 || ends[1].expects > 0 => {
                if let Some(sent) = ends[who].say(&mut chance) {
                    links[who].put(&mut chance, sent);
                }
            }
            // Something comes to the box.
            1 => {
                let Some(sent) = links[who].take(&mut chance) else {
                    continue;
                };
                let between = between.get_or_insert_with(|| {
                    let side = |scale, ack| Side {
                        state: State(0),
                        scale,
                        ack,
                    };
                    let ack = first[0].wrapping_add(1);
                    Between {
                        sides: [side(scales[0], ack), side(Scale::MOST, ack)],
                        first,
                    }
                });
                let before = between.phase();
                let takes = between.takes(who, sent, scales[who]);
                let is_syn = sent.flags & SYN != 0 && before != Phase::HalfOpen;
                // What overtakes the client's first ACK, or the answer, says nothing.
                let is_early = before == Phase::HalfOpen;
                assert!(
                    takes || is_syn || is_early,
                    "seed {seed}, step {step}: {sent:?} of {who} in {before:?}, {:?}",
                    between.sides
                );
                links[2 + who].put(&mut chance, sent);
            }
            // Something comes to the other end.
            2 => {
                let Some(sent) = links[2 + who].take(&mut chance) else {
                    continue;
                };
                let end = &mut ends[1 - who];
                if end.hear(&mut chance, sent) && end.next > 0 {
                    end.silent = 0;
                    let ack = end.segment(0, end.next, 0);
                    links[1 - who].put(&mut chance, ack);
                }
            }
            _ if links.iter().all(|link| link.waiting.is_empty()) && chance.below(8) == 0 => {
                if let Some(probe) = ends[who].lose_patience(&mut chance) {
                    links[who].put(&mut chance, probe);
                }
                closed = ends.iter().all(|end| end.acknowledged == end.end());
                if closed {
                    break;
                }
            }
            _ => {}
        }
    }
    assert!(closed, "seed {seed}: {ends:?}");
    let mut between = between.unwrap();
    assert_eq!(between.phase(), Phase::Closing, "seed {seed}");
    for (who, end) in ends.iter().enumerate() {
        let reset = end.segment(RST, end.end(), 0);
        assert!(between.takes(who, reset, Scale::NONE), "seed {seed}");
    }
}

#[test]
fn what_two_ends_say_is_taken_for_theirs() {
    for seed in 0..60 {
        exchange(seed);
    }
}
