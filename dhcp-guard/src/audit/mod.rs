//! The audit log, and the thread that writes whatever the decision loop wants on the disk.
//!
//! A disk can be full, slow, or not answer at all, and the decision loop must not notice. So it hands over what is to be
//! written, and forgets it: [`Handle::record`] puts a line of the audit log into a bounded queue, [`Handle::save`] replaces
//! the state that waits to be saved, and a thread of its own, the [`Writer`], carries both to the disk. Neither call waits
//! for the disk, and neither can fail.
//!
//! **When the queue is full the oldest record goes**, as in every other queue of the agent: each record says what was
//! before and what is now, so the latest ones tell how things stand, and the gap is where an old one was. The gap shows:
//! the log then has a line with the action `audit_lost` that says how many are missing. Records that could not be written
//! are not lost at once: they wait in the queue, and the writer tries again every second.
//!
//! The log is `audit.log` in the state folder, a JSON document ([`AuditRecord`]) on each line. When it would become larger
//! than `max_bytes` it is renamed to `audit.log.1`, and `audit.log.1` to `audit.log.2`, up to `keep`.
//!
//! How it is wired:
//! ```no_run
//! # use std::{path::Path, time::Duration};
//! # use dhcp_guard::{audit::{self, Report, Writer}, config::Config, model::AuditRecord, state_file::{StateError, StateFile}};
//! # fn wire(config: &Config, file: Result<StateFile, StateError>, record: AuditRecord, governor: dhcp_guard::governor::Governor) -> anyhow::Result<()> {
//! // At the start. An agent whose folder is unusable guards all the same: no file, no saving, and a warning.
//! let settings = audit::Settings::new(&config.state_dir, &config.audit);
//! let handle = Writer::start(settings, file.ok(), |report| match report {
//!     Report::Failed(sentence) => log::warn!("{sentence}"),
//!     Report::WorksAgain(sentence) => log::info!("{sentence}"),
//! })?;
//! // In the decision loop, after each change.
//! handle.record(record);
//! handle.save(governor.save());
//! // Once a window, for the warnings of `status`: also tells of a disk that does not answer.
//! let warnings = handle.health().problems;
//! // At the end. This one waits, so not on a thread of the event loop: `tokio::task::spawn_blocking`.
//! let all_written = handle.flush(Duration::from_secs(2));
//! # Ok(()) }
//! ```
//!
//! * `queue`: what waits, between the two threads; the only lock. `writer`: the thread. `log_file`: lines and rotation.

mod log_file;
mod queue;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use self::queue::Queue;
pub use self::{queue::Health, writer::Writer};
use crate::{config::Audit, governor::Saved, model::AuditRecord};

/// Records that may wait for the disk. A record has some 500 bytes, and a flood makes a few a second.
const CAPACITY: usize = 1024;
/// How long the writer waits before it tries again what failed.
const RETRY: Duration = Duration::from_secs(1);

/// Where the audit log is, and how long it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The file. The older ones are beside it, with `.1`, `.2`, … behind their name.
    pub path: PathBuf,
    /// Bytes in one file, at most; a single record that is longer has a file for itself.
    pub max_bytes: u64,
    /// Older files that are kept, at most; with 0 a full file is thrown away.
    pub keep: u32,
}

impl Settings {
    /// `audit.log` in the state folder.
    #[must_use]
    pub fn new(state_dir: &Path, audit: &Audit) -> Self {
        Self { path: state_dir.join("audit.log"), max_bytes: audit.max_bytes.into(), keep: audit.keep }
    }
}

/// What the writer has to say: one sentence, when something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// From now on the audit log, or the state, cannot be written.
    Failed(String),
    /// It can be again; or so many records were lost meanwhile.
    WorksAgain(String),
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Failed(sentence) | Self::WorksAgain(sentence)) = self;
        f.write_str(sentence)
    }
}

/// How the decision loop reaches the writer. When the last clone is dropped, the writer tries once more what waits, and ends.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Open>);

/// While it lives, more may come.
#[derive(Debug)]
struct Open(Arc<Queue>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Handle {
    fn new(queue: Arc<Queue>) -> Self {
        Self(Arc::new(Open(queue)))
    }

    /// A handle that throws everything away, for an agent that keeps nothing, and for tests.
    #[must_use]
    pub fn nowhere() -> Self {
        let queue = Queue::new(0);
        queue.close();
        queue.end();
        Self::new(Arc::new(queue))
    }

    /// One line of the audit log. Never waits for the disk. If too many wait already, the oldest one is lost and counted.
    pub fn record(&self, record: AuditRecord) {
        self.0.0.record(record);
    }

    /// The state that is to be saved; it takes the place of one that still waits. Never waits for the disk.
    pub fn save(&self, state: Saved) {
        self.0.0.save(state);
    }

    /// How the writer is doing. Never waits for the disk.
    #[must_use]
    pub fn health(&self) -> Health {
        self.0.0.health()
    }

    /// Waits until all that was handed over is written, or was tried once more and failed, at most for so long. True: it is
    /// all written. For the start and the end of the agent: this one does wait for the disk.
    #[must_use]
    pub fn flush(&self, deadline: Duration) -> bool {
        self.0.0.flush(deadline)
    }
}
