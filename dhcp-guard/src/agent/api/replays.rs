//! What was carried out is not carried out again: a request that arrives twice, because somebody, or some program between,
//! tried again, must not take away twice.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;

/// Requests that are remembered.
const REMEMBERED: usize = 10_000;

/// The ids of requests that are, or were, carried out.
#[derive(Debug, Default)]
pub(super) struct Replays(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    in_flight: HashSet<String>,
    done: HashMap<String, Timestamp>,
    /// The keys of `done`, the oldest first.
    order: VecDeque<String>,
}

/// What became of the one that had the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replay {
    /// It is being carried out.
    InFlight,
    /// It was carried out.
    Done(Timestamp),
}

/// The right to carry out the request with this id. Unless it is granted, dropping it gives the id free.
#[derive(Debug)]
pub(super) struct Ticket {
    replays: Arc<Replays>,
    id: String,
}

impl Replays {
    /// Whoever panicked did so between two moves: what is there is whole.
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets one request of this id through.
    ///
    /// # Errors
    /// Another one was let through before, and was not refused since.
    pub(super) fn begin(self: &Arc<Self>, id: &str) -> Result<Ticket, Replay> {
        let mut seen = self.lock();
        if let Some(at) = seen.done.get(id) {
            return Err(Replay::Done(*at));
        }
        if !seen.in_flight.insert(id.to_owned()) {
            return Err(Replay::InFlight);
        }
        Ok(Ticket { replays: Arc::clone(self), id: id.to_owned() })
    }
}

impl Ticket {
    /// The request was carried out, and no other one with this id will be.
    pub(super) fn granted(self, at: Timestamp) {
        let mut seen = self.replays.lock();
        while seen.order.len() >= REMEMBERED
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.done.remove(&oldest);
        }
        seen.done.insert(self.id.clone(), at);
        seen.order.push_back(self.id.clone());
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.replays.lock().in_flight.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn one_goes_through_and_its_like_is_told_when() {
        let replays = Arc::new(Replays::default());
        let ticket = replays.begin("a").unwrap();
        assert_eq!(replays.begin("a").unwrap_err(), Replay::InFlight);
        assert!(replays.begin("b").is_ok(), "another one");
        ticket.granted(at(7));
        assert_eq!(replays.begin("a").unwrap_err(), Replay::Done(at(7)));
        assert!(replays.lock().in_flight.is_empty());
    }

    #[test]
    fn what_was_refused_may_be_tried_again() {
        let replays = Arc::new(Replays::default());
        drop(replays.begin("a").unwrap());
        assert!(replays.begin("a").is_ok());
    }

    #[test]
    fn the_latest_ten_thousand_are_remembered_and_no_more() {
        let replays = Arc::new(Replays::default());
        for number in 0..=REMEMBERED {
            replays.begin(&number.to_string()).unwrap().granted(at(0));
        }
        assert!(replays.begin("0").is_ok(), "the oldest made room");
        assert!(replays.begin("1").is_err() && replays.begin(&REMEMBERED.to_string()).is_err());
        let seen = replays.lock();
        assert_eq!((seen.done.len(), seen.order.len()), (REMEMBERED, REMEMBERED));
    }
}
