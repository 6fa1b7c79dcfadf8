//! Answers for the tests of this module. Times are relative to [`now`].

use jiff::{SignedDuration, Timestamp};

use super::Style;
use crate::{governor::Sanction, model::*};

pub(crate) const PLAIN: Style = Style { color: false };

/// 17 January, 16:07:00 UTC.
pub(crate) fn now() -> Timestamp {
    "2025-01-17T16:07:00Z".parse().unwrap()
}

pub(crate) fn before(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

pub(crate) fn an_offender() -> Offender {
    Offender {
        kind: Kind::Client,
        mac: Some("02:00:5e:10:00:01".into()),
        relay: None,
        peer: None,
        interface: "eth0".into(),
        port: "eth0.100".into(),
        vlans: vec![100],
        packets: 1_234_600,
        dropped: 1_234_567,
        would_drop: 0,
        rate_pps: 4_190_000,
        limit_pps: 2,
        limit_v6_pps: Some(1),
        first_seen: before(200),
        last_seen: before(0),
        offender_since: before(190),
        state: State::Offender,
        reason: "client_limit".into(),
        server_id: Some("em-17".into()),
        server_name: Some("web-3".into()),
        owner: Some("acme".into()),
        switch: Some("sw-a12".into()),
        switch_port: Some("Ethernet7".into()),
        zone: Some("par1".into()),
    }
}

pub(crate) fn a_port() -> PortReport {
    PortReport {
        port: "eth0".into(),
        interface: "eth0".into(),
        vlans: vec![],
        class: "metal".into(),
        trusted: false,
        allowed: false,
        mode: Mode::Enforce,
        state: State::Normal,
        packets: 1200,
        dropped: 0,
        would_drop: 0,
        rate_pps: 1,
        drop_rate_pps: 0,
        limit_pps: 50,
        limit_burst: 250,
        clients: 2,
        distinct_macs: Some(1),
        rogue_server_packets: 0,
        server_id: None,
        switch: None,
        switch_port: None,
        zone: None,
        reasons: [("pass_stranger".to_owned(), 1200)].into(),
        message_types: [("discover".to_owned(), 1200)].into(),
        notes: [("relayed".to_owned(), 0)].into(),
    }
}

pub(crate) fn a_client() -> ClientReport {
    ClientReport {
        mac: Some("02:00:5e:10:00:02".into()),
        relay: None,
        peer: None,
        interface: "eth0".into(),
        port: "eth0".into(),
        vlans: vec![],
        known: true,
        known_by: Some(KnownBy::Configuration),
        state: State::Normal,
        packets: 12,
        dropped: 0,
        would_drop: 0,
        rate_pps: 0,
        first_seen: Some(before(7200)),
        last_seen: Some(before(12)),
        server_id: None,
    }
}

pub(crate) fn an_interface() -> InterfaceStatus {
    InterfaceStatus {
        name: "eth0".into(),
        ifindex: 2,
        mode: AttachMode::Native,
        packets: 99_000_000,
        non_dhcp_packets: 86_650_000,
        dhcp_packets: 12_350_000,
        dropped: 12_345_678,
        would_drop: 0,
        rate_pps: 4_190_000,
        drop_rate_pps: 4_180_000,
        reasons: [
            ("pass_known".to_owned(), 0),
            ("pass_stranger".to_owned(), 4_322),
            ("drop_client_limit".to_owned(), 12_345_678),
        ]
        .into(),
        message_types: [("discover".to_owned(), 12_350_000)].into(),
        notes: [("relayed".to_owned(), 0)].into(),
    }
}

pub(crate) fn a_status() -> Status {
    Status {
        agent_running: true,
        version: "0.1.0".into(),
        pid: 4711,
        as_of: before(1),
        started: before(200),
        uptime_s: 200,
        last_agent_s: Some(0),
        mode: Mode::Enforce,
        config: Some("/etc/dhcp-guard/dhcp-guard.toml".into()),
        interfaces: vec![an_interface()],
        offenders: 1,
        hold: false,
        quarantined: 0,
        troubles: Troubles::default(),
        warnings: vec![],
    }
}

pub(crate) fn an_event() -> Event {
    Event {
        seq: 7,
        at: "2025-01-17T15:23:41Z".parse().unwrap(),
        kind: EventKind::OffenderFound,
        interface: Some("eth0".into()),
        port: Some("eth0.100".into()),
        vlans: vec![100],
        mac: Some("02:00:5e:10:00:01".into()),
        server_id: Some("em-17".into()),
        message: "em-17 sends 4,000 DHCP packets a second".into(),
    }
}

pub(crate) fn covered(port: &str, mac: Option<&str>) -> Covered {
    let interface = port.split('.').next().unwrap().into();
    let vlans = port.split('.').skip(1).map(|vlan| vlan.parse().unwrap()).collect();
    Covered { interface, port: port.into(), vlans, mac: mac.map(Into::into) }
}

/// By the engine, of one client.
pub(crate) fn a_quarantine() -> QuarantineReport {
    let at = |ms| Some(before(210) + SignedDuration::from_millis(ms));
    let outcome = |actuator: &str, took_ms, error: Option<&str>| OutcomeReport {
        actuator: actuator.into(),
        at: before(200),
        error: error.map(Into::into),
        took_ms,
    };
    QuarantineReport {
        id: 7,
        kind: Kind::Client,
        covers: vec![covered("eth0.100", Some("02:00:5e:10:00:01"))],
        server_id: Some("em-17".into()),
        server_name: Some("web-3".into()),
        owner: Some("acme".into()),
        action: Sanction::Mute,
        by: "engine".into(),
        reason: "4.1 M/s for 10 s, its limit is 2 pps".into(),
        since: before(200),
        expires_at: before(-160),
        expires_in_s: 160,
        repeat: 1,
        times: Some(Times { first_excess: at(0), detected: at(3_140), quarantined: at(10_200), notified: at(10_650) }),
        outcomes: vec![outcome("data_plane", 2, None), outcome("webhook", 5_000, Some("no answer within 5 s"))],
    }
}

/// One by a person, of a machine with two places, and one by the engine.
pub(crate) fn some_quarantines() -> Quarantines {
    let by_hand = QuarantineReport {
        id: 8,
        kind: Kind::Port,
        covers: vec![covered("tap7", None), covered("eth0.200", Some("02:00:5e:10:00:02"))],
        server_id: Some("em-18".into()),
        server_name: None,
        action: Sanction::Isolate,
        by: "alice".into(),
        reason: "floods, ticket 4711".into(),
        since: before(30),
        expires_at: before(-3600),
        expires_in_s: 3600,
        repeat: 0,
        times: None,
        outcomes: vec![],
        ..a_quarantine()
    };
    Quarantines { as_of: before(1), hold: None, quarantines: vec![by_hand, a_quarantine()] }
}

pub(crate) fn an_allowance() -> AllowReport {
    AllowReport {
        who: covered("eth0.100", Some("02:00:5e:10:00:01")),
        by: "alice".into(),
        reason: Some("boots 300 machines tonight".into()),
        since: Some(before(200)),
        expires_at: Some(before(-7_000)),
    }
}

/// Of the client in [`a_quarantine`].
pub(crate) fn an_explanation() -> Explanation {
    Explanation {
        kind: Kind::Client,
        who: covered("eth0.100", Some("02:00:5e:10:00:01")),
        server_id: Some("em-17".into()),
        state: State::Quarantined,
        since: Some(before(200)),
        because: "it sent 5 times its limit of 2 pps or more in 10 windows of a second running".into(),
        next: "released after 1 min of quiet".into(),
        next_in_s: Some(160),
        held_back: None,
        evidence: Evidence {
            limit_pps: 2,
            packets: vec![0, 12, 4_190_000, 4_190_000],
            own_excess: vec![0, 0, 4_189_998, 4_189_998],
            windows_over_limit: 190,
            windows_at_quarantine_rate: 190,
            distinct_macs: None,
            repeat: 1,
        },
        quarantine: Some(a_quarantine()),
    }
}
