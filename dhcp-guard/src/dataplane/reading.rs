//! Reading what the program has counted: the same for the agent, and for whoever looks at what one has left.

use std::{collections::HashMap, ops::RangeInclusive, sync::atomic::Ordering};

use aya::maps::{Map, MapData, PerCpuArray};
use dhcp_guard_common::{
    layout::{
        BEING_FILLED, Bucket, ClientKey, ClientRule, ClientState, CpuState, MEMO_KNOWN, PortCounters, PortKey,
        Troubles, WAYS,
    },
    verdict::Reason,
};

use super::{Error, batch, mapped::Mapped, snapshot::ClientSample, tables};

/// What memos hold of one client.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    packets: u64,
    own_excess: u64,
    last_seen: u64,
}

/// The maps with counters and clients.
pub(super) struct Tables<'a> {
    counters: PerCpuArray<&'a MapData, PortCounters>,
    troubles: PerCpuArray<&'a MapData, Troubles>,
    cpu: PerCpuArray<&'a MapData, CpuState>,
    known: &'a MapData,
    strangers: &'a Mapped<Bucket>,
}

fn per_cpu<'a, V: aya::Pod>(
    map: impl Fn(&'static str) -> Option<&'a Map>,
    name: &'static str,
) -> Result<PerCpuArray<&'a MapData, V>, Error> {
    PerCpuArray::try_from(map(name).ok_or(Error::ForeignMap(name))?).map_err(Error::map("open", name))
}

/// All ports, with their slots.
pub(super) fn ports(map: &MapData) -> Result<Vec<(PortKey, u32)>, Error> {
    let mut ports = Vec::new();
    batch::for_each(map, |key: u64, slot: u32| ports.push((PortKey::from_word(key), slot)))
        .map_err(Error::map("read", "PORTS"))?;
    Ok(ports)
}

/// All rules about clients.
pub(super) fn rules(map: &MapData) -> Result<HashMap<ClientKey, ClientRule>, Error> {
    let mut rules = HashMap::new();
    batch::for_each(map, |client: ClientKey, rule: ClientRule| _ = rules.insert(client, rule))
        .map_err(Error::map("read", "RULES"))?;
    Ok(rules)
}

impl<'a> Tables<'a> {
    /// Of maps by name.
    pub(super) fn of(
        map: impl Fn(&'static str) -> Option<&'a Map>,
        strangers: &'a Mapped<Bucket>,
    ) -> Result<Self, Error> {
        Ok(Self {
            counters: per_cpu(&map, "PORT_COUNTERS")?,
            troubles: per_cpu(&map, "TROUBLES")?,
            cpu: per_cpu(&map, "CPU")?,
            known: tables::hash(map("KNOWN"), "KNOWN")?,
            strangers,
        })
    }

    /// Of each slot, summed over CPUs.
    pub(super) fn counters(&self, slots: RangeInclusive<u32>) -> Result<Vec<PortCounters>, Error> {
        slots
            .map(|slot| {
                let cpus = self.counters.get(&slot, 0).map_err(Error::map("read", "PORT_COUNTERS"))?;
                let mut sum = PortCounters::ZERO;
                cpus.iter().for_each(|cpu| sum.add(cpu));
                Ok(sum)
            })
            .collect()
    }

    /// Summed over CPUs.
    pub(super) fn troubles(&self) -> Result<Troubles, Error> {
        let cpus = self.troubles.get(&0, 0).map_err(Error::map("read", "TROUBLES"))?;
        Ok(cpus.iter().fold(Troubles::default(), |sum, cpu| Troubles {
            events_suppressed: sum.events_suppressed + cpu.events_suppressed,
            events_lost: sum.events_lost + cpu.events_lost,
            events_unheard: sum.events_unheard + cpu.events_unheard,
            insert_failed: sum.insert_failed + cpu.insert_failed,
            untracked: sum.untracked + cpu.untracked,
            lost_races: sum.lost_races + cpu.lost_races,
            event_budget: 0,
        }))
    }

    /// The tables first, the memos after them: what a memo hands over in between is missing from this reading and back
    /// in the next; it is never counted twice.
    pub(super) fn clients(&self) -> Result<Vec<ClientSample>, Error> {
        let mut clients = Vec::new();
        batch::for_each(self.known, |key: ClientKey, state: ClientState| {
            clients.push(ClientSample { key, known: true, state });
        })
        .map_err(Error::map("read", "KNOWN"))?;
        self.read_strangers(&mut clients);
        self.add_pending(&mut clients)?;
        Ok(clients)
    }

    fn read_strangers(&self, clients: &mut Vec<ClientSample>) {
        for bucket in 0..self.strangers.len() {
            for (way, key) in self.strangers.words(bucket).iter().take(WAYS).enumerate() {
                let client = key.load(Ordering::Acquire);
                if client == 0 || client == BEING_FILLED {
                    continue;
                }
                let Some(state) = tables::stranger_state(self.strangers, bucket, way) else { continue };
                // Somebody else's by now: then it is for the next reading.
                if key.load(Ordering::Acquire) == client {
                    clients.push(ClientSample { key: ClientKey(client), known: false, state });
                }
            }
        }
    }

    /// Known clients come first. What a memo holds of a stranger that has become known since is theirs.
    fn add_pending(&self, clients: &mut [ClientSample]) -> Result<(), Error> {
        let mut pending = self.memos()?;
        for client in clients {
            let of_stranger = pending.remove(&(client.key, false));
            let of_known = if client.known { pending.remove(&(client.key, true)) } else { None };
            for memo in of_stranger.into_iter().chain(of_known) {
                client.state.packets += memo.packets;
                client.state.excess += memo.packets;
                client.state.own_excess += memo.own_excess;
                client.state.last_seen = client.state.last_seen.max(memo.last_seen);
            }
        }
        Ok(())
    }

    /// What the CPUs' memos hold and have not handed over, by client and table.
    pub(super) fn memos(&self) -> Result<HashMap<(ClientKey, bool), Pending>, Error> {
        let cpus = self.cpu.get(&0, 0).map_err(Error::map("read", "CPU"))?;
        let mut pending: HashMap<_, Pending> = HashMap::new();
        for cpu in cpus.iter() {
            for memo in cpu.memos.iter().filter(|memo| memo.pending > 0) {
                let sum = pending.entry((ClientKey(memo.client), memo.verdict & MEMO_KNOWN != 0)).or_default();
                let reason = Reason::ALL.get(memo.verdict as usize & 0xff);
                let is_own = matches!(reason, Some(Reason::DropClientLimit | Reason::WouldDropClientLimit));
                sum.packets += memo.pending;
                sum.own_excess += if is_own { memo.pending } else { 0 };
                sum.last_seen = sum.last_seen.max(memo.last_seen);
            }
        }
        Ok(pending)
    }
}
