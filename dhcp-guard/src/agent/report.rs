//! From the decision loop's picture to the documents of the API.

use std::{cmp::Reverse, collections::BTreeMap};

use dhcp_guard_common::{
    layout::{NO_PORT_SLOT, PortCounters},
    verdict::{MessageType, Note, Reason},
};
use jiff::Timestamp;

use super::{
    Context,
    picture::{ClientPicture, Picture, PortPicture, count_where, reason_count},
    plan::Port,
};
use crate::{
    engine::{Standing, Subject},
    inventory::Inventory,
    model::{
        Allows, ClientReport, Clients, InterfaceStatus, Kind, KnownBy, Mode, Offender, Offenders, PortReport, Ports,
        Quarantines, State, Status, Troubles,
    },
};

/// `GET /v1/status`
#[must_use]
pub fn status(picture: &Picture) -> Status {
    let context = &*picture.context;
    let now = picture.moment.wall;
    let uptime = now.duration_since(context.started).as_secs();
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        agent_running: true,
        pid: std::process::id(),
        as_of: now,
        started: context.started,
        uptime_s: u64::try_from(uptime).unwrap_or(0),
        last_agent_s: context.last_agent.map(|age| age.as_secs()),
        mode: context.config.mode,
        config: context.config_path.as_ref().map(|path| path.display().to_string()),
        interfaces: (0..context.plan.interfaces.len()).map(|place| interface(context, picture, place)).collect(),
        offenders: offenders_now(context, picture),
        hold: picture.sanctioned.hold.is_some(),
        quarantined: picture.sanctioned.quarantines.iter().map(|one| one.covers.len() as u64).sum(),
        troubles: Troubles {
            events_suppressed: picture.troubles.events_suppressed,
            events_lost: picture.troubles.events_lost,
            events_unheard: picture.troubles.events_unheard,
            insert_failed: picture.troubles.insert_failed,
            untracked_packets: picture.troubles.untracked,
            lost_races: picture.troubles.lost_races,
        },
        warnings: warnings(context, picture),
    }
}

/// How many of [`offenders`] have not recovered.
fn offenders_now(context: &Context, picture: &Picture) -> u64 {
    let clients = picture.clients.iter().map(|client| (Subject::Client(client.key), &client.standing));
    let ports = context
        .plan
        .ports
        .iter()
        .filter_map(|port| Some((Subject::Port(port.slot), &picture.ports.get(port.slot as usize)?.standing)));
    let all = clients.chain(ports).filter_map(|(subject, standing)| offence(picture, subject, standing));
    all.filter(|(state, _)| !matches!(state, State::Recovered | State::Probation)).count() as u64
}

fn warnings(context: &Context, picture: &Picture) -> Vec<String> {
    let mut warnings = context.warnings.clone();
    warnings.extend(context.machines.warnings());
    warnings.extend(picture.sanctioned.warnings.iter().cloned());
    if picture.ports.first().is_some_and(|none| count_where(&none.counters, |_| true) > 0) {
        warnings.push("DHCP packets arrived on an interface without any port: they passed unlimited".to_owned());
    }
    warnings
}

fn interface(context: &Context, picture: &Picture, place: usize) -> InterfaceStatus {
    let interface = &context.plan.interfaces[place];
    let ports: Vec<&PortPicture> = context
        .plan
        .ports
        .iter()
        .filter(|port| port.ifindex == interface.ifindex)
        .filter_map(|port| picture.ports.get(port.slot as usize))
        .collect();
    let mut sum = PortCounters::ZERO;
    ports.iter().for_each(|port| sum.add(&port.counters));
    let non_dhcp_packets = picture.non_dhcp.get(&interface.ifindex).copied().unwrap_or(0);
    let dhcp_packets = count_where(&sum, |_| true);
    InterfaceStatus {
        name: interface.name.clone(),
        ifindex: interface.ifindex,
        mode: context.modes[place],
        packets: non_dhcp_packets + dhcp_packets,
        non_dhcp_packets,
        dhcp_packets,
        dropped: count_where(&sum, Reason::is_drop),
        would_drop: count_where(&sum, Reason::is_would_drop),
        rate_pps: ports.iter().map(|port| port.window.rate_pps()).sum(),
        drop_rate_pps: ports.iter().map(|port| port.window.excess_pps()).sum(),
        reasons: reasons(&sum),
        message_types: message_types(&sum),
        notes: notes(&sum),
    }
}

/// `GET /v1/offenders`
#[must_use]
pub fn offenders(picture: &Picture) -> Offenders {
    let context = &*picture.context;
    let inventory = &context.inventory();
    let clients = picture.clients.iter().filter_map(|client| client_offender(context, inventory, picture, client));
    let ports = context.plan.ports.iter().filter_map(|port| port_offender(inventory, picture, port));
    let mut offenders: Vec<Offender> = clients.chain(ports).collect();
    offenders.sort_by_cached_key(|o| {
        let is_over = matches!(o.state, State::Recovered | State::Probation);
        (is_over, Reverse(o.dropped + o.would_drop), o.port.clone(), o.mac.clone())
    });
    Offenders { as_of: picture.moment.wall, offenders }
}

/// The state and the start of an offence, for whoever is listed as an offender: by the limits, or because it is in
/// quarantine, or would be.
fn offence(picture: &Picture, subject: Subject, standing: &Standing) -> Option<(State, Timestamp)> {
    let wall = picture.moment.wall;
    let since = match standing {
        Standing::Offender { since, .. } => Some(since),
        Standing::Recovered { offender_since, .. } => Some(offender_since),
        Standing::Normal | Standing::OverLimit { .. } => None,
    };
    let since = since.map(|since| wall.saturating_sub(picture.moment.monotonic.saturating_sub(*since)).unwrap_or(wall));
    let since = since.or_else(|| picture.sanctioned.since.get(&subject).copied())?;
    Some((state(picture, subject, standing), since))
}

fn client_offender(
    context: &Context,
    inventory: &Inventory,
    picture: &Picture,
    client: &ClientPicture,
) -> Option<Offender> {
    let (state, offender_since) = offence(picture, Subject::Client(client.key), &client.standing)?;
    let port = context.plan.port(client.key.slot())?;
    let mac = client.who.mac();
    let found = inventory.find(&port.interface, &port.vlans, client.who.source());
    let machine = found.map(|found| found.machine);
    let (dropped, would_drop) = split(port.rules.mode, client.totals.excess);
    Some(Offender {
        kind: Kind::Client,
        mac: mac.map(|mac| mac.to_string()),
        relay: client.who.relay(),
        peer: client.who.peer(),
        interface: port.interface.clone(),
        port: port.name.clone(),
        vlans: port.vlans.clone(),
        packets: client.totals.packets,
        dropped,
        would_drop,
        rate_pps: client.window.rate_pps(),
        limit_pps: port.rules.client_v4.0.into(),
        limit_v6_pps: Some(port.rules.client_v6.0.into()),
        first_seen: picture.moment.wall_of(client.totals.generation),
        last_seen: picture.moment.wall_of(client.totals.latest),
        offender_since,
        state,
        reason: "client_limit".to_owned(),
        server_id: machine.map(|m| m.server_id.clone()),
        server_name: machine.and_then(|m| m.name.clone()),
        owner: machine.and_then(|m| m.owner.clone()),
        switch: found.and_then(|found| found.switch).map(str::to_owned),
        switch_port: found.and_then(|found| found.switch_port).map(str::to_owned),
        zone: machine.and_then(|m| m.zone.clone()),
    })
}

fn port_offender(inventory: &Inventory, picture: &Picture, port: &Port) -> Option<Offender> {
    let seen = picture.ports.get(port.slot as usize)?;
    let (state, offender_since) = offence(picture, Subject::Port(port.slot), &seen.standing)?;
    let found = inventory.find(&port.interface, &port.vlans, None);
    let machine = found.map(|found| found.machine);
    let (reason, limit) = port_excess(port, &seen.counters);
    Some(Offender {
        kind: Kind::Port,
        mac: None,
        relay: None,
        peer: None,
        interface: port.interface.clone(),
        port: port.name.clone(),
        vlans: port.vlans.clone(),
        packets: count_where(&seen.counters, |_| true),
        dropped: count_where(&seen.counters, Reason::is_drop),
        would_drop: count_where(&seen.counters, Reason::is_would_drop),
        rate_pps: seen.window.rate_pps(),
        limit_pps: limit.0.into(),
        limit_v6_pps: None,
        first_seen: time_of_excess(picture, seen.excess_ticks.0, offender_since),
        last_seen: time_of_excess(picture, seen.excess_ticks.1, picture.moment.wall),
        offender_since,
        state,
        reason: reason.to_owned(),
        server_id: machine.map(|m| m.server_id.clone()),
        server_name: machine.and_then(|m| m.name.clone()),
        owner: machine.and_then(|m| m.owner.clone()),
        switch: found.and_then(|found| found.switch).map(str::to_owned),
        switch_port: found.and_then(|found| found.switch_port).map(str::to_owned),
        zone: machine.and_then(|m| m.zone.clone()),
    })
}

/// A tick with excess of the port's own; where there was none, because its clients' limits stop it, another time.
fn time_of_excess(picture: &Picture, tick: u64, otherwise: Timestamp) -> Timestamp {
    if tick == 0 { otherwise } else { picture.moment.wall_of(tick) }
}

/// Which of a port's limits most packets were over, and what it is.
fn port_excess(port: &Port, counters: &PortCounters) -> (&'static str, (u32, u32)) {
    let rules = &port.rules;
    let count = |reason: Reason| reason_count(counters, reason) + reason_count(counters, reason.monitored());
    let limits = [
        (count(Reason::DropPortLimit), "port_limit", rules.total),
        (count(Reason::DropDiscoverShare), "discover_share", rules.discover.unwrap_or(rules.total)),
        (count(Reason::DropStrangerShare), "stranger_share", rules.strangers),
    ];
    // Of equal ones the last: the narrowest. None at all: it is listed for what its clients' limits stopped.
    let most = limits.into_iter().filter(|(packets, ..)| *packets > 0).max_by_key(|(packets, ..)| *packets);
    most.map_or(("client_limit", rules.total), |(_, reason, limit)| (reason, limit))
}

/// `GET /v1/ports`
#[must_use]
pub fn ports(picture: &Picture) -> Ports {
    let context = &*picture.context;
    let inventory = &context.inventory();
    let mut clients: BTreeMap<u32, u64> = BTreeMap::new();
    for client in &picture.clients {
        *clients.entry(client.key.slot()).or_default() += 1;
    }
    let mut ports: Vec<(bool, PortReport)> = context
        .plan
        .ports
        .iter()
        .filter_map(|port| {
            let seen = picture.ports.get(port.slot as usize)?;
            let count = clients.get(&port.slot).copied().unwrap_or(0);
            let state = state(picture, Subject::Port(port.slot), &seen.standing);
            Some((is_trouble(&seen.standing, state), port_report(inventory, port, seen, state, count)))
        })
        .collect();
    ports.sort_by_cached_key(|(trouble, port)| (!trouble, Reverse(port.drop_rate_pps), port.port.clone()));
    Ports { as_of: picture.moment.wall, ports: ports.into_iter().map(|(_, port)| port).collect() }
}

fn port_report(inventory: &Inventory, port: &Port, seen: &PortPicture, state: State, clients: u64) -> PortReport {
    let counters = &seen.counters;
    let found = inventory.find(&port.interface, &port.vlans, None);
    let machine = found.map(|found| found.machine);
    PortReport {
        port: port.name.clone(),
        interface: port.interface.clone(),
        vlans: port.vlans.clone(),
        class: port.rules.class.clone(),
        trusted: port.rules.trusted,
        allowed: port.allowed,
        mode: port.rules.mode,
        state,
        packets: count_where(counters, |_| true),
        dropped: count_where(counters, Reason::is_drop),
        would_drop: count_where(counters, Reason::is_would_drop),
        rate_pps: seen.window.rate_pps(),
        drop_rate_pps: seen.window.excess_pps(),
        limit_pps: port.rules.total.0.into(),
        limit_burst: port.rules.total.1.into(),
        clients,
        distinct_macs: seen.distinct,
        rogue_server_packets: rogue_server_packets(counters),
        server_id: machine.map(|m| m.server_id.clone()),
        switch: found.and_then(|found| found.switch).map(str::to_owned),
        switch_port: found.and_then(|found| found.switch_port).map(str::to_owned),
        zone: machine.and_then(|m| m.zone.clone()),
        reasons: reasons(counters),
        message_types: message_types(counters),
        notes: notes(counters),
    }
}

/// `GET /v1/clients`
#[must_use]
pub fn clients(picture: &Picture) -> Clients {
    let context = &*picture.context;
    let inventory = &context.inventory();
    let mut seen: Vec<&ClientPicture> = picture.clients.iter().collect();
    seen.sort_by_key(|client| {
        (
            !is_trouble(&client.standing, state_of(picture, client)),
            Reverse(client.window.packets),
            Reverse(client.totals.packets),
            client.key,
        )
    });
    let clients = seen.into_iter().filter_map(|client| client_report(context, inventory, picture, client)).collect();
    Clients { as_of: picture.moment.wall, clients }
}

fn client_report(
    context: &Context,
    inventory: &Inventory,
    picture: &Picture,
    client: &ClientPicture,
) -> Option<ClientReport> {
    let port = context.plan.port(client.key.slot())?;
    let mac = client.who.mac();
    let machine = inventory.machine(&port.interface, &port.vlans, client.who.source());
    let (dropped, would_drop) = split(port.rules.mode, client.totals.excess);
    let time = |ticks: u64| (client.totals.packets > 0).then(|| picture.moment.wall_of(ticks));
    Some(ClientReport {
        mac: mac.map(|mac| mac.to_string()),
        relay: client.who.relay(),
        peer: client.who.peer(),
        interface: port.interface.clone(),
        port: port.name.clone(),
        vlans: port.vlans.clone(),
        known: client.known,
        known_by: client.known.then(|| known_by(context, client)),
        state: state_of(picture, client),
        packets: client.totals.packets,
        dropped,
        would_drop,
        rate_pps: client.window.rate_pps(),
        first_seen: time(client.totals.generation),
        last_seen: time(client.totals.latest),
        server_id: machine.map(|m| m.server_id.clone()),
    })
}

fn known_by(context: &Context, client: &ClientPicture) -> KnownBy {
    if context.plan.configured.contains(&client.key) { KnownBy::Configuration } else { KnownBy::Learned }
}

/// `GET /v1/quarantine`
#[must_use]
pub fn quarantines(picture: &Picture) -> Quarantines {
    let sanctioned = &picture.sanctioned;
    Quarantines {
        as_of: picture.moment.wall,
        hold: sanctioned.hold.clone(),
        quarantines: sanctioned.quarantines.clone(),
    }
}

/// `GET /v1/allow`
#[must_use]
pub fn allowed(picture: &Picture) -> Allows {
    Allows { as_of: picture.moment.wall, allowed: picture.sanctioned.allowed.clone() }
}

/// Servers' messages from a port that is not trusted, whatever became of them.
fn rogue_server_packets(counters: &PortCounters) -> u64 {
    let reasons = [Reason::PassServer, Reason::DropRogueServer, Reason::WouldDropRogueServer];
    reasons.iter().map(|reason| reason_count(counters, *reason)).sum()
}

/// Packets over a limit were dropped, or in `monitor` mode would have been.
fn split(mode: Mode, excess: u64) -> (u64, u64) {
    match mode {
        Mode::Enforce => (excess, 0),
        Mode::Monitor => (0, excess),
    }
}

fn state_of(picture: &Picture, client: &ClientPicture) -> State {
    state(picture, Subject::Client(client.key), &client.standing)
}

/// Where somebody stands: what was decided about it, or else what its limits alone say.
fn state(picture: &Picture, subject: Subject, standing: &Standing) -> State {
    if let Some(state) = picture.sanctioned.states.get(&subject) {
        return *state;
    }
    match standing {
        Standing::Normal => State::Normal,
        Standing::OverLimit { .. } => State::OverLimit,
        Standing::Offender { .. } => State::Offender,
        Standing::Recovered { .. } => State::Recovered,
    }
}

/// Whether somebody should look at it now.
fn is_trouble(standing: &Standing, state: State) -> bool {
    standing.is_trouble() || matches!(state, State::Candidate | State::HeldBack | State::Quarantined)
}

fn reasons(counters: &PortCounters) -> BTreeMap<String, u64> {
    Reason::ALL.iter().map(|reason| (reason.name().to_owned(), reason_count(counters, *reason))).collect()
}

fn message_types(counters: &PortCounters) -> BTreeMap<String, u64> {
    let column = |kind: MessageType| counters.messages[kind.index()];
    MessageType::ALL.iter().map(|kind| (kind.name().to_owned(), column(*kind))).collect()
}

fn notes(counters: &PortCounters) -> BTreeMap<String, u64> {
    Note::ALL.iter().map(|note| (note.name().to_owned(), counters.notes[note.index()])).collect()
}

// Slot 0 is nobody's: the picture's first port stands for it.
const _: () = assert!(NO_PORT_SLOT == 0);
