//! Clients' entries: known ones and strangers.

use aya_ebpf::bindings::BPF_NOEXIST;
use dhcp_guard_common::{
    gcra::{self, Limit, Taken, Word as _},
    layout::{ClientKey, ClientState},
};

use crate::{atomic::Shared, clock::Now, count, events, maps};

/// A client's entry in one of the tables.
#[derive(Clone, Copy)]
pub(crate) struct Entry(*mut ClientState);

/// The known client's entry, if it is known.
#[inline(always)]
pub(crate) fn known(key: ClientKey) -> Option<Entry> {
    maps::KNOWN.get_ptr_mut(key).map(Entry)
}

/// The stranger's entry, if it has one.
#[inline(always)]
pub(crate) fn stranger(key: ClientKey) -> Option<Entry> {
    maps::STRANGERS.get_ptr_mut(key).map(Entry)
}

/// Gives a stranger an entry that has this packet in it. False: the table refused, or another CPU was first.
#[inline(always)]
pub(crate) fn insert_stranger(key: ClientKey, limiter: u64, excess: bool, now: Now) -> bool {
    let state = ClientState {
        limiter,
        packets: 1,
        excess: excess.into(),
        own_excess: 0,
        first_seen: now.ticks,
        last_seen: now.ticks,
        last_excess: 0,
    };
    maps::STRANGERS.insert(key, state, u64::from(BPF_NOEXIST)).is_ok()
}

/// Adds what a memo counted to the client's entry.
#[inline(never)]
pub(crate) fn hand_over(key: ClientKey, is_known: bool, packets: u64, last_seen: u64) {
    let entry = if is_known { known(key) } else { stranger(key) };
    match entry {
        Some(entry) => {
            let client = entry.words();
            client.packets.add(packets);
            client.excess.add(packets);
            client.own_excess.add(packets);
            if client.last_seen.load() < last_seen {
                client.last_seen.store(last_seen);
            }
            client.last_excess.store(last_seen);
        }
        None => count::untracked(packets),
    }
}

/// The words of an entry.
struct Words {
    limiter: Shared,
    packets: Shared,
    excess: Shared,
    own_excess: Shared,
    first_seen: Shared,
    last_seen: Shared,
    last_excess: Shared,
}

impl Entry {
    #[inline(always)]
    fn words(self) -> Words {
        // SAFETY: a lookup made the pointer, and the memory stays a map value for the run of the program.
        unsafe {
            Words {
                limiter: Shared::new(&raw mut (*self.0).limiter),
                packets: Shared::new(&raw mut (*self.0).packets),
                excess: Shared::new(&raw mut (*self.0).excess),
                own_excess: Shared::new(&raw mut (*self.0).own_excess),
                first_seen: Shared::new(&raw mut (*self.0).first_seen),
                last_seen: Shared::new(&raw mut (*self.0).last_seen),
                last_excess: Shared::new(&raw mut (*self.0).last_excess),
            }
        }
    }

    /// Holds the packet against the client's own limit.
    #[inline(always)]
    pub(crate) fn take(self, limit: &Limit, now: Now) -> Taken {
        gcra::take(&self.words().limiter, now.grains, limit)
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
