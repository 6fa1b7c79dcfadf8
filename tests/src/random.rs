//! Numbers that look random, and are the same in every run.

use std::time::Duration;

/// A sequence of them.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The sequence of this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(self.0)
    }

    /// A time between two others, to the microsecond.
    pub fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let range = u64::try_from(to.saturating_sub(from).as_micros()).unwrap_or(u64::MAX);
        from + Duration::from_micros(self.roll() % range.max(1))
    }
}

/// Numbers that look random, for consecutive ones: splitmix64, Steele, Lea and Flood 2014.
#[must_use]
pub const fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_its_sequence_and_times_stay_between() {
        let rolls = |seed| {
            let mut dice = Dice::new(seed);
            [dice.roll(), dice.roll(), dice.roll()]
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
        let (from, to) = (Duration::from_secs(1), Duration::from_secs(3));
        let mut dice = Dice::new(1);
        assert!((0..1000).all(|_| (from..to).contains(&dice.between(from, to))));
        assert_eq!(dice.between(to, to), to);
    }
}
