//! The strangers' table; see `dhcp_guard_common::layout::strangers` for its shape and why it is so.

use dhcp_guard_common::{
    gcra::{Limit, Word as _},
    hash,
    layout::{self, BEING_FILLED, Bucket, ClientKey, ClientState, WAYS},
    parse::Family,
};

use crate::{admit, arrival::Arrival, atomic::Shared, clients::Entry, count, maps};

/// Gives a new stranger an entry with its first packet in it. `interval`: what the packet takes from the client's
/// limiter; 0 for one that was dropped.
#[inline(always)]
pub(crate) fn welcome(key: ClientKey, hash: u64, arrival: &Arrival, interval: u64) {
    dhcp_guard_welcome(key.0, hash, &raw const *arrival, interval);
}

/// Global, so that the verifier looks at it once (see [`crate::judge`]).
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dhcp_guard_welcome(key: u64, hash: u64, arrival: *const Arrival, interval: u64) -> u32 {
    // SAFETY: the one caller gives a reference. The verifier wants to see that it is not null.
    let Some(arrival) = (unsafe { arrival.as_ref() }) else { return 0 };
    let Some(place) = Place::with_hash(ClientKey(key), hash) else { return 0 };
    let excess = interval == 0;
    if place.insert(first_state(arrival, interval)) {
        return 1;
    }
    let Some(entry) = place.entry() else {
        count::untracked(1);
        count::trouble(|t| &mut t.insert_failed);
        return 0;
    };
    // Another CPU was first, and its packet alone is in the entry's limiter. This one is charged, too; if the client is
    // over its limit by now, its next packet is the one to feel it.
    if !excess {
        let _ =
            admit::take(&entry.limiter(arrival.family()), arrival.now(), &Limit { interval, tolerance: u64::MAX >> 2 });
    }
    entry.count(excess, arrival.now());
    0
}

/// The state of a new stranger that has this packet in it.
#[inline(always)]
fn first_state(arrival: &Arrival, interval: u64) -> ClientState {
    let now = arrival.now();
    let spent = if interval == 0 { 0 } else { now.grains + interval };
    let [limiter_v4, limiter_v6] = match arrival.family() {
        Family::V4 => [spent, 0],
        Family::V6 => [0, spent],
    };
    let sender = arrival.sender();
    ClientState {
        limiter_v4,
        limiter_v6,
        packets: 1,
        excess: u64::from(interval == 0),
        own_excess: 0,
        first_seen: now.ticks,
        last_seen: now.ticks,
        last_excess: 0,
        relay: sender.relay,
        client: sender.client,
    }
}

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

    /// Remembers that it was seen, unless that is known already.
    #[inline(always)]
    pub(crate) fn remember(self, seen: bool) {
        if seen {
            return;
        }
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
        // Another CPU may have been first, or be just about to: two entries for one client would be two limits. Asked after
        // the choice of a way, so that whoever chose another one than this CPU is seen.
        if self.is_taken() {
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

    /// The stranger has an entry, or some CPU is filling one.
    #[inline(always)]
    fn is_taken(self) -> bool {
        for way in 0..WAYS {
            let key = self.key_word(way).load();
            if key == self.key.0 || key == BEING_FILLED {
                return true;
            }
        }
        false
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
