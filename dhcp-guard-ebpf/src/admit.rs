//! The limits that many share: a port's, its strangers', its DISCOVERs', the host's.

use dhcp_guard_common::{
    gcra::{self, Decision, Limit, Taken, Word},
    layout::{
        ClientKey, EVENT_HOST_OVER_LIMIT, EVENT_PORT_OVER_LIMIT, HOST_LIMITED, HostPolicy, HostState,
        PORT_LIMITS_DISCOVER, PortKey, PortPolicy, PortState,
    },
    parse::Family,
    verdict::Reason,
};

use crate::{atomic::Shared, clock::Now, count, events, maps};

/// What one packet has to get through, and what there is to tell if it does not.
#[derive(Clone, Copy)]
pub(crate) struct Gates<'a> {
    pub(crate) slot: u32,
    pub(crate) key: PortKey,
    pub(crate) client: ClientKey,
    pub(crate) policy: &'a PortPolicy,
    pub(crate) host: &'a HostPolicy,
    pub(crate) state: *mut PortState,
    /// The packet is a DISCOVER or a Solicit.
    pub(crate) discover: bool,
    /// The strangers' shares apply.
    pub(crate) stranger: bool,
    /// The stranger was seen before.
    pub(crate) comes_back: bool,
    pub(crate) now: Now,
}

impl Gates<'_> {
    /// The first limit that has no room for the packet. Takes nothing.
    #[inline(always)]
    pub(crate) fn first_full(&self) -> Option<Reason> {
        self.pass::<false>()
    }

    /// Takes from all limits. A reason: one was spent, or fought for, in the instant since [`Gates::first_full`].
    #[inline(always)]
    pub(crate) fn take(&self) -> Option<Reason> {
        self.pass::<true>()
    }

    /// Takes from the port's limit alone.
    #[inline(always)]
    pub(crate) fn pass_total(&self) -> Option<Reason> {
        if gate::<true>(&self.port(|s| &raw mut s.total), self.now, &self.policy.total) {
            return None;
        }
        self.port_is_full(Reason::DropPortLimit)
    }

    #[inline(always)]
    fn pass<const TAKE: bool>(&self) -> Option<Reason> {
        let now = self.now;
        if self.stranger {
            let limit = self.policy.strangers.limit(self.comes_back);
            if !gate::<TAKE>(&self.port(|s| &raw mut s.strangers), now, &limit) {
                return self.port_is_full(Reason::DropStrangerShare);
            }
        }
        if self.discover
            && self.policy.flags & PORT_LIMITS_DISCOVER != 0
            && !gate::<TAKE>(&self.port(|s| &raw mut s.discover), now, &self.policy.discover)
        {
            return self.port_is_full(Reason::DropDiscoverShare);
        }
        if !gate::<TAKE>(&self.port(|s| &raw mut s.total), now, &self.policy.total) {
            return self.port_is_full(Reason::DropPortLimit);
        }
        if self.host.flags & HOST_LIMITED != 0 { self.pass_host::<TAKE>() } else { None }
    }

    #[inline(always)]
    fn pass_host<const TAKE: bool>(&self) -> Option<Reason> {
        let state = maps::HOST_STATE.get_ptr_mut(0)?;
        let strangers = self.host.strangers.limit(self.comes_back);
        let passes = (!self.stranger || gate::<TAKE>(&host(state, |s| &raw mut s.strangers), self.now, &strangers))
            && gate::<TAKE>(&host(state, |s| &raw mut s.total), self.now, &self.host.total);
        if passes {
            return None;
        }
        if events::mark(host(state, |s| &raw mut s.last_excess), self.now) {
            self.tell(EVENT_HOST_OVER_LIMIT);
        }
        Some(Reason::DropHostLimit)
    }

    #[inline(always)]
    fn port_is_full(&self, reason: Reason) -> Option<Reason> {
        if events::mark(self.port(|s| &raw mut s.last_excess), self.now) {
            self.tell(EVENT_PORT_OVER_LIMIT);
        }
        Some(reason)
    }

    #[inline(always)]
    fn port(&self, word: fn(&mut PortState) -> *mut u64) -> Shared {
        // SAFETY: a lookup made the pointer, and the value stays valid for the run of the program; `word` only names a
        // field of it.
        unsafe { Shared::new(word(&mut *self.state)) }
    }

    #[inline(always)]
    fn tell(&self, kind: u32) {
        events::send(kind, self.slot, self.client, self.key, self.now.ticks);
    }
}

#[inline(always)]
fn host(state: *mut HostState, word: fn(&mut HostState) -> *mut u64) -> Shared {
    // SAFETY: as in `Gates::port`.
    unsafe { Shared::new(word(&mut *state)) }
}

/// Whether a limiter has room for a packet; with `TAKE`, it is taken.
#[inline(always)]
fn gate<const TAKE: bool>(word: &Shared, now: Now, limit: &Limit) -> bool {
    if TAKE { take(word, now, limit) } else { exceeds_until(word, now, limit).is_none() }
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
