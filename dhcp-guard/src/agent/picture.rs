//! What the readings of the maps amount to at one moment: the answer to every query.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use dhcp_guard_common::{
    layout::{ClientKey, ClientState, NO_PORT_SLOT, PortCounters},
    verdict::Reason,
};

use super::{Context, plan::Plan, sanctions::Sanctioned};
use crate::{
    config::Config,
    dataplane::{Snapshot, clock::Moment, interface::Interface},
    engine::{Engine, Observation, Report, Rules, Standing, Subject, Totals, Window},
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
    /// What its slots mean, and what was in force.
    pub context: Arc<Context>,
    /// When the counters were read.
    pub moment: Moment,
    /// By slot, beginning with the one that no port has.
    pub ports: Vec<PortPicture>,
    /// Everyone with an entry, and offenders that lost theirs.
    pub clients: Vec<ClientPicture>,
    /// Frames that were not DHCP, by interface index.
    pub non_dhcp: HashMap<u32, u64>,
    /// What the program could not do.
    pub troubles: dhcp_guard_common::layout::Troubles,
    /// Messages of servers that came in on trusted ports; none: no port is trusted.
    pub server_messages: Option<u64>,
    /// Quarantines, hold and allowlist.
    pub sanctioned: Arc<Sanctioned>,
}

impl Picture {
    /// Of the moment of a reading, and of nothing yet.
    #[must_use]
    pub fn before(context: &Arc<Context>, first: &Snapshot) -> Self {
        Self {
            context: Arc::clone(context),
            moment: first.moment,
            ports: Vec::new(),
            clients: Vec::new(),
            non_dhcp: HashMap::new(),
            troubles: first.troubles,
            server_messages: None,
            sanctioned: Arc::default(),
        }
    }
}

impl Picture {
    /// The same moment, to be read with another context: nothing is known yet of ports that have come, and nothing any more
    /// of those that have gone.
    #[must_use]
    pub fn with_context(&self, context: &Arc<Context>, gone: &HashSet<u32>) -> Self {
        let mut picture = Self { context: Arc::clone(context), ..self.clone() };
        let unknown = PortPicture::new(PortCounters::ZERO, Some(0), None);
        let last = context.plan.ports.iter().map(|port| port.slot as usize).max().unwrap_or(0);
        picture.ports.resize(picture.ports.len().max(last + 1), unknown);
        gone.iter().for_each(|slot| _ = picture.ports.get_mut(*slot as usize).map(|port| *port = unknown));
        picture.clients.retain(|client| !gone.contains(&client.key.slot()));
        picture
    }
}

/// Makes pictures of readings, one after the other.
#[derive(Debug)]
pub struct Viewer {
    engine: Engine,
    relayed: Relayed,
    /// By slot, see [`PortPicture::excess_ticks`].
    excess_ticks: Vec<(u64, u64)>,
    /// Frames that each interface, by index, had received when the guard came, or that no port has any more.
    received_before: HashMap<u32, u64>,
}

impl Viewer {
    /// One that has seen nothing yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let (excess_ticks, received_before) = (Vec::new(), HashMap::new());
        Self { engine: Engine::new(rules), relayed: Relayed::default(), excess_ticks, received_before }
    }

    /// The picture of another reading, without quarantines, and what has changed since the one before.
    pub fn step(&mut self, context: &Arc<Context>, snapshot: &Snapshot) -> (Picture, Vec<Report>) {
        self.excess_ticks.resize(self.excess_ticks.len().max(snapshot.ports.len()), (0, 0));
        self.note_received(context, snapshot);
        let is_first = !self.engine.has_begun();
        let reports = self.engine.step(&observe(snapshot));
        self.relayed.update(snapshot, |key| self.engine.get(Subject::Client(key)).is_some());
        let mut picture = self.picture(context, snapshot);
        if is_first {
            // Whoever sent something since there last was an agent: of no window.
            picture.ports.iter_mut().for_each(|port| port.distinct = Some(0));
        }
        (picture, reports)
    }

    /// Goes on with another configuration or other interfaces. `gone`: slots that nobody has any more; `latest`: the picture
    /// that they are still in.
    pub fn take_context(&mut self, context: &Context, gone: &HashSet<u32>, latest: &Picture) {
        self.engine.set_rules(rules(&context.config));
        self.engine.forget(gone);
        let is_guarded = |ifindex: u32| context.plan.interfaces.iter().any(|interface| interface.ifindex == ifindex);
        self.received_before.retain(|ifindex, _| is_guarded(*ifindex));
        for slot in gone {
            // What was DHCP on a port that is gone is not taken for other frames of its interface now.
            let port = latest.context.plan.port(*slot);
            let received = port.and_then(|port| self.received_before.get_mut(&port.ifindex));
            if let (Some(received), Some(port)) = (received, latest.ports.get(*slot as usize)) {
                *received += count_where(&port.counters, |_| true);
            }
            if let Some(ticks) = self.excess_ticks.get_mut(*slot as usize) {
                *ticks = (0, 0);
            }
        }
    }

    /// Who a client is.
    #[must_use]
    pub fn who(&self, client: ClientKey) -> Who {
        self.relayed.who(client)
    }

    fn picture(&mut self, context: &Arc<Context>, snapshot: &Snapshot) -> Picture {
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
        let non_dhcp =
            context.plan.interfaces.iter().map(|i| (i.ifindex, self.non_dhcp(context, snapshot, i))).collect();
        let is_trusted = context.plan.ports.iter().any(|port| port.rules.trusted);
        Picture {
            context: Arc::clone(context),
            moment: snapshot.moment,
            ports,
            clients,
            non_dhcp,
            troubles: snapshot.troubles,
            server_messages: is_trusted.then_some(snapshot.server_messages),
            sanctioned: Arc::default(),
        }
    }

    /// What an interface had received before the guard was on it: the first reading comes right after that, and what is DHCP
    /// in it was seen by the guard.
    fn note_received(&mut self, context: &Context, snapshot: &Snapshot) {
        for interface in &context.plan.interfaces {
            let Some(received) = snapshot.received.get(&interface.name) else { continue };
            let seen = dhcp_packets(&context.plan, snapshot, interface);
            self.received_before.entry(interface.ifindex).or_insert_with(|| received.saturating_sub(seen));
        }
    }

    /// Frames of an interface, since the guard is on it, that were not DHCP.
    fn non_dhcp(&self, context: &Context, snapshot: &Snapshot, interface: &Interface) -> u64 {
        let received = snapshot.received.get(&interface.name).copied().unwrap_or(0);
        let before = self.received_before.get(&interface.ifindex).copied().unwrap_or(0);
        received.saturating_sub(before).saturating_sub(dhcp_packets(&context.plan, snapshot, interface))
    }
}

fn observe(snapshot: &Snapshot) -> Observation {
    let clients = snapshot.clients.iter().map(|client| (Subject::Client(client.key), client_totals(&client.state)));
    let ports = snapshot.ports.iter().enumerate().map(|(slot, counters)| {
        let totals = port_totals(counters, snapshot.moment.ticks);
        (Subject::Port(slot as u32), totals)
    });
    Observation { now: snapshot.moment.monotonic, totals: clients.chain(ports).collect() }
}

/// DHCP packets of all ports on an interface.
fn dhcp_packets(plan: &Plan, snapshot: &Snapshot, interface: &Interface) -> u64 {
    let ports = plan.ports.iter().filter(|port| port.ifindex == interface.ifindex);
    ports.filter_map(|port| snapshot.ports.get(port.slot as usize)).map(|port| count_where(port, |_| true)).sum()
}

/// When the configuration says that somebody is an offender.
#[must_use]
pub fn rules(config: &Config) -> Rules {
    let seconds = |seconds: u32| std::time::Duration::from_secs(seconds.into());
    let detection = &config.detection;
    Rules {
        offender_windows: detection.offender_windows,
        recover_after: seconds(detection.recover_after_s),
        remember: seconds(detection.remember_s),
    }
}

impl PortPicture {
    /// A port of which nothing is known but this.
    #[must_use]
    pub fn new(counters: PortCounters, distinct: Option<u64>, replies: Option<u64>) -> Self {
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
