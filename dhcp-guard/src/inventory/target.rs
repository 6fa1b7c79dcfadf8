//! What one decision about somebody covers on this host, and who is protected.
//!
//! A machine with several network cards, or on several VLANs, is one machine: to mute one of its ports only moves its
//! flood to the next one, and to count each port would use up the caps. So a decision covers all of it at once. How far
//! that may reach depends on how well it is known who it was, since the inventory must not become a lever: whoever can
//! send frames can choose their source MAC, but not the port they come in on.
//!
//! * A **port** that is a machine's own proves who it was: the decision covers all of the machine, its guarded ports, and
//!   its MACs on ports that it shares.
//! * A **MAC** proves it only where the inventory says that the machine is: on a port of its own, or on one that a row
//!   gives for a MAC of it. From there the decision covers the machine's MACs on all such ports, but no port as a whole:
//!   others may be behind it.
//! * A MAC that shows up **elsewhere** may be somebody who borrows it. Then the decision stays on that port, and covers the
//!   machine's MACs there. Otherwise anybody could have any machine muted, on its own port, by sending in its name.
//! * What a **relay** says about a client it says for itself: that decision covers nobody else.
//!
//! The answer is the same whichever of its subjects the question is about, so that a second decision about the same
//! machine is found to be the first one.

use super::{Inventory, Machine};
use crate::{
    governor::{ClientName, PortName, Subject, Target},
    mac::Mac,
};

impl Inventory {
    /// What a decision about `subject` covers on this host; `guarded`: the ports there are. The subject itself is always in
    /// it. One that nobody knows is a target of its own, and so is a stranger on a machine's port.
    #[must_use]
    pub fn target_of(&self, subject: &Subject, guarded: &[PortName]) -> Target {
        let port = &subject.port;
        let (machine, mut subjects) = match subject.client {
            None => {
                let owner = self.owner(port);
                (owner, owner.map_or_else(Vec::new, |machine| self.all_of(machine, guarded)))
            }
            Some(ClientName::Mac(mac)) => match self.claim(&port.interface, &port.vlans, mac) {
                Some(stake) => (Some(stake.machine), self.clients_of(stake.machine, port, guarded)),
                None => (self.owner(port), Vec::new()),
            },
            Some(ClientName::Behind(behind)) => {
                let by_mac = behind.who().mac().and_then(|mac| self.claim(&port.interface, &port.vlans, mac));
                (by_mac.map(|stake| stake.machine).or_else(|| self.owner(port)), Vec::new())
            }
        };
        subjects.push(subject.clone());
        let id = machine.and_then(|machine| self.entries.get(machine)).map(|entry| entry.machine.server_id.clone());
        Target::new(id, subjects)
    }

    /// Why the inventory wants this subject left alone, as half a sentence.
    ///
    /// A port is protected if it is a protected machine's, or if a row says that one is on it. A client is, if it or the
    /// port is a protected machine's; not because it shares a port with one. A MAC without an interface may be on any port,
    /// which only whoever sees it can know: see [`Self::protected_with`].
    #[must_use]
    pub fn protected(&self, subject: &Subject) -> Option<String> {
        let PortName { interface, vlans } = &subject.port;
        let here = self.here(interface, vlans);
        let owners = here.into_iter().flat_map(|here| &here.owners).map(|stake| stake.machine);
        let found = match subject.client.and_then(mac_of) {
            Some(mac) => self.protects(owners.chain(self.claims(interface, vlans, mac).map(|stake| stake.machine))),
            None if subject.client.is_some() => self.protects(owners),
            None => self.protects(owners.chain(here.into_iter().flat_map(|here| here.guests.iter().copied()))),
        };
        found.map(|machine| format!("the inventory protects {}", machine.server_id))
    }

    /// Why the inventory wants a whole port left alone on which these clients were seen.
    #[must_use]
    pub fn protected_with(&self, port: &PortName, seen: impl IntoIterator<Item = ClientName>) -> Option<String> {
        let whole = Subject { port: port.clone(), client: None };
        self.protected(&whole).or_else(|| {
            let client = |client| Subject { port: port.clone(), client: Some(client) };
            seen.into_iter().find_map(|seen| self.protected(&client(seen)))
        })
    }

    fn protects(&self, machines: impl Iterator<Item = usize>) -> Option<&Machine> {
        let mut machines = machines.filter_map(|machine| self.entries.get(machine)).map(|entry| &entry.machine);
        machines.find(|machine| machine.protected)
    }

    /// Whether a machine has this port for itself.
    #[must_use]
    pub fn owns(&self, interface: &str, vlans: &[u16]) -> bool {
        self.here(interface, vlans).is_some_and(|here| !here.owners.is_empty())
    }

    /// The machine that has a port for itself.
    fn owner(&self, port: &PortName) -> Option<usize> {
        self.here(&port.interface, &port.vlans)?.owners.first().map(|stake| stake.machine)
    }

    /// A machine's guarded ports, and its MACs on guarded ports that are not its own.
    fn all_of(&self, machine: usize, guarded: &[PortName]) -> Vec<Subject> {
        let Some(entry) = self.entries.get(machine) else { return Vec::new() };
        let own = entry.ports.iter().filter(|port| guarded.contains(port));
        let ports = own.map(|port| Subject { port: port.clone(), client: None });
        let shared = entry.macs.iter().filter_map(|(mac, place)| {
            let port = place.as_ref().filter(|port| guarded.contains(port) && !entry.ports.contains(port))?;
            Some(client(port, *mac))
        });
        ports.chain(shared).collect()
    }

    /// A machine's MACs, one of which was seen on `port`: on all guarded ports where the inventory says that it is, or else
    /// on this one.
    fn clients_of(&self, machine: usize, port: &PortName, guarded: &[PortName]) -> Vec<Subject> {
        let Some(entry) = self.entries.get(machine) else { return Vec::new() };
        let scoped = entry.macs.iter().filter_map(|(_, place)| place.as_ref());
        let mut places: Vec<&PortName> = entry.ports.iter().chain(scoped).collect();
        if places.contains(&port) {
            places.retain(|place| *place == port || guarded.contains(place));
            places.sort();
            places.dedup();
        } else {
            places = vec![port];
        }
        let here = |place: &PortName, mac: Mac| {
            self.claim(&place.interface, &place.vlans, mac).is_some_and(|stake| stake.machine == machine)
        };
        let macs = |place| entry.macs.iter().map(|(mac, _)| *mac).filter(move |mac| here(place, *mac));
        places.into_iter().flat_map(|place| macs(place).map(|mac| client(place, mac))).collect()
    }
}

fn client(port: &PortName, mac: Mac) -> Subject {
    Subject { port: port.clone(), client: Some(ClientName::Mac(mac)) }
}

fn mac_of(client: ClientName) -> Option<Mac> {
    match client {
        ClientName::Mac(mac) => Some(mac),
        ClientName::Behind(behind) => behind.who().mac(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::who::Behind;

    fn inventory(rows: &str) -> Inventory {
        let text = format!("server_id,interface,vlans,mac,protected\n{rows}");
        let (inventory, problems) = Inventory::from_csv(text.as_bytes()).unwrap();
        assert!(problems.is_empty(), "{problems:?}");
        inventory
    }

    fn port(interface: &str, vlans: &[u16]) -> PortName {
        PortName { interface: interface.into(), vlans: vlans.into() }
    }

    fn whole(interface: &str, vlans: &[u16]) -> Subject {
        Subject { port: port(interface, vlans), client: None }
    }

    fn mac(last: u8) -> Mac {
        Mac([2, 0, 0, 0, 0, last])
    }

    fn at(interface: &str, vlans: &[u16], last: u8) -> Subject {
        client(&port(interface, vlans), mac(last))
    }

    fn target(machine: &str, subjects: &[Subject]) -> Target {
        Target::new(Some(machine.to_owned()), subjects.to_vec())
    }

    #[test]
    fn who_nobody_knows_is_a_target_of_its_own() {
        let inventory = inventory("em-1,eth0,100,,\nem-2,,,02:00:00:00:00:02,\n");
        for subject in [whole("eth1", &[]), at("eth1", &[], 9), whole("eth0", &[])] {
            assert_eq!(inventory.target_of(&subject, &[port("eth1", &[])]), Target::one(subject));
        }
        let stranger = at("eth0", &[100], 9);
        assert_eq!(inventory.target_of(&stranger, &[]), target("em-1", &[stranger]), "named, but nobody else's");
    }

    #[test]
    fn a_port_is_all_of_its_machine() {
        let inventory = inventory(
            "em-1,eth0,100,,\nem-1,eth1,100.20,,\nem-1,eth2,,,\nem-1,eth3,,02:00:00:00:00:01,\n\
             em-1,eth0,100,02:00:00:00:00:02,\nem-1,,,02:00:00:00:00:03,\n",
        );
        let guarded = [port("eth0", &[100]), port("eth1", &[100, 20]), port("eth3", &[]), port("eth3", &[7])];
        let all = target("em-1", &[whole("eth0", &[100]), whole("eth1", &[100, 20]), at("eth3", &[], 1)]);
        assert_eq!(inventory.target_of(&whole("eth0", &[100]), &guarded), all);
        assert_eq!(inventory.target_of(&whole("eth1", &[100, 20]), &guarded), all, "whichever it is about");
        let shared = whole("eth3", &[]);
        assert_eq!(inventory.target_of(&shared, &guarded), Target::one(shared), "nobody has it for itself");
    }

    #[test]
    fn a_client_is_its_machine_s_macs_wherever_they_are_said_to_be() {
        let inventory = inventory(
            "em-1,eth0,,02:00:00:00:00:01,\nem-1,eth1,,02:00:00:00:00:02,\nem-1,eth2,,02:00:00:00:00:03,\n\
             em-1,,,02:00:00:00:00:04,\nem-2,eth1,,02:00:00:00:00:04,\n",
        );
        let guarded = [port("eth0", &[]), port("eth1", &[]), port("eth5", &[])];
        let all = target("em-1", &[at("eth0", &[], 1), at("eth0", &[], 4), at("eth1", &[], 2)]);
        assert_eq!(inventory.target_of(&at("eth0", &[], 1), &guarded), all);
        assert_eq!(inventory.target_of(&at("eth1", &[], 2), &guarded), all, "whichever it is about");
        assert_eq!(inventory.target_of(&at("eth0", &[], 4), &guarded), all);
        let other = at("eth1", &[], 4);
        assert_eq!(inventory.target_of(&other, &guarded), target("em-2", &[other]), "this one is em-2's there");
    }

    #[test]
    fn a_borrowed_mac_cannot_have_its_machine_muted_elsewhere() {
        let inventory =
            inventory("em-1,eth0,,02:00:00:00:00:01,\nem-1,tap1,,,\nem-1,,,02:00:00:00:00:02 02:00:00:00:00:03,\n");
        let guarded = [port("eth0", &[]), port("tap1", &[]), port("tap6", &[])];
        let there = target("em-1", &[at("tap6", &[], 2), at("tap6", &[], 3)]);
        assert_eq!(inventory.target_of(&at("tap6", &[], 2), &guarded), there);
        let scoped = at("tap6", &[], 1);
        assert_eq!(inventory.target_of(&scoped, &guarded), Target::one(scoped), "said to be elsewhere");
    }

    #[test]
    fn a_client_never_takes_a_port_along() {
        let inventory = inventory("em-1,tap1,,,\nem-1,tap2,,,\nem-1,,,02:00:00:00:00:01,\n");
        let guarded = [port("tap1", &[]), port("tap2", &[])];
        let found = inventory.target_of(&at("tap1", &[], 1), &guarded);
        assert_eq!(found, target("em-1", &[at("tap1", &[], 1), at("tap2", &[], 1)]));
        assert!(!found.has_port());
    }

    #[test]
    fn what_a_relay_says_covers_nobody_else() {
        use dhcp_guard_common::{layout::ClientKey, message::Sender};
        let inventory = inventory("em-1,eth0,,02:00:00:00:00:01 02:00:00:00:00:02,yes\n");
        let relay = Sender::RELAY_V4 | u64::from(u32::from_ne_bytes([10, 0, 0, 1]));
        let behind = ClientName::Behind(Behind { relay, client: ClientKey::from_mac(0, mac(1).0).0 });
        let subject = Subject { port: port("eth0", &[]), client: Some(behind) };
        assert_eq!(inventory.target_of(&subject, &[port("eth0", &[])]), target("em-1", std::slice::from_ref(&subject)));
        assert!(inventory.protected(&subject).is_some(), "but it is protected by it");
    }

    #[test]
    fn the_protected_are_left_alone_and_so_are_their_ports() {
        let inventory = inventory(
            "em-1,tap1,,,yes\nem-2,eth0,,02:00:00:00:00:02,TRUE\nem-3,eth0,,02:00:00:00:00:03,no\n\
             em-4,,,02:00:00:00:00:04,true\nem-5,tap1,,02:00:00:00:00:05,\n",
        );
        let protects = |id: &str| Some(format!("the inventory protects {id}"));
        assert_eq!(inventory.protected(&whole("tap1", &[])), protects("em-1"));
        assert_eq!(inventory.protected(&at("tap1", &[], 9)), protects("em-1"), "whoever is on it");
        assert_eq!(inventory.protected(&at("tap1", &[], 5)), protects("em-1"));
        assert_eq!(inventory.protected(&whole("eth0", &[])), protects("em-2"), "it is on that port");
        assert_eq!(inventory.protected(&at("eth0", &[], 2)), protects("em-2"));
        assert_eq!(inventory.protected(&at("eth0", &[], 3)), None, "its neighbours are not");
        assert_eq!(inventory.protected(&at("eth9", &[], 2)), None, "said to be elsewhere");
        assert_eq!(inventory.protected(&at("eth9", &[], 4)), protects("em-4"));
        assert_eq!(inventory.protected(&whole("eth9", &[])), None);
        let seen =
            |last| inventory.protected_with(&port("eth9", &[]), [9, last].map(|last| ClientName::Mac(mac(last))));
        assert_eq!((seen(4), seen(3)), (protects("em-4"), None));
    }

    #[test]
    fn a_contradiction_takes_nobody_s_protection_away() {
        let text = "server_id,interface,mac,protected\nem-1,tap1,,\nem-2,tap1,,yes\nem-3,,02:00:00:00:00:03,\n\
                    em-4,,02:00:00:00:00:03,yes\nem-5,tap5,,no\nem-5,tap6,,yes\n";
        let (inventory, problems) = Inventory::from_csv(text.as_bytes()).unwrap();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert_eq!(inventory.machine("tap1", &[], None).unwrap().server_id, "em-1", "the first one counts");
        for subject in [whole("tap1", &[]), at("eth0", &[], 3), whole("tap5", &[]), whole("tap6", &[])] {
            assert!(inventory.protected(&subject).is_some(), "{subject}");
        }
    }
}
