//! An input, read from its beginning.

/// What is left of it. Behind its end there are zeros.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// A byte as a number.
    pub fn number(&mut self) -> usize {
        self.byte().into()
    }

    /// Two bytes as a number.
    pub fn long(&mut self) -> usize {
        u16::from_be_bytes([self.byte(), self.byte()]).into()
    }

    /// One of these.
    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.number() % all.len()]
    }

    /// So many bytes, or all that are left.
    pub fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// So many changes of single bytes of a frame behind its MAC addresses: where, and to what.
    pub fn change(&mut self, count: usize, frame: &mut [u8]) {
        for _ in 0..count {
            let (at, byte) = (12 + self.number(), self.byte());
            if let Some(place) = frame.get_mut(at) {
                *place = byte;
            }
        }
    }
}
