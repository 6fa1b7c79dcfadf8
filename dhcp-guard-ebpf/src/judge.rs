//! The order in which a DHCP packet meets the rules. Exactly one reason comes out, and is counted.

use dhcp_guard_common::{
    gcra::{self, Limit, Taken},
    layout::{
        ClientKey, EVENT_CLIENT_OVER_LIMIT, EVENT_PORT_OVER_LIMIT, EVENT_ROGUE_SERVER, EVENT_TABLE_FULL,
        EVENT_UNKNOWN_VLAN, NO_PORT_SLOT, PORT_MONITOR, PORT_TRUSTED, PortKey, PortPolicy, PortState,
    },
    parse::{Dhcp, Towards},
    verdict::{MessageType, Reason},
};

use crate::{
    atomic::Shared,
    clients::{self, Entry},
    clock::Now,
    count, events, maps,
    memo::{self, Place},
};

/// Judges and counts a DHCP packet.
#[inline(always)]
pub(crate) fn judge(ifindex: u32, dhcp: &Dhcp, message: MessageType, now: Now) -> Reason {
    let key = PortKey::new(ifindex, dhcp.vlans);
    let place = match dhcp.towards {
        Towards::Server => Place::of(key, dhcp.source),
        Towards::Client => None,
    };
    if let Some((slot, monitor)) = place.and_then(|place| place.answer(now)) {
        let reason = memo::reason(monitor);
        count::verdict(slot, reason, message);
        return reason;
    }
    let Some(port) = Port::find(key, dhcp, now) else {
        count::verdict(NO_PORT_SLOT, Reason::PassNoPort, message);
        return Reason::PassNoPort;
    };
    let reason = port.judge(dhcp, place);
    let reason = if port.monitor() { reason.monitored() } else { reason };
    count::verdict(port.slot, reason, message);
    reason
}

/// The port a packet arrived on, and the moment.
#[derive(Clone, Copy)]
struct Port<'a> {
    key: PortKey,
    slot: u32,
    policy: &'a PortPolicy,
    state: *mut PortState,
    now: Now,
}

impl<'a> Port<'a> {
    /// The port with these VLANs, or else the interface's default port.
    #[inline(always)]
    fn find(key: PortKey, dhcp: &Dhcp, now: Now) -> Option<Self> {
        let own = maps::PORTS.get_ptr(key);
        let is_own = own.is_some();
        let slot = match own {
            Some(slot) => slot,
            None => maps::PORTS.get_ptr(PortKey::default_of(key.ifindex))?,
        };
        // SAFETY: a lookup made the pointer; user space writes the value once, before the port is used.
        let slot = unsafe { *slot };
        let policy = maps::POLICIES.get(slot)?;
        let state = maps::PORT_STATES.get_ptr_mut(slot)?;
        let port = Self { key, slot, policy, state, now };
        if !is_own && events::mark(port.word(|s| &raw mut s.last_unknown_vlan), now) {
            port.tell(EVENT_UNKNOWN_VLAN, ClientKey::new(slot, dhcp.source));
        }
        Some(port)
    }

    #[inline(always)]
    fn judge(self, dhcp: &Dhcp, place: Option<Place>) -> Reason {
        let client = ClientKey::new(self.slot, dhcp.source);
        if self.policy.flags & PORT_TRUSTED != 0 {
            return match self.take_total(client) {
                None => Reason::PassTrusted,
                Some(reason) => reason,
            };
        }
        if dhcp.towards == Towards::Client {
            if events::mark(self.word(|s| &raw mut s.last_server), self.now) {
                self.tell(EVENT_ROGUE_SERVER, client);
            }
            return Reason::PassServer;
        }
        match clients::known(client) {
            Some(entry) => self.judge_known(client, entry, place),
            None => self.judge_stranger(client, place),
        }
    }

    #[inline(always)]
    fn judge_known(self, client: ClientKey, entry: Entry, place: Option<Place>) -> Reason {
        let excess = match self.take_client(client, entry, true, place) {
            Some(reason) => Some(reason),
            None => self.take_total(client),
        };
        entry.count(excess.is_some(), self.now);
        excess.unwrap_or(Reason::PassKnown)
    }

    /// A stranger over its own limit is dropped before it can spend the port's budget, so that one loud MAC cannot
    /// starve the quiet ones.
    #[inline(always)]
    fn judge_stranger(self, client: ClientKey, place: Option<Place>) -> Reason {
        let entry = clients::stranger(client);
        let excess = match entry.and_then(|entry| self.take_client(client, entry, false, place)) {
            Some(reason) => Some(reason),
            None => self.take_strangers_share(client),
        };
        match entry {
            Some(entry) => entry.count(excess.is_some(), self.now),
            None => self.admit_to_table(client, excess.is_some()),
        }
        excess.unwrap_or(Reason::PassStranger)
    }

    /// Gives a new stranger an entry. Whatever comes of it, the verdict stands.
    ///
    /// An admitted packet always may: the strangers' share bounds how many there are. A dropped one may within the
    /// budget for new clients: so the drops of the first machines of a flood are counted for their MAC from their first
    /// packet, while a flood of random MACs cannot churn the table.
    #[inline(always)]
    fn admit_to_table(self, client: ClientKey, excess: bool) {
        if excess && self.take(|s| &raw mut s.new_clients, &self.policy.new_clients) != Taken::Yes {
            count::untracked(1);
            return;
        }
        let limiter = if excess { 0 } else { self.now.grains + self.policy.client.interval };
        if clients::insert_stranger(client, limiter, excess, self.now) {
            return;
        }
        // Another CPU was first, and its packet alone is in the entry's limiter. This one is charged, too; if the client
        // is over its limit by now, its next packet is the one to feel it.
        if let Some(entry) = clients::stranger(client) {
            if !excess {
                let _ = entry.take(&self.policy.client, self.now);
            }
            entry.count(excess, self.now);
            return;
        }
        count::untracked(1);
        count::trouble(|t| &mut t.insert_failed);
        self.tell(EVENT_TABLE_FULL, client);
    }

    /// The client's own limit.
    #[inline(always)]
    fn take_client(self, client: ClientKey, entry: Entry, known: bool, place: Option<Place>) -> Option<Reason> {
        match entry.take(&self.policy.client, self.now) {
            Taken::Yes => return None,
            Taken::LostRace => count::trouble(|t| &mut t.lost_races),
            Taken::NoUntil(until) => {
                if let Some(place) = place {
                    place.remember(client, known, self.monitor(), until, self.now);
                }
            }
        }
        if entry.mark_own_excess(self.now) {
            self.tell(EVENT_CLIENT_OVER_LIMIT, client);
        }
        Some(Reason::DropClientLimit)
    }

    /// The strangers' share of the port, then the port's limit.
    #[inline(always)]
    fn take_strangers_share(self, client: ClientKey) -> Option<Reason> {
        if self.take(|s| &raw mut s.strangers, &self.policy.strangers) == Taken::Yes {
            return self.take_total(client);
        }
        self.mark_excess(client);
        Some(Reason::DropStrangerShare)
    }

    /// The port's limit.
    #[inline(always)]
    fn take_total(self, client: ClientKey) -> Option<Reason> {
        if self.take(|s| &raw mut s.total, &self.policy.total) == Taken::Yes {
            return None;
        }
        self.mark_excess(client);
        Some(Reason::DropPortLimit)
    }

    #[inline(always)]
    fn take(self, word: fn(&mut PortState) -> *mut u64, limit: &Limit) -> Taken {
        let taken = gcra::take(&self.word(word), self.now.grains, limit);
        if taken == Taken::LostRace {
            count::trouble(|t| &mut t.lost_races);
        }
        taken
    }

    #[inline(always)]
    fn mark_excess(self, client: ClientKey) {
        if events::mark(self.word(|s| &raw mut s.last_excess), self.now) {
            self.tell(EVENT_PORT_OVER_LIMIT, client);
        }
    }

    #[inline(always)]
    fn monitor(self) -> bool {
        self.policy.flags & PORT_MONITOR != 0
    }

    #[inline(always)]
    fn word(self, word: fn(&mut PortState) -> *mut u64) -> Shared {
        // SAFETY: a lookup made the pointer, and the value stays valid for the run of the program; `word` only names a
        // field of it.
        unsafe { Shared::new(word(&mut *self.state)) }
    }

    #[inline(always)]
    fn tell(self, kind: u32, client: ClientKey) {
        events::send(kind, self.slot, client, self.key, self.now.ticks);
    }
}
