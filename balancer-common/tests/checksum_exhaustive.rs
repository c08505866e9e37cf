//! The update of a checksum is what computing it anew gives, for each of the 2³² pairs of a checksum and a difference.
//!
//! # What is compared
//! Data whose sum is *s* has the checksum ~*s*. A word 0xffff of it, which adds nothing to a sum that is not 0, becomes *d*; so *d* is
//! the difference, and the new sum is that of *s* and *d*, computed anew by adding them modulo 65,535. Since *s* and *d* are any
//! words at all, each pair is the end of some real change.
//!
//! # The two zeros
//! In one's complement 0x0000 and 0xffff are the same number. A sum of words is 0x0000 only when all of them are, and what a
//! transport checksum covers includes the protocol's number, an IPv4 header its version: their sums go from 0x0001 to 0xffff, and
//! the checksums that are computed from 0xfffe to 0x0000. For these the update is the same word, not just the same number.
//!
//! The checksum 0xffff is computed by nobody, but may be received; it stands for the sum 0xffff as 0x0000 does. Of that:
//! - TCP and IPv4: the update is the same word too, unless nothing changes: 0xffff with the difference 0x0000 stays 0xffff, where
//!   0x0000 would be computed. To a receiver, who adds up all words (RFC 1071, section 1, step 3), these are the same.
//! - UDP (RFC 768): 0x0000 says that there is no checksum, and stays. A computed 0x0000 is sent as 0xffff. So all of its
//!   65,535 checksums stand for one sum each, the update is always the same word, and never 0x0000.
#![cfg(not(loom))]

use std::thread::{self, ScopedJoinHandle};

use balancer_common::checksum::{fold, replace, update, update_udp};

/// The sum of data whose sum is not 0, with `difference` added: from 1 to 0xffff.
const fn sum(of: u16, difference: u16) -> u16 {
    ((of as u32 + difference as u32 + 0xfffe) % 0xffff + 1) as u16
}

/// How many of the pairs of a checksum with all differences are updated to what is not computed.
fn wrong(checksum: u16) -> u32 {
    // Of 0xffff: see above.
    let before = if checksum == 0xffff {
        0xffff
    } else {
        !checksum
    };
    let mut wrong = 0;
    for difference in 0..=0xffff {
        let computed = !sum(before, difference);
        let computed_udp = if computed == 0 { 0xffff } else { computed };
        let wanted_udp = if checksum == 0 { 0 } else { computed_udp };
        wrong += u32::from(update(checksum, difference) != computed);
        wrong += u32::from(update_udp(checksum, difference) != wanted_udp);
    }
    wrong
}

#[test]
fn every_update_is_what_computing_anew_gives() {
    if cfg!(debug_assertions) {
        println!("left out: the 2³² pairs are for a release build");
        return;
    }
    let threads = thread::available_parallelism().map_or(2, usize::from);
    let wrong: Vec<(u16, u32)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|first| {
                scope.spawn(move || {
                    (0..=0xffff)
                        .skip(first)
                        .step_by(threads)
                        .map(|checksum| (checksum, wrong(checksum)))
                        .filter(|&(_, wrong)| wrong > 0)
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let results = workers.into_iter().map(ScopedJoinHandle::join);
        results
            .flat_map(|result| result.expect("it has counted"))
            .collect()
    });
    // The pair that the two zeros are about, and no other.
    let (first, count) = (&wrong[..wrong.len().min(8)], wrong.len());
    assert_eq!(
        first,
        [(0xffff, 1)],
        "the first of {count} checksums, and how many wrong updates each has"
    );
    assert_eq!((update(0xffff, 0), !sum(0xffff, 0)), (0xffff, 0));
}

/// The textbook's sum (RFC 1071, section 1): words one after the other, with the carry around the end.
fn textbook(words: &[u16]) -> u16 {
    words.iter().fold(0, |sum, &word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

/// What the above takes for granted: how sums are computed, and that a changed word makes such a difference.
#[test]
fn sums_are_those_of_the_textbook() {
    const SOME: [u16; 12] = [
        0, 1, 2, 0x00ff, 0x0100, 0x1234, 0x7fff, 0x8000, 0xedcb, 0xff00, 0xfffe, 0xffff,
    ];
    for before in 1..=0xffff {
        assert_eq!(textbook(&[before, 0xffff]), before);
        for difference in SOME {
            assert_eq!(sum(before, difference), textbook(&[before, difference]));
        }
    }
    for old in 0..=0xffff {
        for new in SOME {
            let difference = fold(replace(old.into(), new.into()));
            for rest in [1, 0x4500, 0xffff] {
                let (before, after) = (textbook(&[rest, old]), textbook(&[rest, new]));
                assert_eq!(sum(before, difference), after, "{old:#x} to {new:#x}");
            }
        }
    }
}
