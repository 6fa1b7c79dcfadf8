//! Who is where: machines by port and by MAC. Answers must be quick, since reports ask once for every client.

use std::collections::HashMap;

use super::Machine;
use crate::{governor::PortName, mac::Mac};

/// All machines, by port and by MAC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    pub(super) entries: Vec<Entry>,
    pub(super) by_port: HashMap<String, HashMap<Vec<u16>, Here>>,
    pub(super) by_mac: HashMap<Mac, Vec<Claim>>,
    pub(super) outlets: Vec<Outlet>,
}

/// A machine, and all that is its own: what somebody else had before is not here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) machine: Machine,
    /// Whether any row says that it is protected, or that it is not.
    pub(super) said: (bool, bool),
    pub(super) ports: Vec<PortName>,
    /// With the port it is on; none: wherever it shows up.
    pub(super) macs: Vec<(Mac, Option<PortName>)>,
}

/// Who is on a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Here {
    /// Those who have it for themselves. The first one counts; the others only for protection: while two rows contradict
    /// each other, neither may take somebody's protection away.
    pub(super) owners: Vec<Stake>,
    /// Machines with a MAC that is said to be here.
    pub(super) guests: Vec<usize>,
}

/// Whose a MAC is: on one port, or wherever it shows up. Of several with the same place, the first one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) place: Option<PortName>,
    pub(super) stake: Stake,
}

/// A machine's part in a port or MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stake {
    /// Index into `entries`.
    pub(super) machine: usize,
    /// Index into `outlets`; none: not known.
    pub(super) outlet: Option<usize>,
}

/// The switch port that a port or MAC is plugged into. It belongs to them and not to the machine: one with two network
/// cards hangs on two switches, and an engineer must be sent to the right one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outlet {
    pub(super) switch: Option<String>,
    pub(super) switch_port: Option<String>,
}

/// What the inventory says about somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// Who it is.
    pub machine: &'a Machine,
    /// The switch that this port or MAC of it is plugged into.
    pub switch: Option<&'a str>,
    /// And the port there.
    pub switch_port: Option<&'a str>,
}

impl Inventory {
    /// How many machines it names.
    #[must_use]
    pub fn machines(&self) -> usize {
        self.entries.len()
    }

    /// Who it is: whoever has the MAC there, whoever has it anywhere, or else whoever has the port for itself.
    #[must_use]
    pub fn machine(&self, interface: &str, vlans: &[u16], mac: Option<Mac>) -> Option<&Machine> {
        self.find(interface, vlans, mac).map(|found| found.machine)
    }

    /// The same, with where it is plugged in. The switch port of a MAC is that of its own row, or else that of the port it
    /// is on, if that is the machine's: never that of its other network card.
    #[must_use]
    pub fn find(&self, interface: &str, vlans: &[u16], mac: Option<Mac>) -> Option<Found<'_>> {
        let by_mac = mac.and_then(|mac| self.claim(interface, vlans, mac));
        let by_port = self.here(interface, vlans).and_then(|here| here.owners.first());
        let stake = by_mac.or(by_port)?;
        let same = by_port.filter(|port| port.machine == stake.machine);
        let outlet = stake.outlet.or_else(|| same?.outlet).and_then(|index| self.outlets.get(index));
        Some(Found {
            machine: &self.entries.get(stake.machine)?.machine,
            switch: outlet.and_then(|outlet| outlet.switch.as_deref()),
            switch_port: outlet.and_then(|outlet| outlet.switch_port.as_deref()),
        })
    }

    /// The class of a port: that of the machine that has it for itself. A port that machines share has none.
    ///
    /// Nobody asks yet. A port's class comes from the configuration first (`[[port]]`); this is for ports that it gives
    /// none.
    #[must_use]
    pub fn class_of(&self, interface: &str, vlans: &[u16]) -> Option<&str> {
        self.machine(interface, vlans, None)?.class.as_deref()
    }

    pub(super) fn here(&self, interface: &str, vlans: &[u16]) -> Option<&Here> {
        self.by_port.get(interface)?.get(vlans)
    }

    /// Everybody who says that a MAC on this port is theirs, whoever counts first.
    pub(super) fn claims<'a>(&'a self, interface: &str, vlans: &[u16], mac: Mac) -> impl Iterator<Item = &'a Stake> {
        let claims = self.by_mac.get(&mac).map_or(&[][..], Vec::as_slice);
        let here = move |claim: &&Claim| {
            claim.place.as_ref().is_some_and(|place| place.interface == interface && place.vlans == vlans)
        };
        let scoped = claims.iter().filter(here);
        let anywhere = claims.iter().filter(|claim| claim.place.is_none());
        scoped.chain(anywhere).map(|claim| &claim.stake)
    }

    /// Whose a MAC on this port is.
    pub(super) fn claim(&self, interface: &str, vlans: &[u16], mac: Mac) -> Option<&Stake> {
        self.claims(interface, vlans, mac).next()
    }
}
