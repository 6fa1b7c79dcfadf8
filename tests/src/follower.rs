//! The agent's events as they happen, through `dhcp-guard events --follow`.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use dhcp_guard::model::{Event, EventKind};

use crate::{agent::Agent, process::Process};

/// Follows an agent until it is dropped.
#[derive(Debug)]
pub struct Follower {
    process: Process,
    events: mpsc::Receiver<(Instant, String)>,
    seen: Vec<(Instant, Event)>,
}

impl Follower {
    /// Follows, and first has all events that the agent still knows.
    pub fn start(agent: &Agent) -> Result<Self> {
        let (sender, events) = mpsc::channel();
        let command = agent.command(&["events", "--follow", "--json"]);
        let process = Process::start(command, move |line| drop(sender.send((Instant::now(), line.to_owned()))))?;
        Ok(Self { process, events, seen: Vec::new() })
    }

    /// Waits for an event, also one that is past; with the time at which it was here.
    pub fn wait_for(&mut self, deadline: Duration, is_it: impl Fn(&Event) -> bool) -> Result<(Instant, Event)> {
        let end = Instant::now() + deadline;
        if let Some(found) = self.seen.iter().find(|(_, event)| is_it(event)) {
            return Ok(found.clone());
        }
        loop {
            let Ok(line) = self.events.recv_timeout(end.saturating_duration_since(Instant::now())) else {
                bail!("the event did not come within {deadline:?}; there were:\n{}", self.messages());
            };
            let latest = self.keep(line)?;
            if is_it(&latest.1) {
                return Ok(latest);
            }
        }
    }

    /// The same for an event of a kind.
    pub fn wait_for_kind(&mut self, deadline: Duration, kind: EventKind) -> Result<(Instant, Event)> {
        self.wait_for(deadline, |event| event.kind == kind).with_context(|| format!("waiting for {kind:?}"))
    }

    /// All that came so far.
    pub fn so_far(&mut self) -> Result<Vec<Event>> {
        while let Ok(line) = self.events.try_recv() {
            self.keep(line)?;
        }
        self.process.check_running()?;
        Ok(self.seen.iter().map(|(_, event)| event.clone()).collect())
    }

    /// Those of a kind that came so far.
    pub fn of_kind(&mut self, kind: EventKind) -> Result<Vec<Event>> {
        Ok(self.so_far()?.into_iter().filter(|event| event.kind == kind).collect())
    }

    /// Forgets what came so far.
    pub fn forget(&mut self) -> Result<()> {
        self.so_far()?;
        self.seen.clear();
        Ok(())
    }

    fn keep(&mut self, (at, line): (Instant, String)) -> Result<(Instant, Event)> {
        let event = serde_json::from_str(&line).with_context(|| format!("not an event: {line}"))?;
        self.seen.push((at, event));
        self.seen.last().cloned().context("there is one")
    }

    fn messages(&self) -> String {
        let lines = self.seen.iter().map(|(_, event)| format!("{:?}: {}", event.kind, event.message));
        lines.collect::<Vec<_>>().join("\n")
    }
}
