//! What is asked first about a client: one small array whose place for a hash says whether the client can be in any table,
//! and, if not, whether it was seen lately.
//!
//! Why: a hash lookup that finds nothing costs some 20 ns, and a flood of random MACs is nothing else. A head is half a
//! cache line, and with the default sizes all of them fit into a processor's second-level cache, which the tables do not.

/// Clients without an entry that a head remembers having seen: 16 bits of hash for each.
pub const SEEN: usize = 8;
/// Words that hold them.
pub const SEEN_WORDS: usize = SEEN / 4;

/// What is known about all keys whose hash begins alike.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// A Bloom filter: the [`listed_bit`](crate::hash::listed_bit) of each key that user space wrote into a table (ports,
    /// known clients, rules). It is set before the key is written and never cleared, so that a bit which is not set is
    /// certain.
    pub listed: u64,
    /// The [`tag`](crate::hash::tag) of whoever has the entry at the same place of the strangers'
    /// [`Bucket`](super::Bucket), in 16 bits each, the first in the lowest. The tag of one who has lost it may stay; the
    /// bucket's key decides.
    pub entries: u64,
    /// The tags of the latest clients that got no entry, the latest in the lowest bits of the first word. With 16,384 heads
    /// that is 131,072 clients: whoever retries after four seconds is still remembered under some 30,000 new MACs a second.
    pub seen: [u64; SEEN_WORDS],
}

/// Whether a client with this tag can have an entry.
#[must_use]
#[inline(always)]
pub const fn may_have_entry(entries: u64, tag: u16) -> bool {
    has_zero(entries ^ (tag as u64 * EACH))
}

/// [`Head::entries`] with this tag for the entry at `way`, 0 to 3.
#[must_use]
#[inline(always)]
pub const fn with_entry(entries: u64, way: usize, tag: u16) -> u64 {
    let shift = 16 * (way as u32 & 3);
    entries & !(0xffff << shift) | (tag as u64) << shift
}

/// Whether a client's [`tag`](crate::hash::tag) is in [`Head::seen`]: whether it was seen lately.
#[must_use]
#[inline(always)]
pub const fn was_seen(seen: &[u64; SEEN_WORDS], tag: u16) -> bool {
    let tags = tag as u64 * EACH;
    has_zero(seen[0] ^ tags) | has_zero(seen[1] ^ tags)
}

/// The same with this client as the latest; the one seen longest ago is forgotten.
#[must_use]
#[inline(always)]
pub const fn with_seen(seen: &[u64; SEEN_WORDS], tag: u16) -> [u64; SEEN_WORDS] {
    [seen[0] << 16 | tag as u64, seen[1] << 16 | seen[0] >> 48]
}

/// One in each 16-bit lane of a word.
const EACH: u64 = 0x0001_0001_0001_0001;

/// Whether one of the word's four 16-bit lanes is 0.
#[inline(always)]
const fn has_zero(lanes: u64) -> bool {
    lanes.wrapping_sub(EACH) & !lanes & EACH << 15 != 0
}

const _: () = {
    assert!(size_of::<Head>() == 32, "two in a cache line, none across two");
    assert!(SEEN_WORDS == 2);
};

#[cfg(test)]
mod tests {
    extern crate std;

    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::layout::WAYS;

    proptest! {
        /// Whoever was given an entry last is found; who has none may be taken to have one only by a tag like his.
        #[test]
        fn tags_of_entries_are_an_array(given in prop::collection::vec((0..WAYS, 1u16..40), 0..50)) {
            let mut entries = 0;
            let mut tags = [0; WAYS];
            for (way, tag) in given {
                entries = with_entry(entries, way, tag);
                tags[way] = tag;
                for other in 1..60 {
                    prop_assert_eq!(may_have_entry(entries, other), tags.contains(&other));
                }
            }
        }

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
