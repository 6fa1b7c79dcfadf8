//! `status`: one sentence, then what is wrong, then the numbers.

use std::collections::BTreeMap;

use dhcp_guard_common::verdict::Reason;
use jiff::Timestamp;

use super::{
    Style, Tone,
    table::{Align, Table},
    words,
};
use crate::{
    human::{ago, count, counted, duration, rate},
    model::{Mode, Status, Troubles},
};

pub(crate) fn status(status: &Status, now: Timestamp, style: Style) -> String {
    let mut text = headline(status, style);
    for warning in &status.warnings {
        text += &format!("{} {warning}\n", style.paint(Tone::Warn, "warning:"));
    }
    if status.hold {
        text += &format!("{} all automatic quarantine is on hold\n", style.paint(Tone::Warn, "hold:"));
    }
    for trouble in troubles(&status.troubles) {
        text += &format!("{} {trouble}\n", style.paint(Tone::Warn, "data plane:"));
    }
    if !status.interfaces.is_empty() {
        text += &format!("\n{}", interfaces(status, style));
    }
    if let Some(reasons) = reasons(status, style) {
        text += &format!("\n{reasons}");
    }
    text + "\n" + &style.paint(Tone::Dim, &footer(status, now)) + "\n"
}

fn headline(status: &Status, style: Style) -> String {
    let (offenders, dropped) = (status.offenders, status.interfaces.iter().map(|i| i.dropped).sum::<u64>());
    let would_drop: u64 = status.interfaces.iter().map(|i| i.would_drop).sum();
    let offenders = match offenders {
        0 => style.paint(Tone::Good, "no offenders"),
        n => style.paint(Tone::Bad, &counted(n, "offender")),
    };
    let quarantined = match status.quarantined {
        0 => String::new(),
        n => format!(", {} in quarantine", count(n)),
    };
    // In monitor mode nothing is dropped; a port of its own mode may make it both.
    let mut packets = Vec::new();
    if status.mode == Mode::Enforce || dropped > 0 {
        packets.push(format!("{} dropped", counted(dropped, "DHCP packet")));
    }
    if status.mode == Mode::Monitor || would_drop > 0 {
        packets.push(format!("{} over a limit let through", counted(would_drop, "DHCP packet")));
    }
    format!(
        "guarding {}, {}, {}: {offenders}{quarantined}, {}\n",
        guarded(status),
        words::mode(status.mode),
        since(status),
        packets.join(", ")
    )
}

fn since(status: &Status) -> String {
    if status.agent_running {
        return format!("up {}", duration(status.uptime_s));
    }
    match status.last_agent_s {
        Some(without) => format!("without an agent for {}", duration(without)),
        None => "without an agent".to_owned(),
    }
}

fn guarded(status: &Status) -> String {
    /// More than these and the sentence gets too long; the table has them all.
    const NAMED: usize = 3;
    match status.interfaces.as_slice() {
        [] => "nothing".to_owned(),
        few if few.len() <= NAMED => {
            let named = few.iter().map(|i| format!("{} ({})", i.name, i.mode.word()));
            named.collect::<Vec<_>>().join(", ")
        }
        many => counted(many.len() as u64, "interface"),
    }
}

/// What the data plane could not do, where there is any.
fn troubles(troubles: &Troubles) -> impl Iterator<Item = String> {
    // Exhaustive, so that a new trouble cannot be forgotten here.
    let Troubles { events_suppressed, events_lost, events_unheard, insert_failed, untracked_packets, lost_races } =
        *troubles;
    [
        (events_suppressed, "event", "not sent, more than the budget"),
        (events_lost, "event", "lost, the buffer was full"),
        (events_unheard, "event", "heard by nobody, no agent was there"),
        (insert_failed, "new client", "without a place in the table"),
        (untracked_packets, "packet", "counted for the port but not for a MAC"),
        (lost_races, "packet", "treated as over the limit after a race between CPUs"),
    ]
    .into_iter()
    .filter(|(n, ..)| *n > 0)
    .map(|(n, one, what)| format!("{} {what}", counted(n, one)))
}

fn interfaces(status: &Status, style: Style) -> String {
    use Align::{Left, Right};
    let columns = [
        ("INTERFACE", Left),
        ("HOOK", Left),
        ("FRAMES", Right),
        ("DHCP PACKETS", Right),
        ("RATE", Right),
        ("DROPPED", Right),
        ("DROP RATE", Right),
    ];
    let mut table = Table::new(style, columns);
    for interface in &status.interfaces {
        table.row([
            interface.name.as_str().into(),
            interface.mode.word().into(),
            count(interface.packets).into(),
            count(interface.dhcp_packets).into(),
            rate(interface.rate_pps).into(),
            words::dropped(interface.dropped, interface.would_drop),
            rate(interface.drop_rate_pps).into(),
        ]);
    }
    table.render()
}

/// What became of all DHCP packets, over all interfaces; only what happened.
fn reasons(status: &Status, style: Style) -> Option<String> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (reason, packets) in status.interfaces.iter().flat_map(|interface| &interface.reasons) {
        *sums.entry(reason).or_default() += packets;
    }
    sums.retain(|_, packets| *packets > 0);
    if sums.is_empty() {
        return None;
    }
    // In the order of the list; what only a newer agent has comes last.
    let place = |name: &str| Reason::ALL.iter().position(|reason| reason.name() == name).unwrap_or(usize::MAX);
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(name, _)| place(name));
    let mut table = Table::new(style, [("VERDICT", Align::Left), ("DHCP PACKETS", Align::Right)]);
    for (name, packets) in sums {
        table.row([words::verdict(name).into(), count(packets).into()]);
    }
    Some(table.render())
}

fn footer(status: &Status, now: Timestamp) -> String {
    let config =
        status.config.as_deref().map_or_else(|| "default configuration".into(), |c| format!("configuration {c}"));
    let agent = if status.agent_running {
        format!("agent {}, pid {}", status.version, status.pid)
    } else {
        format!("no agent, dhcp-guard {}", status.version)
    };
    format!("{agent}, {config}, as of {}", ago(now, status.as_of))
}

#[cfg(test)]
mod tests {
    use super::{super::samples::*, *};
    use crate::model::{AttachMode, InterfaceStatus};

    #[test]
    fn one_sentence_then_the_numbers() {
        assert_eq!(
            status(&a_status(), now(), PLAIN),
            "\
guarding eth0 (native), enforce, up 3 min: 1 offender, 12,345,678 DHCP packets dropped

INTERFACE  HOOK        FRAMES  DHCP PACKETS     RATE     DROPPED  DROP RATE
eth0       native  99,000,000    12,350,000  4.1 M/s  12,345,678    4.1 M/s

VERDICT                                 DHCP PACKETS
passed: stranger within the limits             4,322
dropped: over the limit for one client    12,345,678

agent 0.1.0, pid 4711, configuration /etc/dhcp-guard/dhcp-guard.toml, as of 1 s ago
"
        );
    }

    #[test]
    fn what_is_wrong_comes_before_the_numbers() {
        let wrong = Status {
            warnings: vec!["eth0 is attached in generic mode".into()],
            hold: true,
            quarantined: 2,
            troubles: Troubles { events_lost: 1, lost_races: 2000, ..Troubles::default() },
            ..a_status()
        };
        let text = status(&wrong, now(), PLAIN);
        let start = "\
guarding eth0 (native), enforce, up 3 min: 1 offender, 2 in quarantine, 12,345,678 DHCP packets dropped
warning: eth0 is attached in generic mode
hold: all automatic quarantine is on hold
data plane: 1 event lost, the buffer was full
data plane: 2,000 packets treated as over the limit after a race between CPUs

INTERFACE";
        assert!(text.starts_with(start), "{text}");
    }

    #[test]
    fn a_calm_host_in_monitor_mode() {
        let quiet = InterfaceStatus {
            mode: AttachMode::Generic,
            dhcp_packets: 0,
            dropped: 0,
            would_drop: 7,
            reasons: BTreeMap::new(),
            ..an_interface()
        };
        let calm = Status { mode: Mode::Monitor, interfaces: vec![quiet], offenders: 0, config: None, ..a_status() };
        let text = status(&calm, now(), PLAIN);
        let start =
            "guarding eth0 (generic), monitor, up 3 min: no offenders, 7 DHCP packets over a limit let through\n\n";
        assert!(text.starts_with(start), "{text}");
        assert!(!text.contains("VERDICT"), "{text}");
        assert!(text.ends_with("\nagent 0.1.0, pid 4711, default configuration, as of 1 s ago\n"), "{text}");
    }

    #[test]
    fn without_an_agent_nobody_has_a_pid() {
        let text = status(&Status { agent_running: false, pid: 0, ..a_status() }, now(), PLAIN);
        let end = "\nno agent, dhcp-guard 0.1.0, configuration /etc/dhcp-guard/dhcp-guard.toml, as of 1 s ago\n";
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn many_interfaces_are_counted_and_their_reasons_added_up() {
        let many =
            Status { interfaces: vec![an_interface(), an_interface(), an_interface(), an_interface()], ..a_status() };
        let text = status(&many, now(), PLAIN);
        assert!(text.starts_with("guarding 4 interfaces, enforce"), "{text}");
        assert!(text.contains("within the limits            17,288\n"), "{text}");
    }
}
