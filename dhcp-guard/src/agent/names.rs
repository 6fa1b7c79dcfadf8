//! Between the kernel's numbers and the names that outlive it: slots and interface indexes are of this start, a quarantine
//! is longer.

use dhcp_guard_common::layout::ClientKey;

use super::plan::{Plan, Port};
use crate::{
    engine,
    governor::{ClientName, PortName, Subject},
    mac::Mac,
    who::Relayed,
};

impl Port {
    /// Its names.
    #[must_use]
    pub fn port_name(&self) -> PortName {
        PortName { interface: self.interface.clone(), vlans: self.vlans.clone() }
    }
}

impl Plan {
    /// The port with this name.
    #[must_use]
    pub fn named(&self, name: &PortName) -> Option<&Port> {
        self.ports.iter().find(|port| port.interface == name.interface && port.vlans == name.vlans)
    }

    /// The port that people call so: `eth0.100.20`. `None` also if two are called so, because an interface's own name has
    /// dots in it.
    #[must_use]
    pub fn called(&self, name: &str) -> Option<&Port> {
        let mut ports = self.ports.iter().filter(|port| port.name == name);
        let port = ports.next()?;
        ports.next().is_none().then_some(port)
    }
}

/// The names of a client or port; `None` for one on no guarded port, or behind a relay that was not read yet.
#[must_use]
pub fn subject(plan: &Plan, relayed: &Relayed, subject: engine::Subject) -> Option<Subject> {
    match subject {
        engine::Subject::Port(slot) => Some(Subject { port: plan.port(slot)?.port_name(), client: None }),
        engine::Subject::Client(key) => {
            let client = if key.is_relayed() {
                ClientName::Behind(relayed.behind(key)?)
            } else {
                ClientName::Mac(Mac(key.mac()))
            };
            Some(Subject { port: plan.port(key.slot())?.port_name(), client: Some(client) })
        }
    }
}

/// The slot of a subject's port.
#[must_use]
pub fn slot(plan: &Plan, subject: &Subject) -> Option<u32> {
    plan.named(&subject.port).map(|port| port.slot)
}

/// The key that the client with this MAC has; `None` for whoever is behind a relay, whose key the data plane makes.
#[must_use]
pub fn direct_key(plan: &Plan, subject: &Subject) -> Option<ClientKey> {
    match subject.client {
        Some(ClientName::Mac(mac)) => Some(ClientKey::from_mac(slot(plan, subject)?, mac.0)),
        _ => None,
    }
}
