//! One reading of everything that the program counted.

use std::{collections::HashMap, mem::offset_of, sync::atomic::Ordering, time::Instant};

use aya::{
    maps::{Array, MapData},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use dhcp_guard_common::{
    layout::{ClientKey, ClientState, DISTINCT_WORDS, NO_PORT_SLOT, PortCounters, PortState, Troubles},
    verdict::Note,
};
use jiff::Timestamp;

use super::{DataPlane, Error, clock::Moment, distinct, reading::Tables, received, tables};

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
        let tables = self.tables()?;
        let ports = tables.counters(slots.clone())?;
        let mut troubles = tables.troubles()?;
        troubles.untracked += ports.iter().map(|port| port.notes[Note::Untracked.index()]).sum::<u64>();
        Ok(Snapshot {
            moment,
            replies: self.read_replies(),
            server_messages: self.server_messages(&ports),
            ports,
            distinct: slots.map(|slot| self.take_distinct(slot)).collect(),
            // Without procfs, nobody knows.
            received: received::frames().unwrap_or_default(),
            clients: tables.clients()?,
            troubles,
        })
    }

    /// Now, on all clocks. `epoch`: the start of the monotonic clock.
    ///
    /// # Errors
    /// [`Error::Load`], [`Error::Map`] if the kernel does not tell its tick.
    pub fn moment(&mut self, epoch: Instant) -> Result<Moment, Error> {
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

    /// The maps with counters and clients.
    pub(super) fn tables(&self) -> Result<Tables<'_>, Error> {
        Tables::of(|name| self.ebpf.map(name), &self.strangers)
    }

    fn map<'a, T>(&'a self, name: &'static str) -> Result<T, Error>
    where
        T: TryFrom<&'a aya::maps::Map, Error = aya::maps::MapError>,
    {
        T::try_from(self.ebpf.map(name).ok_or(Error::ForeignMap(name))?).map_err(Error::map("open", name))
    }

    pub(super) fn map_data(&self, name: &'static str) -> Result<&MapData, Error> {
        tables::hash(self.ebpf.map(name), name)
    }
}
