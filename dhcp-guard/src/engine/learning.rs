//! Strangers that behave become known clients; learned clients that fall silent become strangers again.
//!
//! Why: known clients do not compete with strangers for their share of a port, so a flood of random MACs cannot take
//! their leases. A configuration cannot name everybody, but whoever has been on a port for a while has shown what a flood
//! has not: it *comes back*. So a stranger becomes known when
//!
//! * it came back: at least two packets, the latest at least [`Rules::after`] after the first;
//! * it kept to its own limit all the while;
//! * its port is calm, see [`PortSeen`]. What is seen during a flood proves little, and it can wait.
//!
//! Clients behind a relay are treated alike: a hardware address is as easy to forge as a source MAC, and no easier.
//!
//! What it must not become: a way for a patient forger to fill the table of known clients, by sending now and then from
//! thousands of MACs. No rule about one MAC can tell such a one from an honest machine. So there are budgets: so many a
//! minute and so many in all for each port, and the room in the table. They are spent on those who have been there for
//! longest. The forger gets known clients on its own port, up to that port's budget, and takes nothing from any other;
//! and each of them still has its own limit, and all of them that of the port.
//!
//! Pure, as all of the engine: an observation in, [`Action`]s out. That an action was done shows in the next
//! observations; one that was lost on its way is decided anew.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use dhcp_guard_common::layout::ClientKey;

/// Over which time [`Rules::per_port_per_minute`] counts.
const MINUTE: Duration = Duration::from_secs(60);
/// For how long a port must not have been under pressure to be calm: a flood that pauses is one.
const CALM_AFTER: Duration = Duration::from_secs(10);
/// How long a promotion may take to show in the observations. Then it counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most actions of either kind in one step: they are system calls, made between two readings of the counters.
pub const MAX_AT_ONCE: usize = 128;

/// When strangers become known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Time between a stranger's first and latest packet.
    pub after: Duration,
    /// Promotions on one port in any minute.
    pub per_port_per_minute: usize,
    /// Learned clients of one port.
    pub per_port_max: usize,
    /// Time of silence after which a learned client is forgotten.
    pub forget_after: Duration,
    /// Known clients in all, configured ones included.
    pub capacity: usize,
}

/// A client with an entry. All times are on the clock of [`Seen::now`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSeen {
    /// Who.
    pub key: ClientKey,
    /// In the known table.
    pub known: bool,
    /// First packet.
    pub first_seen: Duration,
    /// Latest packet.
    pub last_seen: Duration,
    /// Packets.
    pub packets: u64,
    /// Packets over its own limit.
    pub own_excess: u64,
}

/// A port in the last window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSeen {
    /// Its slot.
    pub slot: u32,
    /// Packets over the port's limits.
    pub excess: u64,
    /// Strangers that sent something, estimated; none: more than can be told.
    pub distinct: Option<u64>,
    /// Packets a second that its strangers may send together.
    pub strangers_pps: u64,
}

impl PortSeen {
    /// Packets are over the port's limits, or more strangers sent something in a second than may send one packet each.
    fn is_pressed(&self) -> bool {
        self.excess > 0 || self.distinct.is_none_or(|strangers| strangers > self.strangers_pps)
    }
}

/// All clients and ports at one moment.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Time since an arbitrary start. Must not go back.
    pub now: Duration,
    /// Everyone with an entry.
    pub clients: Vec<ClientSeen>,
    /// All ports.
    pub ports: Vec<PortSeen>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make this stranger known.
    Promote(ClientKey),
    /// Make this known client a stranger.
    Forget(ClientKey),
}

/// See the module.
#[derive(Debug)]
pub struct Learning {
    rules: Rules,
    /// Known by configuration: not ours to forget, and not in the ports' budgets.
    configured: HashSet<ClientKey>,
    /// Learned clients, and since when we know that they are.
    learned: HashMap<ClientKey, Duration>,
    /// Promotions that do not show yet, and when they were decided.
    pending: HashMap<ClientKey, Duration>,
    /// Times of the promotions of the last minute, by slot.
    recent: HashMap<u32, VecDeque<Duration>>,
    /// When a port was last under pressure, by slot; only the last [`CALM_AFTER`].
    pressed: HashMap<u32, Duration>,
}

impl Learning {
    /// Has learned nobody. Known clients that are not in `configured` were learned by an agent before.
    #[must_use]
    pub fn new(rules: Rules, configured: HashSet<ClientKey>) -> Self {
        Self {
            rules,
            configured,
            learned: HashMap::new(),
            pending: HashMap::new(),
            recent: HashMap::new(),
            pressed: HashMap::new(),
        }
    }

    /// Goes on by other rules, with others known by configuration. Whoever was learned stays so.
    pub fn reconfigure(&mut self, rules: Rules, configured: HashSet<ClientKey>) {
        (self.rules, self.configured) = (rules, configured);
    }

    /// Takes an observation and says what to do: at most [`MAX_AT_ONCE`] of each kind, who is to be forgotten first.
    pub fn step(&mut self, seen: &Seen) -> Vec<Action> {
        self.take_notice(seen);
        let mut actions = self.forget(seen);
        actions.extend(self.promote(seen));
        actions
    }

    fn take_notice(&mut self, seen: &Seen) {
        let now = seen.now;
        let learned = seen.clients.iter().filter(|client| client.known && !self.configured.contains(&client.key));
        self.learned = learned.map(|c| (c.key, self.learned.get(&c.key).copied().unwrap_or(now))).collect();
        self.pending.retain(|key, decided| !self.learned.contains_key(key) && now.saturating_sub(*decided) < PATIENCE);
        self.recent.retain(|_, times| {
            while times.front().is_some_and(|time| now.saturating_sub(*time) >= MINUTE) {
                times.pop_front();
            }
            !times.is_empty()
        });
        self.pressed.extend(seen.ports.iter().filter(|port| port.is_pressed()).map(|port| (port.slot, now)));
        self.pressed.retain(|_, time| now.saturating_sub(*time) < CALM_AFTER);
    }

    /// Silence counts from the latest packet, and at the earliest from when we learned of the client.
    fn forget(&self, seen: &Seen) -> Vec<Action> {
        let is_silent = |client: &&ClientSeen| {
            let Some(since) = self.learned.get(&client.key) else { return false };
            seen.now.saturating_sub(client.last_seen.max(*since)) >= self.rules.forget_after
        };
        let silent = seen.clients.iter().filter(|client| client.known).filter(is_silent);
        silent.take(MAX_AT_ONCE).map(|client| Action::Forget(client.key)).collect()
    }

    fn promote(&mut self, seen: &Seen) -> Vec<Action> {
        let mut budget = Budget::new(self);
        let mut candidates: Vec<&ClientSeen> =
            seen.clients.iter().filter(|client| self.behaves(client) && budget.has_room(client.key.slot())).collect();
        candidates.sort_unstable_by_key(|client| (client.first_seen, client.key));
        let mut actions = Vec::new();
        for key in candidates.into_iter().map(|client| client.key) {
            if actions.len() == MAX_AT_ONCE {
                break;
            }
            if budget.take(key.slot()) {
                actions.push(Action::Promote(key));
                self.pending.insert(key, seen.now);
                self.recent.entry(key.slot()).or_default().push_back(seen.now);
            }
        }
        actions
    }

    fn behaves(&self, client: &ClientSeen) -> bool {
        !client.known
            && client.own_excess == 0
            && client.packets >= 2
            && client.last_seen.saturating_sub(client.first_seen) >= self.rules.after
            && !self.pressed.contains_key(&client.key.slot())
            && !self.pending.contains_key(&client.key)
            && !self.configured.contains(&client.key)
    }
}

/// What may still be promoted in this step.
#[derive(Debug)]
struct Budget {
    rules: Rules,
    /// In the table, by all ports.
    free: usize,
    /// What is left to a port that has spent anything, by slot.
    ports: HashMap<u32, usize>,
}

impl Budget {
    fn new(learning: &Learning) -> Self {
        let Learning { rules, configured, learned, pending, recent, .. } = learning;
        let mut members: HashMap<u32, usize> = HashMap::new();
        for key in learned.keys().chain(pending.keys()) {
            *members.entry(key.slot()).or_default() += 1;
        }
        let left = |slot: u32| {
            let this_minute = recent.get(&slot).map_or(0, VecDeque::len);
            let now = rules.per_port_per_minute.saturating_sub(this_minute);
            now.min(rules.per_port_max.saturating_sub(members.get(&slot).copied().unwrap_or(0)))
        };
        let ports = members.keys().chain(recent.keys()).map(|slot| (*slot, left(*slot))).collect();
        let known = configured.len() + learned.len() + pending.len();
        Self { rules: *rules, free: rules.capacity.saturating_sub(known), ports }
    }

    fn left(&self, slot: u32) -> usize {
        let untouched = self.rules.per_port_per_minute.min(self.rules.per_port_max);
        self.ports.get(&slot).copied().unwrap_or(untouched)
    }

    fn has_room(&self, slot: u32) -> bool {
        self.free > 0 && self.left(slot) > 0
    }

    fn take(&mut self, slot: u32) -> bool {
        if !self.has_room(slot) {
            return false;
        }
        let left = self.left(slot);
        self.ports.insert(slot, left - 1);
        self.free -= 1;
        true
    }
}

#[cfg(test)]
mod tests;
