//! What goes on, and what does not, when the configuration or the interfaces change in the middle of an incident.

use super::*;

/// The lab's context with another configuration, and without some of its interfaces.
fn context(lab: &Lab, toml: &str, without: &[&str]) -> Arc<Context> {
    let before = &lab.sanctioner.context;
    let config = Config::from_toml(toml).unwrap();
    let stays = |interface: &&Interface| !without.contains(&interface.name.as_str());
    let interfaces = before.plan.interfaces.iter().filter(stays).cloned().collect();
    Arc::new(Context {
        plan: Plan::new(&config, interfaces, false),
        config,
        config_path: None,
        modes: Vec::new(),
        machines: Arc::clone(&before.machines),
        started: before.started,
        last_agent: before.last_agent,
        warnings: Vec::new(),
    })
}

#[test]
fn quarantines_windows_and_the_hold_outlive_a_change() {
    let mut lab = Lab::new(10, "", &owned(10));
    let sends: Vec<Sends> = (1..=10).map(|port| if port == 2 { flood(port) } else { calm(port) }).collect();
    lab.run(7, &sends);
    let changed = context(&lab, "[quarantine]\nwindows = 10\n[limits]\nclient_burst = 30\n", &[]);
    lab.sanctioner.take_context(&changed, &HashSet::new());
    lab.run(4, &sends);
    assert_eq!(lab.covered(), ["port tap2"], "the seven seconds before the change count");
    lab.ask(&hold(true)).unwrap();
    let changed = context(&lab, "", &[]);
    let picture = lab.sanctioner.take_context(&changed, &HashSet::new());
    assert!(picture.sanctioned.hold.is_some() && picture.sanctioned.quarantines.len() == 1);
    assert!(Arc::ptr_eq(&picture.context, &changed));
}

#[test]
fn other_rules_are_for_what_comes() {
    let mut lab = Lab::new(10, "[quarantine]\nautomatic = false\n", &owned(10));
    let sends: Vec<Sends> = (1..=10).map(|port| if port == 2 { flood(port) } else { calm(port) }).collect();
    lab.run(30, &sends);
    assert_eq!(lab.covered(), [""; 0]);
    let changed = context(&lab, "", &[]);
    lab.sanctioner.take_context(&changed, &HashSet::new());
    lab.run(2, &sends);
    assert_eq!(lab.covered(), ["port tap2"]);
}

#[test]
fn nothing_is_left_of_a_slot_that_nobody_has_and_the_quarantine_of_its_name_is() {
    let mut lab = Lab::new(10, "", &owned(10));
    let sends: Vec<Sends> = (1..=10).map(|port| if port == 10 { flood(port) } else { calm(port) }).collect();
    lab.run(12, &sends);
    assert_eq!(lab.covered(), ["port tap10"]);
    let (of_slot, active) = (Subject::Port(10), lab.sanctioner.activity.active_ports());
    lab.sanctioner.note_first_drop(of_slot, Timestamp::UNIX_EPOCH);
    lab.sanctioner.note_server(calm(10).key());
    let changed = context(&lab, "", &["tap10"]);
    let picture = lab.sanctioner.take_context(&changed, &HashSet::from([10]));
    assert_eq!(picture.ports[10].counters, PortCounters::ZERO);
    assert!(picture.clients.iter().all(|client| client.key.slot() != 10) && picture.clients.len() == 9);
    let sanctioner = &lab.sanctioner;
    assert!(sanctioner.engine.record(of_slot).is_none() && sanctioner.first_drops.is_empty());
    assert!(sanctioner.servers.is_empty() && sanctioner.activity.active_ports() == active - 1);
    assert_eq!(lab.covered(), ["port tap10"], "it is a quarantine of a name");
    assert!(!picture.sanctioned.states.contains_key(&of_slot), "the slot is nobody's");
}
