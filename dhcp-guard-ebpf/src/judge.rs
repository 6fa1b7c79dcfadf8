//! The order in which a DHCP packet meets the rules. Exactly one reason comes out, and is counted.

use dhcp_guard_common::{
    gcra::{GRAIN_BITS, Word as _},
    hash,
    layout::{
        ClientKey, ClientState, Control, EVENT_CLIENT_OVER_LIMIT, EVENT_ROGUE_SERVER, EVENT_UNKNOWN_VLAN,
        HOST_DROP_ROGUE_SERVERS, HostPolicy, NO_PORT_SLOT, PORT_ALLOWED, PORT_DROP_CHADDR_MISMATCH, PORT_MONITOR,
        PORT_TRUSTED, PortKey, PortPolicy, PortState,
    },
    message::{self, Sender},
    parse::{Dhcp, Family, Towards},
    verdict::{MessageType, Note, Reason},
};

use crate::{
    admit::{self, Gates},
    atomic::Shared,
    clients::{self, Entry},
    clock::Now,
    control,
    count::{self, Counters},
    events, filter, maps, memo,
    packet::Packet,
    ports, rules, strangers,
};

/// Judges and counts a DHCP packet. True: it is to be dropped.
#[inline(always)]
pub(crate) fn is_dropped(ifindex: u32, packet: &Packet, dhcp: &Dhcp) -> bool {
    let now = Now::read();
    let version = control::version();
    let message = message::message_type(packet, dhcp);
    let sender = message::sender(packet, dhcp);
    let key = PortKey::new(ifindex, dhcp.vlans);
    let who = ClientKey::of(sender, maps::seeds());
    let place = match dhcp.towards {
        Towards::Server => memo::Place::of(key, who, dhcp.family, version),
        Towards::Client => None,
    };
    if let Some((slot, reason)) = place.and_then(|place| place.answer(now)) {
        return count(slot, reason, message, sender);
    }
    let Some(case) = Case::open(key, dhcp, message, sender, who, place, version, now) else {
        return count(NO_PORT_SLOT, Reason::PassNoPort.index(), message, sender);
    };
    count(case.slot, case.monitored(case.judge()).index(), message, sender)
}

/// Counts the packet. True: the reason with this index is a drop.
#[inline(always)]
fn count(slot: u32, reason: usize, message: MessageType, sender: Sender) -> bool {
    if let Some(counters) = Counters::of(slot) {
        counters.verdict(reason, message);
        if sender.relay != 0 {
            counters.note(Note::Relayed);
        }
        if sender.chaddr_differs {
            counters.note(Note::ChaddrMismatch);
        }
    }
    Reason::is_drop_at(reason)
}

/// A packet, the port it arrived on, and the moment.
#[derive(Clone, Copy)]
struct Case<'a> {
    key: PortKey,
    slot: u32,
    policy: &'a PortPolicy,
    host: &'a HostPolicy,
    state: *mut PortState,
    dhcp: &'a Dhcp,
    message: MessageType,
    sender: Sender,
    client: ClientKey,
    place: Option<memo::Place>,
    now: Now,
}

impl<'a> Case<'a> {
    /// Finds the port; `None` if the interface has none.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "inlined, and each is a register")]
    fn open(
        key: PortKey,
        dhcp: &'a Dhcp,
        message: MessageType,
        sender: Sender,
        who: ClientKey,
        place: Option<memo::Place>,
        version: u64,
        now: Now,
    ) -> Option<Self> {
        let bank = Control::bank(version);
        let found = ports::find(key, version, bank)?;
        let slot = found.slot;
        let policy = ports::policy(slot, bank)?;
        let host = maps::HOST_POLICIES.get(bank)?;
        let state = maps::PORT_STATES.get_ptr_mut(slot)?;
        let case = Self { key, slot, policy, host, state, dhcp, message, sender, client: who.on(slot), place, now };
        if !found.is_own {
            case.note_unknown_vlan();
        }
        Some(case)
    }

    #[inline(always)]
    fn note_unknown_vlan(&self) {
        if let Some(counters) = Counters::of(self.slot) {
            counters.note(Note::UnknownVlan);
        }
        if events::mark(self.word(|s| &raw mut s.last_unknown_vlan), self.now) {
            self.tell(EVENT_UNKNOWN_VLAN);
        }
    }

    #[inline(always)]
    fn judge(&self) -> Reason {
        let rule = rules::of(self.client);
        if self.policy.flags & PORT_ALLOWED != 0 || rule.is_some_and(|rule| rule.allowed_until > self.now.ticks) {
            return Reason::PassAllowed;
        }
        if self.policy.flags & PORT_TRUSTED != 0 {
            return self.gates(false, false).pass_total().unwrap_or(Reason::PassTrusted);
        }
        if is_malformed(self.dhcp) {
            return Reason::DropMalformed;
        }
        let until = self.quarantined_until(rule.map_or(0, rules::end_of_quarantine));
        if until > self.now.ticks {
            return self.quarantined(until);
        }
        if self.dhcp.towards == Towards::Client {
            return self.judge_server();
        }
        if self.sender.chaddr_differs && self.policy.flags & PORT_DROP_CHADDR_MISMATCH != 0 {
            return Reason::DropChaddrMismatch;
        }
        let hash = hash::mix(self.client.0, maps::seeds());
        if filter::may_list(hash)
            && let Some(entry) = clients::known(self.client)
        {
            return self.judge_known(entry);
        }
        self.judge_stranger(hash)
    }

    /// The tick until which the port or the client is in quarantine.
    #[inline(always)]
    fn quarantined_until(&self, client: u64) -> u64 {
        let [muted, isolated] =
            [self.word(|s| &raw mut s.muted_until).load(), self.word(|s| &raw mut s.isolated_until).load()];
        let port = if muted > isolated { muted } else { isolated };
        if port > client { port } else { client }
    }

    /// Drops, and counts for the client if it has an entry.
    #[inline(always)]
    fn quarantined(&self, until: u64) -> Reason {
        if self.dhcp.towards == Towards::Client {
            return Reason::DropQuarantine;
        }
        let (entry, known) = match clients::known(self.client) {
            Some(entry) => (Some(entry), true),
            None => (strangers::Place::of(self.client).and_then(strangers::Place::entry), false),
        };
        match entry {
            Some(entry) => entry.count(true, self.now),
            None => count::untracked(1),
        }
        let until = if until >> (u64::BITS - GRAIN_BITS) == 0 { until << GRAIN_BITS } else { u64::MAX };
        self.remember(known, Reason::DropQuarantine, until);
        Reason::DropQuarantine
    }

    /// A server's message from a port that is not trusted.
    #[inline(always)]
    fn judge_server(&self) -> Reason {
        if events::mark(self.word(|s| &raw mut s.last_server), self.now) {
            self.tell(EVENT_ROGUE_SERVER);
        }
        if self.host.flags & HOST_DROP_ROGUE_SERVERS != 0 { Reason::DropRogueServer } else { Reason::PassServer }
    }

    #[inline(always)]
    fn judge_known(&self, entry: Entry) -> Reason {
        let excess = self.admit(Some(entry), true, true);
        entry.count(excess.is_some(), self.now);
        excess.unwrap_or(Reason::PassKnown)
    }

    /// A stranger over its own limit is dropped before it can spend the port's budget, so that one loud MAC cannot
    /// starve the quiet ones. Those who were seen before come before those who are new.
    #[inline(always)]
    fn judge_stranger(&self, hash: u64) -> Reason {
        self.mark_distinct(hash);
        let Some(place) = strangers::Place::with_hash(self.client, hash) else { return Reason::PassStranger };
        if let Some(entry) = place.entry() {
            let excess = self.admit(Some(entry), false, true);
            entry.count(excess.is_some(), self.now);
            return excess.unwrap_or(Reason::PassStranger);
        }
        let seen = place.was_seen();
        let excess = self.admit(None, false, seen);
        self.give_entry(place, excess.is_some(), seen);
        excess.unwrap_or(Reason::PassStranger)
    }

    /// The client's own limit, and then the shared ones. `None`: the packet may pass.
    ///
    /// Nothing is taken from any limiter before all of them were seen to have room, so that a packet which one limit
    /// stops costs the others nothing.
    #[inline(always)]
    fn admit(&self, entry: Option<Entry>, known: bool, comes_back: bool) -> Option<Reason> {
        let own = entry.map(|entry| entry.limiter(self.dhcp.family));
        let limit = admit::client_limit(self.policy, self.dhcp.family);
        if let Some(own) = &own
            && let Some(until) = admit::exceeds_until(own, self.now, limit)
        {
            self.remember(known, Reason::DropClientLimit, until);
            return self.over_own_limit(entry);
        }
        let gates = self.gates(!known, comes_back);
        let excess = gates.first_full();
        if excess.is_some() {
            return excess;
        }
        if let Some(own) = &own
            && !admit::take(own, self.now, limit)
        {
            return self.over_own_limit(entry);
        }
        gates.take()
    }

    #[inline(always)]
    fn over_own_limit(&self, entry: Option<Entry>) -> Option<Reason> {
        if entry.is_some_and(|entry| entry.mark_own_excess(self.now)) {
            self.tell(EVENT_CLIENT_OVER_LIMIT);
        }
        Some(Reason::DropClientLimit)
    }

    /// Gives a new stranger an entry. Whatever comes of it, the verdict stands.
    ///
    /// An admitted packet always may: the strangers' share bounds how many there are. A dropped one may within the
    /// budget for new clients: so the drops of the first machines of a flood are counted for their MAC from their first
    /// packet, while a flood of random MACs cannot churn the table. Who gets none is at least remembered as seen.
    #[inline(always)]
    fn give_entry(&self, place: strangers::Place, excess: bool, seen: bool) {
        if excess && !admit::take(&self.word(|s| &raw mut s.new_clients), self.now, &self.policy.new_clients) {
            if !seen {
                place.remember();
            }
            count::untracked(1);
            return;
        }
        if place.insert(self.first_state(excess)) {
            return;
        }
        // Another CPU was first, and its packet alone is in the entry's limiter. This one is charged, too; if the client
        // is over its limit by now, its next packet is the one to feel it.
        if let Some(entry) = place.entry() {
            if !excess {
                let limit = admit::client_limit(self.policy, self.dhcp.family);
                let _ = admit::take(&entry.limiter(self.dhcp.family), self.now, limit);
            }
            entry.count(excess, self.now);
            return;
        }
        count::untracked(1);
        count::trouble(|t| &mut t.insert_failed);
    }

    /// The state of a new stranger that has this packet in it.
    #[inline(always)]
    fn first_state(&self, excess: bool) -> ClientState {
        let spent = self.now.grains + admit::client_limit(self.policy, self.dhcp.family).interval;
        let [limiter_v4, limiter_v6] = match (excess, self.dhcp.family) {
            (true, _) => [0, 0],
            (false, Family::V4) => [spent, 0],
            (false, Family::V6) => [0, spent],
        };
        ClientState {
            limiter_v4,
            limiter_v6,
            packets: 1,
            excess: excess.into(),
            own_excess: 0,
            first_seen: self.now.ticks,
            last_seen: self.now.ticks,
            last_excess: 0,
            relay: self.sender.relay,
            client: self.sender.client,
        }
    }

    /// One bit for each stranger that sends: how many there are says whether the MACs are random.
    #[inline(always)]
    fn mark_distinct(&self, hash: u64) {
        let bit = hash::distinct_bit(hash);
        // SAFETY: a field of a map value; the index is below DISTINCT_WORDS.
        let word = unsafe { Shared::new((&raw mut (*self.state).distinct).cast::<u64>().add(bit as usize / 64)) };
        let mask = 1u64 << (bit % 64);
        let before = word.load();
        if before & mask == 0 {
            // Lost if another CPU changes the word right now; the client's next packet sets it.
            let _ = word.compare_and_swap(before, before | mask);
        }
    }

    #[inline(always)]
    fn gates(&self, stranger: bool, comes_back: bool) -> Gates<'_> {
        Gates {
            slot: self.slot,
            key: self.key,
            client: self.client,
            policy: self.policy,
            host: self.host,
            state: self.state,
            discover: self.message.is_discover(),
            stranger,
            comes_back,
            now: self.now,
        }
    }

    #[inline(always)]
    fn remember(&self, known: bool, reason: Reason, until: u64) {
        if let Some(place) = self.place {
            place.remember(self.client, known, self.monitored(reason), until, self.now);
        }
    }

    #[inline(always)]
    fn monitored(&self, reason: Reason) -> Reason {
        if self.policy.flags & PORT_MONITOR != 0 { reason.monitored() } else { reason }
    }

    #[inline(always)]
    fn word(&self, word: fn(&mut PortState) -> *mut u64) -> Shared {
        // SAFETY: a lookup made the pointer, and the value stays valid for the run of the program; `word` only names a
        // field of it.
        unsafe { Shared::new(word(&mut *self.state)) }
    }

    #[inline(always)]
    fn tell(&self, kind: u32) {
        events::send(kind, self.slot, self.client, self.key, self.now.ticks);
    }
}

/// The source MAC is a group address or zero: nobody's.
#[inline(always)]
fn is_malformed(dhcp: &Dhcp) -> bool {
    let [first, second, third] = dhcp.source;
    first.to_ne_bytes()[0] & 1 != 0 || first | second | third == 0
}
