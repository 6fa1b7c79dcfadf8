//! `ports`: what is policed, how, and what came of it.

use jiff::Timestamp;

use super::{
    Style, Tone,
    table::{Align, Cell, Table},
    words,
};
use crate::{
    human::{ago, count, rate},
    model::{PortReport, Ports},
};

/// Without an agent (`is_at_rest`) nobody has counted the MACs of the last second.
pub(crate) fn ports(answer: &Ports, is_at_rest: bool, now: Timestamp, style: Style) -> String {
    use Align::{Left, Right};
    if answer.ports.is_empty() {
        return format!("no ports: the agent guards no interface (as of {})\n", ago(now, answer.as_of));
    }
    let columns = [
        ("STATE", Left),
        ("PORT", Left),
        ("MACHINE", Left),
        ("CLASS", Left),
        ("MODE", Left),
        ("RATE", Right),
        ("LIMIT", Right),
        ("BURST", Right),
        ("DROP RATE", Right),
        ("DHCP PACKETS", Right),
        ("DROPPED", Right),
        ("CLIENTS", Right),
        ("MACS/S", Right),
        ("ROGUE", Right),
    ];
    let mut table = Table::new(style, columns);
    for port in &answer.ports {
        table.row([
            words::state(port.state),
            port.port.as_str().into(),
            words::machine(port.server_id.as_deref(), None),
            class(port),
            words::mode(port.mode).into(),
            rate(port.rate_pps).into(),
            rate(port.limit_pps).into(),
            count(port.limit_burst).into(),
            noticed(Tone::Warn, port.drop_rate_pps, rate(port.drop_rate_pps)),
            count(port.packets).into(),
            words::dropped(port.dropped, port.would_drop),
            count(port.clients).into(),
            distinct_macs(port, is_at_rest),
            noticed(Tone::Bad, port.rogue_server_packets, count(port.rogue_server_packets)),
        ]);
    }
    table.render()
}

/// The class; and what it means, if its name does not say it.
fn class(port: &PortReport) -> Cell {
    let trusted = if port.trusted && port.class != "trusted" { " (trusted)" } else { "" };
    let allowed = if port.allowed { " (allowed)" } else { "" };
    format!("{}{trusted}{allowed}", port.class).into()
}

/// Strangers in the last second. More than can be told is certainly random MACs.
fn distinct_macs(port: &PortReport, is_at_rest: bool) -> Cell {
    match port.distinct_macs {
        Some(macs) => noticed(Tone::Plain, macs, count(macs)),
        None if is_at_rest => Cell::new(Tone::Dim, "-"),
        None => Cell::new(Tone::Bad, "many"),
    }
}

/// Zero is not worth looking at.
fn noticed(tone: Tone, value: u64, text: String) -> Cell {
    Cell::new(if value == 0 { Tone::Dim } else { tone }, text)
}

#[cfg(test)]
mod tests {
    use super::{super::samples::*, *};
    use crate::model::{Mode, State};

    #[test]
    fn a_port_has_its_limits_and_what_came_of_them() {
        let flooded = PortReport {
            port: "eth0.100".into(),
            class: "relays".into(),
            trusted: true,
            mode: Mode::Monitor,
            state: State::OverLimit,
            rate_pps: 12_345,
            drop_rate_pps: 12_295,
            packets: 5_000_000,
            dropped: 1,
            would_drop: 4_900_000,
            clients: 1500,
            distinct_macs: None,
            rogue_server_packets: 3,
            server_id: Some("em-17".into()),
            ..a_port()
        };
        let allowed = PortReport { allowed: true, ..a_port() };
        let answer = Ports { as_of: now(), ports: vec![flooded, a_port(), allowed] };
        assert_eq!(
            ports(&answer, false, now(), PLAIN),
            "\
STATE       PORT      MACHINE  CLASS             MODE         RATE   LIMIT  BURST  DROP RATE  DHCP PACKETS               DROPPED  CLIENTS  MACS/S  ROGUE
over limit  eth0.100  em-17    relays (trusted)  monitor  12.3 k/s  50 pps    250   12.2 k/s     5,000,000  1 (+4,900,000 would)    1,500    many      3
normal      eth0      -        metal             enforce     1 pps  50 pps    250      0 pps         1,200                     0        2       1      0
normal      eth0      -        metal (allowed)   enforce     1 pps  50 pps    250      0 pps         1,200                     0        2       1      0
"
        );
    }

    #[test]
    fn what_nobody_has_counted_is_not_many() {
        let answer = Ports { as_of: now(), ports: vec![PortReport { distinct_macs: None, ..a_port() }] };
        assert!(ports(&answer, false, now(), PLAIN).contains(" many "));
        let at_rest = ports(&answer, true, now(), PLAIN);
        assert!(!at_rest.contains("many") && at_rest.ends_with("       -      0\n"), "{at_rest}");
    }

    #[test]
    fn none_says_why() {
        let answer = Ports { as_of: before(2), ports: vec![] };
        assert_eq!(ports(&answer, false, now(), PLAIN), "no ports: the agent guards no interface (as of 2 s ago)\n");
    }
}
