//! `events`: one line each. They come one by one, so the columns have fixed widths.

use jiff::tz::TimeZone;

use super::{Style, Tone, words};
use crate::{
    human::counted,
    model::{Event, Events},
};

pub(crate) fn events(answer: &Events, zone: &TimeZone, style: Style) -> String {
    if answer.events.is_empty() {
        return "no events: nothing has happened since the agent started\n".to_owned();
    }
    answer.events.iter().map(|e| event(e, zone, style)).collect()
}

pub(crate) fn event(event: &Event, zone: &TimeZone, style: Style) -> String {
    let time = event.at.to_zoned(zone.clone()).strftime("%H:%M:%S");
    let (tone, kind) = words::event_kind(event.kind);
    let kind = style.paint(tone, &format!("{kind:<17}"));
    let port = event.port.as_deref().or(event.interface.as_deref()).unwrap_or("-");
    let mac = event.mac.as_deref().unwrap_or("-");
    let message = event.message.replace(char::is_control, "?");
    format!("{time}  {kind}  {port:<12}  {mac:<17}  {message}\n")
}

/// Between two events of a stream.
pub(crate) fn missed_events(missed: u64, style: Style) -> String {
    let line = format!("({} missed: they came faster than they were read here)", counted(missed, "event"));
    style.paint(Tone::Warn, &line) + "\n"
}

#[cfg(test)]
mod tests {
    use super::{super::samples::*, *};
    use crate::model::EventKind;

    #[test]
    fn one_line_each_in_local_time() {
        let started = Event {
            kind: EventKind::AgentStarted,
            interface: None,
            port: None,
            mac: None,
            message: "guarding eth0\n".into(),
            ..an_event()
        };
        let answer = Events { events: vec![started, an_event()] };
        let paris = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(
            events(&answer, &paris, PLAIN),
            "\
16:23:41  agent started      -             -                  guarding eth0?
16:23:41  offender found     eth0.100      02:00:5e:10:00:01  em-17 sends 4,000 DHCP packets a second
"
        );
    }

    #[test]
    fn none_says_so() {
        let answer = Events { events: vec![] };
        assert_eq!(events(&answer, &TimeZone::UTC, PLAIN), "no events: nothing has happened since the agent started\n");
    }
}
