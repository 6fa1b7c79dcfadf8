use std::time::Duration;

use dhcp_guard_common::layout::ClientKey;

use super::*;
use crate::{
    config::Config,
    dataplane::interface::Interface,
    governor::{Governor, PortName, Rules},
};

const MUTE: Sanction = Sanction::Mute;
const ISOLATE: Sanction = Sanction::Isolate;

fn plan() -> Plan {
    Plan::new(&Config::default(), vec![Interface::bare("eth0", 3), Interface::bare("eth1", 4)], false)
}

fn anchor() -> Anchor {
    Anchor { time: "2026-01-17T15:00:00Z".parse().unwrap(), ticks: 1000, ticks_per_s: 250 }
}

/// The tick so many seconds after the start.
fn tick(second: u64) -> u64 {
    1000 + 250 * second
}

/// What the maps say of the port in a slot: 1 is eth0, 2 is eth1.
fn of_port(slot: u32, sanction: Sanction, second: u64) -> InForce {
    InForce { slot, client: None, sanction, until: tick(second) }
}

fn port(interface: &str) -> Subject {
    Subject { port: PortName { interface: interface.into(), vlans: vec![] }, client: None }
}

/// A quarantine in the file, by the engine.
fn listed(id: u64, ports: &[&str], sanction: Sanction, second: u64) -> Quarantine {
    Quarantine {
        id,
        target: Target::new(None, ports.iter().map(|one| port(one)).collect()),
        sanction,
        author: Author::Engine,
        reason: "flood".to_owned(),
        since: anchor().time,
        until: anchor().time_of(tick(second)),
        found: false,
        repeat: 0,
    }
}

/// Number, ports, what, and for how many seconds more.
type Seen = (u64, String, Sanction, i64);

fn seen(quarantines: &[Quarantine]) -> Vec<Seen> {
    let one = |one: &Quarantine| {
        let ports: Vec<&str> = one.target.subjects.iter().map(|subject| subject.port.interface.as_str()).collect();
        (one.id, ports.join(" "), one.sanction, one.until.duration_since(anchor().time).as_secs())
    };
    quarantines.iter().map(one).collect()
}

/// What is listed after a start that finds this, in the file and in the maps. The next start finds the same.
fn start(file: Vec<Quarantine>, in_force: &[InForce]) -> Vec<Seen> {
    let saved = with_found(Saved { quarantines: file, ..Saved::default() }, in_force, &plan(), &anchor());
    assert_eq!(with_found(saved.clone(), in_force, &plan(), &anchor()), saved);
    seen(&saved.quarantines)
}

fn expect(expected: &[(u64, &str, Sanction, i64)]) -> Vec<Seen> {
    expected.iter().map(|(id, ports, sanction, seconds)| (*id, (*ports).to_owned(), *sanction, *seconds)).collect()
}

#[test]
fn what_only_the_maps_know_is_taken_over_once() {
    let client = ClientKey::from_mac(2, [2, 0, 0, 0, 0, 1]);
    let of_client = |sanction, second| InForce { client: Some(client), ..of_port(2, sanction, second) };
    let in_force =
        [of_port(1, MUTE, 1), of_client(MUTE, 2), of_client(ISOLATE, 4), InForce { slot: 7, ..of_port(2, MUTE, 32) }];
    let saved = with_found(Saved { next_id: 40, ..Saved::default() }, &in_force, &plan(), &anchor());
    let all: Vec<_> = saved.quarantines.iter().map(|one| (one.id, one.target.to_string(), one.sanction)).collect();
    let expected =
        [(40, "port eth0".to_owned(), MUTE), (41, "client 02:00:00:00:00:01 on port eth1".to_owned(), ISOLATE)];
    assert_eq!(all, expected, "and nothing on a port that there is not");
    assert_eq!(with_found(saved.clone(), &in_force, &plan(), &anchor()), saved);
}

#[test]
fn what_the_maps_have_for_longer_or_stronger_stays_so() {
    let ends = |in_force| start(vec![listed(1, &["eth0"], MUTE, 60)], &[in_force]);
    assert_eq!(ends(of_port(1, MUTE, 90)), expect(&[(1, "eth0", MUTE, 90)]));
    assert_eq!(ends(of_port(1, ISOLATE, 60)), expect(&[(1, "eth0", ISOLATE, 60)]));
    assert_eq!(ends(of_port(1, ISOLATE, 90)), expect(&[(1, "eth0", ISOLATE, 90)]));
    assert_eq!(ends(of_port(1, MUTE, 30)), expect(&[(1, "eth0", MUTE, 60)]), "the file says more");
}

/// That the engine's was made longer by hand, and by hand until tomorrow, nobody can tell from the maps.
#[test]
fn what_the_maps_say_is_not_shortened_to_what_the_engine_may() {
    let day = 24 * 3600;
    let files = [("no file", vec![]), ("not in it for so long", vec![listed(1, &["eth0"], MUTE, 300)])];
    for (file, quarantines) in files {
        let rules =
            Rules { longest: Duration::from_hours(1), longest_by_hand: Duration::from_hours(48), ..Rules::default() };
        let saved = Saved { quarantines, ..Saved::default() };
        let saved = with_found(saved, &[of_port(1, MUTE, day)], &plan(), &anchor());
        let (governor, _) = Governor::restore(rules.clone(), saved, anchor().time);
        let once = governor.save();
        assert_eq!(seen(&once.quarantines)[0].3, day as i64, "{file}");
        // Nor when the maps are lost next.
        let (governor, _) = Governor::restore(rules, once.clone(), anchor().time);
        assert_eq!(governor.save().quarantines, once.quarantines, "{file}");
    }
}

#[test]
fn nobody_comes_in_for_what_the_maps_say_of_another() {
    // eth0 alone was isolated by hand; the machine that it is a part of, muted.
    let file = || vec![listed(1, &["eth0"], ISOLATE, 86_400), listed(2, &["eth0", "eth1"], MUTE, 300)];
    let in_force = [of_port(1, ISOLATE, 86_400), of_port(1, MUTE, 300), of_port(2, MUTE, 300)];
    let as_it_was = expect(&[(1, "eth0", ISOLATE, 86_400), (2, "eth0 eth1", MUTE, 300)]);
    assert_eq!(start(file(), &in_force), as_it_was);
    // The same if the file lags behind, or has only the machine's.
    let lagging = vec![listed(1, &["eth0"], ISOLATE, 3600), listed(2, &["eth0", "eth1"], MUTE, 300)];
    assert_eq!(start(lagging, &in_force), as_it_was);
    let only_the_machines = || vec![listed(2, &["eth0", "eth1"], MUTE, 300)];
    let beside = expect(&[(2, "eth0 eth1", MUTE, 300), (3, "eth0", ISOLATE, 86_400)]);
    assert_eq!(start(only_the_machines(), &in_force), beside);
    // The same sanction, for longer: of eth0 alone.
    let longer = [of_port(1, MUTE, 3600), of_port(2, MUTE, 300)];
    assert_eq!(start(only_the_machines(), &longer), expect(&[(2, "eth0 eth1", MUTE, 300), (3, "eth0", MUTE, 3600)]));
}

#[test]
fn what_the_maps_say_of_the_whole_machine_is_the_machines() {
    let file = || vec![listed(2, &["eth0", "eth1"], MUTE, 300)];
    let all = |sanction, seconds| [of_port(1, sanction, seconds), of_port(2, sanction, seconds)];
    assert_eq!(start(file(), &all(MUTE, 600)), expect(&[(2, "eth0 eth1", MUTE, 600)]));
    assert_eq!(start(file(), &all(ISOLATE, 600)), expect(&[(2, "eth0 eth1", ISOLATE, 600)]));
    // As far as it says the same of all of it.
    let differ = [of_port(1, MUTE, 600), of_port(2, MUTE, 900)];
    assert_eq!(start(file(), &differ), expect(&[(2, "eth0 eth1", MUTE, 600), (3, "eth1", MUTE, 900)]));
}

#[test]
fn an_hours_mute_and_five_minutes_isolation_are_not_an_hours_isolation() {
    let in_force = [of_port(1, MUTE, 3600), of_port(1, ISOLATE, 300)];
    let both = |isolation, mute| {
        let mut both = expect(&[(isolation, "eth0", ISOLATE, 300), (mute, "eth0", MUTE, 3600)]);
        both.sort();
        both
    };
    assert_eq!(start(vec![], &in_force), both(1, 2));
    assert_eq!(start(vec![listed(1, &["eth0"], MUTE, 3600)], &in_force), both(2, 1));
    assert_eq!(start(vec![listed(1, &["eth0"], ISOLATE, 300)], &in_force), both(1, 2));
    // Both are in force, and neither in the place of the other.
    let saved = with_found(Saved::default(), &in_force, &plan(), &anchor());
    let (governor, orders) = Governor::restore(Rules::default(), saved, anchor().time);
    assert_eq!((governor.state().quarantines.len(), orders.len()), (2, 2));
    let covering = governor.state().covering(&port("eth0")).map(|one| one.target.clone());
    assert_eq!(covering, Some(Target::one(port("eth0"))), "a release by name finds one of them");
}
