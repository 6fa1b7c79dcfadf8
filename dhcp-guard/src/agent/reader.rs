//! Reads the maps once a window. Map reads are system calls that can take a while, so they have a thread of their own;
//! it owns the data plane.

use std::{
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
    learn::Actions,
    orders::{Executor, Message, QUEUE},
    start::Guarded,
};
use crate::dataplane::{self, DataPlane, Snapshot};

/// The length of a window. "Offender" is defined in windows of one second.
const WINDOW: Duration = Duration::from_secs(1);

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

impl Reader {
    /// Starts reading, carries out what was learned before each reading, and orders as they come. A snapshot that the
    /// decision loop has no time for is lost: the next one has all its counts.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(
        mut guarded: Guarded,
        mut actions: Actions,
        executor: Executor,
        epoch: Instant,
    ) -> anyhow::Result<(Self, mpsc::Receiver<Snapshot>)> {
        let (snapshots, receiver) = mpsc::channel(1);
        let (messages, inbox) = std_mpsc::sync_channel(QUEUE);
        let (failed, failure) = oneshot::channel();
        let body = move || {
            let mut next = Instant::now() + WINDOW;
            loop {
                match inbox.recv_timeout(next.saturating_duration_since(Instant::now())) {
                    Ok(Message::Orders(batch)) => {
                        executor.carry_out(&mut guarded.plane, &batch);
                        continue;
                    }
                    Err(std_mpsc::RecvTimeoutError::Timeout) => {}
                    Ok(Message::Stop) | Err(std_mpsc::RecvTimeoutError::Disconnected) => break,
                }
                next = (next + WINDOW).max(Instant::now());
                actions.carry_out(&mut guarded.plane);
                match read(&mut guarded.plane, epoch) {
                    Ok(snapshot) => match (snapshot.moment.ticks, snapshots.try_send(snapshot)) {
                        // Only while somebody decides is there an agent.
                        (ticks, Ok(())) => guarded.plane.beat(ticks),
                        (_, Err(TrySendError::Full(_))) => {
                            warn!("the decision loop is late: one reading of the counters was skipped");
                        }
                        (_, Err(TrySendError::Closed(_))) => break,
                    },
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
