//! `offenders`: who it was.

use jiff::Timestamp;

use super::{
    Style, Tone,
    table::{Align, Cell, Table},
    words,
};
use crate::{
    human::{ago, counted, rate},
    model::{Kind, Offender, Offenders, PortReport, Ports, State},
};

pub(crate) fn offenders(answer: &Offenders, now: Timestamp, style: Style) -> String {
    use Align::{Left, Right};
    let columns = [
        ("STATE", Left),
        ("MACHINE", Left),
        ("MAC", Left),
        ("PORT", Left),
        ("RATE", Right),
        ("LIMIT", Right),
        ("DROPPED", Right),
        ("SINCE", Left),
        ("LAST SEEN", Left),
        ("REASON", Left),
    ];
    let mut table = Table::new(style, columns);
    for offender in &answer.offenders {
        table.row([
            words::state(offender.state),
            words::machine(offender.server_id.as_deref(), offender.server_name.as_deref()),
            who(offender),
            offender.port.as_str().into(),
            rate(offender.rate_pps).into(),
            rate(offender.limit_pps).into(),
            words::dropped(offender.dropped, offender.would_drop),
            ago(now, offender.offender_since).into(),
            ago(now, offender.last_seen).into(),
            words::limit(&offender.reason).into(),
        ]);
    }
    table.render() + &held_back(answer, style)
}

/// Whoever would be in quarantine, and is not, is worth a question: nobody but a person can do more about them.
fn held_back(answer: &Offenders, style: Style) -> String {
    let mut held_back = answer.offenders.iter().filter(|offender| offender.state == State::HeldBack);
    let Some(first) = held_back.next() else { return String::new() };
    let mac = first.mac.as_deref().map_or_else(String::new, |mac| format!("/{mac}"));
    let line = format!(
        "{} held back from quarantine: `dhcp-guard explain {}{mac}` says why",
        held_back.count() + 1,
        words::plain(&first.port)
    );
    style.paint(Tone::Warn, &line) + "\n"
}

fn who(offender: &Offender) -> Cell {
    match offender.kind {
        Kind::Port => Cell::new(Tone::Dim, "(whole port)"),
        Kind::Client => words::client(offender.mac.as_deref(), offender.peer.as_deref(), offender.relay.as_deref()),
    }
}

/// Nobody: who was watched, and whether somebody is about to become one.
pub(crate) fn no_offenders(ports: &Ports, now: Timestamp) -> String {
    let clients = ports.ports.iter().map(|port| port.clients).sum();
    // What a quarantine drops is no news.
    let over = |port: &&PortReport| match port.state {
        State::OverLimit => true,
        State::Quarantined => false,
        _ => port.drop_rate_pps > 0,
    };
    let over = ports.ports.iter().filter(over).count();
    let meaning = match over {
        0 => "nobody is over their limit".to_owned(),
        n => {
            format!("nobody is over their limit for long enough yet, but packets are, on {}", counted(n as u64, "port"))
        }
    };
    format!(
        "no offenders: {meaning} ({}, {} watched, as of {})\n",
        counted(clients, "client"),
        counted(ports.ports.len() as u64, "port"),
        ago(now, ports.as_of)
    )
}

#[cfg(test)]
mod tests {
    use super::{super::samples::*, *};

    #[test]
    fn an_offender_has_a_name_a_place_and_a_reason() {
        let whole_port = Offender {
            kind: Kind::Port,
            mac: None,
            port: "tap7".into(),
            dropped: 0,
            would_drop: 1500,
            rate_pps: 0,
            limit_pps: 50,
            last_seen: before(90),
            state: State::Recovered,
            reason: "stranger_share".into(),
            server_id: None,
            server_name: None,
            owner: None,
            ..an_offender()
        };
        let answer = Offenders { as_of: now(), offenders: vec![an_offender(), whole_port] };
        assert_eq!(
            offenders(&answer, now(), PLAIN),
            "\
STATE      MACHINE        MAC                PORT         RATE   LIMIT        DROPPED  SINCE      LAST SEEN  REASON
offender   em-17 (web-3)  02:00:5e:10:00:01  eth0.100  4.1 M/s   2 pps      1,234,567  3 min ago  now        over the limit for one client
recovered  -              (whole port)       tap7        0 pps  50 pps  (1,500 would)  3 min ago  1 min ago  strangers over their share of the port
"
        );
    }

    #[test]
    fn every_state_has_a_word_and_whoever_is_held_back_a_hint() {
        let states = [
            State::Quarantined,
            State::HeldBack,
            State::Candidate,
            State::Probation,
            State::Offender,
            State::Recovered,
        ];
        let offender = |state| Offender { state, server_id: None, server_name: None, ..an_offender() };
        let answer = Offenders { as_of: now(), offenders: states.map(offender).into() };
        assert_eq!(
            offenders(&answer, now(), PLAIN),
            "\
STATE        MACHINE  MAC                PORT         RATE  LIMIT    DROPPED  SINCE      LAST SEEN  REASON
quarantined  -        02:00:5e:10:00:01  eth0.100  4.1 M/s  2 pps  1,234,567  3 min ago  now        over the limit for one client
held back    -        02:00:5e:10:00:01  eth0.100  4.1 M/s  2 pps  1,234,567  3 min ago  now        over the limit for one client
candidate    -        02:00:5e:10:00:01  eth0.100  4.1 M/s  2 pps  1,234,567  3 min ago  now        over the limit for one client
probation    -        02:00:5e:10:00:01  eth0.100  4.1 M/s  2 pps  1,234,567  3 min ago  now        over the limit for one client
offender     -        02:00:5e:10:00:01  eth0.100  4.1 M/s  2 pps  1,234,567  3 min ago  now        over the limit for one client
recovered    -        02:00:5e:10:00:01  eth0.100  4.1 M/s  2 pps  1,234,567  3 min ago  now        over the limit for one client
1 held back from quarantine: `dhcp-guard explain eth0.100/02:00:5e:10:00:01` says why
"
        );
    }

    #[test]
    fn a_relayed_offender_names_its_relay() {
        let relayed = Offender { relay: Some("10.0.0.1".into()), ..an_offender() };
        let text = offenders(&Offenders { as_of: now(), offenders: vec![relayed] }, now(), PLAIN);
        assert!(text.contains("  02:00:5e:10:00:01 (relay 10.0.0.1)  eth0.100  "), "{text}");
    }

    #[test]
    fn nobody_means_something() {
        let mut ports = Ports { as_of: before(1), ports: vec![a_port()] };
        assert_eq!(
            no_offenders(&ports, now()),
            "no offenders: nobody is over their limit (2 clients, 1 port watched, as of 1 s ago)\n"
        );
        ports.ports.push(PortReport { state: State::OverLimit, ..a_port() });
        assert_eq!(
            no_offenders(&ports, now()),
            "no offenders: nobody is over their limit for long enough yet, but packets are, on 1 port (4 clients, \
             2 ports watched, as of 1 s ago)\n"
        );
        for state in [State::Quarantined, State::Probation, State::Recovered] {
            let drop_rate_pps = if state == State::Quarantined { 4_000 } else { 0 };
            let ports = Ports { as_of: now(), ports: vec![PortReport { state, drop_rate_pps, ..a_port() }] };
            assert!(no_offenders(&ports, now()).starts_with("no offenders: nobody is over their limit ("), "{state:?}");
        }
    }
}
