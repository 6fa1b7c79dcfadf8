//! A client's entry, whichever table it is in: its limiters and its counts.

use dhcp_guard_common::{
    gcra::Word as _,
    hash,
    layout::{ClientKey, ClientState},
    parse::Family,
};

use crate::{atomic::Shared, clock::Now, count, events, maps, strangers};

/// A client's entry in one of the tables.
#[derive(Clone, Copy)]
pub(crate) struct Entry(*mut ClientState);

/// The known client's entry, if it is known.
#[inline(always)]
pub(crate) fn known(key: ClientKey) -> Option<Entry> {
    // SAFETY: the table's own pointer.
    maps::KNOWN.get_ptr_mut(key).map(|state| unsafe { Entry::new(state) })
}

/// Adds what a memo counted to the client's entry.
#[inline(never)]
pub(crate) fn hand_over(key: ClientKey, is_known: bool, is_own_excess: bool, packets: u64, last_seen: u64) {
    let stranger = if is_known { None } else { strangers::entry(key, hash::mix(key.0, maps::seeds())) };
    // A stranger may have become known since its memo was made.
    let entry = if stranger.is_some() { stranger } else { known(key) };
    match entry {
        Some(entry) => {
            let client = entry.words();
            client.packets.add(packets);
            client.excess.add(packets);
            if is_own_excess {
                client.own_excess.add(packets);
                if client.last_excess.load() < last_seen {
                    client.last_excess.store(last_seen);
                }
            }
            if client.last_seen.load() < last_seen {
                client.last_seen.store(last_seen);
            }
        }
        None => count::untracked(packets),
    }
}

/// The words of an entry that several CPUs change.
struct Words {
    limiter_v4: Shared,
    limiter_v6: Shared,
    packets: Shared,
    excess: Shared,
    own_excess: Shared,
    first_seen: Shared,
    last_seen: Shared,
    last_excess: Shared,
}

impl Entry {
    /// # Safety
    /// `state` must point into a map value.
    #[inline(always)]
    pub(crate) unsafe fn new(state: *mut ClientState) -> Self {
        Self(state)
    }

    #[inline(always)]
    fn words(self) -> Words {
        // SAFETY: a lookup made the pointer, and the memory stays a map value for the run of the program.
        unsafe {
            Words {
                limiter_v4: Shared::new(&raw mut (*self.0).limiter_v4),
                limiter_v6: Shared::new(&raw mut (*self.0).limiter_v6),
                packets: Shared::new(&raw mut (*self.0).packets),
                excess: Shared::new(&raw mut (*self.0).excess),
                own_excess: Shared::new(&raw mut (*self.0).own_excess),
                first_seen: Shared::new(&raw mut (*self.0).first_seen),
                last_seen: Shared::new(&raw mut (*self.0).last_seen),
                last_excess: Shared::new(&raw mut (*self.0).last_excess),
            }
        }
    }

    /// The limiter for one of the two protocols.
    #[inline(always)]
    pub(crate) fn limiter(self, family: Family) -> Shared {
        let words = self.words();
        match family {
            Family::V4 => words.limiter_v4,
            Family::V6 => words.limiter_v6,
        }
    }

    /// Counts a packet, over a limit or not.
    #[inline(always)]
    pub(crate) fn count(self, excess: bool, now: Now) {
        let client = self.words();
        client.packets.add(1);
        if excess {
            client.excess.add(1);
        }
        if client.first_seen.load() == 0 {
            client.first_seen.store(now.ticks);
        }
        if client.last_seen.load() != now.ticks {
            client.last_seen.store(now.ticks);
        }
    }

    /// Counts and marks that the client is over its own limit. True: that is news.
    #[inline(always)]
    pub(crate) fn mark_own_excess(self, now: Now) -> bool {
        let client = self.words();
        client.own_excess.add(1);
        events::mark(client.last_excess, now)
    }
}
