use super::*;

const RULES: Rules =
    Rules { offender_windows: 3, recover_after: Duration::from_secs(60), remember: Duration::from_secs(600) };

/// One client and one port, fed second by second with what they add to their counters.
struct Scenario {
    engine: Engine,
    now: u64,
    client: Totals,
    port: Totals,
}

const CLIENT: Subject = Subject::Client(ClientKey::from_mac(1, [2, 0, 0, 0, 0, 7]));
const PORT: Subject = Subject::Port(1);

impl Scenario {
    fn new() -> Self {
        Self::after(Totals { generation: 1, ..Totals::default() })
    }

    /// With an engine that finds these counters.
    fn after(counters: Totals) -> Self {
        let mut engine = Engine::new(RULES);
        let totals = vec![(CLIENT, counters), (PORT, counters)];
        assert_eq!(engine.step(&Observation { now: Duration::ZERO, totals }), [], "the first says nothing");
        Self { engine, now: 0, client: counters, port: counters }
    }

    /// A second in which the client sends `packets`, of which `own` are over its limit and `excess` over any.
    fn second(&mut self, packets: u64, excess: u64, own: u64) -> Vec<(Subject, Change)> {
        self.client.packets += packets;
        self.client.excess += excess;
        self.client.own_excess += own;
        self.port.packets += packets;
        self.step()
    }

    fn step(&mut self) -> Vec<(Subject, Change)> {
        self.now += 1;
        let totals = vec![(CLIENT, self.client), (PORT, self.port)];
        self.engine
            .step(&Observation { now: Duration::from_secs(self.now), totals })
            .into_iter()
            .map(|r| (r.subject, r.change))
            .collect()
    }

    fn standing(&self, subject: Subject) -> Standing {
        self.engine.tracked[&subject].standing
    }
}

#[test]
fn three_windows_over_the_limit_make_an_offender_and_two_do_not() {
    let mut scenario = Scenario::new();
    assert_eq!(scenario.second(1000, 980, 980), []);
    assert_eq!(scenario.second(1000, 998, 998), []);
    assert_eq!(scenario.standing(CLIENT), Standing::OverLimit { windows: 2 });
    assert_eq!(scenario.second(1000, 998, 998), [(CLIENT, Change::Offends)]);
    assert_eq!(scenario.second(1000, 998, 998), [], "told once");
    assert_eq!(scenario.standing(PORT), Standing::Normal, "the port kept to its limit");
}

#[test]
fn what_counters_hold_before_anybody_looked_is_not_of_the_last_window() {
    let mut scenario = Scenario::after(Totals { generation: 1, latest: 9, packets: 300, excess: 280, own_excess: 280 });
    for _ in 0..3 {
        assert_eq!(scenario.standing(CLIENT), Standing::Normal);
        let tracked = &scenario.engine.tracked[&CLIENT];
        assert_eq!((tracked.window.rate_pps(), tracked.window.excess_pps()), (0, 0));
        assert_eq!((tracked.totals.packets, tracked.totals.own_excess), (300, 280), "counts go on");
        scenario.second(0, 0, 0);
    }
    scenario.second(5, 4, 4);
    assert_eq!(scenario.engine.tracked[&CLIENT].window.own_excess, 4);
    assert_eq!(scenario.standing(CLIENT), Standing::OverLimit { windows: 1 });
}

#[test]
fn who_appears_between_two_observations_counts_from_zero() {
    let mut engine = Engine::new(Rules { offender_windows: 1, ..RULES });
    engine.step(&Observation { now: Duration::from_secs(100), totals: vec![] });
    let totals = Totals { generation: 7, latest: 9, packets: 300, excess: 280, own_excess: 280 };
    let reports = engine.step(&Observation { now: Duration::from_secs(101), totals: vec![(CLIENT, totals)] });
    assert_eq!(reports, [Report { subject: CLIENT, change: Change::Offends }]);
    assert_eq!(engine.tracked[&CLIENT].window.rate_pps(), 300);
}

#[test]
fn a_quiet_window_starts_the_count_again() {
    let mut scenario = Scenario::new();
    for excess in [5, 5, 0, 5, 5, 0, 5, 5] {
        assert_eq!(scenario.second(10, excess, excess), []);
    }
}

#[test]
fn packets_lost_to_the_ports_limit_are_not_the_clients_fault() {
    let mut scenario = Scenario::new();
    for _ in 0..10 {
        scenario.port.own_excess += 1000;
        let reports = scenario.second(2, 2, 0);
        assert!(reports.iter().all(|(subject, _)| *subject == PORT), "{reports:?}");
    }
    assert_eq!(scenario.standing(CLIENT), Standing::Normal);
    assert!(matches!(scenario.standing(PORT), Standing::Offender { .. }));
}

#[test]
fn an_offender_recovers_after_a_minute_of_quiet_and_is_forgotten_later() {
    let mut scenario = Scenario::new();
    for _ in 0..3 {
        scenario.second(100, 100, 100);
    }
    for second in 1..60 {
        assert_eq!(scenario.second(1, 0, 0), [], "second {second}");
    }
    assert_eq!(scenario.second(1, 0, 0), [(CLIENT, Change::Recovers)]);
    for _ in 0..599 {
        scenario.second(1, 0, 0);
    }
    assert!(matches!(scenario.standing(CLIENT), Standing::Recovered { .. }));
    scenario.second(1, 0, 0);
    assert_eq!(scenario.standing(CLIENT), Standing::Normal);
}

#[test]
fn short_pauses_do_not_end_an_offence() {
    let mut scenario = Scenario::new();
    for _ in 0..3 {
        scenario.second(100, 100, 100);
    }
    for second in 0..300 {
        let excess = u64::from(second % 30 == 0);
        assert_eq!(scenario.second(1, excess, excess), []);
    }
    assert!(matches!(scenario.standing(CLIENT), Standing::Offender { since, .. } if since == Duration::from_secs(3)));
}

#[test]
fn a_recovered_offender_offends_again_by_the_same_rule() {
    let mut scenario = Scenario::new();
    for _ in 0..3 {
        scenario.second(100, 100, 100);
    }
    for _ in 0..60 {
        scenario.second(0, 0, 0);
    }
    assert_eq!(scenario.second(9, 9, 9), []);
    assert_eq!(scenario.second(9, 9, 9), []);
    assert_eq!(scenario.second(9, 9, 9), [(CLIENT, Change::Offends)]);
}

#[test]
fn an_entry_that_vanished_is_quiet_and_remembered_while_it_matters() {
    let mut scenario = Scenario::new();
    for _ in 0..3 {
        scenario.second(100, 100, 100);
    }
    let observe = |scenario: &mut Scenario| {
        scenario.now += 1;
        scenario.engine.step(&Observation { now: Duration::from_secs(scenario.now), totals: vec![] })
    };
    let reports: Vec<_> = (0..60).flat_map(|_| observe(&mut scenario)).collect();
    assert_eq!(reports, [Report { subject: CLIENT, change: Change::Recovers }]);
    assert_eq!(scenario.engine.tracked[&CLIENT].totals.packets, 300);
    assert!(!scenario.engine.tracked.contains_key(&PORT), "nothing to remember of a normal one");
}

#[test]
fn counters_of_a_new_entry_count_from_zero_and_others_never_go_back() {
    let mut totals = Totals { generation: 5, latest: 8, packets: 100, excess: 50, own_excess: 50 };
    let second = Duration::from_secs(1);
    let window = totals.advance(Totals { generation: 5, latest: 7, packets: 90, excess: 40, own_excess: 40 }, second);
    assert_eq!((window.packets, window.own_excess, totals.packets), (0, 0, 100), "a reading that missed some");
    let window = totals.advance(Totals { generation: 9, latest: 9, packets: 30, excess: 10, own_excess: 10 }, second);
    assert_eq!((window.packets, window.excess, totals.packets), (30, 10, 30), "a new entry");
}

#[test]
fn an_offender_whose_entry_was_evicted_keeps_its_counts() {
    let mut scenario = Scenario::new();
    for _ in 0..3 {
        scenario.second(100, 90, 90);
    }
    scenario.client = Totals { generation: 77, ..Totals::default() };
    scenario.second(50, 40, 40);
    let totals = scenario.engine.tracked[&CLIENT].totals;
    assert_eq!((totals.packets, totals.own_excess, totals.generation), (350, 310, 1), "and its first packet's time");
}

#[test]
fn rates_are_per_second_whatever_the_window() {
    let window = Window { packets: 3, excess: 1, own_excess: 1, length: Duration::from_millis(1500) };
    assert_eq!((window.rate_pps(), window.excess_pps()), (2, 1));
    assert_eq!(Window::default().rate_pps(), 0);
}

#[test]
fn other_rules_are_for_the_next_window_and_slots_that_are_gone_are_forgotten() {
    let mut scenario = Scenario::new();
    scenario.second(1000, 980, 980);
    scenario.engine.set_rules(Rules { offender_windows: 2, ..RULES });
    assert_eq!(scenario.second(1000, 998, 998), [(CLIENT, Change::Offends)], "the first window counts");
    scenario.engine.forget(&HashSet::from([7]));
    assert_eq!(scenario.engine.tracked.len(), 2);
    scenario.engine.forget(&HashSet::from([1]));
    assert_eq!(scenario.engine.tracked.len(), 0, "the port, and everybody on it");
}
