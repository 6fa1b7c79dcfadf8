//! The order in which a DHCP packet meets the rules. Exactly one reason comes out, and is counted.
//!
//! The bulk of a flood is answered by the memos and the ports last seen. The rest goes through [`Arrival`], which is in a
//! map: what the verifier reads back from there it knows nothing of, and so it follows the rules once, and not again for
//! every state that the parser can be in, which would be millions. What is rare is in `extern "C"` functions, which are
//! *global*: the verifier looks at each once, for all arguments that it can have.

use dhcp_guard_common::{
    gcra::{GRAIN_BITS, Word as _},
    layout::{
        ClientKey, ClientRule, Control, EVENT_CLIENT_OVER_LIMIT, EVENT_PORT_OVER_LIMIT, EVENT_ROGUE_SERVER,
        EVENT_UNKNOWN_VLAN, HOST_DROP_ROGUE_SERVERS, MEMO_KNOWN, NO_PORT_SLOT, PORT_ALLOWED, PORT_DROP_CHADDR_MISMATCH,
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
    last_ports::{self, Answer, Located, Shut, shut},
    maps,
    packet::{Context, Packet},
    ports, rules, strangers,
};

/// Judges and counts a DHCP packet. True: it is to be dropped.
#[inline(always)]
pub(crate) fn is_dropped<C: Context>(ifindex: u32, packet: &Packet<C>, dhcp: &Dhcp) -> bool {
    let message = message::read(packet, dhcp);
    let fresh = Fresh::new(ifindex, dhcp, message.sender);
    let Some(cpu) = Cpu::this() else { return false };
    if let Some(verdict) =
        fresh.memo(cpu, dhcp).and_then(|place| place.answer(fresh.now, message.sender.chaddr_differs))
    {
        return count(verdict, message.kind.index(), &message.sender);
    }
    let located = match last_ports::ask(cpu, &fresh, dhcp) {
        Answer::Certain(verdict) => return count(verdict, message.kind.index(), &message.sender),
        Answer::Judge(located) => located,
    };
    let arrival = Arrival::keep(cpu, &fresh, dhcp, message.kind, located);
    count(verdict(arrival), arrival.message(), &arrival.sender())
}

/// A slot, the index of a reason, and whether the client has no entry, in one word.
#[derive(Clone, Copy)]
pub(crate) struct Verdict(u64);

// Flags of the word. Bit 63 is `MEMO_KNOWN`.

/// Set in the word for a client without an entry.
const UNTRACKED: u64 = 1 << 62;
/// Set in a memo's: not of a packet whose hardware address is not its source's, which has a rule of its own.
pub(crate) const SPARES_FOREIGN_CHADDR: u64 = 1 << 61;
/// Set in the word for a frame whose VLANs have no port of their own.
const VLAN_UNKNOWN: u64 = 1 << 60;

impl Verdict {
    #[inline(always)]
    pub(crate) fn new(slot: u32, reason: usize) -> Self {
        Self(u64::from(slot) << 8 | reason as u64)
    }

    /// From [`Verdict::word`], perhaps with flags of `ClientMemo::verdict`.
    #[inline(always)]
    pub(crate) fn from_word(word: u64) -> Self {
        Self(word)
    }

    #[inline(always)]
    pub(crate) fn word(self) -> u64 {
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
        if verdict.0 & VLAN_UNKNOWN != 0 {
            counters.note(Note::UnknownVlan);
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

/// The verdict on a packet that neither a memo nor a port last seen is certain about.
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
    /// The port is its interface's default one, for want of one with the frame's VLANs.
    vlan_unknown: bool,
    policy: &'a PortPolicy,
    state: *mut PortState,
    now: Now,
}

impl<'a> Case<'a> {
    /// Finds the port; `None` if the interface has none.
    #[inline(always)]
    fn open(arrival: &'a Arrival) -> Option<Self> {
        match arrival.located() {
            Some(located) => Self::on(arrival, located),
            None => Self::on_another_port(arrival),
        }
    }

    /// On a port that this CPU did not see lately.
    #[inline(always)]
    fn on_another_port(arrival: &'a Arrival) -> Option<Self> {
        let found = ports::find(arrival.port(), arrival.version, Control::bank(arrival.version))?;
        let located = Located::on(found.slot, arrival.client_on(found.slot));
        let case = Self { vlan_unknown: !found.is_own, ..Self::on(arrival, located)? };
        if found.is_own {
            last_ports::remember(arrival, found.slot);
        } else {
            case.notice_unknown_vlan();
        }
        Some(case)
    }

    #[inline(always)]
    fn on(arrival: &'a Arrival, located: Located) -> Option<Self> {
        let Located { slot, hash, listed } = located;
        let policy = ports::policy(slot, Control::bank(arrival.version))?;
        let state = maps::PORT_STATES.get_ptr_mut(slot)?;
        Some(Self { arrival, slot, hash, listed, vlan_unknown: false, policy, state, now: arrival.now() })
    }

    #[inline(always)]
    fn notice_unknown_vlan(&self) {
        let told = [self.word(|s| &raw mut s.vlans_told[0]), self.word(|s| &raw mut s.vlans_told[1])];
        let last = self.word(|s| &raw mut s.last_unknown_vlan);
        if events::mark_who(last, told, self.arrival.port().word(), self.now) {
            self.tell(EVENT_UNKNOWN_VLAN);
        }
    }

    #[inline(always)]
    fn verdict(&self, Outcome { reason, tracked }: Outcome) -> Verdict {
        let verdict = Verdict::new(self.slot, self.monitored(reason).index());
        let untracked = if tracked { 0 } else { UNTRACKED };
        let unknown = if self.vlan_unknown { VLAN_UNKNOWN } else { 0 };
        Verdict(verdict.0 | untracked | unknown)
    }

    #[inline(always)]
    fn judge(&self) -> Outcome {
        let own = rules::of(self.client(), self.listed);
        let rule = self.with_relay(&own);
        let allowed_until = rules::later_of(self.word(|s| &raw mut s.allowed_until).load(), rule.allowed_until);
        if self.policy.flags & PORT_ALLOWED != 0 || allowed_until > self.now.ticks {
            return Reason::PassAllowed.into();
        }
        if self.policy.flags & PORT_TRUSTED != 0 {
            return self.admit(Who::TRUSTED).unwrap_or(Reason::PassTrusted).into();
        }
        if self.arrival.is_malformed() {
            return Reason::DropMalformed.into();
        }
        let (port, client) = (self.port_quarantined_until(), rules::end_of_quarantine(&rule));
        if rules::later_of(port, client) > self.now.ticks {
            return self.quarantined(port, rules::end_of_quarantine(&own));
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

    /// The rule about the client; behind a relay, also that about the relay, whose frames these are: whoever is in
    /// quarantine does not get out of it by calling itself a relay. Of each word the later one.
    #[inline(always)]
    fn with_relay(&self, own: &ClientRule) -> ClientRule {
        match self.arrival.relay_on(self.slot) {
            Some(relay) => rules::later(own, &rules::of_unlisted(relay)),
            None => *own,
        }
    }

    /// The tick until which the port is in quarantine.
    #[inline(always)]
    fn port_quarantined_until(&self) -> u64 {
        rules::later_of(self.word(|s| &raw mut s.muted_until).load(), self.word(|s| &raw mut s.isolated_until).load())
    }

    /// Drops, and counts for the client if it has an entry. `port` and `client`: the ticks until which each is in
    /// quarantine itself. A relay's quarantine is not remembered for its clients: they may come through another one.
    #[inline(always)]
    fn quarantined(&self, port: u64, client: u64) -> Outcome {
        let reason = Reason::DropQuarantine;
        if self.arrival.is_towards_client() {
            return reason.into();
        }
        let now = self.now.ticks;
        if port > now {
            let until = grains(port);
            let shut = Shut { newcomers_until: until, again_until: until, flags: 0 };
            last_ports::shut(self.arrival, self.verdict(Outcome::untracked(reason)), shut);
        }
        let (entry, known) = self.entry();
        // On a port in quarantine, random MACs without an entry must not take all the memos. Rules are few.
        let until = rules::later_of(port, client);
        if until > now && (entry.is_some() || client > now) {
            self.remember(known, reason, grains(until));
        }
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
        let told = [self.word(|s| &raw mut s.server_told[0]), self.word(|s| &raw mut s.server_told[1])];
        if events::mark_who(self.word(|s| &raw mut s.last_server), told, self.client().0, self.now) {
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
            flags: shut::REMEMBERS | self.if_drops_foreign_chaddr(shut::SPARES_FOREIGN_CHADDR),
        };
        last_ports::shut(self.arrival, self.verdict(Outcome::untracked(Reason::DropStrangerShare)), shut);
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
            let verdict = self.verdict(reason.into());
            // In quarantine that rule is not reached.
            let spares =
                if reason == Reason::DropClientLimit { self.if_drops_foreign_chaddr(SPARES_FOREIGN_CHADDR) } else { 0 };
            place.remember(self.client(), verdict, spares | if known { MEMO_KNOWN } else { 0 }, until, self.now);
        }
    }

    /// The flag, on a port that drops packets with a foreign hardware address.
    #[inline(always)]
    fn if_drops_foreign_chaddr(&self, flag: u64) -> u64 {
        if self.policy.flags & PORT_DROP_CHADDR_MISMATCH != 0 { flag } else { 0 }
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

/// A tick as a time; the end of all ticks is that of all times.
#[inline(always)]
fn grains(tick: u64) -> u64 {
    if tick >> (u64::BITS - GRAIN_BITS) == 0 { tick << GRAIN_BITS } else { u64::MAX }
}
