//! `events`: the latest ones, and with `--follow` the new ones without a gap in between.

use std::path::Path;

use jiff::tz::TimeZone;

use super::{args::EventsArgs, output::Output, render};
use crate::{
    client::{Client, ClientError},
    model::{Event, Events},
};

const LATEST: usize = 50;
const LATEST_BEFORE_FOLLOWING: usize = 10;

pub(super) async fn events(socket: &Path, args: &EventsArgs, out: &mut Output) -> anyhow::Result<()> {
    let client = Client::new(socket);
    let default = if args.follow { LATEST_BEFORE_FOLLOWING } else { LATEST };
    let path = format!("/v1/events?limit={}", args.limit.unwrap_or(default));
    if !args.follow {
        let answer: Events = client.get(&path).await?;
        if args.format.json {
            return out.json(&answer);
        }
        return out.text(&render::events(&answer, &TimeZone::system(), out.style()));
    }
    // First the stream, then the past: whatever happens in between is in both, and shown once.
    let mut stream = client.follow().await?;
    let past: Events = client.get(&path).await?;
    let mut shown = Shown { json: args.format.json, zone: TimeZone::system(), last: None };
    for event in &past.events {
        shown.show(event, out)?;
    }
    while let Some(event) = stream.next().await? {
        shown.show(&event, out)?;
    }
    Err(ClientError::Ended { socket: socket.to_owned() }.into())
}

/// Where a follower is.
struct Shown {
    json: bool,
    zone: TimeZone,
    /// Sequence number of the latest event shown.
    last: Option<u64>,
}

impl Shown {
    fn show(&mut self, event: &Event, out: &mut Output) -> anyhow::Result<()> {
        let expected = self.last.map_or(event.seq, |last| last + 1);
        if event.seq < expected {
            return Ok(());
        }
        self.last = Some(event.seq);
        if self.json {
            return out.json_line(event);
        }
        if event.seq > expected {
            out.text(&render::missed_events(event.seq - expected, out.style()))?;
        }
        out.text(&render::event(event, &self.zone, out.style()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{args::Format, fake_agent::Agent},
        model::EventKind,
    };

    fn event(seq: u64) -> Event {
        Event {
            seq,
            at: "2025-01-17T15:23:41Z".parse().unwrap(),
            kind: EventKind::HostOverLimit,
            interface: None,
            port: None,
            vlans: vec![],
            mac: None,
            server_id: None,
            message: format!("event {seq}"),
        }
    }

    #[test]
    fn each_event_is_shown_once_and_gaps_are_said() {
        let (mut out, written) = Output::buffer();
        let mut shown = Shown { json: false, zone: TimeZone::UTC, last: None };
        for seq in [7, 8, 8, 7, 9, 12] {
            shown.show(&event(seq), &mut out).unwrap();
        }
        let text = written.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert!(lines[0].ends_with("event 7") && lines[1].ends_with("event 8") && lines[2].ends_with("event 9"));
        assert!(lines[3].contains("2 events missed"), "{text}");
        assert!(lines[4].ends_with("event 12"));
    }

    #[test]
    fn json_is_one_document_a_line() {
        let (mut out, written) = Output::buffer();
        let mut shown = Shown { json: true, zone: TimeZone::UTC, last: None };
        shown.show(&event(1), &mut out).unwrap();
        shown.show(&event(5), &mut out).unwrap();
        let events: Vec<Event> = written.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events, [event(1), event(5)]);
    }

    #[tokio::test]
    async fn the_past_comes_before_the_stream_and_its_end_is_an_error() {
        let past = Events { events: vec![event(1), event(2)] };
        let agent = Agent::new().with("/v1/events", past).with_lines("/v1/events/follow", &[event(2), event(3)]);
        let (_dir, socket) = agent.serve();
        let (mut out, written) = Output::buffer();
        let args = EventsArgs { format: Format { json: true }, follow: true, limit: None };
        let error = events(&socket, &args, &mut out).await.unwrap_err();
        assert!(error.to_string().contains("has ended"), "{error}");
        let seqs: Vec<u64> =
            written.text().lines().map(|line| serde_json::from_str::<Event>(line).unwrap().seq).collect();
        assert_eq!(seqs, [1, 2, 3]);
    }
}
