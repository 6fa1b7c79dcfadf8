//! What is asked of the actuators, and what becomes of it.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    config::ActuatorName,
    model::{OutcomeReport, QuarantineReport},
};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The quarantine begins, or has another end now.
    Impose,
    /// It has ended.
    Lift,
}

/// `impose` or `lift`
impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Impose => "impose",
            Self::Lift => "lift",
        })
    }
}

/// One order of the governor, as far as it concerns the actuators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Begin or end.
    pub what: What,
    /// Tells one order about a quarantine from the next, and is the same when an order is repeated, after a restart too:
    /// such as the seconds of the end that it sets.
    pub number: u64,
    /// The quarantine.
    pub report: QuarantineReport,
    /// The interfaces of all ports and clients that it covers, each once.
    pub interfaces: Vec<Concerned>,
}

/// An interface that a quarantine covers something on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Concerned {
    /// Its name.
    #[serde(rename = "name")]
    pub interface: String,
    /// How many ports it has, the untagged one included.
    pub ports: usize,
    /// The host's default route goes through it, directly or through something on top of it.
    pub default_route: bool,
    /// It is one machine's alone: a tap, or a cable to one server.
    pub one_machine: bool,
    /// What the class of the covered port asks for; of several, what any of them asks for.
    #[serde(skip)]
    pub actuators: Vec<ActuatorName>,
}

impl Job {
    /// Whether this actuator has to do with it: a class asks for it, or it had to do with the beginning, and the
    /// configuration has changed since.
    #[must_use]
    pub fn asks_for(&self, name: ActuatorName) -> bool {
        let had_it = || self.report.outcomes.iter().any(|outcome| outcome.actuator == name.as_str());
        self.interfaces.iter().any(|interface| interface.actuators.contains(&name))
            || (self.what == What::Lift && had_it())
    }
}

/// Why an actuator has not done it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It must not.
    #[error("refused: {0}")]
    Refused(String),
    /// It could not.
    #[error("{0}")]
    Failed(String),
    /// Its time was over.
    #[error("not done after {} s, given up{}", _0.as_secs_f32(), after_colon(_1))]
    TooSlow(Duration, Option<String>),
    /// It was never tried.
    #[error("not tried: too many others were waiting")]
    Dropped,
}

pub(super) fn after_colon(text: &Option<String>) -> String {
    text.as_ref().map_or_else(String::new, |text| format!(": {text}"))
}

/// What became of a job with one actuator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which.
    pub actuator: ActuatorName,
    /// The quarantine's number.
    pub quarantine: u64,
    /// Begin or end.
    pub what: What,
    /// The job's number.
    pub number: u64,
    /// When it was over.
    pub at: Timestamp,
    /// How long it took, without the time in the queue.
    pub took: Duration,
    /// Done, perhaps with a remark (the last line that a command wrote on its standard error), or why not.
    pub result: Result<Option<String>, Failure>,
}

impl Outcome {
    /// As others see it.
    #[must_use]
    pub fn report(&self) -> OutcomeReport {
        OutcomeReport {
            actuator: self.actuator.to_string(),
            at: self.at,
            error: self.result.as_ref().err().map(|failure| match self.what {
                What::Impose => failure.to_string(),
                What::Lift => format!("ending it: {failure}"),
            }),
            took_ms: u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
