//! One reading of everything that the program counted.

use std::{collections::HashMap, time::Instant};

use aya::{
    maps::{Array, MapData, PerCpuArray},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use dhcp_guard_common::layout::{
    ClientKey, ClientState, MEMO_KNOWN, MEMOS, Memo, NO_PORT_SLOT, PortCounters, Troubles,
};
use jiff::Timestamp;

use super::{DataPlane, Error, batch, clock::Moment};

/// A client's entry, with what the CPUs' memos still hold of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSample {
    /// Slot and MAC.
    pub key: ClientKey,
    /// In the known table.
    pub known: bool,
    /// Its counts.
    pub state: ClientState,
}

/// Everything, at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When.
    pub moment: Moment,
    /// Counters by slot, summed over CPUs: [`NO_PORT_SLOT`], then the ports.
    pub ports: Vec<PortCounters>,
    /// Frames that were not DHCP, by place (see [`Snapshot::non_dhcp`]).
    non_dhcp: Vec<u64>,
    interface_mask: u32,
    /// All clients with an entry.
    pub clients: Vec<ClientSample>,
    /// What the program could not do.
    pub troubles: Troubles,
}

impl Snapshot {
    /// Frames on this interface that were not DHCP.
    #[must_use]
    pub fn non_dhcp(&self, ifindex: u32) -> u64 {
        self.non_dhcp.get((ifindex & self.interface_mask) as usize).copied().unwrap_or(0)
    }
}

impl DataPlane {
    /// Reads everything. `ports`: how many ports there are; `ifindexes`: the guarded interfaces; `epoch`: the start of
    /// the monotonic clock.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses to read a map.
    pub fn snapshot(&mut self, ports: usize, ifindexes: &[u32], epoch: Instant) -> Result<Snapshot, Error> {
        let moment = self.moment(epoch)?;
        Ok(Snapshot {
            moment,
            ports: self.read_counters(ports)?,
            non_dhcp: self.read_non_dhcp(ifindexes)?,
            interface_mask: self.interface_mask,
            clients: self.read_clients()?,
            troubles: self.read_troubles()?,
        })
    }

    /// Asks the kernel for its tick counter, by running the program that reads it.
    fn moment(&mut self, epoch: Instant) -> Result<Moment, Error> {
        let program: &mut Xdp = self
            .ebpf
            .program_mut("read_clock")
            .ok_or(Error::NoProgram)?
            .try_into()
            .map_err(Error::program("finding its clock"))?;
        // The shortest frame that the kernel takes for an XDP test run.
        let frame = [0; 14];
        let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
        program.test_run(options).map_err(Error::program("reading its clock"))?;
        let clock: Array<_, u64> = self.map("CLOCK")?;
        let ticks = clock.get(&0, 0).map_err(Error::map("read", "CLOCK"))?;
        Ok(Moment { wall: Timestamp::now(), monotonic: epoch.elapsed(), ticks, ticks_per_s: self.ticks_per_s })
    }

    fn read_counters(&self, ports: usize) -> Result<Vec<PortCounters>, Error> {
        let counters: PerCpuArray<_, PortCounters> = self.map("PORT_COUNTERS")?;
        let slots = NO_PORT_SLOT..=u32::try_from(ports).unwrap_or(u32::MAX);
        slots
            .map(|slot| {
                let cpus = counters.get(&slot, 0).map_err(Error::map("read", "PORT_COUNTERS"))?;
                let mut sum = PortCounters::ZERO;
                cpus.iter().for_each(|cpu| sum.add(cpu));
                Ok(sum)
            })
            .collect()
    }

    fn read_non_dhcp(&self, ifindexes: &[u32]) -> Result<Vec<u64>, Error> {
        let counts: PerCpuArray<_, u64> = self.map("NON_DHCP")?;
        let mut places = vec![0; self.interface_mask as usize + 1];
        for ifindex in ifindexes {
            let place = ifindex & self.interface_mask;
            let cpus = counts.get(&place, 0).map_err(Error::map("read", "NON_DHCP"))?;
            places[place as usize] = cpus.iter().sum();
        }
        Ok(places)
    }

    fn read_troubles(&self) -> Result<Troubles, Error> {
        let troubles: PerCpuArray<_, Troubles> = self.map("TROUBLES")?;
        let cpus = troubles.get(&0, 0).map_err(Error::map("read", "TROUBLES"))?;
        Ok(cpus.iter().fold(Troubles::default(), |sum, cpu| Troubles {
            events_suppressed: sum.events_suppressed + cpu.events_suppressed,
            events_lost: sum.events_lost + cpu.events_lost,
            insert_failed: sum.insert_failed + cpu.insert_failed,
            untracked: sum.untracked + cpu.untracked,
            lost_races: sum.lost_races + cpu.lost_races,
            event_budget: 0,
        }))
    }

    /// The tables first, the memos after them: what a memo hands over in between is missing from this reading and back
    /// in the next; it is never counted twice.
    fn read_clients(&self) -> Result<Vec<ClientSample>, Error> {
        let mut clients = Vec::new();
        for (name, known) in [("KNOWN", true), ("STRANGERS", false)] {
            batch::for_each(self.map_data(name)?, |key: ClientKey, state: ClientState| {
                clients.push(ClientSample { key, known, state });
            })
            .map_err(Error::map("read", name))?;
        }
        self.add_pending(&mut clients)?;
        Ok(clients)
    }

    fn add_pending(&self, clients: &mut [ClientSample]) -> Result<(), Error> {
        let memos: PerCpuArray<_, Memo> = self.map("MEMOS")?;
        let mut pending: HashMap<(ClientKey, bool), Memo> = HashMap::new();
        for place in 0..MEMOS {
            let cpus = memos.get(&place, 0).map_err(Error::map("read", "MEMOS"))?;
            for memo in cpus.iter().filter(|memo| memo.pending > 0) {
                let sum = pending.entry((ClientKey(memo.client), memo.table == MEMO_KNOWN)).or_default();
                sum.pending += memo.pending;
                sum.last_seen = sum.last_seen.max(memo.last_seen);
            }
        }
        for client in clients {
            if let Some(memo) = pending.get(&(client.key, client.known)) {
                client.state.packets += memo.pending;
                client.state.excess += memo.pending;
                client.state.own_excess += memo.pending;
                client.state.last_seen = client.state.last_seen.max(memo.last_seen);
            }
        }
        Ok(())
    }

    fn map<'a, T>(&'a self, name: &'static str) -> Result<T, Error>
    where
        T: TryFrom<&'a aya::maps::Map, Error = aya::maps::MapError>,
    {
        T::try_from(self.ebpf.map(name).ok_or(Error::NoProgram)?).map_err(Error::map("open", name))
    }

    fn map_data(&self, name: &'static str) -> Result<&MapData, Error> {
        match self.ebpf.map(name) {
            Some(aya::maps::Map::HashMap(data) | aya::maps::Map::LruHashMap(data)) => Ok(data),
            _ => Err(Error::NoProgram),
        }
    }
}
