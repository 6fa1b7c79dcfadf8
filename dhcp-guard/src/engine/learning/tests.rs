use std::collections::BTreeMap;

use super::*;

const RULES: Rules = Rules {
    after: Duration::from_secs(300),
    per_port_per_minute: 10,
    per_port_max: 25,
    forget_after: Duration::from_secs(3600),
    capacity: 60,
};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn key(slot: u32, last: u16) -> ClientKey {
    let [a, b] = last.to_be_bytes();
    ClientKey::from_mac(slot, [2, 0, 0, 0, a, b])
}

/// A stranger that has earned it, as seen at 1000 s.
fn stranger(key: ClientKey) -> ClientSeen {
    ClientSeen { key, known: false, first_seen: s(600), last_seen: s(950), packets: 3, own_excess: 0 }
}

fn calm(slot: u32) -> PortSeen {
    PortSeen { slot, excess: 0, distinct: Some(2), strangers_pps: 25 }
}

fn seen(now: u64, clients: Vec<ClientSeen>) -> Seen {
    Seen { now: s(now), clients, ports: vec![calm(1), calm(2)] }
}

fn learning() -> Learning {
    Learning::new(RULES, HashSet::new())
}

fn promoted(actions: &[Action]) -> Vec<ClientKey> {
    actions.iter().filter_map(|a| if let Action::Promote(key) = a { Some(*key) } else { None }).collect()
}

#[test]
fn who_comes_back_and_behaves_becomes_known() {
    let actions = learning().step(&seen(1000, vec![stranger(key(1, 1))]));
    assert_eq!(actions, [Action::Promote(key(1, 1))]);
}

#[test]
fn nobody_becomes_known_who_did_not_earn_it() {
    let good = stranger(key(1, 1));
    for bad in [
        ClientSeen { packets: 1, ..good },
        ClientSeen { last_seen: s(899), ..good },
        ClientSeen { own_excess: 1, ..good },
        ClientSeen { known: true, ..good },
    ] {
        assert_eq!(learning().step(&seen(1000, vec![bad])), [], "{bad:?}");
    }
}

#[test]
fn nobody_becomes_known_on_a_port_under_pressure_until_it_has_been_calm_for_a_while() {
    for pressed in [
        PortSeen { excess: 1, ..calm(1) },
        PortSeen { distinct: Some(26), ..calm(1) },
        PortSeen { distinct: None, ..calm(1) },
    ] {
        let mut learning = learning();
        let clients = vec![stranger(key(1, 1)), stranger(key(2, 2))];
        let first = Seen { ports: vec![pressed, calm(2)], ..seen(1000, clients.clone()) };
        assert_eq!(learning.step(&first), [Action::Promote(key(2, 2))], "{pressed:?}");
        for now in 1001..1010 {
            assert_eq!(learning.step(&seen(now, vec![clients[0]])), [], "{now}");
        }
        assert_eq!(learning.step(&seen(1010, vec![clients[0]])), [Action::Promote(key(1, 1))]);
    }
}

#[test]
fn those_who_were_there_first_come_first() {
    let clients = (0..30).map(|i| ClientSeen { first_seen: s(600 - u64::from(i)), ..stranger(key(1, i)) }).collect();
    let promoted = promoted(&learning().step(&seen(1000, clients)));
    assert_eq!(promoted, (20..30).rev().map(|i| key(1, i)).collect::<Vec<_>>());
}

#[test]
fn a_promotion_is_decided_once_and_again_if_it_was_lost() {
    let mut learning = learning();
    let clients = vec![stranger(key(1, 1))];
    assert_eq!(learning.step(&seen(1000, clients.clone())).len(), 1);
    for now in 1001..1010 {
        assert_eq!(learning.step(&seen(now, clients.clone())), [], "still on its way");
    }
    assert_eq!(learning.step(&seen(1010, clients)), [Action::Promote(key(1, 1))]);
}

#[test]
fn learned_clients_that_fall_silent_are_forgotten_and_configured_ones_never() {
    let configured = key(1, 7);
    let mut learning = Learning::new(RULES, HashSet::from([configured]));
    let known = |key, last_seen| ClientSeen { known: true, last_seen: s(last_seen), ..stranger(key) };
    let clients = vec![known(key(1, 1), 1000), known(configured, 0), known(key(2, 2), 0)];
    assert_eq!(learning.step(&seen(1000, clients.clone())), [], "found so at the start: not silent for long yet");
    assert_eq!(learning.step(&seen(4599, clients.clone())), []);
    let active = vec![known(key(1, 1), 4000), known(configured, 0), known(key(2, 2), 0)];
    assert_eq!(learning.step(&seen(4600, active)), [Action::Forget(key(2, 2))]);
    assert_eq!(learning.step(&seen(9000, clients)), [Action::Forget(key(1, 1)), Action::Forget(key(2, 2))]);
}

/// Plays the kernel's tables, and sometimes loses what it is told.
struct World {
    learning: Learning,
    clients: BTreeMap<ClientKey, ClientSeen>,
    configured: HashSet<ClientKey>,
    promotions: Vec<(u64, u32)>,
    now: u64,
    random: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let configured: HashSet<_> = (0..5).map(|i| key(1 + u32::from(i) % 3, i)).collect();
        let at = |key: &ClientKey| {
            (*key, ClientSeen { known: true, first_seen: s(0), last_seen: s(0), packets: 0, ..stranger(*key) })
        };
        Self {
            learning: Learning::new(RULES, configured.clone()),
            clients: configured.iter().map(at).collect(),
            configured,
            promotions: Vec::new(),
            now: 10_000,
            random: seed,
        }
    }

    /// xorshift64*
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    /// Some MACs send, from few or from many; now and then one is over its limit, or evicted.
    fn traffic(&mut self) {
        for _ in 0..self.random(40) {
            let key = key(1 + self.random(3) as u32, self.random(400) as u16);
            let (now, over) = (s(self.now), self.random(50) == 0);
            let new = ClientSeen { first_seen: now, packets: 0, ..stranger(key) };
            let client = self.clients.entry(key).or_insert(new);
            client.last_seen = now;
            client.packets += 1;
            client.own_excess += u64::from(over);
        }
        let evicted = key(1 + self.random(3) as u32, self.random(400) as u16);
        if self.clients.get(&evicted).is_some_and(|client| !client.known) {
            self.clients.remove(&evicted);
        }
    }

    fn step(&mut self) {
        self.now += 1 + self.random(60);
        self.traffic();
        let pressed = self.random(4) as u32;
        let ports = (1..4).map(|slot| PortSeen { excess: u64::from(slot == pressed), ..calm(slot) }).collect();
        let seen = Seen { now: s(self.now), clients: self.clients.values().copied().collect(), ports };
        let actions = self.learning.step(&seen);
        assert!(actions.len() <= 2 * MAX_AT_ONCE);
        for action in actions {
            let (Action::Promote(key) | Action::Forget(key)) = action;
            let client = self.clients[&key];
            assert!(!self.configured.contains(&key), "configured clients are nobody's business: {action:?}");
            match action {
                Action::Promote(_) => {
                    assert!(!client.known && client.own_excess == 0 && key.slot() != pressed, "{client:?}");
                    self.promotions.push((self.now, key.slot()));
                }
                Action::Forget(_) => {
                    assert!(client.known && s(self.now) - client.last_seen >= RULES.forget_after, "{client:?}");
                }
            }
            if self.random(5) > 0 {
                self.carry_out(action);
            }
        }
        self.check_budgets();
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Promote(key) => _ = self.clients.entry(key).and_modify(|client| client.known = true),
            Action::Forget(key) => _ = self.clients.remove(&key),
        }
    }

    fn check_budgets(&self) {
        let known = self.clients.values().filter(|client| client.known);
        assert!(known.clone().count() <= RULES.capacity);
        for slot in 1..4 {
            let learned = known.clone().filter(|c| c.key.slot() == slot && !self.configured.contains(&c.key)).count();
            assert!(learned <= RULES.per_port_max);
            let minute = self.promotions.iter().rev().take_while(|(at, _)| self.now - at < 60);
            let minute = minute.filter(|(_, of)| *of == slot).count();
            assert!(minute <= RULES.per_port_per_minute, "{minute} in a minute on {slot}");
        }
    }
}

#[test]
fn whatever_happens_no_budget_is_exceeded_and_no_rule_broken() {
    let mut promotions = 0;
    for seed in 1..=8 {
        let mut world = World::new(seed);
        (0..300).for_each(|_| world.step());
        assert!(world.configured.iter().all(|key| world.clients[key].known));
        promotions += world.promotions.len();
    }
    assert!(promotions > 500, "{promotions}: the test tests something");
}

#[test]
fn a_patient_forger_gets_the_budget_and_no_more() {
    let mut learning = learning();
    let mut clients: Vec<ClientSeen> = (0..5000).map(|i| stranger(key(1, i))).collect();
    clients.push(stranger(key(2, 0)));
    for now in (1000..2000).step_by(10) {
        for key in promoted(&learning.step(&seen(now, clients.clone()))) {
            clients.iter_mut().filter(|c| c.key == key).for_each(|c| c.known = true);
        }
    }
    let known = |slot| clients.iter().filter(|c| c.known && c.key.slot() == slot).count();
    assert_eq!((known(1), known(2)), (RULES.per_port_max, 1), "the other port has its own");
}
