//! The limits that many share: a port's, its strangers', its DISCOVERs', the host's.

use dhcp_guard_common::{
    gcra::{self, Decision, GRAIN_BITS, Limit, Taken, Word},
    layout::{
        ClientKey, EVENT_HOST_OVER_LIMIT, EVENT_PORT_OVER_LIMIT, HOST_LIMITED, HostPolicy, HostState,
        PORT_LIMITS_DISCOVER, PortKey, PortPolicy, PortState,
    },
    parse::Family,
    verdict::Reason,
};

use crate::{arrival::Arrival, atomic::Shared, clock::Now, count, events, maps, ports};

/// Whose packet it is, as far as the shared limits care: a set of the constants here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who(u32);

impl Who {
    /// From a trusted port: the port's limit alone.
    pub(crate) const TRUSTED: Self = Self(1);
    /// A known client: not the strangers' shares.
    pub(crate) const KNOWN: Self = Self(0);
    /// A stranger that was not seen lately.
    pub(crate) const NEWCOMER: Self = Self(1 << 1);
    /// A stranger that was.
    pub(crate) const STRANGER_AGAIN: Self = Self(1 << 1 | 1 << 2);

    #[inline(always)]
    pub(crate) fn is_stranger(self) -> bool {
        self.has(Self::NEWCOMER)
    }

    #[inline(always)]
    fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Takes a packet from every limit that is shared. A reason: one of them had no room, and nothing was taken.
#[inline(always)]
pub(crate) fn admit(slot: u32, bank: u32, who: Who, arrival: &Arrival, now: Now) -> Option<Reason> {
    match dhcp_guard_admit(slot, bank, who.0, &raw const *arrival, now.ticks) {
        ADMITTED => None,
        DISCOVERS_FULL => Some(Reason::DropDiscoverShare),
        STRANGERS_FULL => Some(Reason::DropStrangerShare),
        HOST_FULL => Some(Reason::DropHostLimit),
        _ => Some(Reason::DropPortLimit),
    }
}

/// Answers of the function below; each but the first is a reason.
const ADMITTED: u32 = 0;
const STRANGERS_FULL: u32 = 1;
const DISCOVERS_FULL: u32 = 2;
const PORT_FULL: u32 = 3;
const HOST_FULL: u32 = 4;

/// Global, so that the verifier looks at it once (see [`crate::judge`]).
///
/// Nothing is taken from any limit before all of them were seen to have room.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn dhcp_guard_admit(slot: u32, bank: u32, who: u32, arrival: *const Arrival, ticks: u64) -> u32 {
    // SAFETY: callers give a reference. The verifier wants to see that it is not null.
    let Some(arrival) = (unsafe { arrival.as_ref() }) else { return PORT_FULL };
    let now = Now { ticks, grains: ticks << GRAIN_BITS };
    let Some(gates) = Gates::find(slot, bank & 1, Who(who), arrival.is_discover(), now) else {
        return ADMITTED;
    };
    let mut full = gates.first_full();
    if full == ADMITTED {
        full = gates.take();
    }
    if full == ADMITTED {
        return ADMITTED;
    }
    gates.tell(full, arrival.client_on(slot), arrival.port());
    full
}

/// Everything that one packet has to get through.
#[derive(Clone, Copy)]
struct Gates<'a> {
    slot: u32,
    policy: &'a PortPolicy,
    host: &'a HostPolicy,
    port_state: *mut PortState,
    host_state: *mut HostState,
    who: Who,
    /// The packet is a DISCOVER or a Solicit.
    discover: bool,
    now: Now,
}

impl Gates<'_> {
    #[inline(always)]
    fn find(slot: u32, bank: u32, who: Who, discover: bool, now: Now) -> Option<Self> {
        Some(Self {
            slot,
            policy: ports::policy(slot, bank)?,
            host: maps::HOST_POLICIES.get(bank)?,
            port_state: maps::PORT_STATES.get_ptr_mut(slot)?,
            host_state: maps::HOST_STATE.get_ptr_mut(0)?,
            who,
            discover,
            now,
        })
    }

    /// The first limit that has no room for the packet.
    #[inline(always)]
    fn first_full(&self) -> u32 {
        self.pass(|word, now, limit| exceeds_until(word, now, limit).is_none())
    }

    /// Takes from all limits. The answer is one that was spent, or fought for, in the instant since it was seen to have
    /// room.
    #[inline(always)]
    fn take(&self) -> u32 {
        self.pass(take)
    }

    /// Asks the limits that apply, in their order.
    #[inline(always)]
    fn pass(&self, has_room: fn(&Shared, Now, &Limit) -> bool) -> u32 {
        let now = self.now;
        if self.who.has(Who::TRUSTED) {
            return if has_room(&self.port(|s| &raw mut s.total), now, &self.policy.total) {
                ADMITTED
            } else {
                PORT_FULL
            };
        }
        let stranger = self.who.has(Who::NEWCOMER);
        let again = self.who.has(Who::STRANGER_AGAIN);
        if stranger && !has_room(&self.port(|s| &raw mut s.strangers), now, &self.policy.strangers.limit(again)) {
            return STRANGERS_FULL;
        }
        if self.discover
            && self.policy.flags & PORT_LIMITS_DISCOVER != 0
            && !has_room(&self.port(|s| &raw mut s.discover), now, &self.policy.discover)
        {
            return DISCOVERS_FULL;
        }
        if !has_room(&self.port(|s| &raw mut s.total), now, &self.policy.total) {
            return PORT_FULL;
        }
        if self.host.flags & HOST_LIMITED == 0 {
            return ADMITTED;
        }
        if stranger && !has_room(&self.host(|s| &raw mut s.strangers), now, &self.host.strangers.limit(again)) {
            return HOST_FULL;
        }
        if has_room(&self.host(|s| &raw mut s.total), now, &self.host.total) { ADMITTED } else { HOST_FULL }
    }

    /// Marks what is full, and tells it if that is news.
    #[inline(always)]
    fn tell(&self, full: u32, client: ClientKey, port: PortKey) {
        let (mark, kind) = if full == HOST_FULL {
            (self.host(|s| &raw mut s.last_excess), EVENT_HOST_OVER_LIMIT)
        } else {
            (self.port(|s| &raw mut s.last_excess), EVENT_PORT_OVER_LIMIT)
        };
        if events::mark(mark, self.now) {
            events::send(kind, self.slot, client, port, self.now.ticks);
        }
    }

    #[inline(always)]
    fn port(&self, word: fn(&mut PortState) -> *mut u64) -> Shared {
        // SAFETY: a lookup made the pointer, and the value stays valid for the run of the program; `word` only names a
        // field of it.
        unsafe { Shared::new(word(&mut *self.port_state)) }
    }

    #[inline(always)]
    fn host(&self, word: fn(&mut HostState) -> *mut u64) -> Shared {
        // SAFETY: as in `port`.
        unsafe { Shared::new(word(&mut *self.host_state)) }
    }
}

/// Takes a packet from a limiter.
#[inline(always)]
pub(crate) fn take(word: &Shared, now: Now, limit: &Limit) -> bool {
    let taken = gcra::take(word, now.grains, limit);
    if taken == Taken::LostRace {
        count::trouble(|t| &mut t.lost_races);
    }
    taken == Taken::Yes
}

/// Until when a limiter has no room, in grains. Takes nothing.
#[inline(always)]
pub(crate) fn exceeds_until(word: &Shared, now: Now, limit: &Limit) -> Option<u64> {
    match gcra::decide(word.load(), now.grains, limit) {
        Decision::Conforms(_) => None,
        Decision::ExceedsUntil(until) => Some(until),
    }
}

/// A client's own limit for one of the two protocols.
#[inline(always)]
pub(crate) fn client_limit(policy: &PortPolicy, family: Family) -> &Limit {
    match family {
        Family::V4 => &policy.client_v4,
        Family::V6 => &policy.client_v6,
    }
}
