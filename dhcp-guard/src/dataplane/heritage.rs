//! Bringing over, from maps of another layout or another size, what must not be lost: which slot a port has, what is spent
//! of each limit, who is known, who is in quarantine. Counters of ports begin anew.
//!
//! The other program goes on judging meanwhile. So this comes last before the programs change places, and
//! [`DataPlane::settle`] after that adds what was spent in between: no limit is granted twice.

use std::{
    collections::HashMap,
    io,
    mem::offset_of,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use aya::maps::{Array, MapData};
use dhcp_guard_common::{
    gcra::GRAIN_BITS,
    hash,
    layout::{
        BEING_FILLED, Bucket, ClientKey, ClientRule, ClientState, Head, HostState, PORT_LIMITERS, Places, PortKey,
        WAYS, with_entry,
    },
};

use super::{
    DataPlane, Error, batch, interface,
    load::map_mut,
    reading,
    state_maps::{self, Found},
    sys,
};

/// What was copied of the limiters, to be compared with what they are when the programs have changed places.
#[derive(Debug)]
pub(super) struct Copied {
    old: Old,
    ports: HashMap<u32, [u64; PORT_LIMITERS]>,
    host: [u64; 2],
    /// Of strangers: DHCPv4, DHCPv6.
    strangers: HashMap<ClientKey, [u64; 2]>,
    /// When, in the limiters' unit.
    at: u64,
}

impl Copied {
    /// Whether a client's port is still there.
    fn has_slot(&self, client: ClientKey) -> bool {
        self.ports.contains_key(&client.slot())
    }

    /// What a limiter says now, if the one that it was copied from has gone on from `before` to `after` since.
    ///
    /// A limiter's word is the time at which the next packet would conform if none were early, or a time that has passed:
    /// then nothing was spent until the copy was made.
    fn charged(&self, word: u64, before: u64, after: u64) -> u64 {
        let before = before.max(self.at);
        let spent = after.saturating_sub(before);
        if spent == 0 { word } else { word.max(self.at).saturating_add(spent) }
    }
}

/// The maps of another agent.
#[derive(Debug)]
struct Old {
    folder: PathBuf,
    places: Places,
    port_states: MapData,
    host_state: MapData,
}

/// A map of the other agent that cannot be used.
fn refused(error: io::Error) -> Error {
    Error::map("read", "of the agent before")(error)
}

fn open(path: &Path) -> io::Result<MapData> {
    let missing = || io::Error::other(format!("{} is missing", path.file_name().unwrap_or_default().display()));
    state_maps::open(path)?.ok_or_else(missing)
}

impl Old {
    fn open(found: &Found) -> io::Result<Self> {
        let open = |name: &str| open(&found.generation.map(name));
        Ok(Self {
            folder: found.generation.path.clone(),
            places: found.meta.places,
            port_states: open("PORT_STATES")?,
            host_state: open("HOST_STATE")?,
        })
    }

    fn map(&self, name: &str) -> io::Result<MapData> {
        open(&self.folder.join(name))
    }

    fn port(&self, slot: u32) -> io::Result<[u64; 7]> {
        let value = element(&self.port_states, slot)?;
        Ok(self.places.port.map(|place| word(&value, place)))
    }

    fn host(&self) -> io::Result<[u64; 2]> {
        let value = element(&self.host_state, 0)?;
        Ok(self.places.host.map(|place| word(&value, place)))
    }

    fn known(&self) -> io::Result<Vec<(ClientKey, ClientState)>> {
        let mut known = Vec::new();
        batch::for_each_bytes(&self.map("KNOWN")?, |key, value| {
            known.push((ClientKey(word(key, 0)), self.client(value)));
        })?;
        Ok(known)
    }

    fn rules(&self) -> io::Result<Vec<(ClientKey, ClientRule)>> {
        let mut rules = Vec::new();
        batch::for_each_bytes(&self.map("RULES")?, |key, value| {
            let [muted_until, isolated_until, allowed_until] = self.places.rule.map(|place| word(value, place));
            rules.push((ClientKey(word(key, 0)), ClientRule { muted_until, isolated_until, allowed_until }));
        })?;
        Ok(rules)
    }

    fn strangers(&self) -> io::Result<Vec<(ClientKey, ClientState)>> {
        let [keys, states, size, ways] = self.places.bucket;
        let table = self.map("STRANGERS")?;
        let mut strangers = Vec::new();
        for bucket in 0..table.info().map_err(io::Error::other)?.max_entries() {
            let value = element(&table, bucket)?;
            for way in 0..ways.min(64) {
                let key = word(&value, keys.saturating_add(way * 8));
                let start = usize::try_from(states.saturating_add(way.saturating_mul(size))).unwrap_or(usize::MAX);
                if key != 0 && key != BEING_FILLED {
                    strangers.push((ClientKey(key), self.client(value.get(start..).unwrap_or_default())));
                }
            }
        }
        Ok(strangers)
    }

    fn client(&self, value: &[u8]) -> ClientState {
        let words = self.places.client.map(|place| word(value, place));
        let [limiter_v4, limiter_v6, packets, excess, own_excess, first_seen, last_seen, last_excess, relay, client] =
            words;
        ClientState {
            limiter_v4,
            limiter_v6,
            packets,
            excess,
            own_excess,
            first_seen,
            last_seen,
            last_excess,
            relay,
            client,
        }
    }
}

/// The word at a place of a value; 0 beyond its end.
fn word(value: &[u8], place: u64) -> u64 {
    let place = usize::try_from(place).unwrap_or(usize::MAX);
    let bytes = value.get(place..).and_then(|rest| rest.first_chunk::<8>());
    bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// An element of an array map of whatever size.
fn element(map: &MapData, index: u32) -> io::Result<Vec<u8>> {
    let size = map.info().map_err(io::Error::other)?.value_size();
    let mut value = vec![0; size as usize];
    sys::element(map.fd(), size, index, &mut value)?;
    Ok(value)
}

impl DataPlane {
    /// Takes over what an agent of another layout, or with tables of another size, has left. To be called while this
    /// program is on no interface yet. Answers with what could not be taken over, one sentence each: the guard is needed all
    /// the same.
    pub(super) fn inherit(&mut self, found: &Found) -> Vec<String> {
        let mut problems = Vec::new();
        let mut tell = |error: String, what: &str| {
            problems.push(format!("of the agent before could not be taken over {what}: {error}"));
        };
        let mut copied = match Old::open(found).map_err(refused).and_then(|old| self.inherit_ports(old)) {
            Ok(copied) => copied,
            Err(error) => {
                tell(error.to_string(), "which limits are spent, who is known and who is in quarantine");
                return problems;
            }
        };
        let tables = [
            (self.inherit_rules(&copied), "who is in quarantine"),
            (self.inherit_known(&copied), "who is known"),
            (self.inherit_strangers(&mut copied), "what strangers have spent"),
        ];
        for (result, what) in tables {
            if let Err(error) = result {
                tell(error.to_string(), what);
            }
        }
        self.copied = Some(copied);
        problems
    }

    /// Slots and limiters.
    fn inherit_ports(&mut self, old: Old) -> Result<Copied, Error> {
        let at = self.ticks()? << GRAIN_BITS;
        let here = |(port, _): &(PortKey, u32)| !interface::is_gone(port.ifindex);
        let ports: Vec<_> = reading::ports(&old.map("PORTS").map_err(refused)?)?.into_iter().filter(here).collect();
        self.adopt_slots(&ports)?;
        let slots: Vec<u32> = self.slots.iter().map(|(_, slot)| slot).collect();
        let host = old.host().map_err(refused)?;
        let mut limiters = HashMap::new();
        for slot in slots {
            let words = old.port(slot).map_err(refused)?;
            self.set_port_words(slot, words);
            limiters.insert(slot, words.first_chunk().copied().unwrap_or_default());
        }
        let [total, strangers] = host;
        self.set_host(HostState { total, strangers, ..HostState::default() })?;
        Ok(Copied { ports: limiters, host, strangers: HashMap::new(), old, at })
    }

    fn inherit_rules(&mut self, copied: &Copied) -> Result<(), Error> {
        let mut rules = copied.old.rules().map_err(refused)?;
        rules.retain(|(client, _)| copied.has_slot(*client));
        rules.into_iter().try_for_each(|(client, rule)| self.write_rule(client, rule))
    }

    fn inherit_known(&mut self, copied: &Copied) -> Result<(), Error> {
        let mut known = copied.old.known().map_err(refused)?;
        known.retain(|(client, _)| copied.has_slot(*client));
        // Where not all find room, those do who were here last.
        known.sort_by_key(|(_, state)| std::cmp::Reverse(state.last_seen));
        known.into_iter().try_for_each(|(client, state)| self.write_known(client, &state))
    }

    fn inherit_strangers(&self, copied: &mut Copied) -> Result<(), Error> {
        let strangers = copied.old.strangers().map_err(refused)?;
        for (client, state) in strangers {
            if copied.has_slot(client) {
                self.put_stranger(client, &state);
                copied.strangers.insert(client, [state.limiter_v4, state.limiter_v6]);
            }
        }
        Ok(())
    }

    /// Adds to the limiters of ports, strangers and the host what the other program has spent of them since they were copied.
    /// Not to those of known clients, which cannot be changed without losing what is counted meanwhile: in the milliseconds
    /// in between one has hardly earned a packet.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        let Some(copied) = self.copied.take() else { return Ok(()) };
        for (slot, before) in &copied.ports {
            let Ok(after) = copied.old.port(*slot) else { continue };
            let words = self.port_states.words(*slot as usize);
            for ((place, before), after) in Places::OWN.port.into_iter().zip(before).zip(after) {
                if let Some(limiter) = words.get(place as usize / 8) {
                    let charge = |word| Some(copied.charged(word, *before, after));
                    let _ = limiter.fetch_update(Ordering::AcqRel, Ordering::Acquire, charge);
                }
            }
        }
        for (client, after) in copied.old.strangers().unwrap_or_default() {
            let Some(before) = copied.strangers.get(&client) else { continue };
            let offsets = [offset_of!(ClientState, limiter_v4), offset_of!(ClientState, limiter_v6)];
            for ((offset, before), after) in offsets.into_iter().zip(before).zip([after.limiter_v4, after.limiter_v6]) {
                self.charge_stranger(client, offset, |word| copied.charged(word, *before, after));
            }
        }
        let Ok([total, strangers]) = copied.old.host() else { return Ok(()) };
        let host: Array<_, HostState> = map_mut(&mut self.ebpf, "HOST_STATE")?;
        let now = host.get(&0, 0).map_err(Error::map("read", "HOST_STATE"))?;
        // A packet of another CPU may be lost from the count between reading and writing.
        self.set_host(HostState {
            total: copied.charged(now.total, copied.host[0], total),
            strangers: copied.charged(now.strangers, copied.host[1], strangers),
            ..now
        })
    }

    fn set_host(&mut self, state: HostState) -> Result<(), Error> {
        let mut host: Array<_, HostState> = map_mut(&mut self.ebpf, "HOST_STATE")?;
        host.set(0, state, 0).map_err(Error::map("write", "HOST_STATE"))
    }

    fn set_port_words(&self, slot: u32, words: [u64; 7]) {
        for (place, word) in Places::OWN.port.into_iter().zip(words) {
            if let Some(own) = self.port_states.words(slot as usize).get(place as usize / 8) {
                own.store(word, Ordering::Release);
            }
        }
    }

    /// Puts a stranger into the table, where there is room. No program may be using it yet.
    fn put_stranger(&self, client: ClientKey, state: &ClientState) {
        let hash = hash::mix(client.0, self.seeds);
        let bucket = self.strangers.words(hash::place(hash, self.strangers_bits) as usize);
        let Some(keys) = bucket.get(offset_of!(Bucket, keys) / 8..) else { return };
        let Some(way) = keys.iter().take(WAYS).position(|key| key.load(Ordering::Relaxed) == 0) else { return };
        let start = (offset_of!(Bucket, states) + way * size_of::<ClientState>()) / 8;
        for (place, word) in bucket.get(start..).unwrap_or_default().iter().zip(words_of(state)) {
            place.store(word, Ordering::Relaxed);
        }
        keys[way].store(client.0, Ordering::Release);
        let head = self.heads.words(hash::place(hash, self.heads_bits) as usize);
        if let Some(entries) = head.get(offset_of!(Head, entries) / 8) {
            entries.store(with_entry(entries.load(Ordering::Relaxed), way, hash::tag(hash)), Ordering::Release);
        }
    }
}

/// A client's words, in the order in which they are in memory.
fn words_of(state: &ClientState) -> [u64; size_of::<ClientState>() / 8] {
    // SAFETY: plain integers without padding (asserted in the layout), read as as many words.
    unsafe { std::mem::transmute::<ClientState, [u64; size_of::<ClientState>() / 8]>(*state) }
}
