//! One reading of everything that the program counted.

use std::{collections::HashMap, mem::offset_of, ops::RangeInclusive, sync::atomic::Ordering, time::Instant};

use aya::{
    maps::{Array, MapData, PerCpuArray},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use dhcp_guard_common::{
    layout::{
        BEING_FILLED, ClientKey, ClientState, CpuState, DISTINCT_WORDS, MEMO_KNOWN, NO_PORT_SLOT, PortCounters,
        PortState, Troubles, WAYS,
    },
    verdict::{Note, Reason},
};
use jiff::Timestamp;

use super::{DataPlane, Error, batch, clock::Moment, distinct, received};

/// What memos hold of one client.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pending {
    packets: u64,
    own_excess: u64,
    last_seen: u64,
}

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
    /// Strangers that sent something since the last reading, by slot, estimated; `None`: more than can be told.
    pub distinct: Vec<Option<u64>>,
    /// Frames that the interfaces received, by name (see [`received`]).
    pub received: HashMap<String, u64>,
    /// Servers' messages that left through each port since the program was loaded, by slot; `None` where nobody sees them
    /// leave (see [`watch_replies`](DataPlane::watch_replies)).
    pub replies: Vec<Option<u64>>,
    /// Servers' messages that came in by trusted ports since the program was loaded, dropped ones included: for whom they
    /// were is not known. Of the ports that are trusted now, so with another policy it may be less than before.
    pub server_messages: u64,
    /// All clients with an entry.
    pub clients: Vec<ClientSample>,
    /// What the program could not do. `untracked` has all packets of clients without an entry.
    pub troubles: Troubles,
}

impl DataPlane {
    /// Reads everything. `epoch`: the start of the monotonic clock.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses to read a map.
    pub fn snapshot(&mut self, epoch: Instant) -> Result<Snapshot, Error> {
        let moment = self.moment(epoch)?;
        let slots = NO_PORT_SLOT..=self.slots.last();
        let ports = self.read_counters(slots.clone())?;
        let mut troubles = self.read_troubles()?;
        troubles.untracked += ports.iter().map(|port| port.notes[Note::Untracked.index()]).sum::<u64>();
        Ok(Snapshot {
            moment,
            replies: self.read_replies(),
            server_messages: self.server_messages(&ports),
            ports,
            distinct: slots.map(|slot| self.take_distinct(slot)).collect(),
            // Without procfs, nobody knows.
            received: received::frames().unwrap_or_default(),
            clients: self.read_clients()?,
            troubles,
        })
    }

    fn moment(&mut self, epoch: Instant) -> Result<Moment, Error> {
        let ticks = self.ticks()?;
        Ok(Moment { wall: Timestamp::now(), monotonic: epoch.elapsed(), ticks, ticks_per_s: self.ticks_per_s })
    }

    /// Asks the kernel for its tick counter, by running the program that reads it.
    pub(super) fn ticks(&mut self) -> Result<u64, Error> {
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
        clock.get(&0, 0).map_err(Error::map("read", "CLOCK"))
    }

    fn read_counters(&self, slots: RangeInclusive<u32>) -> Result<Vec<PortCounters>, Error> {
        let counters: PerCpuArray<_, PortCounters> = self.map("PORT_COUNTERS")?;
        slots
            .map(|slot| {
                let cpus = counters.get(&slot, 0).map_err(Error::map("read", "PORT_COUNTERS"))?;
                let mut sum = PortCounters::ZERO;
                cpus.iter().for_each(|cpu| sum.add(cpu));
                Ok(sum)
            })
            .collect()
    }

    /// Reads a port's bitmap and clears it for the next window.
    fn take_distinct(&self, slot: u32) -> Option<u64> {
        let mut bitmap = [0; DISTINCT_WORDS];
        let words = self.port_states.words(slot as usize).get(offset_of!(PortState, distinct) / 8..)?;
        for (copy, word) in bitmap.iter_mut().zip(words) {
            // Most are empty: reading alone leaves the cache line to the program.
            if word.load(Ordering::Relaxed) != 0 {
                *copy = word.swap(0, Ordering::AcqRel);
            }
        }
        distinct::estimate(&bitmap)
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
        batch::for_each(self.map_data("KNOWN")?, |key: ClientKey, state: ClientState| {
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
                let Some(state) = self.stranger_state(bucket, way) else { continue };
                // Somebody else's by now: then it is for the next reading.
                if key.load(Ordering::Acquire) == client {
                    clients.push(ClientSample { key: ClientKey(client), known: false, state });
                }
            }
        }
    }

    /// Known clients come first. What a memo holds of a stranger that has become known since is theirs.
    fn add_pending(&self, clients: &mut [ClientSample]) -> Result<(), Error> {
        let mut pending = self.read_memos()?;
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
    pub(super) fn read_memos(&self) -> Result<HashMap<(ClientKey, bool), Pending>, Error> {
        let cpus: PerCpuArray<_, CpuState> = self.map("CPU")?;
        let cpus = cpus.get(&0, 0).map_err(Error::map("read", "CPU"))?;
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

    fn map<'a, T>(&'a self, name: &'static str) -> Result<T, Error>
    where
        T: TryFrom<&'a aya::maps::Map, Error = aya::maps::MapError>,
    {
        T::try_from(self.ebpf.map(name).ok_or(Error::NoProgram)?).map_err(Error::map("open", name))
    }

    pub(super) fn map_data(&self, name: &'static str) -> Result<&MapData, Error> {
        match self.ebpf.map(name) {
            Some(aya::maps::Map::HashMap(data)) => Ok(data),
            _ => Err(Error::NoProgram),
        }
    }
}
