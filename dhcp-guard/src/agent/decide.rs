//! The decision loop: snapshots and kernel events in, picture and journal out. It never waits for anything else.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use dhcp_guard_common::{
    layout::{
        ClientKey, ClientState, EVENT_CLIENT_OVER_LIMIT, EVENT_HOST_OVER_LIMIT, EVENT_PORT_OVER_LIMIT,
        EVENT_ROGUE_SERVER, EVENT_UNKNOWN_VLAN, Event as KernelEvent, NO_PORT_SLOT, PortCounters,
    },
    verdict::Reason,
};
use tokio::sync::{mpsc, watch};

use super::{
    Context,
    journal::{Draft, Journal},
    plan::{Plan, Port},
};
use crate::{
    config::port_name,
    dataplane::{Snapshot, clock::Moment, interface::Interface},
    engine::{Change, Engine, Observation, Report, Rules, Standing, Subject, Totals, Window},
    mac::Mac,
    model::{EventKind, Mode},
};

/// A client in the picture.
#[derive(Clone, Copy, Debug)]
pub struct ClientPicture {
    /// Slot and MAC.
    pub key: ClientKey,
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
    /// First and latest tick with packets over the port's own limits, as far as the agent saw; 0: never.
    pub excess_ticks: (u64, u64),
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
}

/// See the module.
#[derive(Debug)]
pub struct Decider {
    context: Arc<Context>,
    journal: Arc<Journal>,
    engine: Engine,
    moment: Moment,
    excess_ticks: Vec<(u64, u64)>,
    /// Frames that each interface had received when the guard came.
    received_before: HashMap<String, u64>,
    /// Interfaces that were reported as gone.
    gone: HashSet<String>,
    pictures: watch::Sender<Arc<Picture>>,
}

impl Decider {
    /// A decider that has seen `first`, and the pictures it will publish.
    pub fn new(
        context: Arc<Context>,
        journal: Arc<Journal>,
        first: &Snapshot,
    ) -> (Self, watch::Receiver<Arc<Picture>>) {
        let detection = &context.config.detection;
        let engine = Engine::new(Rules {
            offender_windows: detection.offender_windows,
            recover_after: std::time::Duration::from_secs(detection.recover_after_s.into()),
            remember: std::time::Duration::from_secs(detection.remember_s.into()),
        });
        let empty = Picture {
            moment: first.moment,
            ports: Vec::new(),
            clients: Vec::new(),
            non_dhcp: Vec::new(),
            troubles: first.troubles,
        };
        let (pictures, receiver) = watch::channel(Arc::new(empty));
        let excess_ticks = vec![(0, 0); first.ports.len()];
        let received_before = received_before(&context.plan, first);
        let mut decider = Self {
            context,
            journal,
            engine,
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
    pub async fn run(
        mut self,
        mut snapshots: mpsc::Receiver<Snapshot>,
        mut events: mpsc::Receiver<KernelEvent>,
        mut stopped: watch::Receiver<bool>,
    ) {
        loop {
            tokio::select! {
                Some(snapshot) = snapshots.recv() => self.take_snapshot(&snapshot),
                Some(event) = events.recv() => self.take_event(&event),
                _ = stopped.changed() => return,
                else => return,
            }
        }
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
        for report in self.engine.step(&observation) {
            self.tell(report);
        }
        let picture = self.picture(snapshot);
        self.pictures.send_replace(Arc::new(picture));
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
        let mut ports: Vec<PortPicture> = snapshot.ports.iter().map(|counters| PortPicture::new(*counters)).collect();
        let mut clients = Vec::with_capacity(snapshot.clients.len());
        for (subject, tracked) in self.engine.tracked() {
            match *subject {
                Subject::Client(key) => clients.push(ClientPicture {
                    key,
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
        Picture { moment: snapshot.moment, ports, clients, non_dhcp, troubles: snapshot.troubles }
    }

    /// Frames of an interface, since the guard is on it, that were not DHCP.
    fn non_dhcp(&self, snapshot: &Snapshot, interface: &Interface) -> u64 {
        let received = snapshot.received.get(&interface.name).copied().unwrap_or(0);
        let before = self.received_before.get(&interface.name).copied().unwrap_or(0);
        received.saturating_sub(before).saturating_sub(dhcp_packets(&self.context.plan, snapshot, interface))
    }

    fn tell(&self, report: Report) {
        let (slot, mac) = match report.subject {
            Subject::Client(key) => (key.slot(), Some(Mac(key.mac()))),
            Subject::Port(slot) => (slot, None),
        };
        let Some(port) = self.context.plan.port(slot) else { return };
        let who = mac.map_or_else(|| "the port as a whole".to_owned(), |mac| mac.to_string());
        let limit = match mac {
            Some(_) => format!("limit of {} pps", self.context.config.limits.client_rate_pps),
            None => format!("limit of {} pps, or strangers over their {}", port.rate_pps, port.strangers_pps),
        };
        let (kind, message) = match report.change {
            Change::Offends => {
                let windows = self.context.config.detection.offender_windows;
                let what = format!("has been over its {limit}, in {windows} windows of a second running");
                (EventKind::OffenderFound, format!("{who} on port {} {what}", port.name))
            }
            Change::Recovers => {
                let quiet = self.context.config.detection.recover_after_s;
                (
                    EventKind::OffenderRecovered,
                    format!("{who} on port {} has kept to its limit for {quiet} s", port.name),
                )
            }
        };
        let draft = Draft { kind, at: self.moment.wall, port: Some(port), mac, vlans: None, message };
        self.journal.add_with(draft, &self.context.inventory);
    }

    fn take_event(&self, event: &KernelEvent) {
        let Some(port) = self.context.plan.port(event.slot) else { return };
        let mac = Mac(ClientKey(event.client).mac());
        let Some((kind, message)) = describe(event, port, mac) else { return };
        let vlans = (kind == EventKind::UnknownVlan).then(|| vlans_of(event));
        let at = self.moment.wall_of(event.at);
        self.journal
            .add_with(Draft { kind, at, port: Some(port), mac: Some(mac), vlans, message }, &self.context.inventory);
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
    fn new(counters: PortCounters) -> Self {
        Self { counters, window: Window::default(), standing: Standing::Normal, excess_ticks: (0, 0) }
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

fn vlans_of(event: &KernelEvent) -> Vec<u16> {
    [event.port.outer_vlan, event.port.inner_vlan].into_iter().filter(|vlan| *vlan != 0).collect()
}

/// The sentence for a kernel event; None for one that this version does not know.
fn describe(event: &KernelEvent, port: &Port, mac: Mac) -> Option<(EventKind, String)> {
    let name = &port.name;
    let done = if port.mode == Mode::Monitor { "would be dropped (monitor mode)" } else { "is dropped" };
    Some(match event.kind {
        EVENT_CLIENT_OVER_LIMIT => {
            (EventKind::ClientOverLimit, format!("{mac} on port {name} is over its limit: the excess {done}"))
        }
        EVENT_PORT_OVER_LIMIT => (
            EventKind::PortOverLimit,
            format!("port {name} is over what it, or strangers on it, may send: the excess {done}; latest from {mac}"),
        ),
        EVENT_ROGUE_SERVER => (
            EventKind::RogueServer,
            format!("{mac} on port {name} sends as a DHCP server, and the port is not trusted"),
        ),
        EVENT_UNKNOWN_VLAN => {
            let tagged = port_name(&port.interface, &vlans_of(event));
            let message = format!(
                "DHCP from {mac} arrives as {tagged}, which is no port of its own: counted for port {name}; add a \
                 [[port]] to the configuration to give it its own limits"
            );
            (EventKind::UnknownVlan, message)
        }
        EVENT_HOST_OVER_LIMIT => (
            EventKind::HostOverLimit,
            format!(
                "the host's untrusted ports, or strangers on them, are over what they may send together: the excess \
                 {done}; latest from {mac} on port {name}"
            ),
        ),
        _ => return None,
    })
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
