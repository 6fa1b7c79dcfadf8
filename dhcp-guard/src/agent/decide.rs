//! The decision loop: snapshots, kernel events and people's requests in; picture, journal and orders out. It never waits
//! for anything else.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use dhcp_guard_common::{
    layout::{
        ClientKey, ClientState, EVENT_CLIENT_OVER_LIMIT, EVENT_PORT_OVER_LIMIT, EVENT_ROGUE_SERVER,
        Event as KernelEvent, NO_PORT_SLOT, PortCounters,
    },
    verdict::Reason,
};
use tokio::sync::{mpsc, watch};

use super::{
    Context, describe,
    journal::{Draft, Journal},
    learn::Learner,
    orders,
    plan::Plan,
    requests::Asked,
    sanctions::{Sanctioned, Sanctioner},
    service::Service,
};
use crate::{
    actuators,
    dataplane::{Snapshot, clock::Moment, interface::Interface},
    engine::{Change, Engine, Observation, Report, Rules, Standing, Subject, Totals, Window},
    model::EventKind,
    who::{Relayed, Who},
};

/// A client in the picture.
#[derive(Clone, Copy, Debug)]
pub struct ClientPicture {
    /// Its key; [`ClientPicture::who`] says what it means.
    pub key: ClientKey,
    /// Who that is.
    pub who: Who,
    /// In the known table.
    pub known: bool,
    /// Its counts.
    pub totals: Totals,
    /// The last window.
    pub window: Window,
    /// Where it stands.
    pub standing: Standing,
}

/// A port in the picture; its place is its slot.
#[derive(Clone, Copy, Debug)]
pub struct PortPicture {
    /// Its counts in all detail.
    pub counters: PortCounters,
    /// The last window.
    pub window: Window,
    /// Where it stands.
    pub standing: Standing,
    /// Strangers that sent something in the last window, estimated; none: more than can be told.
    pub distinct: Option<u64>,
    /// First and latest tick with packets over the port's own limits, as far as the agent saw; 0: never.
    pub excess_ticks: (u64, u64),
    /// Messages of servers that went out to it; none: they cannot be seen.
    pub replies: Option<u64>,
}

/// Everything that queries are answered from: one consistent moment.
#[derive(Clone, Debug)]
pub struct Picture {
    /// When the counters were read.
    pub moment: Moment,
    /// By slot, beginning with the one that no port has.
    pub ports: Vec<PortPicture>,
    /// Everyone with an entry, and offenders that lost theirs.
    pub clients: Vec<ClientPicture>,
    /// Frames that were not DHCP, for each interface of the plan.
    pub non_dhcp: Vec<u64>,
    /// What the program could not do.
    pub troubles: dhcp_guard_common::layout::Troubles,
    /// Messages of servers that came in on trusted ports; none: no port is trusted.
    pub server_messages: Option<u64>,
    /// Quarantines, hold and allowlist.
    pub sanctioned: Arc<Sanctioned>,
}

/// See the module.
#[derive(Debug)]
pub struct Decider {
    context: Arc<Context>,
    journal: Arc<Journal>,
    engine: Engine,
    /// None: nobody is to be learned.
    learner: Option<Learner>,
    sanctioner: Sanctioner,
    relayed: Relayed,
    moment: Moment,
    excess_ticks: Vec<(u64, u64)>,
    /// Frames that each interface had received when the guard came.
    received_before: HashMap<String, u64>,
    /// Interfaces that were reported as gone.
    gone: HashSet<String>,
    pictures: watch::Sender<Arc<Picture>>,
}

/// What the decision loop hears.
#[derive(Debug)]
pub struct Inputs {
    /// The counters, once a window.
    pub snapshots: mpsc::Receiver<Snapshot>,
    /// What the kernel tells at once.
    pub events: mpsc::Receiver<KernelEvent>,
    /// What people ask for.
    pub requests: mpsc::Receiver<Asked>,
    /// What became of orders.
    pub orders: mpsc::Receiver<orders::Outcome>,
    /// What became of the actuators' jobs.
    pub actuators: actuators::Outcomes,
    /// Hears that the loop goes on, once a window.
    pub service: Service,
}

impl Picture {
    /// Of the moment of a reading, and of nothing yet.
    #[must_use]
    pub fn before(first: &Snapshot) -> Self {
        Self {
            moment: first.moment,
            ports: Vec::new(),
            clients: Vec::new(),
            non_dhcp: Vec::new(),
            troubles: first.troubles,
            server_messages: None,
            sanctioned: Arc::default(),
        }
    }
}

impl Decider {
    /// A decider that has seen `first`, and the pictures it will publish.
    pub fn new(
        context: Arc<Context>,
        journal: Arc<Journal>,
        learner: Option<Learner>,
        sanctioner: Sanctioner,
        first: &Snapshot,
    ) -> (Self, watch::Receiver<Arc<Picture>>) {
        let detection = &context.config.detection;
        let engine = Engine::new(Rules {
            offender_windows: detection.offender_windows,
            recover_after: std::time::Duration::from_secs(detection.recover_after_s.into()),
            remember: std::time::Duration::from_secs(detection.remember_s.into()),
        });
        let (pictures, receiver) = watch::channel(Arc::new(Picture::before(first)));
        let excess_ticks = vec![(0, 0); first.ports.len()];
        let received_before = received_before(&context.plan, first);
        let mut decider = Self {
            context,
            journal,
            engine,
            learner,
            sanctioner,
            relayed: Relayed::default(),
            moment: first.moment,
            excess_ticks,
            received_before,
            gone: HashSet::new(),
            pictures,
        };
        decider.take_snapshot(first);
        (decider, receiver)
    }

    /// Runs until it is told to stop, or nothing can come any more.
    pub async fn run(mut self, mut inputs: Inputs, mut stopped: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                Some(snapshot) = inputs.snapshots.recv() => {
                    self.take_snapshot(&snapshot);
                    inputs.service.beat(&self.pictures.borrow());
                }
                Some(event) = inputs.events.recv() => self.take_event(&event),
                Some(asked) = inputs.requests.recv() => self.take_request(asked),
                Some(outcome) = inputs.orders.recv() => {
                    self.sanctioner.take_outcome(&outcome);
                    self.pictures.send_replace(self.sanctioner.refreshed());
                }
                Some(outcome) = inputs.actuators.recv() => self.sanctioner.take_actuator_outcome(&outcome),
                _ = stopped.changed() => return,
                else => return,
            }
        }
    }

    fn take_request(&mut self, asked: Asked) {
        let pictures = &self.pictures;
        // The picture first: whoever has the answer may query at once.
        self.sanctioner.answer(asked, |picture| _ = pictures.send_replace(picture));
    }

    /// Says once that an interface has gone.
    fn look_for_gone_interfaces(&mut self) {
        let context = Arc::clone(&self.context);
        for name in context.gone_interfaces() {
            if self.gone.insert(name.to_owned()) {
                let port = context.plan.ports.iter().find(|port| port.interface == name);
                let message = format!("interface {name} is gone, deleted or renamed: see `dhcp-guard status`");
                let draft = Draft {
                    kind: EventKind::InterfaceGone,
                    at: self.moment.wall,
                    port,
                    mac: None,
                    source: None,
                    vlans: None,
                    message,
                };
                self.journal.add(draft);
            }
        }
    }

    fn take_snapshot(&mut self, snapshot: &Snapshot) {
        self.moment = snapshot.moment;
        let observation = self.observe(snapshot);
        let reports = self.engine.step(&observation);
        self.relayed.update(snapshot, |key| self.engine.get(Subject::Client(key)).is_some());
        reports.into_iter().for_each(|report| self.tell(report));
        let picture = self.picture(snapshot);
        if let Some(learner) = &mut self.learner {
            let excess = |slot: u32| picture.ports.get(slot as usize).map_or(0, |port| port.window.own_excess);
            learner.step(snapshot, &self.context.plan, excess);
        }
        self.pictures.send_replace(self.sanctioner.step(picture));
        self.look_for_gone_interfaces();
    }

    fn observe(&mut self, snapshot: &Snapshot) -> Observation {
        let clients = snapshot.clients.iter().map(|client| (Subject::Client(client.key), client_totals(&client.state)));
        let ports = snapshot.ports.iter().enumerate().map(|(slot, counters)| {
            let totals = port_totals(counters, snapshot.moment.ticks);
            (Subject::Port(slot as u32), totals)
        });
        Observation { now: snapshot.moment.monotonic, totals: clients.chain(ports).collect() }
    }

    fn picture(&mut self, snapshot: &Snapshot) -> Picture {
        let known: HashSet<ClientKey> = snapshot.clients.iter().filter(|c| c.known).map(|c| c.key).collect();
        let distinct = |slot: usize| snapshot.distinct.get(slot).copied().flatten();
        let replies = |slot: usize| snapshot.replies.get(slot).copied().flatten();
        let ports = snapshot.ports.iter().enumerate();
        let mut ports: Vec<PortPicture> =
            ports.map(|(slot, counters)| PortPicture::new(*counters, distinct(slot), replies(slot))).collect();
        let mut clients = Vec::with_capacity(snapshot.clients.len());
        for (subject, tracked) in self.engine.tracked() {
            match *subject {
                Subject::Client(key) => clients.push(ClientPicture {
                    key,
                    who: self.relayed.who(key),
                    known: known.contains(&key),
                    totals: tracked.totals,
                    window: tracked.window,
                    standing: tracked.standing,
                }),
                Subject::Port(slot) => {
                    let place = slot as usize;
                    if let (Some(port), Some(ticks)) = (ports.get_mut(place), self.excess_ticks.get_mut(place)) {
                        if tracked.window.own_excess > 0 {
                            *ticks =
                                (if ticks.0 == 0 { snapshot.moment.ticks } else { ticks.0 }, snapshot.moment.ticks);
                        }
                        (port.window, port.standing, port.excess_ticks) = (tracked.window, tracked.standing, *ticks);
                    }
                }
            }
        }
        let non_dhcp = self.context.plan.interfaces.iter().map(|i| self.non_dhcp(snapshot, i)).collect();
        let is_trusted = self.context.plan.ports.iter().any(|port| port.rules.trusted);
        Picture {
            moment: snapshot.moment,
            ports,
            clients,
            non_dhcp,
            troubles: snapshot.troubles,
            server_messages: is_trusted.then_some(snapshot.server_messages),
            sanctioned: Arc::default(),
        }
    }

    /// Frames of an interface, since the guard is on it, that were not DHCP.
    fn non_dhcp(&self, snapshot: &Snapshot, interface: &Interface) -> u64 {
        let received = snapshot.received.get(&interface.name).copied().unwrap_or(0);
        let before = self.received_before.get(&interface.name).copied().unwrap_or(0);
        received.saturating_sub(before).saturating_sub(dhcp_packets(&self.context.plan, snapshot, interface))
    }

    fn tell(&self, report: Report) {
        let (slot, who) = match report.subject {
            Subject::Client(key) => (key.slot(), Some(self.relayed.who(key))),
            Subject::Port(slot) => (slot, None),
        };
        let Some(port) = self.context.plan.port(slot) else { return };
        // In quarantine it has no excess, however much it sends.
        if report.change == Change::Recovers && self.sanctioner.is_loud(report.subject) {
            return;
        }
        let (kind, message) = describe::change(report.change, port, who, &self.context.config.detection);
        let (mac, source) = (who.and_then(|who| who.mac()), who.and_then(|who| who.source()));
        let draft = Draft { kind, at: self.moment.wall, port: Some(port), mac, source, vlans: None, message };
        self.journal.add_with(draft, &self.context.inventory());
    }

    fn take_event(&mut self, event: &KernelEvent) {
        let plan = &self.context.plan;
        let Some(port) = plan.port(event.slot) else { return };
        let client = ClientKey(event.client);
        let who = self.relayed.who(client);
        let wall = self.moment.wall_of(event.at);
        match event.kind {
            EVENT_CLIENT_OVER_LIMIT => self.sanctioner.note_first_drop(Subject::Client(client), wall),
            EVENT_PORT_OVER_LIMIT => self.sanctioner.note_first_drop(Subject::Port(event.slot), wall),
            EVENT_ROGUE_SERVER => self.sanctioner.note_server(client),
            _ => {}
        }
        let drops_rogue_servers = plan.spec.policy.host.drop_rogue_servers;
        let Some((kind, message)) = describe::kernel_event(event, port, who, drops_rogue_servers) else { return };
        let vlans = (kind == EventKind::UnknownVlan).then(|| describe::vlans_of(event));
        let draft = Draft { kind, at: wall, port: Some(port), mac: who.mac(), source: who.source(), vlans, message };
        self.journal.add_with(draft, &self.context.inventory());
    }
}

/// DHCP packets of all ports on an interface.
fn dhcp_packets(plan: &Plan, snapshot: &Snapshot, interface: &Interface) -> u64 {
    let ports = plan.ports.iter().filter(|port| port.ifindex == interface.ifindex);
    ports.filter_map(|port| snapshot.ports.get(port.slot as usize)).map(|port| count_where(port, |_| true)).sum()
}

/// What each interface had received before the guard was on it: the first reading comes right after that, and what is
/// DHCP in it was seen by the guard.
fn received_before(plan: &Plan, first: &Snapshot) -> HashMap<String, u64> {
    let before = |interface: &Interface| {
        let received = first.received.get(&interface.name)?;
        Some((interface.name.clone(), received.saturating_sub(dhcp_packets(plan, first, interface))))
    };
    plan.interfaces.iter().filter_map(before).collect()
}

impl PortPicture {
    fn new(counters: PortCounters, distinct: Option<u64>, replies: Option<u64>) -> Self {
        Self {
            counters,
            window: Window::default(),
            standing: Standing::Normal,
            distinct,
            excess_ticks: (0, 0),
            replies,
        }
    }
}

/// Packets of one reason, all message types.
#[must_use]
pub fn reason_count(counters: &PortCounters, reason: Reason) -> u64 {
    counters.reasons[reason.index()]
}

/// Packets of all reasons that fulfil a condition.
#[must_use]
pub fn count_where(counters: &PortCounters, condition: fn(Reason) -> bool) -> u64 {
    Reason::ALL.iter().filter(|reason| condition(**reason)).map(|reason| reason_count(counters, *reason)).sum()
}

/// A client is to blame for what exceeds its own limit, not for what it lost to the company on its port.
fn client_totals(state: &ClientState) -> Totals {
    Totals {
        generation: state.first_seen,
        latest: state.last_seen,
        packets: state.packets,
        excess: state.excess,
        own_excess: state.own_excess,
    }
}

/// A port is to blame for what exceeds its own limits, not for what its clients' limits stop.
fn port_totals(counters: &PortCounters, ticks: u64) -> Totals {
    let own = |reason: Reason| {
        matches!(
            reason,
            Reason::DropStrangerShare
                | Reason::DropDiscoverShare
                | Reason::DropPortLimit
                | Reason::WouldDropStrangerShare
                | Reason::WouldDropDiscoverShare
                | Reason::WouldDropPortLimit
        )
    };
    Totals {
        generation: u64::from(NO_PORT_SLOT),
        latest: ticks,
        packets: count_where(counters, |_| true),
        excess: count_where(counters, Reason::is_excess),
        own_excess: count_where(counters, own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_to_blame_for_its_own_excess_alone() {
        let state = ClientState {
            packets: 100,
            excess: 60,
            own_excess: 7,
            first_seen: 1000,
            last_seen: 2000,
            ..ClientState::default()
        };
        let expected = Totals { generation: 1000, latest: 2000, packets: 100, excess: 60, own_excess: 7 };
        assert_eq!(client_totals(&state), expected);
    }

    #[test]
    fn a_port_is_to_blame_for_its_own_limits_alone() {
        let mut counters = PortCounters::ZERO;
        for (place, reason) in Reason::ALL.iter().enumerate() {
            counters.reasons[reason.index()] = 1 << place;
        }
        let bit = |reason: Reason| 1u64 << reason.index();
        let totals = port_totals(&counters, 9);
        assert_eq!((totals.latest, totals.packets), (9, (1 << Reason::COUNT) - 1));
        let own = bit(Reason::DropStrangerShare)
            | bit(Reason::DropDiscoverShare)
            | bit(Reason::DropPortLimit)
            | bit(Reason::WouldDropStrangerShare)
            | bit(Reason::WouldDropDiscoverShare)
            | bit(Reason::WouldDropPortLimit);
        assert_eq!(totals.own_excess, own);
        let excess = Reason::ALL.iter().copied().filter(|reason| reason.is_excess()).map(bit);
        assert_eq!(totals.excess, excess.sum::<u64>());
    }
}
