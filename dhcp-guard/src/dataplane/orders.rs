//! Carrying out the governor's orders: the one place where a quarantine, or an entry of the allowlist, is written.

use std::collections::HashMap;

use dhcp_guard_common::{
    layout::{ClientKey, ClientRule, FOREVER},
    message::Sender,
};

use super::{DataPlane, Error, tables::Quarantine as What};
use crate::governor::{Action, ClientName, Order, Sanction, Subject};

/// What the orders so far come to for clients: several may concern one.
#[derive(Debug, Default)]
pub struct Carried {
    rules: HashMap<ClientKey, ClientRule>,
}

/// From a time of the governor's clock to a tick of the kernel's; [`FOREVER`] for no end.
pub type TickOf<'a> = &'a dyn Fn(Option<jiff::Timestamp>) -> u64;

impl DataPlane {
    /// Carries an order out. Ports that are not guarded (any more) are left out: nobody can be there.
    ///
    /// # Errors
    /// [`Error::Map`] if a table is full or the kernel refuses. The rest of the order is carried out all the same.
    pub fn carry_out(
        &mut self,
        carried: &mut Carried,
        order: &Order,
        slot_of: &dyn Fn(&Subject) -> Option<u32>,
        tick_of: TickOf<'_>,
    ) -> Result<(), Error> {
        let (subjects, change): (&[Subject], Change) = match order.action() {
            Action::Impose(quarantine) => {
                let until = tick_of(Some(quarantine.until));
                (&quarantine.target.subjects, Change::Quarantine(quarantine.sanction, until))
            }
            Action::Lift(quarantine) => (&quarantine.target.subjects, Change::Quarantine(quarantine.sanction, 0)),
            Action::Allow(subject, until) => (std::slice::from_ref(subject), Change::Allow(tick_of(*until))),
            Action::Disallow(subject) => (std::slice::from_ref(subject), Change::Allow(0)),
        };
        let mut result = Ok(());
        for subject in subjects {
            let Some(slot) = slot_of(subject) else { continue };
            let done = match &subject.client {
                None => self.change_port(slot, change),
                Some(client) => {
                    let key = self.key_of(slot, client);
                    self.change_client(carried, key, change)
                }
            };
            result = result.and(done);
        }
        result
    }

    fn change_port(&mut self, slot: u32, change: Change) -> Result<(), Error> {
        match change {
            Change::Quarantine(Sanction::Mute, until) => {
                self.quarantine_port(slot, What::Mute, until)?;
                self.quarantine_port(slot, What::Isolate, 0)
            }
            Change::Quarantine(Sanction::Isolate, until) => self.quarantine_port(slot, What::Isolate, until),
            Change::Allow(until) => self.allow_port(slot, until),
        }
    }

    fn change_client(&mut self, carried: &mut Carried, key: ClientKey, change: Change) -> Result<(), Error> {
        let rule = carried.rules.entry(key).or_insert_with(|| self.rule_of_configuration(key));
        match change {
            Change::Quarantine(Sanction::Mute, until) => (rule.muted_until, rule.isolated_until) = (until, 0),
            Change::Quarantine(Sanction::Isolate, until) => (rule.muted_until, rule.isolated_until) = (0, until),
            Change::Allow(until) => rule.allowed_until = until,
        }
        let rule = *rule;
        if rule == ClientRule::default() {
            carried.rules.remove(&key);
            return self.remove_rule(key);
        }
        self.set_rule(key, rule)
    }

    /// The key of a client, also of one behind a relay.
    fn key_of(&self, slot: u32, client: &ClientName) -> ClientKey {
        let sender = match client {
            ClientName::Mac(mac) => return ClientKey::from_mac(slot, mac.0),
            ClientName::Behind(behind) => {
                Sender { relay: behind.relay, client: behind.client, chaddr_differs: false }
            }
        };
        ClientKey::of(sender, self.seeds).on(slot)
    }
}

/// What is to be written about one port or client.
#[derive(Clone, Copy, Debug)]
enum Change {
    Quarantine(Sanction, u64),
    Allow(u64),
}

const _: () = assert!(FOREVER == u64::MAX);
