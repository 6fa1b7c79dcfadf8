//! The strangers' table; see `dhcp_guard_common::layout::strangers` for its shape and why it is so.

use dhcp_guard_common::{
    gcra::{Limit, Word as _},
    hash,
    layout::{BEING_FILLED, Bucket, ClientKey, ClientState, WAYS},
    parse::Family,
};

use crate::{admit, arrival::Arrival, atomic::Shared, clients::Entry, count, head::Head, maps};

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
    let key = ClientKey(key);
    let excess = interval == 0;
    if insert(key, hash, first_state(arrival, interval)).is_some() {
        return 1;
    }
    let Some(entry) = entry(key, hash) else {
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

/// A stranger's entry, if it has one.
#[inline(always)]
pub(crate) fn entry(key: ClientKey, hash: u64) -> Option<Entry> {
    if Head::of(hash)?.may_have_entry() { Ways::of(hash)?.entry(key) } else { None }
}

/// Gives a stranger an entry with this state: a free one, or that of its bucket's client which was silent for longest.
/// `None`: another CPU is filling the same one, or gave it one already.
#[inline(always)]
fn insert(key: ClientKey, hash: u64, state: ClientState) -> Option<()> {
    let ways = Ways::of(hash)?;
    let way = ways.stalest();
    let owner = ways.key(way);
    let old = owner.load();
    // Another CPU may have been first, or be just about to: two entries for one client would be two limits. Asked after
    // the choice of a way, so that whoever chose another one than this CPU is seen, but for a short moment: then the first
    // of the two is found from then on, and the other one falls silent and makes room.
    if ways.are_taken(key) {
        return None;
    }
    // Meanwhile nobody finds the old client there, nor the new one.
    if old == BEING_FILLED || !owner.compare_and_swap(old, BEING_FILLED) {
        return None;
    }
    // SAFETY: a field of a map value that is this CPU's alone while the key says so.
    unsafe { ways.state(way).write_volatile(state) };
    // An entry that its head does not know of would never be found: rather none, then.
    let is_tagged = Head::of(hash)?.tag_entry(way);
    // Not a plain store: whoever reads the key on another CPU must find the state complete.
    let is_ours = owner.compare_and_swap(BEING_FILLED, if is_tagged { key.0 } else { 0 });
    (is_tagged && is_ours).then_some(())
}

/// A bucket's entries.
#[derive(Clone, Copy)]
struct Ways(*mut Bucket);

impl Ways {
    #[inline(always)]
    fn of(hash: u64) -> Option<Self> {
        maps::STRANGERS.get_ptr_mut(hash::place(hash, maps::strangers_bits())).map(Self)
    }

    #[inline(always)]
    fn entry(self, key: ClientKey) -> Option<Entry> {
        for way in 0..WAYS {
            if self.key(way).load() == key.0 {
                // SAFETY: a field of a map value.
                return Some(unsafe { Entry::new(self.state(way)) });
            }
        }
        None
    }

    /// The client has an entry, or some CPU is filling one.
    #[inline(always)]
    fn are_taken(self, client: ClientKey) -> bool {
        for way in 0..WAYS {
            let key = self.key(way).load();
            if key == client.0 || key == BEING_FILLED {
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
            let free = self.key(way).load() == 0;
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
    fn key(self, way: usize) -> Shared {
        // SAFETY: a field of a map value; `way` is below WAYS.
        unsafe { Shared::new((&raw mut (*self.0).keys).cast::<u64>().add(way)) }
    }

    #[inline(always)]
    fn state(self, way: usize) -> *mut ClientState {
        // SAFETY: a field of a map value; `way` is below WAYS.
        unsafe { (&raw mut (*self.0).states).cast::<ClientState>().add(way) }
    }
}
