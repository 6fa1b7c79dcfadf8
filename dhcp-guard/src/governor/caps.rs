//! The caps on automatic quarantine.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Governor, PortName, Quarantine, Refusal, Target, World, time};

impl Governor {
    /// Whether one more automatic quarantine of `target` may begin.
    pub(super) fn within_caps(&self, now: Timestamp, world: &World<'_>, target: &Target) -> Result<(), Refusal> {
        let began = self.began.iter().filter(|began| time::between(**began, now) < self.rules.window).count();
        if began >= self.rules.new_in_window {
            let (most, window) = (self.rules.new_in_window, self.rules.window);
            return Err(Refusal::TooFast { began, most, window });
        }
        if target.has_port() {
            no_bystanders(world, target)?;
            return self.room_for_another_port(world);
        }
        let ports = ports_of(target);
        // A second client of a port is no second port.
        if !ports.iter().all(|port| self.ports_with_clients().contains(port)) {
            self.room_for_another_port(world)?;
        }
        ports.into_iter().try_for_each(|port| self.room_for_a_client(world, port))
    }

    /// A machine with its ports counts as one, and so do all clients of a port.
    fn room_for_another_port(&self, world: &World<'_>) -> Result<(), Refusal> {
        let whole = self.automatic().filter(|quarantine| quarantine.target.has_port()).count();
        let active = whole + self.ports_with_clients().len();
        let most = self.rules.at_once(world.active_ports);
        if active < most { Ok(()) } else { Err(Refusal::AtOnce { active, most, what: "ports".to_owned() }) }
    }

    /// Ports of which clients are in automatic quarantine, and not more.
    fn ports_with_clients(&self) -> BTreeSet<&PortName> {
        let clients = self.automatic().filter(|quarantine| !quarantine.target.has_port());
        clients.flat_map(|quarantine| ports_of(&quarantine.target)).collect()
    }

    fn room_for_a_client(&self, world: &World<'_>, port: &PortName) -> Result<(), Refusal> {
        let on_port = |quarantine: &&Quarantine| {
            let mut subjects = quarantine.target.subjects.iter();
            !quarantine.target.has_port() && subjects.any(|subject| subject.port == *port)
        };
        let active = self.automatic().filter(on_port).count();
        let most = self.rules.at_once((world.active_clients)(port));
        if active < most {
            Ok(())
        } else {
            Err(Refusal::AtOnce { active, most, what: format!("clients of port {port}") })
        }
    }

    /// Quarantines that the engine began.
    pub fn automatic(&self) -> impl Iterator<Item = &Quarantine> {
        self.state.quarantines.values().filter(|quarantine| quarantine.author.is_engine())
    }
}

fn ports_of(target: &Target) -> BTreeSet<&PortName> {
    target.subjects.iter().map(|subject| &subject.port).collect()
}

/// Limits alone cost those who keep to them nothing; a port's quarantine would. That is for a person to decide.
fn no_bystanders(world: &World<'_>, target: &Target) -> Result<(), Refusal> {
    let ports = target.subjects.iter().filter(|subject| subject.client.is_none()).map(|subject| &subject.port);
    for port in ports {
        let clients = (world.bystanders)(port);
        if clients > 0 {
            return Err(Refusal::Bystanders { port: port.clone(), clients });
        }
    }
    Ok(())
}
