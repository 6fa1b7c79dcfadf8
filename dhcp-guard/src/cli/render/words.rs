//! The words that several answers share.

use super::{Tone, table::Cell};
use crate::{
    governor::Sanction,
    human::count,
    model::{Covered, EventKind, Kind, Mode, QuarantineReport, State},
};

pub(super) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    }
}

pub(super) fn state(state: State) -> Cell {
    let (tone, word) = state_word(state);
    Cell::new(tone, word)
}

pub(super) fn state_word(state: State) -> (Tone, &'static str) {
    match state {
        State::Normal => (Tone::Dim, "normal"),
        State::OverLimit => (Tone::Warn, "over limit"),
        State::Offender => (Tone::Bad, "offender"),
        State::Candidate => (Tone::Bad, "candidate"),
        State::HeldBack => (Tone::Bad, "held back"),
        State::Quarantined => (Tone::Bad, "quarantined"),
        State::Probation => (Tone::Warn, "probation"),
        State::Recovered => (Tone::Dim, "recovered"),
    }
}

pub(super) fn sanction(sanction: Sanction) -> Cell {
    let (tone, word) = sanction_word(sanction);
    Cell::new(tone, word)
}

pub(super) fn sanction_word(sanction: Sanction) -> (Tone, &'static str) {
    match sanction {
        Sanction::Mute => (Tone::Warn, "mute"),
        Sanction::Isolate => (Tone::Bad, "isolate"),
    }
}

/// The MAC that a quarantine covers. One without a MAC is a whole port, unless the quarantine has no port in it: then it is
/// a client that is known by its relay alone.
pub(super) fn covered_mac(kind: Kind, who: &Covered) -> Cell {
    match (&who.mac, kind) {
        (Some(mac), _) => mac.as_str().into(),
        (None, Kind::Port) => Cell::new(Tone::Dim, "(whole port)"),
        (None, Kind::Client) => Cell::new(Tone::Dim, "unknown"),
    }
}

/// The actuators of a quarantine that could not do what they were told, and why.
pub(super) fn failures(quarantine: &QuarantineReport) -> impl Iterator<Item = (String, String)> {
    let failed = quarantine.outcomes.iter().filter_map(|outcome| Some((outcome, outcome.error.as_deref()?)));
    failed.map(|(outcome, why)| (actuator(&outcome.actuator), plain(why)))
}

/// `data_plane` as people write it.
pub(super) fn actuator(name: &str) -> String {
    plain(&name.replace('_', " "))
}

/// A text from elsewhere: it must not be able to move the cursor, nor to break the line.
pub(super) fn plain(text: &str) -> String {
    text.replace(char::is_control, "?")
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
        EventKind::InterfaceGuarded => (Tone::Good, "interface guarded"),
        EventKind::InterfaceRenamed => (Tone::Plain, "interface renamed"),
        EventKind::CannotGuard => (Tone::Bad, "cannot guard"),
        EventKind::Detached => (Tone::Bad, "guard taken off"),
        EventKind::Reattached => (Tone::Good, "guarded again"),
        EventKind::RepliesDetached => (Tone::Warn, "replies unseen"),
        EventKind::PinsRemoved => (Tone::Warn, "pins removed"),
        EventKind::Reloaded => (Tone::Plain, "reloaded"),
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
