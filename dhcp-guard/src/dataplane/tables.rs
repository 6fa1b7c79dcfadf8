//! What is written about single clients and ports while the program runs: who is known, allowed, in quarantine. Of the last
//! two only the governor's [`orders`](super::orders) may decide, and the configuration.
//!
//! Each change is one entry or one word, so that no packet sees half of it. Whatever a CPU remembers is void after the
//! change of version that ends it.

use std::{
    collections::{HashMap, HashSet},
    mem::offset_of,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::{HashMap as BpfHashMap, Map, MapData, MapError};
use dhcp_guard_common::{
    hash,
    layout::{BEING_FILLED, Bucket, ClientKey, ClientRule, ClientState, Control, Head, PortKey, PortState, WAYS},
};

use super::{
    DataPlane, Error, batch,
    carried::Place,
    load::map_mut,
    mapped::Mapped,
    spec::{Policy, Spec},
};
use crate::{governor::Sanction, human::counted};

/// A quarantine in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The slot of its port.
    pub slot: u32,
    /// The client; none: the whole port.
    pub client: Option<ClientKey>,
    /// What is dropped.
    pub sanction: Sanction,
    /// Until which tick.
    pub until: u64,
}

impl DataPlane {
    /// The quarantines in the maps that have not ended at this tick, whoever wrote them.
    #[must_use]
    pub fn in_force(&self, now: u64) -> Vec<InForce> {
        in_force(self.slots.iter().map(|(_, slot)| slot), &self.port_states, &self.rules, now)
    }

    /// Takes out of the maps whatever an agent before this one has written about quarantines and the allowlist, on ports of
    /// `policy`, and neither an order nor the configuration has said since. Where this agent does not guard, it gives no
    /// orders: what is there still has to hold for whoever does.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    pub fn end_what_nobody_ordered(&mut self, policy: &Policy) -> Result<(), Error> {
        let slots: HashSet<u32> = policy.ports.iter().filter_map(|port| self.slot(port.key)).collect();
        // Of one behind a relay nobody can say the name: it is left to its end.
        let is_meant = |client: &ClientKey| !client.is_relayed() && slots.contains(&client.slot());
        let clients = self.rules.keys().copied().filter(is_meant).map(Place::Client);
        let places: Vec<Place> = slots.iter().copied().map(Place::Port).chain(clients).collect();
        self.write(&places)
    }

    /// The slot of a port, if it ever was in a policy.
    #[must_use]
    pub fn slot(&self, port: PortKey) -> Option<u32> {
        self.slots.get(port)
    }

    /// Writes the clients that the configuration names: who is allowed, who is known. Whoever was named before and is not any
    /// more is a stranger again (one whom an earlier agent named counts as learned), or not allowed. Those on a port that is none are nobody.
    ///
    /// Answers with what could not be done, one sentence each: that one client finds no room is no reason to leave out
    /// another, let alone to guard nobody.
    pub fn name_clients(&mut self, spec: &Spec) -> Vec<String> {
        let mut problems = Vec::new();
        let allowed = spec.allowed_clients.iter().filter_map(|(port, mac)| self.client(*port, *mac));
        let allowed: Vec<Place> = allowed.map(Place::Client).collect();
        let touched = self.carried.configure(allowed);
        if let Err(error) = self.write(&touched) {
            problems.push(format!("not all clients on the allowlist are allowed: {error}"));
        }
        problems.extend(self.name_known(spec));
        problems
    }

    /// The part of it about who is known.
    fn name_known(&mut self, spec: &Spec) -> Option<String> {
        let known = spec.known_clients.iter().filter_map(|(port, mac)| self.client(*port, *mac));
        let known: HashSet<ClientKey> = known.collect();
        let before = std::mem::replace(&mut self.carried.named, known.clone());
        // First, for the room that they leave.
        let forgotten: Vec<_> = before.difference(&known).map(|client| self.forget(*client)).collect();
        let mut learned = None;
        let named = known.iter().map(|client| self.make_known(*client, &known, &mut learned)).collect::<Vec<_>>();
        let failed: Vec<Error> = forgotten.into_iter().chain(named).filter_map(Result::err).collect();
        let count = counted(failed.len() as u64, "client");
        let first = failed.into_iter().next()?;
        Some(format!("not all clients that the configuration names are known ({count} could not be written): {first}"))
    }

    /// Makes one of the `named` known. Where there is no room, a learned one gives way: of those, once they were looked for,
    /// `learned` has the rest.
    fn make_known(
        &mut self,
        client: ClientKey,
        named: &HashSet<ClientKey>,
        learned: &mut Option<Vec<ClientKey>>,
    ) -> Result<(), Error> {
        // One that is known already keeps its limiter and its counts.
        if self.is_known(client)? {
            return Ok(());
        }
        loop {
            let done = self.promote(client).and_then(|done| if done { Ok(()) } else { self.add_known(client) });
            let Err(Error::TooManyKnown) = done else { return done };
            let learned = match learned {
                Some(learned) => learned,
                None => learned.insert(self.learned(named)?),
            };
            let Some(gives_way) = learned.pop() else { return done };
            self.forget(gives_way)?;
        }
    }

    /// The known clients that are not `named`, whoever was silent for longest last.
    fn learned(&self, named: &HashSet<ClientKey>) -> Result<Vec<ClientKey>, Error> {
        let mut learned = Vec::new();
        batch::for_each(self.map_data("KNOWN")?, |client: ClientKey, state: ClientState| {
            if !named.contains(&client) {
                learned.push((state.last_seen, client));
            }
        })
        .map_err(Error::map("read", "KNOWN"))?;
        learned.sort_unstable_by_key(|one| std::cmp::Reverse(*one));
        Ok(learned.into_iter().map(|(_, client)| client).collect())
    }

    /// Makes a client known from now on, with a fresh limiter.
    ///
    /// # Errors
    /// [`Error::TooManyKnown`] if the table is full; [`Error::Map`].
    pub fn add_known(&mut self, client: ClientKey) -> Result<(), Error> {
        self.write_known(client, &ClientState { client: client.0 & ((1 << 48) - 1), ..ClientState::default() })
    }

    /// Whether a client is in the known table.
    pub(super) fn is_known(&mut self, client: ClientKey) -> Result<bool, Error> {
        let known: BpfHashMap<_, ClientKey, ClientState> = map_mut(&mut self.ebpf, "KNOWN")?;
        match known.get(&client, 0) {
            Ok(_) => Ok(true),
            Err(MapError::KeyNotFound) => Ok(false),
            Err(error) => Err(Error::map("read", "KNOWN")(error)),
        }
    }

    /// Makes a stranger known, with its limiters and counts. `false`: there is no such stranger any more.
    ///
    /// # Errors
    /// [`Error::TooManyKnown`] if the table is full; [`Error::Map`].
    pub fn promote(&mut self, client: ClientKey) -> Result<bool, Error> {
        let Some((bucket, way)) = self.find_stranger(client) else { return Ok(false) };
        let Some(state) = stranger_state(&self.strangers, bucket, way) else { return Ok(false) };
        self.write_known(client, &state)?;
        // From here on the program finds the client in the other table. If it gave this place away meanwhile, that is so.
        let key = &self.strangers.words(bucket)[offset_of!(Bucket, keys) / 8 + way];
        let _ = key.compare_exchange(client.0, 0, Ordering::AcqRel, Ordering::Relaxed);
        Ok(true)
    }

    /// Makes a known client a stranger again. Its counts end.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses.
    pub fn forget(&mut self, client: ClientKey) -> Result<(), Error> {
        let mut known: BpfHashMap<_, ClientKey, ClientState> = map_mut(&mut self.ebpf, "KNOWN")?;
        gone_is_fine(known.remove(&client)).map_err(Error::map("write", "KNOWN"))?;
        // Or a CPU that remembers the known client would count the stranger's packets for it, who is no more.
        self.forget_memos()
    }

    /// Writes the rule about a client; one that says nothing is taken away. To be followed by
    /// [`DataPlane::rules_changed`].
    pub(super) fn write_rule(&mut self, client: ClientKey, rule: ClientRule) -> Result<(), Error> {
        if rule == ClientRule::default() {
            return self.remove_rule(client);
        }
        self.list(client.0);
        let mut rules: BpfHashMap<_, ClientKey, ClientRule> = map_mut(&mut self.ebpf, "RULES")?;
        rules.insert(client, rule, 0).map_err(Error::map("write", "RULES"))?;
        self.rules.insert(client, rule);
        Ok(())
    }

    fn remove_rule(&mut self, client: ClientKey) -> Result<(), Error> {
        let mut rules: BpfHashMap<_, ClientKey, ClientRule> = map_mut(&mut self.ebpf, "RULES")?;
        gone_is_fine(rules.remove(&client)).map_err(Error::map("write", "RULES"))?;
        self.rules.remove(&client);
        Ok(())
    }

    /// The same for a port; nothing if there is no such slot.
    pub(super) fn write_port(&self, slot: u32, rule: ClientRule) {
        let words = self.port_states.words(slot as usize);
        let write = |offset: usize, until: u64, begins: bool| {
            if let Some(word) = words.get(offset / 8)
                && begins == (until > word.load(Ordering::Relaxed))
            {
                word.store(until, Ordering::Release);
            }
        };
        // What begins before what ends: a port that goes from one quarantine to another is always in one.
        for begins in [true, false] {
            write(offset_of!(PortState, allowed_until), rule.allowed_until, begins);
            write(offset_of!(PortState, muted_until), rule.muted_until, begins);
            write(offset_of!(PortState, isolated_until), rule.isolated_until, begins);
        }
    }

    /// Counts the rules anew, and makes every CPU forget what it remembers.
    pub(super) fn rules_changed(&mut self) -> Result<(), Error> {
        let ports = (0..self.port_states.len()).filter_map(|slot| {
            Some(self.port_states.words(slot).get(offset_of!(PortState, isolated_until) / 8)?.load(Ordering::Relaxed))
        });
        let clients = self.rules.values().map(|rule| rule.isolated_until);
        let isolated_until = ports.chain(clients).max().unwrap_or(0);
        let client_rules = self.rules.len() as u64;
        let version = Control::next_version(self.control.version);
        self.set_control(Control { version, isolated_until, client_rules })
    }

    /// Makes every CPU forget what it remembers.
    fn forget_memos(&mut self) -> Result<(), Error> {
        let version = Control::next_version(self.control.version);
        self.set_control(Control { version, ..self.control })
    }

    /// Lists a key in the filter. To be done before it is in its table.
    pub(super) fn list(&self, key: u64) {
        let hash = hash::mix(key, self.seeds);
        let head = self.heads.words(hash::place(hash, self.heads_bits) as usize);
        if let Some(listed) = head.get(offset_of!(Head, listed) / 8) {
            listed.fetch_or(hash::listed_bit(hash), Ordering::AcqRel);
        }
    }

    pub(super) fn write_known(&mut self, client: ClientKey, state: &ClientState) -> Result<(), Error> {
        self.list(client.0);
        let mut known: BpfHashMap<_, ClientKey, ClientState> = map_mut(&mut self.ebpf, "KNOWN")?;
        known.insert(client, state, 0).map_err(|error| match &error {
            MapError::SyscallError(call) if call.io_error.raw_os_error() == Some(libc::E2BIG) => Error::TooManyKnown,
            _ => Error::map("write", "KNOWN")(error),
        })
    }

    /// Bucket and way of a stranger's entry.
    fn find_stranger(&self, client: ClientKey) -> Option<(usize, usize)> {
        let bucket = hash::place(hash::mix(client.0, self.seeds), self.strangers_bits) as usize;
        let keys = self.strangers.words(bucket).get(offset_of!(Bucket, keys) / 8..)?;
        let is_it = |key: &AtomicU64| key.load(Ordering::Acquire) == client.0;
        let way = keys.iter().take(WAYS).position(is_it)?;
        (client.0 != BEING_FILLED).then_some((bucket, way))
    }

    /// Changes a word of a stranger's state, if there is the stranger.
    pub(super) fn charge_stranger(&self, client: ClientKey, offset: usize, charged: impl Fn(u64) -> u64) {
        let Some((bucket, way)) = self.find_stranger(client) else { return };
        let place = (offset_of!(Bucket, states) + way * size_of::<ClientState>() + offset) / 8;
        if let Some(limiter) = self.strangers.words(bucket).get(place) {
            let _ = limiter.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| Some(charged(word)));
        }
    }

    /// The client with this source MAC on a port.
    #[must_use]
    pub fn client(&self, port: PortKey, mac: [u8; 6]) -> Option<ClientKey> {
        self.slot(port).map(|slot| ClientKey::from_mac(slot, mac))
    }
}

pub(super) fn gone_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// A hash map's data.
pub(super) fn hash<'a>(map: Option<&'a Map>, name: &'static str) -> Result<&'a MapData, Error> {
    match map {
        Some(Map::HashMap(data)) => Ok(data),
        _ => Err(Error::ForeignMap(name)),
    }
}

/// The entry in a way of a bucket of the strangers' table.
pub(super) fn stranger_state(strangers: &Mapped<Bucket>, bucket: usize, way: usize) -> Option<ClientState> {
    strangers.field(bucket, offset_of!(Bucket, states) + way * size_of::<ClientState>())
}

/// The quarantines of the ports in these slots, and of clients, that have not ended at a tick.
pub(super) fn in_force(
    slots: impl Iterator<Item = u32>,
    port_states: &Mapped<PortState>,
    rules: &HashMap<ClientKey, ClientRule>,
    now: u64,
) -> Vec<InForce> {
    let ports = slots.map(|slot| {
        let word = |offset: usize| {
            port_states.words(slot as usize).get(offset / 8).map_or(0, |word| word.load(Ordering::Acquire))
        };
        (slot, None, [word(offset_of!(PortState, muted_until)), word(offset_of!(PortState, isolated_until))])
    });
    let clients = rules.iter().map(|(key, rule)| (key.slot(), Some(*key), [rule.muted_until, rule.isolated_until]));
    let all = ports.chain(clients).flat_map(|(slot, client, [muted, isolated])| {
        let of = move |sanction, until| InForce { slot, client, sanction, until };
        [of(Sanction::Mute, muted), of(Sanction::Isolate, isolated)]
    });
    let mut all: Vec<InForce> = all.filter(|one| one.until > now).collect();
    all.sort_by_key(|one| (one.slot, one.client, one.until));
    all
}
