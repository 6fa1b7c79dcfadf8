//! The governor's orders on their way to the thread that owns the data plane, and what becomes of them.

use std::{
    sync::mpsc::{SyncSender, TrySendError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use log::warn;
use tokio::sync::mpsc;

use super::{change::Change, names, plan::Plan};
use crate::{
    actuators::What,
    dataplane::DataPlane,
    governor::{Action, Order},
};

/// Messages that may wait for the reader, which takes them as they come.
pub const QUEUE: usize = 16;
/// Outcomes that may wait for the decision loop.
const OUTCOMES: usize = 256;

/// What the reader is told.
#[derive(Debug)]
pub enum Message {
    /// Let the data plane go, and end.
    Stop,
    /// Carry these out, now.
    Orders(Batch),
    /// Change what is guarded.
    Change(Box<Change>),
}

/// Orders, and how their times are told in the kernel's ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// To be carried out in this order.
    pub orders: Vec<Order>,
    /// One moment on both clocks.
    pub anchor: Anchor,
}

/// The same moment on the governor's clock and on the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// On the governor's clock.
    pub time: Timestamp,
    /// In the kernel's ticks.
    pub ticks: u64,
    /// The kernel's HZ.
    pub ticks_per_s: u32,
}

impl Anchor {
    /// The tick of a time, rounded up: a quarantine ends too late rather than too early. `None` is never.
    #[must_use]
    pub fn tick_of(&self, time: Option<Timestamp>) -> u64 {
        let Some(time) = time else { return dhcp_guard_common::layout::FOREVER };
        let nanos = time.duration_since(self.time).as_nanos();
        let ticks = (nanos * i128::from(self.ticks_per_s)).div_euclid(1_000_000_000) + 1;
        // 0 is "not at all"; a time that has passed is a tick that has.
        u64::try_from((i128::from(self.ticks) + ticks).max(1)).unwrap_or(dhcp_guard_common::layout::FOREVER)
    }
}

impl Anchor {
    /// The time of a tick; the end of all times for one that never comes.
    #[must_use]
    pub fn time_of(&self, tick: u64) -> Timestamp {
        let nanos = (i128::from(tick) - i128::from(self.ticks)) * 1_000_000_000 / i128::from(self.ticks_per_s.max(1));
        let distance = SignedDuration::from_nanos_i128(nanos.clamp(-MOST_NANOS, MOST_NANOS));
        self.time.saturating_add(distance).unwrap_or(Timestamp::MAX)
    }
}

/// A hundred years.
const MOST_NANOS: i128 = 100 * 365 * 86_400 * 1_000_000_000;

/// What became of an order about a quarantine in the data plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The quarantine's number.
    pub quarantine: u64,
    /// Begin or end.
    pub what: What,
    /// When it was done.
    pub took: Duration,
    /// Why it was not.
    pub error: Option<String>,
}

/// The decision loop's end.
#[derive(Debug)]
pub struct Sender {
    messages: SyncSender<Message>,
    /// What found the queue full. Nothing is lost: it goes first the next time.
    unsent: Vec<Order>,
}

impl Sender {
    /// To this reader.
    #[must_use]
    pub fn new(messages: SyncSender<Message>) -> Self {
        Self { messages, unsent: Vec::new() }
    }

    /// Sends orders, and whatever could not be sent before. Waits for nobody.
    pub fn send(&mut self, orders: Vec<Order>, anchor: Anchor) {
        self.unsent.extend(orders);
        if self.unsent.is_empty() {
            return;
        }
        let batch = Batch { orders: std::mem::take(&mut self.unsent), anchor };
        match self.messages.try_send(Message::Orders(batch)) {
            Ok(()) => {}
            Err(TrySendError::Full(Message::Orders(batch)) | TrySendError::Disconnected(Message::Orders(batch))) => {
                warn!("the map reader is late: {} orders wait for it", batch.orders.len());
                self.unsent = batch.orders;
            }
            Err(_) => {}
        }
    }
}

/// The reader's end.
#[derive(Debug)]
pub struct Executor {
    plan: Plan,
    outcomes: mpsc::Sender<Outcome>,
}

/// An executor for these ports, and what becomes of its orders.
#[must_use]
pub fn executor(plan: &Plan) -> (Executor, mpsc::Receiver<Outcome>) {
    let (outcomes, receiver) = mpsc::channel(OUTCOMES);
    (Executor { plan: plan.clone(), outcomes }, receiver)
}

impl Executor {
    /// The ports that orders are about.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Goes on with other ports.
    pub fn set_plan(&mut self, plan: Plan) {
        self.plan = plan;
    }

    /// Carries orders out. That one cannot be is no reason not to try the next.
    pub fn carry_out(&self, plane: &mut DataPlane, batch: &Batch) {
        for order in &batch.orders {
            let start = Instant::now();
            let slot = |subject: &_| names::slot(&self.plan, subject);
            let result = plane.carry_out(order, &slot, &|time| batch.anchor.tick_of(time));
            let error = result.err().map(|error| error.to_string());
            if let Some(error) = &error {
                warn!("an order could not be carried out: {error}");
            }
            let (quarantine, what) = match order.action() {
                Action::Impose(quarantine) => (quarantine.id, What::Impose),
                Action::Lift(quarantine) => (quarantine.id, What::Lift),
                Action::Allow(..) | Action::Disallow(_) => continue,
            };
            // Nobody may be waited for here. What is lost is a report; the log has it.
            let _ = self.outcomes.try_send(Outcome { quarantine, what, took: start.elapsed(), error });
        }
    }
}

/// The governor's clock: the wall clock as it was at the start, and from then on one that nobody sets. A quarantine lasts
/// as long as it was meant to, whatever happens to the host's time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Timestamp,
    epoch: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { started: Timestamp::now(), epoch: Instant::now() }
    }

    /// Where times since the start are counted from.
    #[must_use]
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// The time, so long after the start.
    #[must_use]
    pub fn at(&self, since_start: Duration) -> Timestamp {
        let since_start = SignedDuration::try_from(since_start).unwrap_or(SignedDuration::MAX);
        self.started.saturating_add(since_start).unwrap_or(Timestamp::MAX)
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.at(self.epoch.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use dhcp_guard_common::layout::FOREVER;

    use super::*;

    fn anchor() -> Anchor {
        Anchor { time: "2026-01-17T15:00:00Z".parse().unwrap(), ticks: 10_000, ticks_per_s: 250 }
    }

    #[test]
    fn times_become_ticks_that_are_not_too_early() {
        let at = |text: &str| anchor().tick_of(Some(text.parse().unwrap()));
        assert_eq!(at("2026-01-17T15:00:10Z"), 10_000 + 2500 + 1);
        assert_eq!(at("2026-01-17T15:00:10.001Z"), 10_000 + 2500 + 1);
        assert_eq!(at("2026-01-17T14:59:59Z"), 10_000 - 250 + 1);
        assert_eq!(at("1970-01-01T00:00:00Z"), 1, "long ago is not never");
        assert_eq!(anchor().tick_of(None), FOREVER);
        assert_eq!(anchor().time_of(10_000 + 2500).to_string(), "2026-01-17T15:00:10Z");
        assert_eq!(anchor().time_of(10_000 - 250).to_string(), "2026-01-17T14:59:59Z");
        assert!(anchor().time_of(FOREVER).to_string().starts_with("2125"));
        let far = anchor().tick_of(Some(Timestamp::MAX));
        assert!((10_000..FOREVER).contains(&far), "{far}");
    }

    #[test]
    fn what_finds_the_queue_full_goes_first_the_next_time() {
        let (messages, receiver) = sync_channel(1);
        let mut sender = Sender::new(messages);
        let order = Order::for_test;
        sender.send(vec![order(1)], anchor());
        sender.send(vec![order(2)], anchor());
        sender.send(vec![], anchor());
        let Message::Orders(first) = receiver.recv().unwrap() else { panic!() };
        assert_eq!(first.orders, [order(1)]);
        sender.send(vec![order(3)], anchor());
        let Message::Orders(second) = receiver.recv().unwrap() else { panic!() };
        assert_eq!(second.orders, [order(2), order(3)]);
        sender.send(vec![], anchor());
        assert!(receiver.try_recv().is_err(), "nothing is sent for nothing");
    }
}
