//! `quarantine list`: who may not send, since when, until when, and why.

use jiff::Timestamp;

use super::{
    Style, Tone,
    table::{Align, Cell, Table},
    words,
};
use crate::{
    human::{ago, elapsed, until},
    model::{Covered, QuarantineReport, Quarantines},
};

/// A line for each port and client, so that `grep` finds whoever is looked for; then what did not work.
pub(crate) fn quarantines(answer: &Quarantines, now: Timestamp, style: Style) -> String {
    let mut text = String::new();
    if let Some(hold) = &answer.hold {
        let hold = words::plain(hold);
        text += &format!("{} all automatic quarantine is on hold: {hold}\n", style.paint(Tone::Warn, "hold:"));
    }
    if answer.quarantines.is_empty() {
        return text + &format!("no quarantines: nobody is in quarantine (as of {})\n", ago(now, answer.as_of));
    }
    let columns =
        ["ID", "ACTION", "MACHINE", "PORT", "MAC", "BY", "SINCE", "ENDS IN", "REASON"].map(|name| (name, align(name)));
    let mut table = Table::new(style, columns);
    for quarantine in &answer.quarantines {
        for who in &quarantine.covers {
            table.row(row(quarantine, who, now));
        }
    }
    text += &table.render();
    for quarantine in &answer.quarantines {
        for (actuator, why) in words::failures(quarantine) {
            let warning = style.paint(Tone::Bad, "failed:");
            text += &format!("{warning} quarantine {}, {actuator}: {why}\n", quarantine.id);
        }
    }
    text
}

fn align(column: &str) -> Align {
    if column == "ID" { Align::Right } else { Align::Left }
}

fn row(quarantine: &QuarantineReport, who: &Covered, now: Timestamp) -> [Cell; 9] {
    [
        quarantine.id.to_string().into(),
        words::sanction(quarantine.action),
        words::machine(quarantine.server_id.as_deref(), quarantine.server_name.as_deref()),
        who.port.as_str().into(),
        words::covered_mac(quarantine.kind, who),
        quarantine.by.as_str().into(),
        ago(now, quarantine.since).into(),
        until(now, quarantine.expires_at).into(),
        quarantine.reason.as_str().into(),
    ]
}

/// Where the time went, from the first packet over the limit on.
pub(super) fn times(quarantine: &QuarantineReport, now: Timestamp) -> Option<String> {
    let times = quarantine.times?;
    let steps = [
        ("first excess and drop", times.first_excess),
        ("detected", times.detected),
        ("quarantined", times.quarantined),
        ("notified", times.notified),
    ];
    let mut steps = steps.into_iter().filter_map(|(name, at)| at.map(|at| (name, at)));
    let (name, first) = steps.next()?;
    let rest = steps.map(|(name, at)| format!(" → {name} +{}", elapsed(at.duration_since(first))));
    Some(format!("{name} {}{}", ago(now, first), rest.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::{super::samples::*, *};
    use crate::model::Times;

    #[test]
    fn each_port_and_client_has_a_line() {
        assert_eq!(
            quarantines(&some_quarantines(), now(), PLAIN),
            "\
ID  ACTION   MACHINE        PORT      MAC                BY      SINCE      ENDS IN  REASON
 8  isolate  em-18          tap7      (whole port)       alice   30 s ago   1 h      floods, ticket 4711
 8  isolate  em-18          eth0.200  02:00:5e:10:00:02  alice   30 s ago   1 h      floods, ticket 4711
 7  mute     em-17 (web-3)  eth0.100  02:00:5e:10:00:01  engine  3 min ago  2 min    4.1 M/s for 10 s, its limit is 2 pps
failed: quarantine 7, webhook: no answer within 5 s
"
        );
    }

    #[test]
    fn hold_stands_on_top() {
        let hold = Some("alice, 2 min ago: DHCP server is being\nmoved".to_owned());
        let text = quarantines(&Quarantines { hold: hold.clone(), ..some_quarantines() }, now(), PLAIN);
        let first = "hold: all automatic quarantine is on hold: alice, 2 min ago: DHCP server is being?moved\n";
        assert!(text.starts_with(&format!("{first}ID  ACTION")), "{text}");
        let nobody = Quarantines { hold, quarantines: vec![], as_of: before(1) };
        let text = quarantines(&nobody, now(), PLAIN);
        assert_eq!(text, format!("{first}no quarantines: nobody is in quarantine (as of 1 s ago)\n"));
    }

    #[test]
    fn times_are_differences_to_the_first_packet() {
        let quarantine = a_quarantine();
        assert_eq!(
            times(&quarantine, now()).as_deref(),
            Some("first excess and drop 3 min ago → detected +3.1 s → quarantined +10.2 s → notified +10.6 s")
        );
        let some = Times { first_excess: None, notified: None, ..quarantine.times.unwrap() };
        let quarantine = QuarantineReport { times: Some(some), ..quarantine };
        assert_eq!(times(&quarantine, now()).as_deref(), Some("detected 3 min ago → quarantined +7.0 s"));
        assert_eq!(times(&QuarantineReport { times: Some(Times::default()), ..quarantine.clone() }, now()), None);
        assert_eq!(times(&QuarantineReport { times: None, ..quarantine }, now()), None);
    }
}
