//! Between the kernel's numbers and the names that outlive it: slots and interface indexes are of this start, a quarantine
//! is longer.

use dhcp_guard_common::layout::ClientKey;

use super::plan::{Plan, Port};
use crate::{
    engine,
    governor::{ClientName, PortName, Subject},
    mac::Mac,
};

impl Port {
    /// Its names.
    #[must_use]
    pub fn port_name(&self) -> PortName {
        PortName { interface: self.interface.clone(), vlans: self.vlans.clone() }
    }
}

impl Plan {
    /// The port that frames with these names' VLANs fall to: their own, or their interface's untagged one.
    #[must_use]
    pub fn port_of(&self, name: &PortName) -> Option<&Port> {
        let untagged = || self.named(&PortName { vlans: Vec::new(), ..name.clone() });
        self.named(name).or_else(untagged)
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

/// The names of a client or port; `None` for one on no guarded port, and for one behind a relay: what a relay says about
/// a client it says for itself.
#[must_use]
pub fn subject(plan: &Plan, subject: engine::Subject) -> Option<Subject> {
    match subject {
        engine::Subject::Port(slot) => Some(Subject { port: plan.port(slot)?.port_name(), client: None }),
        engine::Subject::Client(key) if key.is_relayed() => None,
        engine::Subject::Client(key) => {
            let port = plan.port(key.slot())?.port_name();
            Some(Subject { port, client: Some(ClientName::Mac(Mac(key.mac()))) })
        }
    }
}

/// The slot of a subject's port.
#[must_use]
pub fn slot(plan: &Plan, subject: &Subject) -> Option<u32> {
    plan.named(&subject.port).map(|port| port.slot)
}

/// The key of a port or client; `None` for whoever is behind a relay, whose key the data plane makes, and for ports that
/// are not guarded.
#[must_use]
pub fn key(plan: &Plan, subject: &Subject) -> Option<engine::Subject> {
    let slot = slot(plan, subject)?;
    match subject.client {
        None => Some(engine::Subject::Port(slot)),
        Some(ClientName::Mac(mac)) => Some(engine::Subject::Client(ClientKey::from_mac(slot, mac.0))),
        Some(ClientName::Behind(_)) => None,
    }
}
