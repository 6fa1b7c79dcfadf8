//! Reads the maps once a window. Map reads are system calls that can take a while, so they have a thread of their own;
//! it owns the data plane.

use std::{
    collections::HashSet,
    sync::mpsc as std_mpsc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use log::warn;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::{
    change::{Change, Done, Lost},
    learn::Actions,
    orders::{Executor, Message, QUEUE},
    start::Guarded,
};
use crate::dataplane::{self, DataPlane, Snapshot};

/// The length of a window. "Offender" is defined in windows of one second.
const WINDOW: Duration = Duration::from_secs(1);

/// What the thread tells the decision loop, in the order in which it happened.
#[derive(Debug)]
pub enum Reading {
    /// The counters.
    Snapshot(Box<Snapshot>),
    /// What is guarded has changed, and how.
    Changed(Box<Changed>),
}

/// A change that was made.
#[derive(Debug)]
pub struct Changed {
    /// What came of it.
    pub done: Done,
    /// Slots that nobody has any more.
    pub gone: HashSet<u32>,
    /// Who waits until the decision loop has taken it, too.
    pub answer: oneshot::Sender<Result<Done, dataplane::Error>>,
}

/// What the thread needs.
#[derive(Debug)]
pub struct Parts {
    /// What it owns.
    pub guarded: Guarded,
    /// What is learned.
    pub actions: Actions,
    /// What is ordered.
    pub executor: Executor,
    /// Where it is told that a program was taken off some interfaces.
    pub lost: mpsc::Sender<Lost>,
}

/// The thread, and the ways to hear of its end.
#[derive(Debug)]
pub struct Reader {
    thread: JoinHandle<()>,
    messages: std_mpsc::SyncSender<Message>,
    failed: oneshot::Receiver<dataplane::Error>,
}

/// Reads everything once.
///
/// # Errors
/// See [`DataPlane::snapshot`].
pub fn read(plane: &mut DataPlane, epoch: Instant) -> Result<Snapshot, dataplane::Error> {
    plane.snapshot(epoch)
}

/// Makes a change, or says why not.
fn carry_out(change: Change, guarded: &mut Guarded, executor: &mut Executor, actions: &mut Actions) -> Option<Changed> {
    let Change { wanted, answer } = change;
    match guarded.change(executor.plan(), wanted) {
        Ok((done, gone)) => {
            executor.set_plan(done.context.plan.clone());
            actions.plan_changed();
            Some(Changed { done, gone, answer })
        }
        Err(error) => {
            // Whoever asked may not wait any more.
            let _ = answer.send(Err(error));
            None
        }
    }
}

impl Reader {
    /// Starts reading, carries out what was learned before each reading, and orders as they come. A snapshot that the
    /// decision loop has no time for is lost: the next one has all its counts.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(parts: Parts, epoch: Instant) -> anyhow::Result<(Self, mpsc::Receiver<Reading>)> {
        let Parts { mut guarded, mut actions, mut executor, lost } = parts;
        let (readings, receiver) = mpsc::channel(1);
        let (messages, inbox) = std_mpsc::sync_channel(QUEUE);
        let (failed, failure) = oneshot::channel();
        let body = move || {
            guarded.is_begun = true;
            let mut next = Instant::now() + WINDOW;
            loop {
                match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Ok(Message::Orders(batch)) => {
                        executor.carry_out(&mut guarded.plane, &batch);
                        continue;
                    }
                    Ok(Message::Change(change)) => {
                        // Not to be lost, so it is waited until the loop has taken the reading before.
                        if let Some(changed) = carry_out(*change, &mut guarded, &mut executor, &mut actions)
                            && readings.blocking_send(Reading::Changed(Box::new(changed))).is_err()
                        {
                            break;
                        }
                        continue;
                    }
                    Err(std_mpsc::RecvTimeoutError::Timeout) => {}
                    Ok(Message::Stop) | Err(std_mpsc::RecvTimeoutError::Disconnected) => break,
                }
                next = (next + WINDOW).max(Instant::now());
                actions.carry_out(&mut guarded.plane);
                guarded.keep_pinned();
                let missing = guarded.lost();
                if !missing.is_empty() {
                    // Whoever has no time for it is told again.
                    let _ = lost.try_send(missing);
                }
                match read(&mut guarded.plane, epoch) {
                    Ok(snapshot) => {
                        match (snapshot.moment.ticks, readings.try_send(Reading::Snapshot(Box::new(snapshot)))) {
                            // Only while somebody decides is there an agent.
                            (ticks, Ok(())) => guarded.plane.beat(ticks),
                            (_, Err(TrySendError::Full(_))) => {
                                warn!("the decision loop is late: one reading of the counters was skipped");
                            }
                            (_, Err(TrySendError::Closed(_))) => break,
                        }
                    }
                    Err(error) => {
                        let _ = failed.send(error);
                        break;
                    }
                }
            }
            // And with it, where nothing is pinned, everything that holds the programs on the interfaces.
            drop(guarded);
        };
        let thread = std::thread::Builder::new().name("map-reader".into()).spawn(body).context("no reader thread")?;
        Ok((Self { thread, messages, failed: failure }, receiver))
    }

    /// The way to the thread.
    #[must_use]
    pub fn messages(&self) -> std_mpsc::SyncSender<Message> {
        self.messages.clone()
    }

    /// Waits until reading fails, which is for ever if it does not.
    pub async fn failed(&mut self) -> anyhow::Error {
        match (&mut self.failed).await {
            Ok(error) => anyhow!(error).context("cannot read the counters any more"),
            Err(_) => anyhow!("the map reader stopped: this is a bug, please report it with the log"),
        }
    }

    /// Stops reading. What is not pinned goes with the data plane.
    ///
    /// # Errors
    /// If the thread panicked.
    pub fn stop(self) -> anyhow::Result<()> {
        let _ = self.messages.send(Message::Stop);
        self.thread.join().map_err(|_| anyhow!("the map reader failed: this is a bug, please report it with the log"))
    }
}
