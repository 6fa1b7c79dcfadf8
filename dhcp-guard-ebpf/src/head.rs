//! What is asked first about a client or a port; see `dhcp_guard_common::layout::heads`.

use dhcp_guard_common::{
    gcra::Word as _,
    hash,
    layout::{self, Head as Layout},
};

use crate::{atomic::Shared, maps};

/// The head of all keys with this hash.
#[derive(Clone, Copy)]
pub(crate) struct Head {
    head: *mut Layout,
    hash: u64,
}

impl Head {
    /// `None` does not happen.
    #[inline(always)]
    pub(crate) fn of(hash: u64) -> Option<Self> {
        let head = maps::HEADS.get_ptr_mut(hash::place(hash, maps::heads_bits()))?;
        Some(Self { head, hash })
    }

    /// Whether the key may be in a table that user space fills. `false` is certain.
    #[inline(always)]
    pub(crate) fn may_list(self) -> bool {
        // SAFETY: a map value; user space may set bits at any time, and volatile makes it one load.
        let listed = unsafe { (&raw const (*self.head).listed).read_volatile() };
        listed & hash::listed_bit(self.hash) != 0
    }

    /// Whether the stranger may have an entry. `false` is certain.
    #[inline(always)]
    pub(crate) fn may_have_entry(self) -> bool {
        layout::may_have_entry(self.entries().load(), hash::tag(self.hash))
    }

    /// Says that the stranger has the entry at `way` of its bucket. False: other CPUs changed the word twice in this
    /// instant.
    #[inline(always)]
    pub(crate) fn tag_entry(self, way: usize) -> bool {
        let entries = self.entries();
        for _ in 0..2 {
            let old = entries.load();
            if entries.compare_and_swap(old, layout::with_entry(old, way, hash::tag(self.hash))) {
                return true;
            }
        }
        false
    }

    /// Whether the stranger was seen lately, though it has no entry.
    #[inline(always)]
    pub(crate) fn was_seen(self) -> bool {
        // SAFETY: a map value. Another CPU may write it in between; then this is wrong about a stranger that was seen, or
        // not, in this instant.
        layout::was_seen(unsafe { &(*self.head).seen }, hash::tag(self.hash))
    }

    /// Remembers that it was seen, unless that is known already.
    #[inline(always)]
    pub(crate) fn remember(self, seen: bool) {
        if seen {
            return;
        }
        // SAFETY: as in `was_seen`; when two CPUs write at once, one of them is not remembered.
        unsafe { (*self.head).seen = layout::with_seen(&(*self.head).seen, hash::tag(self.hash)) };
    }

    #[inline(always)]
    fn entries(self) -> Shared {
        // SAFETY: a field of a map value.
        unsafe { Shared::new(&raw mut (*self.head).entries) }
    }
}

/// [`Head::may_list`] of this hash.
#[inline(always)]
pub(crate) fn may_list(hash: u64) -> bool {
    Head::of(hash).is_none_or(Head::may_list)
}
