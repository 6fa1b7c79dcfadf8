//! The order in which a DHCP packet meets the rules. Exactly one reason comes out, and is counted.
//!
//! The bulk of a flood is answered by the memo. The rest goes through [`Arrival`], which is in a map: what the verifier
//! reads back from there it knows nothing of, and so it follows the rules once, and not again for every state that the
//! parser can be in, which would be millions. What is rare is in `extern "C"` functions, which are *global*: the verifier
//! looks at each once, for all arguments that it can have.

use dhcp_guard_common::{
    gcra::{GRAIN_BITS, Word as _},
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
    cpu::Cpu,
    events,
    head::Head,
    last_port::{self, Answer, Near, Shut},
    maps,
    packet::Packet,
    ports, rules, strangers,
};

/// Judges and counts a DHCP packet. True: it is to be dropped.
#[inline(always)]
pub(crate) fn is_dropped(ifindex: u32, packet: &Packet, dhcp: &Dhcp) -> bool {
    let message = message::read(packet, dhcp);
    let fresh = Fresh::new(ifindex, dhcp, message.sender);
    let Some(cpu) = Cpu::this() else { return false };
    if let Some(verdict) = fresh.memo(cpu, dhcp).and_then(|place| place.answer(fresh.now)) {
        return count(verdict, message.kind.index(), &message.sender);
    }
    let near = match last_port::ask(cpu, &fresh, dhcp) {
        Answer::Certain(verdict) => return count(verdict, message.kind.index(), &message.sender),
        Answer::Judge(near) => near,
    };
    let arrival = Arrival::keep(cpu, &fresh, dhcp, message.kind, near);
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
    /// The client's.
    hash: u64,
    /// Whether the client may be in one of the tables that user space fills.
    listed: bool,
    policy: &'a PortPolicy,
    state: *mut PortState,
    now: Now,
}

impl<'a> Case<'a> {
    /// Finds the port; `None` if the interface has none.
    #[inline(always)]
    fn open(arrival: &'a Arrival) -> Option<Self> {
        match arrival.near() {
            Some(near) => Self::on(arrival, near),
            None => Self::on_another_port(arrival),
        }
    }

    /// On a port that this CPU did not see last.
    #[inline(always)]
    fn on_another_port(arrival: &'a Arrival) -> Option<Self> {
        let found = ports::find(arrival.port(), arrival.version, Control::bank(arrival.version))?;
        let case = Self::on(arrival, Near::of(found.slot, arrival.client_on(found.slot)))?;
        if found.is_own {
            last_port::remember(arrival, found.slot);
        } else {
            case.note_unknown_vlan();
        }
        Some(case)
    }

    #[inline(always)]
    fn on(arrival: &'a Arrival, near: Near) -> Option<Self> {
        let Near { slot, hash, listed } = near;
        let policy = ports::policy(slot, Control::bank(arrival.version))?;
        let state = maps::PORT_STATES.get_ptr_mut(slot)?;
        Some(Self { arrival, slot, hash, listed, policy, state, now: arrival.now() })
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
        let rule = rules::of(client, self.listed);
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
        match self.known() {
            Some(entry) => self.judge_known(entry).into(),
            None => self.judge_stranger(),
        }
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
        let (entry, known) = self.entry();
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

    /// The client's entry, if it has one, and whether it is known. Who is not, is marked: a flood of random MACs is one
    /// in quarantine, too.
    #[inline(always)]
    fn entry(&self) -> (Option<Entry>, bool) {
        if let Some(entry) = self.known() {
            return (Some(entry), true);
        }
        ports::mark_distinct(self.state, self.hash);
        (strangers::entry(self.client(), self.hash), false)
    }

    #[inline(always)]
    fn known(&self) -> Option<Entry> {
        if self.listed { clients::known(self.client()) } else { None }
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
    fn judge_stranger(&self) -> Outcome {
        ports::mark_distinct(self.state, self.hash);
        if let Some(entry) = strangers::entry(self.client(), self.hash) {
            let excess = self.admit_client(entry, Who::STRANGER_AGAIN);
            entry.count(excess.is_some(), self.now);
            return excess.unwrap_or(Reason::PassStranger).into();
        }
        let Some(head) = Head::of(self.hash) else { return Outcome::untracked(Reason::PassStranger) };
        let seen = head.was_seen();
        let excess = self.admit(if seen { Who::STRANGER_AGAIN } else { Who::NEWCOMER });
        if excess.is_some() && !self.may_be_tracked() {
            head.remember(seen);
            self.shut_out();
            return Outcome::untracked(excess.unwrap_or(Reason::DropStrangerShare));
        }
        self.give_entry(excess.is_some());
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

    /// Remembers how long no stranger without an entry can be admitted, nor get one.
    #[inline(always)]
    fn shut_out(&self) {
        let share = |again| {
            let limit = self.policy.strangers.limit(again);
            admit::exceeds_until(&self.word(|s| &raw mut s.strangers), self.now, &limit).unwrap_or(0)
        };
        let new_clients = self.word(|s| &raw mut s.new_clients);
        let entries = admit::exceeds_until(&new_clients, self.now, &self.policy.new_clients).unwrap_or(0);
        let shut = Shut {
            newcomers_until: sooner(share(false), entries),
            again_until: sooner(share(true), entries),
            needs_chaddr: self.policy.flags & PORT_DROP_CHADDR_MISMATCH != 0,
        };
        last_port::shut(self.arrival, self.verdict(Outcome::untracked(Reason::DropStrangerShare)), shut);
    }

    /// Gives a new stranger an entry. Whatever comes of it, the verdict stands.
    #[inline(always)]
    fn give_entry(&self, excess: bool) {
        let limit = admit::client_limit(self.policy, self.arrival.family());
        strangers::welcome(self.client(), self.hash, self.arrival, if excess { 0 } else { limit.interval });
    }

    #[inline(always)]
    fn client(&self) -> ClientKey {
        self.arrival.client_on(self.slot)
    }

    #[inline(always)]
    fn remember(&self, known: bool, reason: Reason, until: u64) {
        if let Some(place) = self.arrival.memo_until(until) {
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
fn sooner(one: u64, other: u64) -> u64 {
    if one < other { one } else { other }
}

#[inline(always)]
fn later(one: u64, other: u64) -> u64 {
    if one > other { one } else { other }
}
