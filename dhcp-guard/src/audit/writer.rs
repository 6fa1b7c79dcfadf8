//! The thread between the queue and the disk.

use std::{
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    CAPACITY, Handle, RETRY, Report, Settings,
    log_file::LogFile,
    queue::{Gate, Queue, Which, Work},
};
use crate::{
    governor::Saved,
    human::{count, counted},
    model::AuditRecord,
    state_file::StateFile,
};

/// How often the log tells of lost records while more and more are.
const TELL: Duration = Duration::from_secs(1);

/// See [the module above](super).
pub struct Writer {
    queue: Arc<Queue>,
    log: LogFile,
    state: Option<StateFile>,
    /// What the state file has, if this writer wrote it.
    saved: Option<Saved>,
    audit_gate: Gate,
    state_gate: Gate,
    retry: Duration,
    /// When the log last told of lost records.
    told_at: Option<Instant>,
    /// More are being lost, and that was reported.
    losing: bool,
    report: Box<dyn FnMut(Report) + Send>,
}

impl Writer {
    /// Starts the thread. Without a state file nothing is saved. `report` is called on the thread: once when something
    /// begins to fail, once when it works again, and once when records were lost, however many follow. A slow one delays
    /// the disk's work and nothing else.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(
        settings: Settings,
        state: Option<StateFile>,
        report: impl FnMut(Report) + Send + 'static,
    ) -> io::Result<Handle> {
        Self::start_with(settings, state, report, CAPACITY, RETRY)
    }

    /// The same with a queue for so many records, and with this time between two attempts.
    pub(super) fn start_with(
        settings: Settings,
        state: Option<StateFile>,
        report: impl FnMut(Report) + Send + 'static,
        capacity: usize,
        retry: Duration,
    ) -> io::Result<Handle> {
        let queue = Arc::new(Queue::new(capacity));
        let writer = Self {
            queue: Arc::clone(&queue),
            log: LogFile::new(settings),
            state,
            saved: None,
            audit_gate: Gate::default(),
            state_gate: Gate::default(),
            retry,
            told_at: None,
            losing: false,
            report: Box::new(report),
        };
        thread::Builder::new().name("audit".into()).spawn(move || writer.run())?;
        Ok(Handle::new(queue))
    }

    fn run(mut self) {
        while let Some(work) = self.queue.next(self.audit_gate, self.state_gate) {
            let Work { state, record, untold, flush, goes_on } = work;
            if let Some(state) = state {
                self.save(state, flush);
            }
            if let Some(record) = record {
                self.record(record, untold, flush, goes_on);
            }
        }
    }

    fn save(&mut self, state: Saved, flush: u64) {
        let Some(file) = &mut self.state else { return };
        // Most changes of the decision loop are none of the state's; the disk need not hear of them.
        if self.saved.as_ref() == Some(&state) {
            return;
        }
        let problem = file.save(&state).err().map(|error| error.to_string());
        let again = format!("the state is saved again, in {}", file.path().display());
        self.state_gate = self.gate(problem.is_none(), flush);
        if problem.is_none() {
            self.saved = Some(state);
        } else {
            self.saved = None;
            self.queue.put_back_state(state);
        }
        self.tell(Which::State, problem, again);
    }

    fn record(&mut self, record: AuditRecord, untold: u64, flush: u64, goes_on: bool) {
        // While more and more are lost, one line about it a second is enough.
        let recently = self.told_at.is_some_and(|time| time.elapsed() < TELL);
        let untold = if recently && goes_on { 0 } else { untold };
        self.losing &= goes_on || untold > 0;
        let written = self.tell_of_lost(untold).and_then(|()| self.write(&record));
        self.audit_gate = self.gate(written.is_ok(), flush);
        let path = self.log.path().display();
        let problem = written.err().map(|reason| {
            let room = count(self.queue.capacity() as u64);
            format!("cannot write the audit log {path}: {reason}; up to {room} records wait, then the oldest are lost")
        });
        let again = format!("the audit log {path} is written again");
        if problem.is_some() {
            self.queue.put_back(record);
        }
        self.tell(Which::Audit, problem, again);
    }

    /// A line about the lines that are missing.
    fn tell_of_lost(&mut self, lost: u64) -> io::Result<()> {
        if lost == 0 {
            return Ok(());
        }
        let lines = counted(lost, "record");
        let reason =
            format!("{lines} of this log, from before the next one, could not be written in time and were lost");
        self.write(&AuditRecord::new(Timestamp::now(), "audit_lost", reason))?;
        self.told_at = Some(Instant::now());
        self.queue.told(lost);
        if !self.losing {
            let path = self.log.path().display();
            let sentence = format!("{lines} of the audit log {path} could not be written in time and were lost");
            (self.report)(Report::WorksAgain(sentence));
        }
        self.losing = true;
        Ok(())
    }

    fn write(&mut self, record: &AuditRecord) -> io::Result<()> {
        let Ok(mut line) = serde_json::to_vec(record) else {
            // It would not be any better next time.
            self.queue.lose();
            return Ok(());
        };
        line.push(b'\n');
        self.log.append(&line)
    }

    fn gate(&self, done: bool, flush: u64) -> Gate {
        if done { Gate::default() } else { Gate { not_before: Some(Instant::now() + self.retry), failed_in: flush } }
    }

    fn tell(&mut self, which: Which, problem: Option<String>, again: String) {
        let report = problem.clone().map_or(Report::WorksAgain(again), Report::Failed);
        if self.queue.outcome(which, problem) {
            (self.report)(report);
        }
    }
}

/// However it ends: nobody waits for it then.
impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.end();
    }
}
