//! Actuators: what a quarantine sets in motion outside the data plane, and ends again.
//!
//! The data plane's own part is done elsewhere, at once. What is here can fail, hang and be slow, so it is kept away from
//! everything that decides: [`Handle::dispatch`] never waits, each actuator has a queue and a task of its own, and what
//! became of a job comes back over a channel that drops its oldest rather than wait for a reader.
//!
//! ```text
//! decision loop ── dispatch(Job) ─▶ queue ─▶ task ─▶ link_down ─┐
//!                               └─▶ queue ─▶ task ─▶ command   ─┼─▶ Outcomes ─▶ report, audit
//!                               └─▶ queue ─▶ task ─▶ webhook   ─┘
//! ```
//!
//! * [`job`]: what is asked for, and what becomes of it. `document`: the JSON that others get of it.
//! * [`dispatcher`]: queues, timeouts, order; `queue`: the bounded queue.
//! * [`link_down`], [`command`], [`webhook`]: the actuators. [`endpoint`], `signature`: parts of the last.
//!
//! The agent starts the dispatcher, gives it a job for each order about a quarantine, reads the outcomes in its decision
//! loop, and lets it finish at its end. A new configuration: start a new dispatcher, put its handle in the place of the old
//! one, `finish` the old one.

pub mod command;
pub mod dispatcher;
pub mod endpoint;
pub mod job;
pub mod link_down;
pub mod webhook;

mod document;
mod queue;
mod signature;
#[cfg(test)]
mod testing;

use std::{pin::Pin, sync::Arc, time::Duration};

pub use self::{
    command::Command,
    dispatcher::{Dispatcher, Handle, Outcomes},
    endpoint::{Endpoint, EndpointError},
    job::{Concerned, Failure, Job, Outcome, What},
    link_down::LinkDown,
    webhook::Webhook,
};
use crate::config::{ActuatorName, Actuators};

/// What an actuator has to say when it is done: a remark, if there is one, or why it is not done.
pub type Done = Result<Option<String>, Failure>;

/// Work under way. Whoever drops it stops it, and nothing of it is left.
pub type Work<'a> = Pin<Box<dyn Future<Output = Done> + Send + 'a>>;

/// Something that is done when a quarantine begins, and undone when it ends.
///
/// Both are idempotent: what is so already is done. So a job may come twice, an extension of a quarantine is one more
/// impose, and a lift may come without an impose before it.
pub trait Actuator: Send + Sync {
    /// Its name.
    fn name(&self) -> ActuatorName;

    /// How long one job may take. After that the work is dropped.
    fn timeout(&self) -> Duration;

    /// The quarantine begins, or has another end now.
    fn impose<'a>(&'a self, job: &'a Job) -> Work<'a>;

    /// It has ended.
    fn lift<'a>(&'a self, job: &'a Job) -> Work<'a>;
}

/// All actuators that the configuration has something for.
///
/// # Errors
/// The webhook's address cannot be used. Not with a configuration that was validated.
pub fn configured(config: &Actuators) -> Result<Vec<Arc<dyn Actuator>>, EndpointError> {
    let mut all: Vec<Arc<dyn Actuator>> = vec![Arc::new(LinkDown)];
    if let Some(command) = &config.command {
        all.push(Arc::new(Command::new(command)));
    }
    if let Some(webhook) = &config.webhook {
        all.push(Arc::new(Webhook::new(webhook)?));
    }
    Ok(all)
}
