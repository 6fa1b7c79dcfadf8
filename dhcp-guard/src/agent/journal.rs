//! The latest events, numbered, and a way to follow new ones.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use log::{info, warn};
use tokio::sync::broadcast;

use super::plan::Port;
use crate::{
    inventory::Inventory,
    mac::Mac,
    model::{Event, EventKind},
};

/// Events kept for `events`.
const KEPT: usize = 10_000;
/// Events that a follower may be behind before it loses some.
const FOLLOWER_QUEUE: usize = 1024;

/// An event before it has a number and the names of what it is about.
#[derive(Clone, Debug)]
pub struct Draft<'a> {
    /// What happened.
    pub kind: EventKind,
    /// When.
    pub at: Timestamp,
    /// On which port.
    pub port: Option<&'a Port>,
    /// Of which MAC.
    pub mac: Option<Mac>,
    /// The same if it is the frame's own source: only then it says whose machine it is.
    pub source: Option<Mac>,
    /// With which VLANs, if they are not the port's.
    pub vlans: Option<Vec<u16>>,
    /// One sentence.
    pub message: String,
}

impl Draft<'_> {
    /// About nobody in particular.
    #[must_use]
    pub fn of_nobody(kind: EventKind, at: Timestamp, message: String) -> Self {
        Self { kind, at, port: None, mac: None, source: None, vlans: None, message }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Journal {
    kept: Mutex<Kept>,
    followers: broadcast::Sender<Event>,
}

#[derive(Debug, Default)]
struct Kept {
    next: u64,
    events: VecDeque<Event>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { kept: Mutex::default(), followers: broadcast::Sender::new(FOLLOWER_QUEUE) }
    }
}

impl Journal {
    /// Adds an event that names no machine.
    pub fn add(&self, draft: Draft<'_>) {
        self.add_with(draft, &Inventory::default());
    }

    /// Adds an event, names its machine from the inventory, logs it, and tells the followers.
    pub fn add_with(&self, draft: Draft<'_>, inventory: &Inventory) {
        let machine = draft.port.and_then(|port| inventory.machine(&port.interface, &port.vlans, draft.source));
        let server_id = machine.map(|machine| machine.server_id.clone());
        let message = match &server_id {
            Some(server_id) => format!("{} (machine {server_id})", draft.message),
            None => draft.message,
        };
        match draft.kind {
            EventKind::AgentStarted => {}
            EventKind::ClientOverLimit
            | EventKind::PortOverLimit
            | EventKind::OffenderRecovered
            | EventKind::InterfaceGuarded
            | EventKind::InterfaceRenamed
            | EventKind::Reattached
            | EventKind::Reloaded => {
                info!("{message}");
            }
            _ => warn!("{message}"),
        }
        let mut kept = self.kept();
        let event = Event {
            seq: kept.next,
            at: draft.at,
            kind: draft.kind,
            interface: draft.port.map(|port| port.interface.clone()),
            port: draft.port.map(|port| port.name.clone()),
            vlans: draft.vlans.or_else(|| draft.port.map(|port| port.vlans.clone())).unwrap_or_default(),
            mac: draft.mac.map(|mac| mac.to_string()),
            server_id,
            message,
        };
        kept.next += 1;
        if kept.events.len() == KEPT {
            kept.events.pop_front();
        }
        kept.events.push_back(event.clone());
        // Under the lock, so that followers see the same order; it does not wait, and without followers it does nothing.
        let _ = self.followers.send(event);
    }

    /// The latest `limit` events, oldest first.
    #[must_use]
    pub fn latest(&self, limit: usize) -> Vec<Event> {
        let kept = self.kept();
        kept.events.iter().skip(kept.events.len().saturating_sub(limit)).cloned().collect()
    }

    /// Events from now on.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Event> {
        self.followers.subscribe()
    }

    /// A panic elsewhere cannot leave the list half-changed, so a poisoned lock is as good as another.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(message: &str) -> Draft<'static> {
        let at = Timestamp::UNIX_EPOCH;
        Draft {
            kind: EventKind::HostOverLimit,
            at,
            port: None,
            mac: None,
            source: None,
            vlans: None,
            message: message.into(),
        }
    }

    #[test]
    fn keeps_the_latest_and_numbers_them_all() {
        let journal = Journal::default();
        for i in 0..=KEPT {
            journal.add(draft(&i.to_string()));
        }
        assert_eq!(journal.latest(usize::MAX).len(), KEPT);
        let latest = journal.latest(2);
        assert_eq!(latest.iter().map(|e| e.seq).collect::<Vec<_>>(), [KEPT as u64 - 1, KEPT as u64]);
        assert_eq!(latest[1].message, KEPT.to_string());
    }

    #[test]
    fn followers_get_what_comes_after_they_joined() {
        let journal = Journal::default();
        journal.add(draft("before"));
        let mut follower = journal.follow();
        journal.add(draft("after"));
        assert_eq!(follower.try_recv().unwrap().message, "after");
        assert!(follower.try_recv().is_err());
    }
}
