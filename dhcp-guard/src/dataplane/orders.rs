//! Carrying out the governor's orders: the one way to a quarantine, or to the allowlist, while the program runs.

use std::slice;

use dhcp_guard_common::{layout::ClientKey, message::Sender};
use jiff::Timestamp;

use super::{DataPlane, Error, carried::Place};
use crate::governor::{Action, ClientName, Order, Subject};

/// Which slot the port of a subject has; none: it is not guarded.
pub type SlotOf<'a> = &'a dyn Fn(&Subject) -> Option<u32>;

/// From a time of the governor's clock to a tick of the kernel's;
/// [`FOREVER`](dhcp_guard_common::layout::FOREVER) for no end.
pub type TickOf<'a> = &'a dyn Fn(Option<Timestamp>) -> u64;

impl DataPlane {
    /// Carries an order out. Ports that are not guarded (any more) are left out: nobody can be there. The same order again
    /// changes nothing.
    ///
    /// # Errors
    /// [`Error::Map`] if a table is full or the kernel refuses. The rest of the order is carried out all the same.
    pub fn carry_out(&mut self, order: &Order, slot_of: SlotOf<'_>, tick_of: TickOf<'_>) -> Result<(), Error> {
        let touched = match order.action() {
            Action::Impose(quarantine) => {
                let places = self.places(&quarantine.target.subjects, slot_of);
                let until = tick_of(Some(quarantine.until));
                let order = (quarantine.target.subjects.clone(), quarantine.sanction, until);
                self.carried.standing.quarantines.insert(quarantine.id, order);
                self.carried.impose(quarantine.id, &places, quarantine.sanction, until)
            }
            Action::Lift(quarantine) => {
                self.carried.standing.quarantines.remove(&quarantine.id);
                self.carried.lift(quarantine.id)
            }
            Action::Allow(subject, until) => {
                let (places, until) = (self.places(slice::from_ref(subject), slot_of), tick_of(*until));
                self.carried.standing.allowed.insert(subject.clone(), until);
                self.carried.allow(subject, &places, until)
            }
            Action::Disallow(subject) => {
                self.carried.standing.allowed.remove(subject);
                self.carried.disallow(subject)
            }
        };
        self.write(&touched)
    }

    /// Writes what the orders so far come to for these places, and puts it into force.
    pub(super) fn write(&mut self, places: &[Place]) -> Result<(), Error> {
        let mut result = Ok(());
        for place in places {
            let rule = self.carried.rule(*place);
            result = result.and(match place {
                Place::Port(slot) => {
                    self.write_port(*slot, rule);
                    Ok(())
                }
                Place::Client(client) => self.write_rule(*client, rule),
            });
        }
        result.and(self.rules_changed())
    }

    pub(super) fn places(&self, subjects: &[Subject], slot_of: SlotOf<'_>) -> Vec<Place> {
        let place = |subject: &Subject| {
            let slot = slot_of(subject)?;
            Some(match &subject.client {
                None => Place::Port(slot),
                Some(client) => Place::Client(self.key_of(slot, client)),
            })
        };
        subjects.iter().filter_map(place).collect()
    }

    /// The key of a client, also of one behind a relay.
    fn key_of(&self, slot: u32, client: &ClientName) -> ClientKey {
        match client {
            ClientName::Mac(mac) => ClientKey::from_mac(slot, mac.0),
            ClientName::Behind(behind) => {
                let sender = Sender { relay: behind.relay, client: behind.client, chaddr_differs: false };
                ClientKey::of(sender, self.seeds).on(slot)
            }
        }
    }
}
