//! The strangers' table: set-associative, in one array map, with an order of eviction that is ours.
//!
//! Why not the kernel's LRU hash: its updates cost hundreds of nanoseconds under random keys, it evicts by approximation
//! and per CPU, and can refuse. Here everything about a key is in one [`Bucket`], and the bucket's first cache line says
//! whether the key has an entry and whether it was seen lately. A flood of random MACs costs that one line.

use super::ClientState;

/// Entries of a bucket.
pub const WAYS: usize = 4;
/// Clients without an entry that a bucket remembers having seen: 16 bits of hash for each.
pub const SEEN: usize = 16;
/// Words that hold them.
pub const SEEN_WORDS: usize = SEEN / 4;

/// A key in [`Bucket::keys`] that some CPU is just filling in. No client: its slot is beyond all slots.
pub const BEING_FILLED: u64 = u64::MAX;

/// The place for all clients whose hash begins alike.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Who has the entry at the same place of `states`, as [`ClientKey`](super::ClientKey); 0 for nobody, or
    /// [`BEING_FILLED`].
    pub keys: [u64; WAYS],
    /// The latest clients that got no entry, by 16 bits of their hash, the latest in the lowest bits of the first word.
    pub seen: [u64; SEEN_WORDS],
    /// Their entries.
    pub states: [ClientState; WAYS],
}

/// Whether a client's [`tag`](crate::hash::tag) is in its bucket's [`Bucket::seen`]: whether it was seen lately.
#[must_use]
#[inline(always)]
pub const fn was_seen(seen: &[u64; SEEN_WORDS], tag: u16) -> bool {
    let tags = tag as u64 * EACH;
    has_zero(seen[0] ^ tags) | has_zero(seen[1] ^ tags) | has_zero(seen[2] ^ tags) | has_zero(seen[3] ^ tags)
}

/// The same with this client as the latest; the one seen longest ago is forgotten.
#[must_use]
#[inline(always)]
pub const fn with_seen(seen: &[u64; SEEN_WORDS], tag: u16) -> [u64; SEEN_WORDS] {
    [
        seen[0] << 16 | tag as u64,
        seen[1] << 16 | seen[0] >> 48,
        seen[2] << 16 | seen[1] >> 48,
        seen[3] << 16 | seen[2] >> 48,
    ]
}

/// One in each 16-bit lane of a word.
const EACH: u64 = 0x0001_0001_0001_0001;

/// Whether one of the word's four 16-bit lanes is 0.
#[inline(always)]
const fn has_zero(lanes: u64) -> bool {
    lanes.wrapping_sub(EACH) & !lanes & EACH << 15 != 0
}

const _: () = {
    assert!(size_of::<Bucket>() == 64 + WAYS * size_of::<ClientState>());
    assert!(SEEN_WORDS == 4 && WAYS == 4, "the first cache line is full");
};

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a queue of tags. Few of them, so that many are seen again.
        #[test]
        fn a_memory_is_a_queue(tags in prop::collection::vec(prop_oneof![1u16..40, any::<u16>()], 0..200)) {
            let mut seen = [0; SEEN_WORDS];
            let mut queue: VecDeque<u16> = VecDeque::new();
            for tag in tags.into_iter().filter(|tag| *tag != 0) {
                prop_assert_eq!(was_seen(&seen, tag), queue.contains(&tag));
                if !queue.contains(&tag) {
                    seen = with_seen(&seen, tag);
                    queue.push_back(tag);
                    queue.drain(..queue.len().saturating_sub(SEEN));
                }
            }
        }
    }

    #[test]
    fn the_latest_are_remembered_and_no_more() {
        let mut seen = [0; SEEN_WORDS];
        for client in 1..=100u16 {
            assert!(!was_seen(&seen, client * 601));
            seen = with_seen(&seen, client * 601);
            for other in 1..=client {
                assert_eq!(was_seen(&seen, other * 601), client - other < SEEN as u16, "{other} after {client}");
            }
        }
    }

    #[test]
    fn an_empty_memory_knows_nobody() {
        for tag in 1..=u16::MAX {
            assert!(!was_seen(&[0; SEEN_WORDS], tag));
        }
    }
}
