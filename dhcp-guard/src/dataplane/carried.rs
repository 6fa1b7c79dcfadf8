//! What the orders so far come to, for each port and client: several quarantines may cover the same one.
//!
//! Only what the maps are to say is derived from here, never the other way round: so the end of one quarantine leaves what
//! another one says, and no order takes away what the configuration allows.

use std::collections::{BTreeMap, HashMap, HashSet};

use dhcp_guard_common::layout::{ClientKey, ClientRule, FOREVER};

use super::standing::Standing;
use crate::governor::{Sanction, Subject};

/// A port, by its slot, or a client on one: what a quarantine covers, as the program knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Place {
    Port(u32),
    Client(ClientKey),
}

impl Place {
    fn slot(self) -> u32 {
        match self {
            Self::Port(slot) => slot,
            Self::Client(client) => client.slot(),
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// The quarantines that cover a place, by number: what they stop there, and until which tick.
    quarantines: HashMap<Place, BTreeMap<u64, (Sanction, u64)>>,
    /// Who is allowed there by order, and until which tick.
    allowed: HashMap<Place, BTreeMap<Subject, u64>>,
    /// Who is allowed by the configuration.
    configured: HashSet<Place>,
    /// Clients that the configuration makes known.
    pub(super) named: HashSet<ClientKey>,
    /// All of the orders, by name.
    pub(super) standing: Standing,
}

impl Carried {
    /// The configuration allows these for good, and no others. Answers those that this concerns.
    pub(super) fn configure(&mut self, places: impl IntoIterator<Item = Place>) -> Vec<Place> {
        let before = std::mem::replace(&mut self.configured, places.into_iter().collect());
        before.symmetric_difference(&self.configured).copied().collect()
    }

    /// Lets go of everything in slots that nobody has any more.
    pub(super) fn forget(&mut self, slots: &HashSet<u32>) {
        let stays = |place: &Place| !slots.contains(&place.slot());
        self.quarantines.retain(|place, _| stays(place));
        self.allowed.retain(|place, _| stays(place));
        self.configured.retain(stays);
        self.named.retain(|client| !slots.contains(&client.slot()));
    }

    /// From now on a quarantine covers these places, and no others. Answers those that it covers or covered.
    pub(super) fn impose(&mut self, id: u64, places: &[Place], sanction: Sanction, until: u64) -> Vec<Place> {
        let mut touched = self.lift(id);
        for place in places {
            self.quarantines.entry(*place).or_default().insert(id, (sanction, until));
            touched.push(*place);
        }
        touched
    }

    /// A quarantine covers nothing any more. Answers what it covered, wherever its ports' names lead to by now.
    pub(super) fn lift(&mut self, id: u64) -> Vec<Place> {
        take_out(&mut self.quarantines, &id)
    }

    /// From now on a subject is allowed at these places, and no others, until a tick. Answers those that this concerns.
    pub(super) fn allow(&mut self, subject: &Subject, places: &[Place], until: u64) -> Vec<Place> {
        let mut touched = self.disallow(subject);
        for place in places {
            self.allowed.entry(*place).or_default().insert(subject.clone(), until);
            touched.push(*place);
        }
        touched
    }

    /// It is not allowed by order any more. Answers where it was.
    pub(super) fn disallow(&mut self, subject: &Subject) -> Vec<Place> {
        take_out(&mut self.allowed, subject)
    }

    /// What all of it comes to: of each word the latest end.
    pub(super) fn rule(&self, place: Place) -> ClientRule {
        let mut rule = self.rule_of_configuration(place);
        for until in self.allowed.get(&place).into_iter().flat_map(BTreeMap::values) {
            rule.allowed_until = rule.allowed_until.max(*until);
        }
        for (sanction, until) in self.quarantines.get(&place).into_iter().flat_map(BTreeMap::values) {
            let word = match sanction {
                Sanction::Mute => &mut rule.muted_until,
                Sanction::Isolate => &mut rule.isolated_until,
            };
            *word = (*word).max(*until);
        }
        rule
    }

    fn rule_of_configuration(&self, place: Place) -> ClientRule {
        let allowed_until = if self.configured.contains(&place) { FOREVER } else { 0 };
        ClientRule { allowed_until, ..ClientRule::default() }
    }
}

/// Takes what has this key out of all places, and answers which had it.
fn take_out<K: Ord, V>(places: &mut HashMap<Place, BTreeMap<K, V>>, key: &K) -> Vec<Place> {
    let mut touched = Vec::new();
    places.retain(|place, entries| {
        if entries.remove(key).is_some() {
            touched.push(*place);
        }
        !entries.is_empty()
    });
    touched
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::governor::PortName;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Impose(u64, [u32; 2], Sanction, u64),
        Lift(u64),
        Allow(u8, u32, u64),
        Disallow(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let sanction = || prop_oneof![Just(Sanction::Mute), Just(Sanction::Isolate)];
        prop_oneof![
            3 => (0u64..4, prop::array::uniform2(0u32..4), sanction(), 1u64..100)
                .prop_map(|(id, slots, sanction, until)| Step::Impose(id, slots, sanction, until)),
            2 => (0u64..4).prop_map(Step::Lift),
            1 => (0u8..3, 0u32..4, 1u64..100).prop_map(|(who, at, until)| Step::Allow(who, at, until)),
            1 => (0u8..3).prop_map(Step::Disallow),
        ]
    }

    /// Half of the places are clients.
    fn place(number: u32) -> Place {
        if number.is_multiple_of(2) { Place::Port(number) } else { Place::Client(ClientKey::new(number, 2)) }
    }

    fn subject(number: u8) -> Subject {
        Subject { port: PortName { interface: format!("tap{number}"), vlans: vec![] }, client: None }
    }

    /// What must be there, from the list of all steps: for each quarantine the last that was said of it.
    fn expected(steps: &[Step], number: u32) -> ClientRule {
        let mut rule = ClientRule { allowed_until: if number == 3 { FOREVER } else { 0 }, ..ClientRule::default() };
        for id in 0..4 {
            let said = steps.iter().rev().find(|step| match step {
                Step::Impose(of, ..) | Step::Lift(of) => *of == id,
                _ => false,
            });
            match said {
                Some(Step::Impose(_, slots, Sanction::Mute, until)) if slots.contains(&number) => {
                    rule.muted_until = rule.muted_until.max(*until);
                }
                Some(Step::Impose(_, slots, Sanction::Isolate, until)) if slots.contains(&number) => {
                    rule.isolated_until = rule.isolated_until.max(*until);
                }
                _ => {}
            }
        }
        for who in 0..3 {
            let said = steps.iter().rev().find_map(|step| match step {
                Step::Allow(of, at, until) if *of == who => Some((*at, *until)),
                Step::Disallow(of) if *of == who => Some((u32::MAX, 0)),
                _ => None,
            });
            if let Some((at, until)) = said
                && at == number
            {
                rule.allowed_until = rule.allowed_until.max(until);
            }
        }
        rule
    }

    proptest! {
        /// After any orders, each place has what those that hold say of it, and whatever changed was answered.
        #[test]
        fn a_place_has_what_covers_it(steps in prop::collection::vec(step(), 0..40)) {
            let mut carried = Carried::default();
            carried.configure([place(3)]);
            for (done, step) in steps.iter().enumerate() {
                let before: Vec<ClientRule> = (0..4).map(|number| carried.rule(place(number))).collect();
                let touched = match *step {
                    Step::Impose(id, slots, sanction, until) => {
                        carried.impose(id, &slots.map(place), sanction, until)
                    }
                    Step::Lift(id) => carried.lift(id),
                    Step::Allow(who, at, until) => carried.allow(&subject(who), &[place(at)], until),
                    Step::Disallow(who) => carried.disallow(&subject(who)),
                };
                for number in 0..4 {
                    let rule = carried.rule(place(number));
                    prop_assert_eq!(rule, expected(&steps[..=done], number), "place {} after {:?}", number, &steps[..=done]);
                    let is_told = touched.contains(&place(number));
                    prop_assert!(is_told || rule == before[number as usize], "place {} changed untold", number);
                }
            }
        }
    }

    #[test]
    fn nothing_is_kept_of_slots_that_nobody_has() {
        let mut carried = Carried::default();
        carried.impose(7, &[place(0), place(1)], Sanction::Mute, 100);
        carried.allow(&subject(1), &[place(1)], 50);
        carried.named.insert(ClientKey::new(1, 5));
        assert_eq!(carried.configure([place(1), place(2)]).len(), 2);
        carried.forget(&HashSet::from([1]));
        assert_eq!(carried.rule(place(1)), ClientRule::default());
        assert_eq!(carried.rule(place(0)).muted_until, 100);
        assert_eq!((carried.rule(place(2)).allowed_until, carried.named.len()), (FOREVER, 0));
        assert_eq!(carried.configure([place(4)]), [place(2), place(4)]);
    }

    #[test]
    fn nothing_is_kept_of_what_is_over() {
        let mut carried = Carried::default();
        carried.impose(7, &[place(0), place(1)], Sanction::Mute, 100);
        carried.allow(&subject(1), &[place(1)], 50);
        carried.lift(7);
        carried.disallow(&subject(1));
        assert!(carried.quarantines.is_empty() && carried.allowed.is_empty());
    }
}
