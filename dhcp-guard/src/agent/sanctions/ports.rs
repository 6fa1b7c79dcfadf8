//! What the counters of ports and clients say about quarantine: samples for the engine, who is active, who asks for how
//! long without being answered.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use dhcp_guard_common::{
    layout::PortCounters,
    verdict::{MessageType, Reason},
};

use crate::{
    agent::{
        picture::{ClientPicture, Picture, count_where},
        plan::{Plan, Port},
    },
    engine::{Subject, Window, sanction::Sample, systemic::PortSample},
};

/// How long somebody is active after the latest packet.
pub(super) const ACTIVE: Duration = Duration::from_secs(600);
/// How long after its first packet a stranger must come back, without any excess, before its port is not blamed for
/// somebody else: made-up MACs hardly ever do.
const SETTLED: Duration = Duration::from_secs(60);

/// Counts of one port that only grow, or what one window added to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    /// Messages to servers that limits apply to, dropped or not.
    judged: u64,
    /// Of these, over a limit of the port or of a client.
    over: u64,
    /// Messages to servers that passed.
    passed: u64,
    /// DHCPv4 messages that a server answers, passed or not. Where nobody serves DHCPv6, its clients ask in vain for ever.
    asked: u64,
    /// Messages from servers to the port; none: they cannot be seen.
    replies: Option<u64>,
}

/// Who is on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Company {
    /// Clients that sent something within [`ACTIVE`].
    active: usize,
    /// Clients that keep to their limits, the known ones however long they have been silent.
    bystanders: usize,
    /// Of the active ones, known.
    known: u64,
    /// Of the known ones, over their own limit in the last window.
    known_over: u64,
    /// Of the known ones, those that sent something within the time in which they should be answered.
    known_asking: u64,
}

/// The ports as the latest pictures showed them, by slot.
#[derive(Clone, Debug, Default)]
pub(super) struct Activity {
    now: Duration,
    before: Vec<Counts>,
    window: Vec<Counts>,
    last_active: Vec<Option<Duration>>,
    company: HashMap<u32, Company>,
    /// Messages of servers that came in on trusted ports, and in the last window; none: no port is trusted.
    arrived: (u64, Option<u64>),
    /// Ports whose servers' messages passed although nobody said that the port is trusted.
    servers: HashSet<u32>,
}

impl Activity {
    /// Takes a picture. The first one is where counting starts.
    pub(super) fn update(&mut self, picture: &Picture, answered_within: Duration) {
        self.now = picture.moment.monotonic;
        let counts: Vec<Counts> = picture.ports.iter().map(|port| Counts::of(&port.counters, port.replies)).collect();
        let first = self.before.is_empty();
        self.window = counts
            .iter()
            .enumerate()
            .map(|(slot, counts)| if first { Counts::default() } else { counts.since(self.before.get(slot)) })
            .collect();
        self.last_active.resize(counts.len(), None);
        for (slot, window) in self.window.iter().enumerate() {
            if window.judged > 0 || window.passed > 0 {
                self.last_active[slot] = Some(self.now);
            }
        }
        self.before = counts;
        let server = |counters: &PortCounters| counters.reasons[Reason::PassServer.index()] > 0;
        let servers = (0..).zip(&picture.ports).filter(|(_, port)| server(&port.counters));
        self.servers = servers.map(|(slot, _)| slot).collect();
        let all = picture.server_messages;
        let before = std::mem::replace(&mut self.arrived.0, all.unwrap_or(0));
        self.arrived.1 = all.map(|all| if first { 0 } else { all.saturating_sub(before) });
        self.company = company(picture, answered_within);
    }

    /// Lets go of the ports in these slots: they will be others'.
    pub(super) fn forget(&mut self, slots: &HashSet<u32>) {
        for slot in slots {
            let place = *slot as usize;
            for counts in [&mut self.before, &mut self.window] {
                counts.get_mut(place).map(std::mem::take);
            }
            self.last_active.get_mut(place).map(std::mem::take);
            self.company.remove(slot);
            self.servers.remove(slot);
        }
    }

    /// Ports that sent something lately.
    pub(super) fn active_ports(&self) -> usize {
        (0..).take(self.last_active.len()).filter(|slot| self.is_active(*slot)).count()
    }

    fn is_active(&self, slot: u32) -> bool {
        let last = self.last_active.get(slot as usize).copied().flatten();
        last.is_some_and(|last| self.now.saturating_sub(last) < ACTIVE)
    }

    /// Clients of a port that sent something lately.
    pub(super) fn active_clients(&self, slot: u32) -> usize {
        self.company.get(&slot).map_or(0, |company| company.active)
    }

    /// Clients of a port that keep to their limits.
    pub(super) fn bystanders(&self, slot: u32) -> usize {
        self.company.get(&slot).map_or(0, |company| company.bystanders)
    }

    /// Messages of servers that came to the host in the last window; none: they cannot be seen.
    pub(super) fn arrived(&self) -> Option<u64> {
        self.arrived.1
    }

    /// Whether a server answers from there, as far as can be seen.
    pub(super) fn has_server(&self, slot: u32) -> bool {
        self.servers.contains(&slot)
    }

    /// What the engine judges: everybody on a port that is neither trusted nor allowed.
    pub(super) fn samples<'a>(
        &'a self,
        plan: &'a Plan,
        picture: &'a Picture,
        is_allowed: &'a dyn Fn(&Port) -> bool,
        is_own: &'a dyn Fn(&Port) -> bool,
    ) -> impl Iterator<Item = (Subject, Sample)> + 'a {
        let judged: HashMap<u32, &Port> = plan
            .ports
            .iter()
            .filter(|port| !port.rules.trusted && !is_allowed(port))
            .map(|port| (port.slot, port))
            .collect();
        let ports: Vec<_> = judged.values().filter_map(|port| self.port_sample(port, picture, is_own(port))).collect();
        let clients = picture.clients.iter().filter_map(move |client| {
            let port = judged.get(&client.key.slot())?;
            Some((Subject::Client(client.key), client_sample(port, client)))
        });
        ports.into_iter().chain(clients)
    }

    fn port_sample(&self, port: &Port, picture: &Picture, own: bool) -> Option<(Subject, Sample)> {
        let (seen, counts) = (picture.ports.get(port.slot as usize)?, self.window.get(port.slot as usize)?);
        // Without those who are allowed: their packets are nobody's fault.
        let window = Window { packets: counts.judged, excess: counts.over, ..seen.window };
        let sample = Sample { window, limit_pps: port.rules.total.0.into(), distinct: seen.distinct, own };
        Some((Subject::Port(port.slot), sample))
    }

    /// What tells whether the trouble is systemic: all ports that are not trusted.
    pub(super) fn systemic_samples(&self, plan: &Plan) -> HashMap<u32, PortSample> {
        let ports = plan.ports.iter().filter(|port| !port.rules.trusted);
        let sample = |port: &Port| {
            let counts = self.window.get(port.slot as usize).copied().unwrap_or_default();
            let company = self.company.get(&port.slot).copied().unwrap_or_default();
            PortSample {
                active: self.is_active(port.slot),
                over_limit: counts.over > 0,
                // What was dropped is not answered.
                requests: counts.passed.min(counts.asked),
                replies: counts.replies,
                known_clients: company.known,
                known_over_limit: company.known_over,
                known_asking: company.known_asking,
            }
        };
        ports.map(|port| (port.slot, sample(port))).collect()
    }
}

impl Counts {
    fn of(counters: &PortCounters, replies: Option<u64>) -> Self {
        let over = |reason: Reason| {
            matches!(
                reason,
                Reason::DropClientLimit
                    | Reason::DropStrangerShare
                    | Reason::DropDiscoverShare
                    | Reason::DropPortLimit
                    | Reason::WouldDropClientLimit
                    | Reason::WouldDropStrangerShare
                    | Reason::WouldDropDiscoverShare
                    | Reason::WouldDropPortLimit
            )
        };
        let judged = |reason: Reason| {
            !matches!(
                reason,
                Reason::PassAllowed
                    | Reason::PassTrusted
                    | Reason::PassServer
                    | Reason::PassNoPort
                    | Reason::DropRogueServer
                    | Reason::WouldDropRogueServer
            )
        };
        let passed = |reason: Reason| {
            matches!(reason, Reason::PassAllowed | Reason::PassKnown | Reason::PassStranger)
                || (reason.is_would_drop() && reason != Reason::WouldDropRogueServer)
        };
        Self {
            judged: count_where(counters, judged),
            over: count_where(counters, over),
            passed: count_where(counters, passed),
            asked: [MessageType::Discover, MessageType::Request, MessageType::Inform]
                .map(|kind| counters.messages[kind.index()])
                .iter()
                .sum(),
            replies,
        }
    }

    fn since(&self, before: Option<&Self>) -> Self {
        let before = before.copied().unwrap_or_default();
        Self {
            judged: self.judged.saturating_sub(before.judged),
            over: self.over.saturating_sub(before.over),
            passed: self.passed.saturating_sub(before.passed),
            asked: self.asked.saturating_sub(before.asked),
            replies: self.replies.map(|replies| replies.saturating_sub(before.replies.unwrap_or(replies))),
        }
    }
}

fn company(picture: &Picture, answered_within: Duration) -> HashMap<u32, Company> {
    let mut company: HashMap<u32, Company> = HashMap::new();
    for client in &picture.clients {
        let of_port = company.entry(client.key.slot()).or_default();
        of_port.bystanders += usize::from(is_bystander(picture, client));
        let age = age(picture, client.totals.latest);
        if age < ACTIVE && client.totals.packets > 0 {
            of_port.active += 1;
            of_port.known += u64::from(client.known);
            of_port.known_over += u64::from(client.known && client.window.own_excess > 0);
            of_port.known_asking += u64::from(client.known && age < answered_within);
        }
    }
    company
}

fn client_sample(port: &Port, client: &ClientPicture) -> Sample {
    Sample {
        window: client.window,
        limit_pps: port.rules.client_v4.0.max(port.rules.client_v6.0).into(),
        distinct: Some(0),
        own: false,
    }
}

/// Somebody who would suffer if its port were blamed for somebody else. Known clients count however long they have been
/// silent: with leases of a day, most are.
fn is_bystander(picture: &Picture, client: &ClientPicture) -> bool {
    let totals = &client.totals;
    let stayed = age(picture, totals.generation).saturating_sub(age(picture, totals.latest));
    let settled = totals.own_excess == 0 && stayed >= SETTLED;
    client.window.own_excess == 0 && (client.known || settled)
}

/// How long ago a tick was.
fn age(picture: &Picture, tick: u64) -> Duration {
    let moment = &picture.moment;
    let ticks = moment.ticks.saturating_sub(tick);
    Duration::from_millis(ticks.saturating_mul(1000) / u64::from(moment.ticks_per_s.max(1)))
}
