//! The filter in front of the tables that user space fills: a hash lookup that would find nothing costs some 20 ns, this
//! costs two.
//!
//! A Bloom filter whose two bits for a key are in one word. User space sets them before it writes the key, and never
//! clears one, so "no" is certain.

use dhcp_guard_common::hash::listed;

use crate::maps;

/// Whether the key of this hash may be in one of the tables. `false` is certain.
#[inline(always)]
pub(crate) fn may_list(hash: u64) -> bool {
    let (index, wanted) = listed(hash, maps::listed_bits());
    let Some(word) = maps::LISTED.get_ptr(index) else { return true };
    // SAFETY: a lookup made the pointer; user space may set bits at any time, and volatile makes it one load.
    let word = unsafe { word.read_volatile() };
    word & wanted == wanted
}
