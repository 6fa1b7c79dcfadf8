//! What an agent has left, for whoever only looks: the pinned maps, without a program of one's own. Nothing is changed, and
//! it can be done beside an agent.

use std::{
    collections::HashMap,
    io,
    path::Path,
    time::{Duration, Instant},
};

use aya::maps::Map;
use dhcp_guard_common::{
    layout::{Bucket, LAYOUT_VERSION, Meta, NO_PORT_SLOT, PortKey, PortState},
    verdict::Note,
};
use jiff::Timestamp;

use super::{
    Error, Snapshot,
    clock::{self, Moment},
    mapped::Mapped,
    pins::{LinkPin, PinFolder},
    reading::{self, Tables},
    received,
    state_maps::{self, Found},
    tables::{self, InForce},
};

/// See the module.
#[derive(Debug)]
pub struct Remains {
    meta: Meta,
    maps: HashMap<&'static str, Map>,
    ports: HashMap<PortKey, u32>,
    port_states: Mapped<PortState>,
    strangers: Mapped<Bucket>,
    links: Vec<LinkPin>,
}

/// Why they cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RemainsError {
    /// The folder cannot be looked into.
    #[error("cannot look into the pin folder {}: {reason}", dir.display())]
    Folder {
        /// The folder.
        dir: std::path::PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// Another version has made the maps.
    #[error("the maps in {} are those of another version, which alone can read them: ask with that one, or start an agent", .0.display())]
    OtherVersion(std::path::PathBuf),
    /// A map cannot be read.
    #[error(transparent)]
    Map(#[from] Error),
}

/// How long ago an agent with this pin folder last said that it reads the counters and decides; none: never, or it cannot be
/// told.
#[must_use]
pub fn heartbeat_age(dir: &Path) -> Option<Duration> {
    let pins = PinFolder::peek(dir).ok()??;
    age(&state_maps::latest(&pins, &mut Vec::new()).ok()??.meta)
}

fn age(meta: &Meta) -> Option<Duration> {
    (meta.heartbeat != 0).then(|| clock::monotonic().saturating_sub(Duration::from_nanos(meta.heartbeat_ns)))
}

impl Remains {
    /// What is in the folder; `None`: no guard.
    ///
    /// # Errors
    /// See [`RemainsError`].
    pub fn open(dir: &Path) -> Result<Option<Self>, RemainsError> {
        let failed = |reason| RemainsError::Folder { dir: dir.to_owned(), reason };
        let Some(pins) = PinFolder::peek(dir).map_err(failed)? else { return Ok(None) };
        let Some(found) = state_maps::latest(&pins, &mut Vec::new()).map_err(failed)? else { return Ok(None) };
        if found.meta.layout != u64::from(LAYOUT_VERSION) {
            return Err(RemainsError::OtherVersion(found.generation.path));
        }
        let links = pins.links().map_err(failed)?.into_iter().filter(|link| link.kind.judges() && !link.is_dead());
        Ok(Some(Self::read(&found, links.collect())?))
    }

    fn read(found: &Found, links: Vec<LinkPin>) -> Result<Self, Error> {
        let open = |name: &'static str| {
            let failed = |error: io::Error| Error::map("open", name)(error);
            let data = state_maps::open(&found.generation.map(name)).map_err(failed)?;
            let data = data.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
            Map::from_map_data(data).map(|map| (name, map)).map_err(Error::map("open", name))
        };
        let maps: HashMap<_, _> = state_maps::names().map(open).collect::<Result<_, _>>()?;
        let port_states = Mapped::of(maps.get("PORT_STATES"), "PORT_STATES")?;
        let strangers = Mapped::of(maps.get("STRANGERS"), "STRANGERS")?;
        let ports = reading::ports(tables::hash(maps.get("PORTS"), "PORTS")?)?.into_iter().collect();
        Ok(Self { meta: found.meta, maps, ports, port_states, strangers, links })
    }

    /// The slot of a port.
    #[must_use]
    pub fn slot(&self, port: PortKey) -> Option<u32> {
        self.ports.get(&port).copied()
    }

    /// The links that hold a guard on an interface.
    #[must_use]
    pub fn links(&self) -> &[LinkPin] {
        &self.links
    }

    /// How long ago an agent last said that it reads the counters and decides; none: never.
    #[must_use]
    pub fn heartbeat_age(&self) -> Option<Duration> {
        age(&self.meta)
    }

    /// The kernel's tick counter now, from what it was at the heartbeat.
    fn ticks(&self) -> u64 {
        let since = self.heartbeat_age().unwrap_or_default().as_nanos() * u128::from(self.meta.ticks_per_s);
        self.meta.heartbeat.saturating_add(u64::try_from(since / 1_000_000_000).unwrap_or(0))
    }

    /// Reads everything, but for what reading would change. `epoch`: the start of the monotonic clock.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses to read a map.
    pub fn snapshot(&self, epoch: Instant) -> Result<Snapshot, Error> {
        let tables = Tables::of(|name| self.maps.get(name), &self.strangers)?;
        let slots = NO_PORT_SLOT..=self.ports.values().copied().max().unwrap_or(NO_PORT_SLOT);
        let ports = tables.counters(slots)?;
        let mut troubles = tables.troubles()?;
        troubles.untracked += ports.iter().map(|port| port.notes[Note::Untracked.index()]).sum::<u64>();
        let ticks_per_s = u32::try_from(self.meta.ticks_per_s).unwrap_or(1);
        Ok(Snapshot {
            moment: Moment { wall: Timestamp::now(), monotonic: epoch.elapsed(), ticks: self.ticks(), ticks_per_s },
            // Nobody has cleared the bitmaps since the agent ended: they say nothing of the last second.
            distinct: vec![None; ports.len()],
            received: received::frames().unwrap_or_default(),
            replies: vec![None; ports.len()],
            server_messages: 0,
            clients: tables.clients()?,
            troubles,
            ports,
        })
    }

    /// The quarantines in the maps that have not ended.
    ///
    /// # Errors
    /// [`Error::Map`] if the kernel refuses to read a map.
    pub fn in_force(&self) -> Result<Vec<InForce>, Error> {
        let rules = reading::rules(tables::hash(self.maps.get("RULES"), "RULES")?)?;
        Ok(tables::in_force(self.ports.values().copied(), &self.port_states, &rules, self.ticks()))
    }

    /// A moment on the kernel's clock, for telling ticks as times.
    #[must_use]
    pub fn now(&self) -> (u64, u32) {
        (self.ticks(), u32::try_from(self.meta.ticks_per_s).unwrap_or(1))
    }
}
