//! The strangers' table; see `dhcp_guard_common::layout::strangers` for its shape and why it is so.

use dhcp_guard_common::{
    gcra::Word as _,
    hash,
    layout::{self, BEING_FILLED, Bucket, ClientKey, ClientState, WAYS},
};

use crate::{atomic::Shared, clients::Entry, maps};

/// Where a stranger's entry is, or would be.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    bucket: *mut Bucket,
    key: ClientKey,
    tag: u16,
}

impl Place {
    #[inline(always)]
    pub(crate) fn of(key: ClientKey) -> Option<Self> {
        Self::with_hash(key, hash::mix(key.0, maps::seeds()))
    }

    #[inline(always)]
    pub(crate) fn with_hash(key: ClientKey, hash: u64) -> Option<Self> {
        let bucket = maps::STRANGERS.get_ptr_mut(hash::bucket(hash, maps::strangers_bits()))?;
        Some(Self { bucket, key, tag: hash::tag(hash) })
    }

    /// The stranger's entry, if it has one.
    #[inline(always)]
    pub(crate) fn entry(self) -> Option<Entry> {
        for way in 0..WAYS {
            if self.key_word(way).load() == self.key.0 {
                // SAFETY: a field of a map value.
                return Some(unsafe { Entry::new(self.state(way)) });
            }
        }
        None
    }

    /// Whether it was seen lately, though it has no entry.
    #[inline(always)]
    pub(crate) fn was_seen(self) -> bool {
        // SAFETY: a map value. Another CPU may write it in between; then this is wrong about a stranger that was seen, or
        // not, in this instant.
        layout::was_seen(unsafe { &(*self.bucket).seen }, self.tag)
    }

    /// Remembers that it was seen.
    #[inline(always)]
    pub(crate) fn remember(self) {
        // SAFETY: as in `was_seen`; when two CPUs write at once, one of them is not remembered.
        unsafe { (*self.bucket).seen = layout::with_seen(&(*self.bucket).seen, self.tag) };
    }

    /// Gives the stranger an entry with this state: a free one, or that of the bucket's client which was silent for
    /// longest. False: another CPU is filling
    /// the same one, or gave it one already.
    #[inline(always)]
    pub(crate) fn insert(self, state: ClientState) -> bool {
        let way = self.stalest();
        let key = self.key_word(way);
        let old = key.load();
        // Another CPU may have been first; two entries for one client would be two limits.
        if self.entry().is_some() {
            return false;
        }
        // Meanwhile nobody finds the old client there, nor the new one.
        if old == BEING_FILLED || !key.compare_and_swap(old, BEING_FILLED) {
            return false;
        }
        // SAFETY: a field of a map value that is this CPU's alone while the key says so.
        unsafe { self.state(way).write_volatile(state) };
        // Not a plain store: whoever reads the key on another CPU must find the state complete.
        key.compare_and_swap(BEING_FILLED, self.key.0)
    }

    /// The way whose client was silent for longest; a free one has never been heard of.
    #[inline(always)]
    fn stalest(self) -> usize {
        let mut stalest = 0;
        let mut since = u64::MAX;
        for way in 0..WAYS {
            let free = self.key_word(way).load() == 0;
            // SAFETY: a field of a map value.
            let last_seen = if free { 0 } else { unsafe { (&raw const (*self.state(way)).last_seen).read_volatile() } };
            if last_seen < since {
                stalest = way;
                since = last_seen;
            }
        }
        stalest
    }

    #[inline(always)]
    fn key_word(self, way: usize) -> Shared {
        // SAFETY: a field of a map value; `way` is below WAYS.
        unsafe { Shared::new((&raw mut (*self.bucket).keys).cast::<u64>().add(way)) }
    }

    #[inline(always)]
    fn state(self, way: usize) -> *mut ClientState {
        // SAFETY: a field of a map value; `way` is below WAYS.
        unsafe { (&raw mut (*self.bucket).states).cast::<ClientState>().add(way) }
    }
}
