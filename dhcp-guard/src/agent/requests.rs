//! What people ask of the decision loop: changes, which only it can make, and explanations, for which only it has the
//! numbers. Bounded, and the loop waits for nobody: whoever asks waits for the answer, or is told at once that too many do.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{
    governor::Author,
    mac::Mac,
    model::{AllowRequest, Changed, Explained, HoldRequest, QuarantineRequest, ReleaseRequest, UndoRequest},
};

/// Requests that may wait for the decision loop.
const QUEUE: usize = 16;
/// Of these, explanations.
const EXPLANATIONS: usize = 4;

/// A change, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Put somebody into quarantine.
    Quarantine(QuarantineRequest),
    /// Let somebody out.
    Release(ReleaseRequest),
    /// Stop automatic quarantine, or let it go on.
    Hold(HoldRequest),
    /// Make everything as it was.
    Undo(UndoRequest),
    /// Put somebody on the allowlist.
    Allow(AllowRequest),
    /// Take somebody off it.
    Disallow(AllowRequest),
}

/// Why a request changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// It was understood, and the governor's rules say no.
    #[error("{0}")]
    Rules(String),
    /// It makes no sense here.
    #[error("{0}")]
    Nonsense(String),
    /// Too many are waiting, or the agent is stopping.
    #[error("the agent is busy or stopping, and has not looked at the request: ask again")]
    Busy,
}

/// Somebody to be explained: a port, a MAC, or a MAC on a port. At least one is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Port name.
    pub port: Option<String>,
    /// Source MAC.
    pub mac: Option<Mac>,
}

/// A request, and where its answer goes. That nobody waits for it any more is no reason not to do it.
#[derive(Debug)]
pub enum Asked {
    /// Change something.
    Change {
        /// What.
        change: Change,
        /// Who asks.
        author: Author,
        /// Where the answer goes.
        answer: oneshot::Sender<Result<Changed, Denied>>,
    },
    /// Explain somebody.
    Explain {
        /// Whom.
        about: About,
        /// Where the answer goes.
        answer: oneshot::Sender<Explained>,
    },
}

/// The way to the decision loop.
#[derive(Clone, Debug)]
pub struct Requests {
    queue: mpsc::Sender<Asked>,
    /// Explanations that may be under way: whoever only asks must not keep others from the brake.
    explanations: Arc<Semaphore>,
}

/// Both ends.
#[must_use]
pub fn channel() -> (Requests, mpsc::Receiver<Asked>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Requests { queue: sender, explanations: Arc::new(Semaphore::new(EXPLANATIONS)) }, receiver)
}

impl Requests {
    /// Asks for a change, and waits until it is made or refused.
    ///
    /// # Errors
    /// [`Denied`]: nothing was changed.
    pub async fn change(&self, change: Change, author: Author) -> Result<Changed, Denied> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Asked::Change { change, author, answer }).map_err(|_| Denied::Busy)?;
        answered.await.unwrap_or(Err(Denied::Busy))
    }

    /// Asks for the numbers behind somebody's state.
    ///
    /// # Errors
    /// [`Denied::Busy`].
    pub async fn explain(&self, about: About) -> Result<Explained, Denied> {
        let _permit = self.explanations.try_acquire().map_err(|_| Denied::Busy)?;
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Asked::Explain { about, answer }).map_err(|_| Denied::Busy)?;
        answered.await.map_err(|_| Denied::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold() -> Change {
        Change::Hold(HoldRequest { hold: true, reason: "test".into(), dry_run: false, request_id: None })
    }

    #[tokio::test]
    async fn whoever_asks_too_much_or_too_late_is_told_at_once() {
        let (requests, receiver) = channel();
        let waiting: Vec<_> = (0..QUEUE)
            .map(|_| {
                let requests = requests.clone();
                tokio::spawn(async move { requests.change(hold(), Author::Engine).await })
            })
            .collect();
        while requests.queue.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(requests.change(hold(), Author::Engine).await, Err(Denied::Busy));
        drop(receiver);
        for asked in waiting {
            assert_eq!(asked.await.unwrap(), Err(Denied::Busy));
        }
        assert_eq!(requests.explain(About::default()).await, Err(Denied::Busy));
    }
}
