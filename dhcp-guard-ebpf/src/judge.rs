//! The order in which a DHCP packet meets the rules. Exactly one reason comes out, and is counted.
//!
//! The bulk of a flood is answered by the memo. The rest goes through [`Arrival`], which is in a map: what the verifier
//! reads back from there it knows nothing of, and so it follows the rules once, and not again for every state that the
//! parser can be in, which would be millions. What is rare is in `extern "C"` functions, which are *global*: the verifier
//! looks at each once, for all arguments that it can have.

use dhcp_guard_common::{
    gcra::{GRAIN_BITS, Word as _},
    hash,
    layout::{
        ClientKey, ClientRule, Control, EVENT_CLIENT_OVER_LIMIT, EVENT_PORT_OVER_LIMIT, EVENT_ROGUE_SERVER,
        EVENT_UNKNOWN_VLAN, HOST_DROP_ROGUE_SERVERS, NO_PORT_SLOT, PORT_ALLOWED, PORT_DROP_CHADDR_MISMATCH,
        PORT_MONITOR, PORT_TRUSTED, PortPolicy, PortState,
    },
    message::{self, Sender},
    parse::Dhcp,
    verdict::{Note, Reason},
};

use crate::{
    admit::{self, Who},
    arrival::{Arrival, Fresh},
    atomic::Shared,
    clients::{self, Entry},
    clock::Now,
    count::Counters,
    events, filter, maps,
    packet::Packet,
    ports, rules, strangers,
};

/// Judges and counts a DHCP packet. True: it is to be dropped.
#[inline(always)]
pub(crate) fn is_dropped(ifindex: u32, packet: &Packet, dhcp: &Dhcp) -> bool {
    let message = message::read(packet, dhcp);
    let fresh = Fresh::new(ifindex, dhcp, message.sender);
    if let Some(verdict) = fresh.memo(dhcp).and_then(|place| place.answer(fresh.now)) {
        return count(verdict, message.kind.index(), &message.sender);
    }
    let Some(arrival) = Arrival::keep(&fresh, dhcp, message.kind) else { return false };
    count(verdict(arrival), arrival.message(), &arrival.sender())
}

/// A slot, the index of a reason, and whether the client has no entry, in one word.
#[derive(Clone, Copy)]
pub(crate) struct Verdict(u64);

/// Set in the word for a client without an entry.
const UNTRACKED: u64 = 1 << 62;

impl Verdict {
    #[inline(always)]
    pub(crate) fn new(slot: u32, reason: usize) -> Self {
        Self(u64::from(slot) << 8 | reason as u64)
    }

    /// From `ClientMemo::verdict`, which has the same below its flags.
    #[inline(always)]
    pub(crate) fn from_memo(word: u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub(crate) fn for_memo(self) -> u64 {
        self.0
    }

    /// Below the flags.
    #[inline(always)]
    fn slot(self) -> u32 {
        (self.0 >> 8) as u32
    }
}

/// Counts the packet. True: it is to be dropped.
#[inline(always)]
fn count(verdict: Verdict, message: usize, sender: &Sender) -> bool {
    let reason = (verdict.0 & 0xff) as usize;
    if let Some(counters) = Counters::of(verdict.slot()) {
        counters.verdict(reason, message);
        if verdict.0 & UNTRACKED != 0 {
            counters.note(Note::Untracked);
        }
        if sender.relay != 0 {
            counters.note(Note::Relayed);
        }
        if sender.chaddr_differs {
            counters.note(Note::ChaddrMismatch);
        }
    }
    Reason::is_drop_at(reason)
}

/// The verdict on a packet that no memo knows.
#[inline(always)]
fn verdict(arrival: &Arrival) -> Verdict {
    match Case::open(arrival) {
        Some(case) => case.verdict(case.judge()),
        None => Verdict::new(NO_PORT_SLOT, Reason::PassNoPort.index()),
    }
}

/// A packet and the port it arrived on.
#[derive(Clone, Copy)]
struct Case<'a> {
    arrival: &'a Arrival,
    slot: u32,
    policy: &'a PortPolicy,
    state: *mut PortState,
    now: Now,
}

impl<'a> Case<'a> {
    /// Finds the port; `None` if the interface has none.
    #[inline(always)]
    fn open(arrival: &'a Arrival) -> Option<Self> {
        let bank = Control::bank(arrival.version);
        let found = ports::find_again(arrival, bank)?;
        let slot = found.slot;
        let policy = ports::policy(slot, bank)?;
        let state = maps::PORT_STATES.get_ptr_mut(slot)?;
        let case = Self { arrival, slot, policy, state, now: arrival.now() };
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
    fn verdict(&self, Outcome { reason, tracked }: Outcome) -> Verdict {
        let verdict = Verdict::new(self.slot, self.monitored(reason).index());
        if tracked { verdict } else { Verdict(verdict.0 | UNTRACKED) }
    }

    #[inline(always)]
    fn judge(&self) -> Outcome {
        let client = self.client();
        let rule = rules::of(client);
        if self.policy.flags & PORT_ALLOWED != 0 || rule.allowed_until > self.now.ticks {
            return Reason::PassAllowed.into();
        }
        if self.policy.flags & PORT_TRUSTED != 0 {
            return self.admit(Who::TRUSTED).unwrap_or(Reason::PassTrusted).into();
        }
        if self.arrival.is_malformed() {
            return Reason::DropMalformed.into();
        }
        let until = self.quarantined_until(&rule);
        if until > self.now.ticks {
            return self.quarantined(until);
        }
        if self.arrival.is_towards_client() {
            return self.judge_server().into();
        }
        if self.arrival.chaddr_differs() && self.policy.flags & PORT_DROP_CHADDR_MISMATCH != 0 {
            return Reason::DropChaddrMismatch.into();
        }
        let hash = hash::mix(client.0, maps::seeds());
        if filter::may_list(hash)
            && let Some(entry) = clients::known(client)
        {
            return self.judge_known(entry).into();
        }
        self.judge_stranger(hash)
    }

    /// The tick until which the port or the client is in quarantine.
    #[inline(always)]
    fn quarantined_until(&self, rule: &ClientRule) -> u64 {
        let client = rules::end_of_quarantine(rule);
        let port = later(self.word(|s| &raw mut s.muted_until).load(), self.word(|s| &raw mut s.isolated_until).load());
        later(port, client)
    }

    /// Drops, and counts for the client if it has an entry.
    #[inline(always)]
    fn quarantined(&self, until: u64) -> Outcome {
        let reason = Reason::DropQuarantine;
        if self.arrival.is_towards_client() {
            return reason.into();
        }
        let (entry, known) = match clients::known(self.client()) {
            Some(entry) => (Some(entry), true),
            None => (strangers::Place::of(self.client()).and_then(strangers::Place::entry), false),
        };
        let until = if until >> (u64::BITS - GRAIN_BITS) == 0 { until << GRAIN_BITS } else { u64::MAX };
        self.remember(known, reason, until);
        match entry {
            Some(entry) => {
                entry.count(true, self.now);
                reason.into()
            }
            None => Outcome::untracked(reason),
        }
    }

    /// A server's message from a port that is not trusted.
    #[inline(always)]
    fn judge_server(&self) -> Reason {
        if events::mark(self.word(|s| &raw mut s.last_server), self.now) {
            self.tell(EVENT_ROGUE_SERVER);
        }
        match maps::HOST_POLICIES.get(Control::bank(self.arrival.version)) {
            Some(host) if host.flags & HOST_DROP_ROGUE_SERVERS != 0 => Reason::DropRogueServer,
            _ => Reason::PassServer,
        }
    }

    #[inline(always)]
    fn judge_known(&self, entry: Entry) -> Reason {
        let excess = self.admit_client(entry, Who::KNOWN);
        entry.count(excess.is_some(), self.now);
        excess.unwrap_or(Reason::PassKnown)
    }

    /// A stranger over its own limit is dropped before it can spend the port's budget, so that one loud MAC cannot
    /// starve the quiet ones. Those who were seen before come before those who are new.
    #[inline(always)]
    fn judge_stranger(&self, hash: u64) -> Outcome {
        self.mark_distinct(hash);
        let Some(place) = strangers::Place::with_hash(self.client(), hash) else {
            return Outcome::untracked(Reason::PassStranger);
        };
        if let Some(entry) = place.entry() {
            let excess = self.admit_client(entry, Who::STRANGER_AGAIN);
            entry.count(excess.is_some(), self.now);
            return excess.unwrap_or(Reason::PassStranger).into();
        }
        let seen = place.was_seen();
        let excess = self.admit(if seen { Who::STRANGER_AGAIN } else { Who::NEWCOMER });
        if excess.is_some() && !self.may_be_tracked() {
            place.remember(seen);
            return Outcome::untracked(excess.unwrap_or(Reason::DropStrangerShare));
        }
        self.give_entry(hash, excess.is_some());
        excess.unwrap_or(Reason::PassStranger).into()
    }

    /// The client's own limit, and then the shared ones. `None`: the packet may pass.
    ///
    /// Its own limit is charged for whatever it sends, also for what another limit stops then: it says who is to blame,
    /// and among many who flood together nobody would be.
    #[inline(always)]
    fn admit_client(&self, entry: Entry, who: Who) -> Option<Reason> {
        let own = entry.limiter(self.arrival.family());
        let limit = admit::client_limit(self.policy, self.arrival.family());
        if let Some(until) = admit::exceeds_until(&own, self.now, limit) {
            self.remember(who == Who::KNOWN, Reason::DropClientLimit, until);
            return self.over_own_limit(entry);
        }
        if !admit::take(&own, self.now, limit) {
            return self.over_own_limit(entry);
        }
        self.admit(who)
    }

    #[inline(always)]
    fn over_own_limit(&self, entry: Entry) -> Option<Reason> {
        if entry.mark_own_excess(self.now) {
            self.tell(EVENT_CLIENT_OVER_LIMIT);
        }
        Some(Reason::DropClientLimit)
    }

    /// The shared limits.
    ///
    /// The strangers' share is looked at here: it is what a flood of random MACs meets, and most of what it costs.
    #[inline(always)]
    fn admit(&self, who: Who) -> Option<Reason> {
        if who.is_stranger() {
            let limit = self.policy.strangers.limit(who == Who::STRANGER_AGAIN);
            if admit::exceeds_until(&self.word(|s| &raw mut s.strangers), self.now, &limit).is_some() {
                if events::mark(self.word(|s| &raw mut s.last_excess), self.now) {
                    self.tell(EVENT_PORT_OVER_LIMIT);
                }
                return Some(Reason::DropStrangerShare);
            }
        }
        admit::admit(self.slot, Control::bank(self.arrival.version), who, self.arrival, self.now)
    }

    /// Whether a stranger whose packet is dropped may have an entry all the same.
    ///
    /// An admitted packet always may: the strangers' share bounds how many there are. A dropped one may within the
    /// budget for new clients: so the drops of the first machines of a flood are counted for their MAC from their first
    /// packet, while a flood of random MACs cannot churn the table. Who gets none is at least remembered as seen.
    #[inline(always)]
    fn may_be_tracked(&self) -> bool {
        admit::take(&self.word(|s| &raw mut s.new_clients), self.now, &self.policy.new_clients)
    }

    /// Gives a new stranger an entry. Whatever comes of it, the verdict stands.
    #[inline(always)]
    fn give_entry(&self, hash: u64, excess: bool) {
        let limit = admit::client_limit(self.policy, self.arrival.family());
        strangers::welcome(self.client(), hash, self.arrival, if excess { 0 } else { limit.interval });
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
    fn client(&self) -> ClientKey {
        self.arrival.client_on(self.slot)
    }

    #[inline(always)]
    fn remember(&self, known: bool, reason: Reason, until: u64) {
        if let Some(place) = self.arrival.memo() {
            place.remember(self.client(), known, self.monitored(reason), until, self.now);
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
        events::send(kind, self.slot, self.client(), self.arrival.port(), self.now.ticks);
    }
}

/// What becomes of a packet, and whether it was counted for its client, if it is a client's.
#[derive(Clone, Copy)]
struct Outcome {
    reason: Reason,
    tracked: bool,
}

impl Outcome {
    #[inline(always)]
    fn untracked(reason: Reason) -> Self {
        Self { reason, tracked: false }
    }
}

impl From<Reason> for Outcome {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self { reason, tracked: true }
    }
}

#[inline(always)]
fn later(one: u64, other: u64) -> u64 {
    if one > other { one } else { other }
}
