//! Frames that wait for something.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// How many frames wait at most; the one that has waited longest goes when there are more.
pub const MOST: usize = 4096;

/// How many frames wait for the same thing at most: those of a datagram of 64 KiB in pieces of 1,280 bytes.
pub const MOST_EACH: usize = 64;

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The interface's index.
    pub interface: u32,
    /// The receive queue.
    pub queue: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Where it belongs among others that wait for the same.
    pub position: u32,
}

/// Those that wait for one thing.
#[derive(Debug)]
struct Group {
    frames: Vec<Frame>,
    until: Instant,
    /// When to look.
    look: Instant,
    /// How long after that to look again; twice as long each time, so that nothing waits longer than twice as long as it must.
    patience: Duration,
}

/// All that wait, by what for.
#[derive(Debug)]
pub struct Held<K> {
    groups: HashMap<K, Group>,
    /// The groups by when to look.
    looks: BTreeMap<Instant, Vec<K>>,
    /// The groups by when they came.
    order: VecDeque<(Instant, K)>,
    count: usize,
}

impl<K> Default for Held<K> {
    fn default() -> Self {
        Self {
            groups: HashMap::new(),
            looks: BTreeMap::new(),
            order: VecDeque::new(),
            count: 0,
        }
    }
}

impl<K: Copy + Eq + std::hash::Hash> Held<K> {
    /// When to call [`Held::due`] next.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.looks.keys().next().copied()
    }

    /// Keeps a frame until `until`, unless others of the same kind came before and wait till then; `patience` is when to look
    /// first. Says how many frames there was no room for.
    pub fn keep(
        &mut self,
        key: K,
        frame: Frame,
        now: Instant,
        until: Instant,
        patience: Duration,
    ) -> usize {
        let mut lost = 0;
        if !self.groups.contains_key(&key) {
            let group = Group {
                frames: Vec::new(),
                until,
                look: now + patience,
                patience,
            };
            self.looks.entry(group.look).or_default().push(key);
            self.order.push_back((until, key));
            self.groups.insert(key, group);
        }
        let Some(group) = self.groups.get_mut(&key) else {
            return 1;
        };
        if group.frames.len() >= MOST_EACH {
            return 1;
        }
        let at = group
            .frames
            .partition_point(|other| other.position <= frame.position);
        group.frames.insert(at, frame);
        self.count += 1;
        while self.count > MOST {
            // The oldest that is still there.
            let Some((until, key)) = self.order.pop_front() else {
                break;
            };
            if self
                .groups
                .get(&key)
                .is_some_and(|group| group.until == until)
            {
                lost += self.take(&key).len();
            }
        }
        lost
    }

    /// Gives the things to look at now, and the frames that have waited too long.
    pub fn due(&mut self, now: Instant) -> (Vec<K>, Vec<(K, Frame)>) {
        let mut due = Vec::new();
        let mut expired = Vec::new();
        while let Some(entry) = self.looks.first_entry() {
            if *entry.key() > now {
                break;
            }
            let (at, keys) = entry.remove_entry();
            for key in keys {
                let Some(group) = self.groups.get_mut(&key).filter(|group| group.look == at) else {
                    continue;
                };
                if group.until <= now {
                    expired.extend(self.take(&key).into_iter().map(|frame| (key, frame)));
                    continue;
                }
                group.look = (now + group.patience).min(group.until.max(now));
                group.patience *= 2;
                due.push((group.look, key));
            }
        }
        for &(look, key) in &due {
            self.looks.entry(look).or_default().push(key);
        }
        // What is gone need not be remembered.
        while self.order.front().is_some_and(|(until, key)| {
            self.groups
                .get(key)
                .is_none_or(|group| group.until != *until)
        }) {
            self.order.pop_front();
        }
        (due.into_iter().map(|(_, key)| key).collect(), expired)
    }

    /// The first frame that waits for something, if `wanted` says so of its position; it waits no longer.
    pub fn release(&mut self, key: &K, wanted: impl FnOnce(u32) -> bool) -> Option<Frame> {
        let group = self.groups.get_mut(key)?;
        if !wanted(group.frames.first()?.position) {
            return None;
        }
        let frame = group.frames.remove(0);
        self.count -= 1;
        if group.frames.is_empty() {
            self.groups.remove(key);
        }
        Some(frame)
    }

    /// All frames that wait for what `wanted` picks; they wait no longer.
    pub fn release_all(&mut self, wanted: impl Fn(&K) -> bool) -> Vec<Frame> {
        let keys: Vec<K> = self.groups.keys().copied().filter(wanted).collect();
        keys.iter().flat_map(|key| self.take(key)).collect()
    }

    fn take(&mut self, key: &K) -> Vec<Frame> {
        let frames = self.groups.remove(key).map(|group| group.frames);
        let frames = frames.unwrap_or_default();
        self.count -= frames.len();
        frames
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails here has failed")]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const SOON: Duration = Duration::from_millis(1);

    fn frame(position: u32) -> Frame {
        Frame {
            interface: 1,
            queue: 0,
            bytes: vec![1, 2, 3],
            position,
        }
    }

    #[test]
    fn frames_come_out_in_order() {
        let now = Instant::now();
        let mut held = Held::default();
        for position in [3, 1, 2] {
            assert_eq!(held.keep('a', frame(position), now, now + SECOND, SOON), 0);
        }
        assert_eq!(held.release(&'a', |position| position == 2), None);
        for position in 1..=3 {
            let frame = held.release(&'a', |first| first == position).unwrap();
            assert_eq!(frame.position, position);
        }
        assert_eq!(held.release(&'a', |_| true), None);
        assert_eq!(held.count, 0);
    }

    #[test]
    fn looks_become_rare_and_end() {
        let start = Instant::now();
        let mut held = Held::default();
        held.keep('a', frame(1), start, start + SECOND, SOON);
        let mut looks = 0;
        while let Some(next) = held.next() {
            let (due, expired) = held.due(next);
            assert_eq!(due.len() + expired.len(), 1);
            looks += due.len();
            assert!(next <= start + SECOND);
        }
        assert_eq!(looks, 10);
        assert_eq!(held.count, 0);
        assert!(held.order.is_empty());
    }

    #[test]
    fn there_is_a_bound() {
        let now = Instant::now();
        let mut held = Held::default();
        let mut lost = 0;
        for number in 0..MOST + 10 {
            let until = now + SECOND + Duration::from_nanos(number as u64);
            lost += held.keep(number, frame(1), now, until, SOON);
        }
        assert_eq!((held.count, lost), (MOST, 10));
        // The oldest went.
        assert_eq!(held.release(&9, |_| true), None);
        assert!(held.release(&10, |_| true).is_some());
        let lost: usize = (0..MOST_EACH as u32 + 5)
            .map(|position| held.keep(usize::MAX, frame(position), now, now + SECOND, SOON))
            .sum();
        assert_eq!(lost, 5 + MOST_EACH - 1);
    }

    #[test]
    fn a_thing_that_comes_again_waits_anew() {
        let now = Instant::now();
        let mut held = Held::default();
        held.keep('a', frame(1), now, now + SECOND, SOON);
        held.release(&'a', |_| true).unwrap();
        let later = now + SECOND / 2;
        held.keep('a', frame(1), later, later + SECOND, SOON);
        let (_, expired) = held.due(now + SECOND);
        assert_eq!((expired.len(), held.count), (0, 1));
        let (_, expired) = held.due(later + SECOND + SECOND);
        assert_eq!((expired.len(), held.count), (1, 0));
    }
}
