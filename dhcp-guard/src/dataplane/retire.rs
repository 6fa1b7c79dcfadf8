//! Giving up the slots of ports that are gone. Guests' interfaces come and go for years, and the tables are made once.
//!
//! A slot goes to another port only after nobody can use it for the one before: the policy without that port is in force,
//! and every run of the program that read the one before it has ended. What was counted and remembered there is wiped,
//! because it would be the next port's. Only the CPUs' own memories cannot be wiped: a slot whose clients' packets are there,
//! counted and not handed over, is given to others last of all.

use std::{collections::HashSet, sync::atomic::Ordering};

use aya::{
    Pod,
    maps::{HashMap as BpfHashMap, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use dhcp_guard_common::layout::{BEING_FILLED, ClientKey, ClientRule, ClientState, PortCounters, PortKey, WAYS};
use log::warn;

use super::{
    DataPlane, Error, batch, grace, load::map_mut, mapped::Mapped, pins::PinFolder, spec::Policy, tables::gone_is_fine,
};

impl DataPlane {
    /// Gives up the slots of all ports that `policy`, which is the one in force, does not have, with everything that is
    /// known there: counters, clients, rules. Answers with these slots; other ports get them later, the ones that have been
    /// free for longest first. Not of those on which a guard is that an agent before this one has left: it needs them.
    ///
    /// Takes some milliseconds, as [`DataPlane::apply`] does.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses to write a map. What was not wiped is not given up, and can be tried again.
    pub fn retire(&mut self, policy: &Policy) -> Result<Vec<u32>, Error> {
        let in_force: HashSet<PortKey> = policy.ports.iter().map(|port| port.key).collect();
        let ours: HashSet<u32> = policy.ports.iter().map(|port| port.key.ifindex).collect();
        let links = match self.maps.pins.as_ref().map_or_else(|| Ok(Vec::new()), PinFolder::links) {
            Ok(links) => links,
            Err(error) => {
                warn!("the slots of ports that are gone are not free yet: cannot look for pinned links: {error}");
                return Ok(Vec::new());
            }
        };
        let left = links.into_iter().filter(|link| !ours.contains(&link.ifindex) && link.kind.judges());
        let left: HashSet<u32> = left.filter(|link| !link.is_dead()).map(|link| link.ifindex).collect();
        self.give_up(|key| !in_force.contains(&key) && !left.contains(&key.ifindex))
    }

    /// The same for ports of which nothing uses the slots any more.
    pub(super) fn give_up(&mut self, is_gone: impl Fn(PortKey) -> bool) -> Result<Vec<u32>, Error> {
        let mut gone: Vec<(PortKey, u32)> = self.slots.iter().filter(|(key, _)| is_gone(*key)).collect();
        if gone.is_empty() {
            return Ok(Vec::new());
        }
        gone.sort_unstable_by_key(|(_, slot)| *slot);
        let slots: HashSet<u32> = gone.iter().map(|(_, slot)| *slot).collect();
        // From here on no program uses them: whoever finds such a slot sees that no policy is in force for it.
        grace::wait();
        self.forget_clients(&slots)?;
        for slot in &slots {
            self.wipe_counters(*slot)?;
            wipe(&self.port_states, *slot);
            wipe(&self.replies, *slot);
        }
        // Last: whoever comes after an agent that ended in the middle of this finds the ports, and does it again.
        self.unlist_ports(&gone)?;
        gone.iter().for_each(|(key, _)| self.slots.release(*key));
        let remembered = self.tables()?.memos()?.into_keys().map(|(client, _)| client.slot()).collect();
        self.slots.remembered_are(&remembered);
        // Anew who is isolated until when, and no CPU remembers any of them.
        self.rules_changed()?;
        Ok(gone.into_iter().map(|(_, slot)| slot).collect())
    }

    fn unlist_ports(&mut self, gone: &[(PortKey, u32)]) -> Result<(), Error> {
        let mut ports: BpfHashMap<_, PortKey, u32> = map_mut(&mut self.ebpf, "PORTS")?;
        gone.iter().try_for_each(|(key, _)| gone_is_fine(ports.remove(key))).map_err(Error::map("write", "PORTS"))
    }

    /// Everybody on these slots, in all tables.
    fn forget_clients(&mut self, slots: &HashSet<u32>) -> Result<(), Error> {
        let is_there = |client: ClientKey| slots.contains(&client.slot());
        let mut known = Vec::new();
        batch::for_each(self.map_data("KNOWN")?, |client: ClientKey, _: ClientState| known.push(client))
            .map_err(Error::map("read", "KNOWN"))?;
        let mut table: BpfHashMap<_, ClientKey, ClientState> = map_mut(&mut self.ebpf, "KNOWN")?;
        for client in known.into_iter().filter(|client| is_there(*client)) {
            gone_is_fine(table.remove(&client)).map_err(Error::map("write", "KNOWN"))?;
        }
        self.carried.forget(slots);
        let ruled: Vec<ClientKey> = self.rules.keys().copied().filter(|client| is_there(*client)).collect();
        ruled.into_iter().try_for_each(|client| self.write_rule(client, ClientRule::default()))?;
        self.forget_strangers(is_there);
        Ok(())
    }

    fn forget_strangers(&self, is_there: impl Fn(ClientKey) -> bool) {
        for bucket in 0..self.strangers.len() {
            for key in self.strangers.words(bucket).iter().take(WAYS) {
                let client = key.load(Ordering::Acquire);
                if client != 0 && client != BEING_FILLED && is_there(ClientKey(client)) {
                    // If the program gave the place to somebody else meanwhile, that is so.
                    let _ = key.compare_exchange(client, 0, Ordering::AcqRel, Ordering::Relaxed);
                }
            }
        }
    }

    fn wipe_counters(&mut self, slot: u32) -> Result<(), Error> {
        const MAP: &str = "PORT_COUNTERS";
        let cpus = nr_cpus().map_err(|(_, error)| Error::map("write", MAP)(error))?;
        let zeros = PerCpuValues::try_from(vec![PortCounters::ZERO; cpus]).map_err(Error::map("write", MAP))?;
        let mut counters: PerCpuArray<_, PortCounters> = map_mut(&mut self.ebpf, MAP)?;
        counters.set(slot, zeros, 0).map_err(Error::map("write", MAP))
    }
}

fn wipe<T: Pod>(map: &Mapped<T>, slot: u32) {
    map.words(slot as usize).iter().for_each(|word| word.store(0, Ordering::Release));
}
