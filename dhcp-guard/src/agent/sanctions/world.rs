//! The host as the governor sees it: who is there, and who must never be sanctioned.

use std::{collections::HashSet, path::Path, sync::Arc};

use dhcp_guard_common::layout::ClientKey;

use super::ports::Activity;
use crate::{
    agent::{
        Context,
        host_facts::HostFacts,
        picture::Picture,
        plan::{Plan, Port},
    },
    config::Allow,
    governor::{ClientName, PortName, Subject, World},
    inventory::Inventory,
    mac::Mac,
    model::Mode,
};

/// What the answers are made from.
pub(super) struct Host<'a> {
    pub(super) context: &'a Context,
    pub(super) inventory: Arc<Inventory>,
    pub(super) facts: Arc<HostFacts>,
    pub(super) activity: &'a Activity,
    pub(super) picture: &'a Picture,
    /// MACs that servers' messages came from, while nobody has said where the servers are.
    pub(super) servers: &'a HashSet<ClientKey>,
    pub(super) taps: &'a HashSet<String>,
    pub(super) systemic: bool,
}

impl Host<'_> {
    /// Lets `act` see the world.
    pub(super) fn with_world<T>(&self, act: impl FnOnce(&World<'_>) -> T) -> T {
        let plan = &self.context.plan;
        let slot = |port: &PortName| plan.named(port).map(|port| port.slot);
        act(&World {
            active_ports: self.activity.active_ports(),
            active_clients: &|port| slot(port).map_or(0, |slot| self.activity.active_clients(slot)),
            bystanders: &|port| plan.named(port).map_or(0, |port| self.bystanders(port)),
            is_here: &|port| plan.named(port).is_some(),
            protection: &|subject| self.protection(subject),
            systemic: self.systemic,
        })
    }

    /// Those on a port who would suffer for somebody else. Whoever is behind one machine's port is that machine.
    fn bystanders(&self, port: &Port) -> usize {
        if self.is_own(port) { 0 } else { self.activity.bystanders(port.slot) }
    }

    fn is_own(&self, port: &Port) -> bool {
        is_own(port, &self.inventory, self.taps)
    }

    /// Why somebody must not be sanctioned, as half a sentence.
    pub(super) fn protection(&self, subject: &Subject) -> Option<String> {
        let port = self.context.plan.named(&subject.port)?;
        let by_port = self.rule_of(port).or_else(|| match subject.client {
            None => self.protection_of_all_on(port),
            Some(client) => self.protection_of(port, client),
        });
        by_port.or_else(|| self.inventory.protected(subject))
    }

    /// What the configuration says about everybody on a port.
    fn rule_of(&self, port: &Port) -> Option<String> {
        if port.rules.trusted {
            return Some(format!("port {} is trusted (class {})", port.name, port.rules.class));
        }
        if port.allowed {
            return Some(format!("port {} is on the configuration's allowlist", port.name));
        }
        let monitored = port.rules.mode == Mode::Monitor;
        monitored.then(|| format!("port {} is in monitor mode, where nothing is dropped", port.name))
    }

    /// A port goes down with everybody on it.
    fn protection_of_all_on(&self, port: &Port) -> Option<String> {
        // Neither servers nor the way out are behind one machine's port: whoever floods there could pretend both.
        if self.is_own(port) {
            return None;
        }
        if self.activity.has_server(port.slot) && self.nobody_is_trusted() {
            return Some("a DHCP server answers from there, and no port is trusted".to_owned());
        }
        let plan = &self.context.plan;
        if self.facts.default_route.iter().any(|way| plan.port_of(way).is_some_and(|it| it.slot == port.slot)) {
            return Some("the host's default route goes through it".to_owned());
        }
        // Whose MACs the inventory protects: whoever floods could send one packet in the gateway's name, and be safe.
        let seen = self.picture.clients.iter().filter(|client| client.key.slot() == port.slot);
        let names = seen.filter_map(|client| client.who.source()).map(ClientName::Mac);
        self.inventory.protected_with(&port.port_name(), names)
    }

    fn protection_of(&self, port: &Port, client: ClientName) -> Option<String> {
        let ClientName::Mac(mac) = client else { return None };
        if self.servers.contains(&ClientKey::from_mac(port.slot, mac.0)) && self.nobody_is_trusted() {
            return Some("it answers as a DHCP server, and no port is trusted".to_owned());
        }
        let allows = |allow: &Allow| allow.mac == Some(mac) && allow.is_on(&port.interface, &port.vlans);
        if self.context.config.allowed.iter().any(allows) {
            return Some("it is on the configuration's allowlist".to_owned());
        }
        self.protection_of_mac(mac)
    }

    fn protection_of_mac(&self, mac: Mac) -> Option<String> {
        if self.facts.own_macs.contains(&mac) {
            return Some(format!("{mac} is the host's own"));
        }
        self.facts.gateways.contains(&mac).then(|| format!("{mac} is the host's gateway"))
    }

    /// Then servers can be anywhere.
    fn nobody_is_trusted(&self) -> bool {
        !self.context.plan.ports.iter().any(|port| port.rules.trusted)
    }
}

/// The names of all ports.
pub(super) fn guarded(plan: &Plan) -> Vec<PortName> {
    plan.ports.iter().map(Port::port_name).collect()
}

/// Whether whoever is behind a port is one machine: the inventory says so, or it is a guest's tap.
pub(super) fn is_own(port: &Port, inventory: &Inventory, taps: &HashSet<String>) -> bool {
    inventory.owns(&port.interface, &port.vlans) || taps.contains(&port.interface)
}

/// The interfaces of a plan that are taps: one guest's alone. Names of interfaces have no slashes, and sysfs does not block.
pub(super) fn taps(plan: &Plan) -> HashSet<String> {
    let is_tap = |name: &&String| Path::new("/sys/class/net").join(name).join("tun_flags").exists();
    plan.interfaces.iter().map(|interface| &interface.name).filter(is_tap).cloned().collect()
}
