//! The sentences about quarantines.

use jiff::Timestamp;

use super::cases::done;
use crate::{
    engine::{
        sanction::{Cause, Rules},
        systemic::Sign,
    },
    governor::{Author, Change, Entry, Key, Quarantine, Target},
    human::{counted, duration, rate},
    model::EventKind,
};

/// What changed, for whoever asked for it.
pub(super) fn change(change: &Change) -> String {
    let whom = if let Key::Quarantine(target) = &change.key { target.to_string() } else { String::new() };
    said(change, &whom)
}

/// What changed; `target`: what to call whom it is about, if that is a quarantine.
fn said(change: &Change, target: &str) -> String {
    match (&change.key, &change.before, &change.after) {
        (Key::Quarantine(_), before, Some(Entry::Quarantine(now))) => {
            let before = if let Some(Entry::Quarantine(before)) = before { Some(before) } else { None };
            let verb = if before.is_some_and(|before| before.sanction == now.sanction) { "stays" } else { "is" };
            let changed = format!("{target} {verb} {} for {}", done(now.sanction), left(change.at, now.until));
            // Whoever asks for some time may think of more.
            match before.filter(|before| before.until > now.until) {
                Some(before) => {
                    format!("{changed}: it ends earlier than before (in {})", left(change.at, before.until))
                }
                None => changed,
            }
        }
        (Key::Quarantine(_), Some(Entry::Quarantine(before)), _) => {
            format!("{target} is no longer {}", done(before.sanction))
        }
        (Key::Hold, _, Some(_)) => "automatic quarantine is on hold".to_owned(),
        (Key::Hold, _, None) => "automatic quarantine goes on".to_owned(),
        (Key::Allowed(subject), _, Some(Entry::Allowed(now))) => match now.until {
            Some(until) => format!("{subject} is allowed for {}", left(change.at, until)),
            None => format!("{subject} is allowed for good"),
        },
        (Key::Allowed(subject), ..) => format!("{subject} is no longer allowed"),
        (Key::Quarantine(_), ..) => format!("{target} is as it was"),
    }
}

/// The same as an event; none for what is only an extension.
pub(super) fn event(made: &Change) -> Option<(EventKind, String)> {
    let by = made.author.as_ref().map_or_else(String::new, |author| format!(" (by {author})"));
    let kind = match (&made.key, &made.before, &made.after) {
        (Key::Quarantine(_), None, Some(_)) => EventKind::QuarantineBegan,
        (Key::Quarantine(_), Some(_), None) => EventKind::QuarantineEnded,
        (Key::Quarantine(_), ..) if made.author.as_ref().is_some_and(Author::is_engine) => return None,
        _ => EventKind::OperatorChange,
    };
    // Without its machine, which every event names by itself.
    let whom = if let Key::Quarantine(target) = &made.key { who(target) } else { String::new() };
    Some((kind, format!("{}: {}{by}", said(made, &whom), made.reason)))
}

/// What the audit log calls it.
pub(super) fn action(change: &Change) -> &'static str {
    match (&change.key, &change.before, &change.after) {
        (Key::Quarantine(_), None, _) => "quarantine_add",
        (Key::Quarantine(_), Some(_), Some(_)) => "quarantine_change",
        (Key::Quarantine(_), Some(_), None) => "quarantine_end",
        (Key::Hold, _, Some(_)) => "hold_on",
        (Key::Hold, _, None) => "hold_off",
        (Key::Allowed(_), _, Some(_)) => "allow_add",
        (Key::Allowed(_), _, None) => "allow_end",
    }
}

/// Why somebody has deserved a quarantine.
pub(super) fn cause(cause: Cause, rules: &Rules) -> String {
    let seconds = rules.windows;
    match cause {
        Cause::Rate { pps, limit_pps } => format!(
            "it sent {} times its limit of {limit_pps} pps or more for {seconds} s, lately {}",
            rules.factor,
            rate(pps)
        ),
        Cause::NewMacs { macs } => {
            let lately = macs.map_or_else(|| "too many to count".to_owned(), |macs| format!("{macs}"));
            format!("it showed more than {} new MACs a second for {seconds} s, lately {lately}", rules.new_macs)
        }
    }
}

/// Why nobody in particular is to blame.
pub(super) fn sign(sign: Sign) -> String {
    match sign {
        Sign::OverLimit { over, of, clients } => {
            let who = if clients { "known client" } else { "port" };
            format!("{over} of {} are over their limits at once", counted(of, who))
        }
        Sign::NoReplies { ports, requests, replies } => format!(
            "the DHCP servers answer hardly anything any more: on {}, {} to {} in the last seconds",
            counted(ports as u64, "port"),
            counted(replies, "reply").replace("replys", "replies"),
            counted(requests, "request")
        ),
    }
}

/// Whom an event is about: the first of those it covers, and how many more.
pub(super) fn who(target: &Target) -> String {
    match target.subjects.as_slice() {
        [] => "nobody".to_owned(),
        [one] => one.to_string(),
        [first, more @ ..] => format!("{first} and {} more of the same machine", more.len()),
    }
}

/// What of it is left.
fn left(now: Timestamp, until: Timestamp) -> String {
    duration(u64::try_from(until.duration_since(now).as_secs()).unwrap_or(0))
}

/// Until when a quarantine lasts, and what may change that.
pub(super) fn next(quarantine: &Quarantine, quiet_s: u64, needed_s: u64) -> String {
    if !quarantine.author.is_engine() {
        return "it ends when its time is over, or by `dhcp-guard quarantine release`".to_owned();
    }
    if quiet_s >= needed_s {
        "it ends when its time is over: it is quiet enough".to_owned()
    } else {
        format!(
            "it ends when its time is over, if it has kept to its limit for {} by then (so far {}); else later",
            duration(needed_s),
            duration(quiet_s)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::governor::{PortName, Sanction, Subject};

    fn target() -> Target {
        Target::one(Subject { port: PortName { interface: "tap7".into(), vlans: vec![] }, client: None })
    }

    fn quarantine(sanction: Sanction, until: &str) -> Entry {
        Entry::Quarantine(Quarantine {
            id: 1,
            target: target(),
            sanction,
            author: Author::Engine,
            reason: "flood".into(),
            since: at("15:00:00"),
            until: at(until),
            found: false,
            repeat: 0,
        })
    }

    fn at(time: &str) -> Timestamp {
        format!("2026-01-17T{time}Z").parse().unwrap()
    }

    fn changed(before: Option<Entry>, after: Option<Entry>) -> Change {
        let (author, reason) = (Some(Author::Engine), "flood".to_owned());
        Change { at: at("15:00:00"), author, reason, key: Key::Quarantine(target()), before, after }
    }

    #[test]
    fn each_kind_of_change_has_its_sentence_and_its_event() {
        let mute = || Some(quarantine(Sanction::Mute, "15:05:00"));
        let longer = || Some(quarantine(Sanction::Mute, "15:06:00"));
        let isolate = || Some(quarantine(Sanction::Isolate, "15:05:00"));
        let began = changed(None, mute());
        assert_eq!(change(&began), "port tap7 is muted for 5 min");
        let expected = (EventKind::QuarantineBegan, "port tap7 is muted for 5 min: flood (by engine)".to_owned());
        assert_eq!(event(&began), Some(expected));
        assert_eq!(change(&changed(mute(), longer())), "port tap7 stays muted for 6 min");
        assert_eq!(event(&changed(mute(), longer())), None);
        let shorter = "port tap7 stays muted for 5 min: it ends earlier than before (in 6 min)";
        assert_eq!(change(&changed(longer(), mute())), shorter);
        let shorter = "port tap7 is isolated for 5 min: it ends earlier than before (in 6 min)";
        assert_eq!(change(&changed(longer(), isolate())), shorter);
        assert_eq!(change(&changed(mute(), isolate())), "port tap7 is isolated for 5 min");
        let ended = Change { author: None, reason: "its time is over".into(), ..changed(isolate(), None) };
        let expected = (EventKind::QuarantineEnded, "port tap7 is no longer isolated: its time is over".to_owned());
        assert_eq!(event(&ended), Some(expected));
    }

    #[test]
    fn reasons_have_the_numbers() {
        let rules = Rules::default();
        assert_eq!(
            cause(Cause::Rate { pps: 4000, limit_pps: 2 }, &rules),
            "it sent 5 times its limit of 2 pps or more for 10 s, lately 4,000 pps"
        );
        assert_eq!(
            cause(Cause::NewMacs { macs: None }, &rules),
            "it showed more than 128 new MACs a second for 10 s, lately too many to count"
        );
        assert_eq!(
            sign(Sign::NoReplies { ports: 3, requests: 40, replies: 0 }),
            "the DHCP servers answer hardly anything any more: on 3 ports, 0 replies to 40 requests in the last seconds"
        );
    }
}
