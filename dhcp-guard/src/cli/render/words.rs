//! The words that several answers share.

use super::{Tone, table::Cell};
use crate::{
    human::count,
    model::{AttachMode, EventKind, Mode, State},
};

pub(super) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    }
}

pub(super) fn attach_mode(mode: AttachMode) -> &'static str {
    match mode {
        AttachMode::Native => "native",
        AttachMode::Generic => "generic",
    }
}

pub(super) fn state(state: State) -> Cell {
    match state {
        State::Normal => Cell::new(Tone::Dim, "normal"),
        State::OverLimit => Cell::new(Tone::Warn, "over limit"),
        State::Offender => Cell::new(Tone::Bad, "offender"),
        State::Candidate => Cell::new(Tone::Bad, "candidate"),
        State::HeldBack => Cell::new(Tone::Bad, "held back"),
        State::Quarantined => Cell::new(Tone::Bad, "quarantined"),
        State::Probation => Cell::new(Tone::Warn, "probation"),
        State::Recovered => Cell::new(Tone::Dim, "recovered"),
    }
}

pub(super) fn event_kind(kind: EventKind) -> (Tone, &'static str) {
    match kind {
        EventKind::AgentStarted => (Tone::Plain, "agent started"),
        EventKind::ClientOverLimit => (Tone::Warn, "client over limit"),
        EventKind::PortOverLimit => (Tone::Warn, "port over limit"),
        EventKind::OffenderFound => (Tone::Bad, "offender found"),
        EventKind::OffenderRecovered => (Tone::Good, "recovered"),
        EventKind::RogueServer => (Tone::Bad, "rogue server"),
        EventKind::UnknownVlan => (Tone::Warn, "unknown VLAN"),
        EventKind::HostOverLimit => (Tone::Warn, "host over limit"),
        EventKind::InterfaceGone => (Tone::Bad, "interface gone"),
        EventKind::QuarantineBegan => (Tone::Bad, "quarantine began"),
        EventKind::QuarantineEnded => (Tone::Plain, "quarantine ended"),
        EventKind::QuarantineHeldBack => (Tone::Bad, "held back"),
        EventKind::CandidateFound => (Tone::Warn, "candidate found"),
        EventKind::Systemic => (Tone::Bad, "systemic"),
        EventKind::SystemicOver => (Tone::Plain, "systemic over"),
        EventKind::OperatorChange => (Tone::Plain, "operator change"),
        EventKind::ActuatorFailed => (Tone::Bad, "actuator failed"),
        EventKind::CannotSave => (Tone::Bad, "cannot save"),
    }
}

/// Why a client or port is an offender. A reason that a newer agent may have is shown as it is.
pub(super) fn limit(reason: &str) -> String {
    match reason {
        "client_limit" => "over the limit for one client".to_owned(),
        "stranger_share" => "strangers over their share of the port".to_owned(),
        "discover_share" => "DISCOVERs over their share of the port".to_owned(),
        "port_limit" => "over the limit of the port".to_owned(),
        "host_limit" => "over what the host may send".to_owned(),
        other => other.replace('_', " "),
    }
}

/// A verdict reason, in the words of its counter.
pub(super) fn verdict(reason: &str) -> String {
    let (verb, rest) = match reason.split_once('_') {
        Some(("pass", rest)) => ("passed", rest),
        Some(("drop", rest)) => ("dropped", rest),
        Some(("would", rest)) => ("would drop", rest.strip_prefix("drop_").unwrap_or(rest)),
        _ => return reason.to_owned(),
    };
    let why = match rest {
        "allowed" => "on the allowlist".to_owned(),
        "known" => "known client within its limits".to_owned(),
        "stranger" => "stranger within the limits".to_owned(),
        "trusted" => "trusted port within its limit".to_owned(),
        "server" => "server's message from a port that is not trusted".to_owned(),
        "no_port" => "no port configured, so no limit".to_owned(),
        "quarantine" => "client or port in quarantine".to_owned(),
        "rogue_server" => "server's message from a port that is not trusted".to_owned(),
        "chaddr_mismatch" => "another hardware address in the message than in its frame".to_owned(),
        "malformed" => "source MAC that nobody can have".to_owned(),
        limited => limit(limited),
    };
    format!("{verb}: {why}")
}

/// Drops, or what would have been dropped.
pub(super) fn dropped(dropped: u64, would_drop: u64) -> Cell {
    match (dropped, would_drop) {
        (0, 0) => Cell::new(Tone::Dim, "0"),
        (dropped, 0) => count(dropped).into(),
        (0, would) => format!("({} would)", count(would)).into(),
        (dropped, would) => format!("{} (+{} would)", count(dropped), count(would)).into(),
    }
}

/// A client by its MAC, or by what else is known of it, and the relay that it is behind.
pub(super) fn client(mac: Option<&str>, peer: Option<&str>, relay: Option<&str>) -> Cell {
    let name = mac.or(peer).unwrap_or("unknown");
    relay.map_or_else(|| name.into(), |relay| format!("{name} (relay {relay})").into())
}

/// A machine by its id and name; `-` for one that the inventory does not have.
pub(super) fn machine(server_id: Option<&str>, name: Option<&str>) -> Cell {
    match (server_id, name) {
        (Some(id), Some(name)) if !name.is_empty() => format!("{id} ({name})").into(),
        (Some(id), _) => id.into(),
        (None, _) => Cell::new(Tone::Dim, "-"),
    }
}

#[cfg(test)]
mod tests {
    use dhcp_guard_common::verdict::Reason;

    use super::*;

    #[test]
    fn every_verdict_has_words() {
        for reason in Reason::ALL {
            let words = verdict(reason.name());
            let verb = words.split_once(": ").map(|(verb, _)| verb);
            let expected = if reason.is_drop() {
                "dropped"
            } else if reason.is_would_drop() {
                "would drop"
            } else {
                "passed"
            };
            assert_eq!(verb, Some(expected), "{words}");
            // What has no words of its own comes out as its name.
            assert!(words.split_once(": ").is_some_and(|(_, why)| why.contains(' ')), "{words}");
        }
    }

    #[test]
    fn a_reason_of_a_newer_agent_is_still_shown() {
        assert_eq!(verdict("drop_muted"), "dropped: muted");
        assert_eq!(limit("global_limit"), "global limit");
    }
}
