//! Inputs made of others by chance.

use crate::support::chance::Chance;

/// No input is longer.
const LONGEST: usize = 4096;

/// One of the inputs, changed in a few places.
pub fn mutate(chance: &mut Chance, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut input = pick(chance, inputs).clone();
    for _ in 0..1 << chance.below(4) {
        change(chance, &mut input, inputs);
    }
    input.truncate(LONGEST);
    input
}

fn pick<'a>(chance: &mut Chance, inputs: &'a [Vec<u8>]) -> &'a Vec<u8> {
    &inputs[chance.below(inputs.len() as u64) as usize]
}

fn change(chance: &mut Chance, input: &mut Vec<u8>, inputs: &[Vec<u8>]) {
    /// Numbers at the edges of what fits.
    const EDGES: [u8; 8] = [0, 1, 7, 8, 0x7f, 0x80, 0xfe, 0xff];
    let at = chance.below(input.len() as u64 + 1) as usize;
    let length = 1 + chance.below(16) as usize;
    let end = input.len().min(at + length);
    let byte = match chance.below(2) {
        0 => EDGES[chance.below(8) as usize],
        _ => chance.below(256) as u8,
    };
    match chance.below(8) {
        0 => {
            input.drain(at..end);
        }
        1 => {
            input.splice(at..at, std::iter::repeat_n(byte, length));
        }
        2 => {
            // Again, elsewhere.
            let part = input[at..end].to_vec();
            let to = chance.below(input.len() as u64 + 1) as usize;
            input.splice(to..to, part);
        }
        3 => {
            // The end of another one.
            let other = pick(chance, inputs);
            let from = chance.below(other.len() as u64 + 1) as usize;
            input.truncate(at);
            input.extend(&other[from..]);
        }
        4 => {
            // A part of another one.
            let other = pick(chance, inputs);
            let from = chance.below(other.len() as u64 + 1) as usize;
            let until = other.len().min(from + 4 * length);
            input.splice(at..at, other[from..until].iter().copied());
        }
        5 if at < end => input[at] ^= 1 << chance.below(8),
        6 if at < end => input[at] = input[at].wrapping_add(byte),
        _ if at < end => input[at] = byte,
        _ => input.push(byte),
    }
}
