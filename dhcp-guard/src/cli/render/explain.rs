//! `explain`: the present state, why it is so, and the numbers behind it.

use jiff::Timestamp;

use super::{
    Style, Tone, quarantines,
    table::{Align, Cell, Table},
    words,
};
use crate::{
    human::{ago, count, counted, duration, elapsed, rate, until},
    mac::Mac,
    model::{Evidence, Explained, Explanation, Kind, QuarantineReport},
};

/// More do not fit on a line.
const WINDOWS: usize = 10;

pub(crate) fn explained(answer: &Explained, now: Timestamp, style: Style) -> String {
    let each = answer.subjects.iter().map(|subject| explanation(subject, now, style));
    each.collect::<Vec<_>>().join("\n")
}

/// Nobody fits: who was looked for, and where to look.
pub(crate) fn nobody_to_explain(port: Option<&str>, mac: Option<Mac>) -> String {
    match (port, mac) {
        (port, Some(mac)) => {
            let on = port.map_or_else(|| "on any port".to_owned(), |port| format!("on port {port}"));
            format!(
                "nobody to explain: {mac} was not seen {on}; `dhcp-guard clients --mac {mac}` and `dhcp-guard events` \
                 know what there was\n"
            )
        }
        (port, None) => {
            let port = port.unwrap_or("without a name");
            format!("nobody to explain: there is no port {port}; `dhcp-guard ports` lists them\n")
        }
    }
}

fn explanation(subject: &Explanation, now: Timestamp, style: Style) -> String {
    let (tone, state) = words::state_word(subject.state);
    let since = subject.since.and_then(|since| u64::try_from(now.duration_since(since).as_secs()).ok());
    let since = since.map_or_else(String::new, |seconds| format!(" for {}", duration(seconds)));
    let mut text = format!("{}: {}{since}\n", who(subject), style.paint(tone, state));
    let lines = because(subject).into_iter().chain(numbers(subject));
    let lines = lines.chain(subject.quarantine.iter().flat_map(|one| quarantine(one, now)));
    for (label, line) in lines {
        text += &format!("  {} {}\n", style.paint(Tone::Dim, &format!("{label:<11}")), words::plain(&line));
    }
    text + &windows(&subject.evidence, style)
}

/// `client 02:00:5e:10:00:01 on port eth0.100, machine em-17`
fn who(subject: &Explanation) -> String {
    let machine = subject.server_id.as_deref().map_or_else(String::new, |id| format!(", machine {id}"));
    let who = match subject.kind {
        Kind::Port => format!("port {}", subject.who.port),
        Kind::Client => {
            format!("client {} on port {}", subject.who.mac.as_deref().unwrap_or("unknown"), subject.who.port)
        }
    };
    words::plain(&(who + &machine))
}

type Line = (&'static str, String);

fn because(subject: &Explanation) -> Vec<Line> {
    let next = match subject.next_in_s {
        Some(seconds) => format!("{} (in {})", subject.next, duration(seconds)),
        None => subject.next.clone(),
    };
    let mut lines = vec![("because", subject.because.clone()), ("next", next)];
    lines.extend(subject.held_back.clone().map(|why| ("held back", why)));
    lines
}

fn numbers(subject: &Explanation) -> Vec<Line> {
    let evidence = &subject.evidence;
    let mut limit = rate(evidence.limit_pps);
    if evidence.windows_over_limit > 0 {
        limit += &format!("; over it in {} running", counted(evidence.windows_over_limit.into(), "window"));
    }
    if evidence.windows_at_quarantine_rate > 0 {
        limit += &format!(", far enough for quarantine in {}", count(evidence.windows_at_quarantine_rate.into()));
    }
    let mut lines = vec![("limit", limit)];
    if subject.kind == Kind::Port {
        let macs = evidence.distinct_macs.map_or_else(|| "too many to tell".to_owned(), count);
        lines.push(("strangers", format!("{macs} in the last second")));
    }
    if evidence.repeat > 0 {
        let quarantines = counted(evidence.repeat.into(), "automatic quarantine");
        lines.push(("repeat", format!("{quarantines} remembered: each one lasts longer")));
    }
    lines
}

fn quarantine(quarantine: &QuarantineReport, now: Timestamp) -> Vec<Line> {
    let (_, action) = words::sanction_word(quarantine.action);
    let (id, by) = (quarantine.id, &quarantine.by);
    let (since, end) = (ago(now, quarantine.since), until(now, quarantine.expires_at));
    let mut lines = vec![
        ("quarantine", format!("{id}: {action}, by {by}, since {since}, ends in {end}")),
        ("reason", quarantine.reason.clone()),
    ];
    if quarantine.covers.len() > 1 {
        let covers = quarantine.covers.iter().map(|who| match &who.mac {
            Some(mac) => format!("{}/{mac}", who.port),
            None => who.port.clone(),
        });
        lines.push(("covers", covers.collect::<Vec<_>>().join(", ")));
    }
    lines.extend(quarantines::times(quarantine, now).map(|times| ("times", times)));
    for outcome in &quarantine.outcomes {
        let (actuator, took) = (words::actuator(&outcome.actuator), elapsed_ms(outcome.took_ms));
        let line = match &outcome.error {
            None => format!("{actuator} done in {took}"),
            Some(why) => format!("{actuator} FAILED after {took}: {why}"),
        };
        lines.push(("outcome", line));
    }
    lines
}

fn elapsed_ms(ms: u64) -> String {
    elapsed(jiff::SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)))
}

/// The last windows of a second, oldest first.
fn windows(evidence: &Evidence, style: Style) -> String {
    let packets = latest(&evidence.packets);
    if packets.iter().all(|packets| *packets == 0) {
        let seconds = packets.len();
        let line = if seconds == 0 { "not read yet".to_owned() } else { format!("nothing in the last {seconds} s") };
        return format!("  {} {line}\n", style.paint(Tone::Dim, &format!("{:<11}", "packets")));
    }
    let excess = latest(&evidence.own_excess);
    let ages = (0..packets.len()).rev();
    let ages = ages.map(|age| if age == 0 { "now".to_owned() } else { format!("-{age} s") });
    let columns = ages.map(|age| (age, Align::Right));
    let mut table = Table::new(style, [("LAST SECONDS".to_owned(), Align::Left)].into_iter().chain(columns));
    table.row([Cell::from("packets")].into_iter().chain(packets.iter().map(|n| shown(*n, Tone::Plain))));
    // What is missing of the older ones is not known.
    let unknown = packets.len().saturating_sub(excess.len());
    let unknown = (0..unknown).map(|_| Cell::new(Tone::Dim, "-"));
    let excess = excess.iter().skip(excess.len().saturating_sub(packets.len())).map(|n| shown(*n, Tone::Bad));
    table.row([Cell::from("over limit")].into_iter().chain(unknown).chain(excess));
    table.render().lines().map(|line| format!("  {line}\n")).collect()
}

fn latest(windows: &[u64]) -> &[u64] {
    &windows[windows.len().saturating_sub(WINDOWS)..]
}

/// Packets of a second: short, because ten of them stand on a line.
fn shown(packets: u64, tone: Tone) -> Cell {
    let text = rate(packets);
    let text = text.trim_end_matches(" pps").trim_end_matches("/s");
    Cell::new(if packets == 0 { Tone::Dim } else { tone }, text)
}

#[cfg(test)]
mod tests {
    use super::{super::samples::*, *};
    use crate::model::State;

    #[test]
    fn a_client_in_quarantine_is_told_from_first_packet_to_last_word() {
        let answer = Explained { as_of: now(), subjects: vec![an_explanation()] };
        assert_eq!(
            explained(&answer, now(), PLAIN),
            "\
client 02:00:5e:10:00:01 on port eth0.100, machine em-17: quarantined for 3 min
  because     it sent 5 times its limit of 2 pps or more in 10 windows of a second running
  next        released after 1 min of quiet (in 2 min)
  limit       2 pps; over it in 190 windows running, far enough for quarantine in 190
  repeat      1 automatic quarantine remembered: each one lasts longer
  quarantine  7: mute, by engine, since 3 min ago, ends in 2 min
  reason      4.1 M/s for 10 s, its limit is 2 pps
  times       first excess and drop 3 min ago → detected +3.1 s → quarantined +10.2 s → notified +10.6 s
  outcome     data plane done in 2 ms
  outcome     webhook FAILED after 5.0 s: no answer within 5 s
  LAST SECONDS  -3 s  -2 s   -1 s    now
  packets          0    12  4.1 M  4.1 M
  over limit       0     0  4.1 M  4.1 M
"
        );
    }

    #[test]
    fn a_port_that_is_held_back_says_why() {
        let evidence = Evidence {
            limit_pps: 50,
            packets: vec![20_000; 12],
            own_excess: vec![19_950; 2],
            windows_over_limit: 30,
            windows_at_quarantine_rate: 0,
            distinct_macs: None,
            repeat: 0,
        };
        let port = Explanation {
            kind: Kind::Port,
            who: covered("tap7", None),
            server_id: None,
            state: State::HeldBack,
            because: "it sent 5 times its limit of 50 pps or more in 10 windows of a second running".into(),
            next: "quarantined as soon as the cap has room".into(),
            next_in_s: None,
            held_back: Some("cap: 3 of at most 3 ports in automatic quarantine at once".into()),
            evidence,
            quarantine: None,
            ..an_explanation()
        };
        assert_eq!(
            explained(&Explained { as_of: now(), subjects: vec![port] }, now(), PLAIN),
            "\
port tap7: held back for 3 min
  because     it sent 5 times its limit of 50 pps or more in 10 windows of a second running
  next        quarantined as soon as the cap has room
  held back   cap: 3 of at most 3 ports in automatic quarantine at once
  limit       50 pps; over it in 30 windows running
  strangers   too many to tell in the last second
  LAST SECONDS    -9 s    -8 s    -7 s    -6 s    -5 s    -4 s    -3 s    -2 s    -1 s     now
  packets       20.0 k  20.0 k  20.0 k  20.0 k  20.0 k  20.0 k  20.0 k  20.0 k  20.0 k  20.0 k
  over limit         -       -       -       -       -       -       -       -  19.9 k  19.9 k
"
        );
    }

    #[test]
    fn a_calm_client_is_short_and_several_are_apart() {
        let calm = Explanation {
            state: State::Normal,
            since: None,
            because: "it keeps to its limit of 2 pps".into(),
            next: "offender after 3 windows over its limit running".into(),
            next_in_s: None,
            evidence: Evidence { limit_pps: 2, packets: vec![0; 10], own_excess: vec![0; 10], ..Evidence::default() },
            quarantine: None,
            ..an_explanation()
        };
        let fresh = Explanation { evidence: Evidence { limit_pps: 2, ..Evidence::default() }, ..calm.clone() };
        let text = explained(&Explained { as_of: now(), subjects: vec![calm, fresh] }, now(), PLAIN);
        let head = "\
client 02:00:5e:10:00:01 on port eth0.100, machine em-17: normal
  because     it keeps to its limit of 2 pps
  next        offender after 3 windows over its limit running
  limit       2 pps
";
        let expected = format!("{head}  packets     nothing in the last 10 s\n\n{head}  packets     not read yet\n");
        assert_eq!(text, expected);
    }

    #[test]
    fn whoever_is_not_there_is_named() {
        assert_eq!(
            nobody_to_explain(Some("eth9"), None),
            "nobody to explain: there is no port eth9; `dhcp-guard ports` lists them\n"
        );
        let mac = "02:00:5e:10:00:01".parse().ok();
        assert!(nobody_to_explain(None, mac).contains(": 02:00:5e:10:00:01 was not seen on any port; "));
        assert!(nobody_to_explain(Some("eth0"), mac).contains(" was not seen on port eth0; "));
    }
}
