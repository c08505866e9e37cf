//! Numbers that nobody foresees.

use nix::libc;

/// How many are fetched at a time.
const FETCHED: usize = 64;

/// Numbers of the kernel's, some at a time.
#[derive(Debug)]
pub struct Chance {
    numbers: [[u8; 4]; FETCHED],
    left: usize,
}

impl Default for Chance {
    fn default() -> Self {
        Self {
            numbers: [[0; 4]; FETCHED],
            left: 0,
        }
    }
}

impl Chance {
    /// One of them.
    pub fn number(&mut self) -> u32 {
        if self.left == 0 {
            fill(self.numbers.as_flattened_mut());
            self.left = FETCHED;
        }
        self.left -= 1;
        u32::from_ne_bytes(self.numbers[self.left])
    }
}

#[expect(unsafe_code, reason = "`nix` has no getrandom")]
fn fill(bytes: &mut [u8]) {
    // SAFETY: the bytes may be written to. It neither fails nor gives less: it is not interrupted up to 256 bytes, and what is left
    // as it was is as good for once.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_even() {
        let mut chance = Chance::default();
        let ones: u32 = (0..100_000).map(|_| chance.number().count_ones()).sum();
        assert!((1_590_000..1_610_000).contains(&ones), "{ones}");
    }
}
