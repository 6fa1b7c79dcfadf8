//! Frames made worse: seeded, so that a run can be repeated.

/// A source of numbers: xorshift64*, which is enough to spread mistakes over frames.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Numbers that follow from this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `bound`; 0 if there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        usize::try_from(number).unwrap_or(0) % bound.max(1)
    }

    /// One of these.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Bytes that mean something in one header or another.
const TELLING: [u8; 20] = [0, 1, 2, 3, 4, 12, 17, 34, 44, 51, 52, 53, 60, 67, 68, 0x45, 0x60, 0x81, 0x88, 255];

/// The frame with one to four mistakes in it. `other` lends the pieces that are put in.
#[must_use]
pub fn mutated(frame: &[u8], other: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    for _ in 0..=dice.below(4) {
        // Most of what can go wrong is in the headers.
        let reach = if dice.below(3) == 0 { bytes.len() } else { bytes.len().min(70) };
        let at = dice.below(reach);
        match dice.below(7) {
            0 | 1 => change(&mut bytes, at, |byte| byte ^ 1 << (at % 8)),
            2 => {
                let value = *dice.one_of(&TELLING);
                change(&mut bytes, at, |_| value);
            }
            3 => {
                let value = u8::try_from(dice.below(256)).unwrap_or(0);
                change(&mut bytes, at, |_| value);
            }
            4 => bytes.truncate(dice.below(bytes.len() + 1)),
            5 => {
                let len = dice.below(16).min(bytes.len() - at);
                bytes.drain(at..at + len);
            }
            _ => splice(&mut bytes, at, other, dice),
        }
    }
    bytes
}

fn change(bytes: &mut [u8], at: usize, new: impl Fn(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = new(*byte);
    }
}

/// Puts a piece of another frame in, over what is there or between it.
fn splice(bytes: &mut Vec<u8>, at: usize, other: &[u8], dice: &mut Dice) {
    let from = dice.below(other.len());
    let piece = &other[from..other.len().min(from + dice.below(24))];
    let replaced = if dice.below(2) == 0 { piece.len() } else { 0 };
    bytes.splice(at..bytes.len().min(at + replaced), piece.iter().copied());
}
