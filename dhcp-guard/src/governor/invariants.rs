//! The governor's promises, held against random sequences of events.

use std::{collections::BTreeSet, time::Duration};

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::{
    Action, Author, ClientName, Governor, Granted, PortName, Quarantine, Request, Rules, Sanction, Subject, Target,
    World,
};
use crate::mac::Mac;

/// Ports of the host; the last one is protected, and the one after it is not there.
const PORTS: u8 = 25;
/// The first ports are not one machine's alone.
const SHARED: u8 = 5;
/// Clients of each port.
const CLIENTS: u8 = 12;

#[derive(Clone, Debug)]
enum Event {
    Wait(u16),
    Engine { target: u16, longer: bool },
    Person { targets: Vec<u16>, ttl: u32, max: u8, confirm: u8 },
    Extend(u16),
    Release(u8),
    Hold(bool),
    Allow(u16, Option<u16>),
    Disallow(u16),
    Undo(u16),
    Systemic(bool),
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0u16..400).prop_map(Event::Wait),
        8 => (any::<u16>(), any::<bool>()).prop_map(|(target, longer)| Event::Engine { target, longer }),
        2 => (prop::collection::vec(any::<u16>(), 0..4), 0u32..1_000_000, 0u8..4, 0u8..4)
            .prop_map(|(targets, ttl, max, confirm)| Event::Person { targets, ttl, max, confirm }),
        3 => any::<u16>().prop_map(Event::Extend),
        1 => any::<u8>().prop_map(Event::Release),
        1 => any::<bool>().prop_map(Event::Hold),
        1 => (any::<u16>(), prop::option::of(0u16..600)).prop_map(|(who, ttl)| Event::Allow(who, ttl)),
        1 => any::<u16>().prop_map(Event::Disallow),
        1 => (0u16..2000).prop_map(Event::Undo),
        1 => any::<bool>().prop_map(Event::Systemic),
        1 => Just(Event::Restart),
    ]
}

fn port(number: u8) -> PortName {
    PortName { interface: format!("tap{number}"), vlans: vec![] }
}

fn subject(number: u16) -> Subject {
    let [low, high] = number.to_le_bytes();
    let client = (high % 3 != 0).then_some(ClientName::Mac(Mac([2, 0, 0, 0, 0, high % CLIENTS])));
    Subject { port: port(low % (PORTS + 1)), client }
}

/// Some are machines with two subjects, and one is empty.
fn target(number: u16) -> Target {
    match number % 50 {
        0 => Target::new(None, vec![]),
        1..8 => Target::new(Some(format!("em-{}", number % 7)), vec![subject(number), subject(number.rotate_left(5))]),
        _ => Target::one(subject(number)),
    }
}

fn is_protected(subject: &Subject) -> bool {
    subject.port == port(PORTS - 1) || subject.client == Some(ClientName::Mac(Mac([2, 0, 0, 0, 0, 1])))
}

fn is_shared(port: &PortName) -> bool {
    (0..SHARED).any(|number| *port == self::port(number))
}

/// The governor, and what a plain observer makes of the orders that it gives.
struct Run {
    governor: Governor,
    now: Timestamp,
    systemic: bool,
    in_force: Vec<Quarantine>,
    /// Numbers of automatic quarantines.
    numbers: BTreeSet<u64>,
    automatic_began: Vec<Timestamp>,
}

impl Run {
    fn new() -> Self {
        let governor = Governor::new(Rules::default());
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        Self { governor, now, systemic: false, in_force: vec![], numbers: BTreeSet::new(), automatic_began: vec![] }
    }

    fn ask(&mut self, author: &Author, request: &Request) {
        let protection = |subject: &Subject| is_protected(subject).then(|| "it is a server".to_owned());
        let world = World {
            active_ports: PORTS.into(),
            active_clients: &|_| CLIENTS.into(),
            bystanders: &|port| usize::from(is_shared(port)),
            is_here: &|port| (0..PORTS).any(|number| *port == self::port(number)),
            protection: &protection,
            systemic: self.systemic,
        };
        let before = self.governor.clone();
        match self.governor.ask(self.now, &world, author, request, "a reason") {
            Ok(granted) => {
                self.obey(&granted);
                self.check_request(&before, author, request, &granted);
            }
            Err(_) => assert_eq!(self.governor.save(), before.save(), "a refused {request:?} changes nothing"),
        }
    }

    fn obey(&mut self, granted: &Granted) {
        for order in &granted.orders {
            match order.action() {
                Action::Impose(quarantine) => {
                    if quarantine.author.is_engine() && self.numbers.insert(quarantine.id) {
                        self.automatic_began.push(self.now);
                    }
                    self.in_force.retain(|one| one.target != quarantine.target);
                    self.in_force.push(quarantine.clone());
                }
                Action::Lift(quarantine) => self.in_force.retain(|one| one.target != quarantine.target),
                Action::Allow(..) | Action::Disallow(_) => {}
            }
        }
    }

    fn check_request(&self, before: &Governor, author: &Author, request: &Request, granted: &Granted) {
        let wholes = |one: &Quarantine| {
            one.target.subjects.iter().any(|subject| subject.client.is_none() && is_shared(&subject.port))
        };
        let shared = |governor: &Governor| governor.automatic().filter(|one| wholes(one)).count();
        assert!(
            !author.is_engine() || shared(&self.governor) == 0 || shared(before) > 0,
            "{request:?} takes others along"
        );
        let grew = self.governor.automatic().count() > before.automatic().count();
        if author.is_engine() && grew {
            assert!(before.state().hold.is_none() && !self.systemic, "{request:?} on hold, or in systemic trouble");
        }
        if let Request::Quarantine { targets, max, confirm, .. } = request {
            let named: BTreeSet<_> = targets.iter().collect();
            assert!(!named.is_empty() && granted.changes.len() <= named.len());
            assert!(named.len() == 1 || (*confirm == Some(named.len()) && *max >= Some(named.len())), "{request:?}");
        }
    }

    fn step(&mut self, event: &Event) {
        let person = Author::Person { uid: 1000, user: None, pid: Some(7) };
        match event {
            Event::Wait(seconds) => {
                self.now = self.now.checked_add(SignedDuration::from_secs((*seconds).into())).unwrap();
                let granted = self.governor.tick(self.now);
                self.obey(&granted);
            }
            Event::Engine { target: number, longer } => {
                let targets = vec![target(*number)];
                let ttl = longer.then_some(Duration::from_secs(3600));
                let request = Request::Quarantine { targets, sanction: Sanction::Mute, ttl, max: None, confirm: None };
                self.ask(&Author::Engine, &request);
            }
            Event::Person { targets, ttl, max, confirm } => {
                let request = Request::Quarantine {
                    targets: targets.iter().map(|number| target(*number)).collect(),
                    sanction: Sanction::Isolate,
                    ttl: Some(Duration::from_secs((*ttl).into())),
                    max: (*max > 0).then_some((*max).into()),
                    confirm: (*confirm > 0).then_some((*confirm).into()),
                };
                self.ask(&person, &request);
            }
            Event::Extend(number) => {
                let automatic: Vec<_> = self.governor.automatic().map(|one| one.target.clone()).collect();
                if let Some(target) = automatic.get(usize::from(*number) % automatic.len().max(1)) {
                    self.ask(&Author::Engine, &Request::Extend(target.clone(), Duration::from_secs(90)));
                }
            }
            Event::Release(id) => self.ask(&person, &Request::Release((*id).into())),
            Event::Hold(true) => self.ask(&person, &Request::Hold),
            Event::Hold(false) => self.ask(&person, &Request::EndHold),
            Event::Allow(who, ttl) => {
                let ttl = ttl.map(|seconds| Duration::from_secs(seconds.into()));
                self.ask(&person, &Request::Allow(subject(*who), ttl));
            }
            Event::Disallow(who) => self.ask(&person, &Request::Disallow(subject(*who))),
            Event::Undo(seconds) => {
                let since = self.now.checked_sub(SignedDuration::from_secs((*seconds).into())).unwrap();
                self.ask(&person, &Request::Undo(since));
            }
            Event::Systemic(is) => self.systemic = *is,
            Event::Restart => {
                let saved = serde_json::to_vec(&self.governor.save()).unwrap();
                let saved = serde_json::from_slice(&saved).unwrap();
                let (governor, orders) = Governor::restore(Rules::default(), saved, self.now);
                self.governor = governor;
                self.in_force.clear();
                self.obey(&Granted { orders, changes: vec![] });
            }
        }
        self.check(event);
    }

    /// What must be true at every moment.
    fn check(&self, event: &Event) {
        let rules = Rules::default();
        let in_force: BTreeSet<_> = self.in_force.iter().map(|one| (&one.target, one.until)).collect();
        let state: BTreeSet<_> =
            self.governor.state().quarantines.values().map(|one| (&one.target, one.until)).collect();
        assert_eq!(in_force, state, "what was ordered is what is believed, after {event:?}");
        for quarantine in &self.in_force {
            assert!(!quarantine.target.subjects.is_empty());
            assert!(!quarantine.target.subjects.iter().any(is_protected), "{quarantine:?}");
            let lasts = quarantine.until.duration_since(quarantine.since);
            let most = if quarantine.author.is_engine() { rules.longest } else { rules.longest_by_hand };
            assert!(quarantine.until.duration_since(self.now) <= SignedDuration::try_from(most).unwrap(), "it ends");
            assert!(lasts > SignedDuration::ZERO);
            if quarantine.author.is_engine() {
                assert!(lasts <= SignedDuration::try_from(most).unwrap(), "{quarantine:?} goes on for too long");
            }
        }
        self.check_caps(&rules);
    }

    fn check_caps(&self, rules: &Rules) {
        let automatic: Vec<_> = self.in_force.iter().filter(|one| one.author.is_engine()).collect();
        let ports = automatic.iter().filter(|one| one.target.has_port()).count();
        let single = automatic.iter().filter(|one| !one.target.has_port() && one.target.subjects.len() == 1);
        let with_clients: BTreeSet<_> = single.map(|one| &one.target.subjects[0].port).collect();
        assert!(ports + with_clients.len() <= (usize::from(PORTS) / 10).max(1), "{with_clients:?} and {ports} ports");
        assert!(ports <= (usize::from(PORTS) / 10).max(1), "{ports} ports in automatic quarantine");
        for number in 0..PORTS {
            let of_port = |one: &&&Quarantine| {
                !one.target.has_port() && one.target.subjects.iter().any(|subject| subject.port == port(number))
            };
            let clients = automatic.iter().filter(of_port).count();
            assert!(clients <= (usize::from(CLIENTS) / 10).max(1), "{clients} clients of one port");
        }
        let window = SignedDuration::try_from(rules.window).unwrap();
        let latest = self.automatic_began.iter().filter(|began| self.now.duration_since(**began) < window).count();
        assert!(latest <= rules.new_in_window, "{latest} began in ten minutes");
    }
}

/// At no time is more than the caps in automatic quarantine, is anybody protected sanctioned, or is there a quarantine
/// without an end.
fn the_promises_hold(events: &[Event]) -> Result<(), TestCaseError> {
    let mut run = Run::new();
    for event in events {
        run.step(event);
    }
    // And in the end, every quarantine ends.
    run.step(&Event::Systemic(false));
    run.now = run.now.checked_add(SignedDuration::from_hours(24 * 8)).unwrap();
    let granted = run.governor.tick(run.now);
    run.obey(&granted);
    prop_assert!(run.in_force.is_empty() && run.governor.state().quarantines.is_empty());
    Ok(())
}

proptest! {
    // 100,000 in all: two tests, so that two processors share them.
    #![proptest_config(ProptestConfig { cases: 50_000, ..ProptestConfig::default() })]

    #[test]
    fn the_promises_hold_whatever_happens(events in prop::collection::vec(event(), 1..30)) {
        the_promises_hold(&events)?;
    }

    #[test]
    fn the_promises_hold_whatever_else_happens(events in prop::collection::vec(event(), 1..30)) {
        the_promises_hold(&events)?;
    }
}
