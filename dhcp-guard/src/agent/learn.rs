//! Between the pure [`learning`](crate::engine::learning) and the thread that owns the data plane: what was read becomes
//! what learning takes, and what it decides goes to the reader, which carries it out.

use std::{collections::HashSet, sync::mpsc as std_mpsc, time::Duration};

use log::{debug, warn};

use super::plan::Plan;
use crate::{
    config::Config,
    dataplane::{self, DataPlane, Snapshot, clock::Moment, snapshot::ClientSample},
    engine::learning::{Action, ClientSeen, Learning, PortSeen, Rules, Seen},
};

/// Lists of actions that may wait for the reader, which comes for them once a window.
const QUEUE: usize = 2;

/// The decision loop's end.
#[derive(Debug)]
pub struct Learner {
    enabled: bool,
    learning: Learning,
    /// Which plan the slots are of, by its place among those that there were.
    plan: u64,
    actions: std_mpsc::SyncSender<Decided>,
}

/// What was decided from one reading, and under which plan.
#[derive(Debug, PartialEq, Eq)]
struct Decided {
    plan: u64,
    actions: Vec<Action>,
}

/// The reader's end.
#[derive(Debug)]
pub struct Actions {
    receiver: std_mpsc::Receiver<Decided>,
    /// The reader has a new plan before the decision loop has it.
    plan: u64,
    failures: u64,
}

/// Both ends.
#[must_use]
pub fn channel(config: &Config, plan: &Plan) -> (Learner, Actions) {
    let (actions, receiver) = std_mpsc::sync_channel(QUEUE);
    let learning = Learning::new(rules(config), plan.configured.clone());
    let learner = Learner { enabled: config.learning.enabled, learning, plan: 0, actions };
    (learner, Actions { receiver, plan: 0, failures: 0 })
}

fn rules(config: &Config) -> Rules {
    Rules {
        after: Duration::from_secs(config.learning.after_s.into()),
        per_port_per_minute: config.learning.per_port_per_minute as usize,
        per_port_max: config.learning.per_port_max as usize,
        forget_after: Duration::from_secs(config.learning.forget_after_s.into()),
        capacity: config.capacity.known_clients as usize,
    }
}

impl Learner {
    /// Goes on with another configuration, and perhaps other slots: once for each [`Actions::plan_changed`].
    pub fn reconfigure(&mut self, config: &Config, plan: &Plan) {
        self.plan += 1;
        self.enabled = config.learning.enabled;
        self.learning.reconfigure(rules(config), plan.configured.clone());
    }

    /// Learns from a reading, if the configuration wants that. `excess` has, by slot, the packets over the port's limits in the last window.
    ///
    /// Waits for nobody: what finds the queue full is lost, and decided anew.
    pub fn step(&mut self, snapshot: &Snapshot, plan: &Plan, excess: impl Fn(u32) -> u64) {
        if !self.enabled {
            return;
        }
        let ports = plan.ports.iter().map(|port| PortSeen {
            slot: port.slot,
            excess: excess(port.slot),
            distinct: snapshot.distinct.get(port.slot as usize).copied().flatten(),
            strangers_pps: port.rules.strangers.0.into(),
        });
        let guarded: HashSet<u32> = plan.ports.iter().map(|port| port.slot).collect();
        let clients = snapshot.clients.iter().filter(|client| guarded.contains(&client.key.slot()));
        let seen = Seen {
            now: since_boot(&snapshot.moment, snapshot.moment.ticks),
            clients: clients.map(|client| client_seen(&snapshot.moment, client)).collect(),
            ports: ports.collect(),
        };
        let actions = self.learning.step(&seen);
        if !actions.is_empty() && self.actions.try_send(Decided { plan: self.plan, actions }).is_err() {
            debug!("the map reader is late: what was learned is put off");
        }
    }
}

impl Actions {
    /// Slots may be somebody else's from now on: what was decided about those before is void.
    pub fn plan_changed(&mut self) {
        self.plan += 1;
    }

    /// The next that holds.
    fn next(&self) -> Option<Vec<Action>> {
        let decided = self.receiver.try_iter().find(|decided| decided.plan == self.plan)?;
        Some(decided.actions)
    }

    /// Carries out what was decided. That something cannot be done is no reason to stop guarding: the log says so, and
    /// what matters is decided anew.
    pub fn carry_out(&mut self, plane: &mut DataPlane) {
        while let Some(actions) = self.next() {
            for action in actions {
                if let Err(error) = carry_out(plane, action) {
                    self.failures += 1;
                    if self.failures.is_power_of_two() {
                        warn!("cannot change who is a known client ({} times so far): {error}", self.failures);
                    }
                }
            }
        }
    }
}

fn carry_out(plane: &mut DataPlane, action: Action) -> Result<(), dataplane::Error> {
    match action {
        Action::Promote(client) => {
            let done = plane.promote(client)?;
            debug!("client {client:x?} {}", if done { "is known from now on" } else { "is gone already" });
        }
        Action::Forget(client) => {
            plane.forget(client)?;
            debug!("client {client:x?} was silent for long, and is a stranger again");
        }
    }
    Ok(())
}

fn client_seen(moment: &Moment, client: &ClientSample) -> ClientSeen {
    let state = &client.state;
    ClientSeen {
        key: client.key,
        known: client.known,
        first_seen: since_boot(moment, state.first_seen),
        last_seen: since_boot(moment, state.last_seen),
        packets: state.packets,
        own_excess: state.own_excess,
    }
}

/// The kernel's ticks as a time. Their start does not matter, only that all have the same.
fn since_boot(moment: &Moment, ticks: u64) -> Duration {
    let hz = u64::from(moment.ticks_per_s.max(1));
    Duration::from_secs(ticks / hz) + Duration::from_nanos(ticks % hz * 1_000_000_000 / hz)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use dhcp_guard_common::layout::{ClientKey, ClientState, Troubles};
    use jiff::Timestamp;

    use super::*;
    use crate::dataplane::interface::Interface;

    const HZ: u32 = 250;

    fn snapshot(seconds: u64, distinct: Option<u64>, clients: Vec<ClientSample>) -> Snapshot {
        let monotonic = Duration::from_secs(seconds);
        let moment = Moment { wall: Timestamp::UNIX_EPOCH, monotonic, ticks: seconds * u64::from(HZ), ticks_per_s: HZ };
        Snapshot {
            moment,
            ports: vec![],
            distinct: vec![Some(0), distinct],
            received: HashMap::new(),
            replies: vec![],
            server_messages: 0,
            clients,
            troubles: Troubles::default(),
        }
    }

    fn stranger(slot: u32) -> ClientSample {
        let ticks = |seconds: u64| seconds * u64::from(HZ);
        let state = ClientState { packets: 2, first_seen: ticks(100), last_seen: ticks(400), ..ClientState::default() };
        ClientSample { key: ClientKey::from_mac(slot, [2, 0, 0, 0, 0, 1]), known: false, state }
    }

    fn plan(config: &Config) -> Plan {
        let interface = Interface::bare("eth0", 3);
        Plan::new(config, vec![interface], false)
    }

    #[test]
    fn what_was_read_reaches_learning_and_what_it_decides_the_reader() {
        let config = Config::default();
        let plan = plan(&config);
        let (mut learner, actions) = channel(&config, &plan);
        learner.step(&snapshot(500, Some(26), vec![stranger(1)]), &plan, |_| 0);
        learner.step(&snapshot(510, Some(0), vec![stranger(1)]), &plan, |_| 1);
        assert!(actions.next().is_none(), "the port is under pressure");
        learner.step(&snapshot(520, Some(25), vec![stranger(1), stranger(2)]), &plan, |_| 0);
        let expected = vec![Action::Promote(stranger(1).key)];
        assert_eq!(actions.next().unwrap(), expected, "and nobody on a port that there is not");
    }

    #[test]
    fn a_reader_that_does_not_come_is_not_waited_for() {
        let config = Config::default();
        let plan = plan(&config);
        let (mut learner, actions) = channel(&config, &plan);
        for round in 0..10 {
            learner.step(&snapshot(500 + round * 10, Some(0), vec![stranger(1)]), &plan, |_| 0);
        }
        assert_eq!(std::iter::from_fn(|| actions.next()).count(), QUEUE);
        drop(actions);
        learner.step(&snapshot(700, Some(0), vec![stranger(1)]), &plan, |_| 0);
    }

    #[test]
    fn what_was_decided_about_slots_before_a_change_is_void() {
        let config = Config::default();
        let plan = plan(&config);
        let (mut learner, mut actions) = channel(&config, &plan);
        learner.step(&snapshot(500, Some(0), vec![stranger(1)]), &plan, |_| 0);
        actions.plan_changed();
        // The decision loop learns of it later.
        learner.step(&snapshot(510, Some(0), vec![stranger(1)]), &plan, |_| 0);
        assert_eq!(actions.next(), None, "slot 1 may be another port's by now");
        learner.reconfigure(&config, &plan);
        learner.step(&snapshot(520, Some(0), vec![stranger(1)]), &plan, |_| 0);
        assert_eq!(actions.next().unwrap(), [Action::Promote(stranger(1).key)]);
    }

    #[test]
    fn who_does_not_want_learning_has_none_until_they_want_it() {
        let mut config = Config::default();
        config.learning.enabled = false;
        let plan = plan(&config);
        let (mut learner, mut actions) = channel(&config, &plan);
        learner.step(&snapshot(500, Some(0), vec![stranger(1)]), &plan, |_| 0);
        assert!(actions.next().is_none());
        learner.reconfigure(&Config::default(), &plan);
        actions.plan_changed();
        learner.step(&snapshot(510, Some(0), vec![stranger(1)]), &plan, |_| 0);
        assert_eq!(actions.next().unwrap(), [Action::Promote(stranger(1).key)]);
    }

    #[test]
    fn ticks_are_times() {
        let moment = snapshot(0, None, vec![]).moment;
        assert_eq!(since_boot(&moment, 1001), Duration::from_millis(4004));
    }
}
