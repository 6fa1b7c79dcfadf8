//! One hash of a 64-bit key, for every table that the program indexes by itself.
//!
//! Two rounds of multiply and fold. The multipliers are drawn at random when the program is loaded, so nobody outside can
//! choose MAC addresses that meet in one place of a table.

/// The multipliers. Odd, or they would lose bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds(pub [u64; 2]);

impl Seeds {
    /// Seeds from 128 random bits.
    #[must_use]
    pub const fn new(random: [u64; 2]) -> Self {
        Self([random[0] | 1, random[1] | 1])
    }
}

/// The hash of a key. Its uppermost bits are the best mixed; those below bit 8 are not worth using.
#[must_use]
#[inline(always)]
pub const fn mix(key: u64, seeds: Seeds) -> u64 {
    let first = (key ^ key >> 32).wrapping_mul(seeds.0[0]);
    (first ^ first >> 32).wrapping_mul(seeds.0[1])
}

/// A part of a hash: `bits` (1 to 32) of it, above the lowest `from`.
#[must_use]
#[inline(always)]
pub const fn part(hash: u64, from: u32, bits: u32) -> u32 {
    (hash >> from) as u32 & (u32::MAX >> (32 - bits))
}

// Who uses which part of a client's or a port's hash. They may overlap: nothing is made of two of them together.

/// The head, or the bucket of the strangers' table, of which there are 2^`bits` (1 to 32).
#[must_use]
#[inline(always)]
pub const fn place(hash: u64, bits: u32) -> u32 {
    // Nothing is left above these bits that a mask would have to take away.
    (hash >> (64 - bits)) as u32
}

/// The client's tag in its head: never 0, which is an empty place.
#[must_use]
#[inline(always)]
pub const fn tag(hash: u64) -> u16 {
    let tag = part(hash, 28, 16) as u16;
    if tag == 0 { 1 } else { tag }
}

/// The key's bit in its head's filter of listed keys.
#[must_use]
#[inline(always)]
pub const fn listed_bit(hash: u64) -> u64 {
    1 << part(hash, 22, 6)
}

/// The client's bit, 0 to 1023, in its port's bitmap of distinct clients.
#[must_use]
#[inline(always)]
pub const fn distinct_bit(hash: u64) -> u32 {
    part(hash, 34, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Machines of one vendor count in their last bytes, VLANs in the slot: neither may crowd one place of a table.
    #[test]
    fn neighbours_are_spread_evenly() {
        let seeds = Seeds::new([0x9e37_79b9_7f4a_7c15, 0xc2b2_ae3d_27d4_eb4f]);
        let keys_by = |shift: u32| (0..4096u64).map(move |i| 0x0000_dead_5e00_0002 ^ i << shift);
        for shift in [24, 32, 40, 48] {
            for from in [50, 40, 30, 20] {
                let mut places = [0u32; 1024];
                keys_by(shift).for_each(|key| places[part(mix(key, seeds), from, 10) as usize] += 1);
                let fullest = places.iter().max().unwrap();
                assert!(
                    *fullest <= 20,
                    "{fullest} of 4096 keys in one of 1024 places (shift {shift}, bits from {from})"
                );
            }
        }
    }

    #[test]
    fn parts_are_what_they_say() {
        assert_eq!(part(0xabcd_0000_0000_0000, 48, 16), 0xabcd);
        assert_eq!(part(u64::MAX, 8, 32), u32::MAX);
        assert_eq!(part(0b1011_0000_0000, 8, 3), 0b011);
    }
}
