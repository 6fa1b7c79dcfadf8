//! What waits for the disk. The only thing that the decision loop and the writer share.
//!
//! Its lock is held for some moves of memory, never while the disk, or anything else, is waited for.

use std::{
    collections::VecDeque,
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{governor::Saved, human::counted, model::AuditRecord};

/// From when on a disk that does not answer is worth a sentence.
const STUCK: Duration = Duration::from_secs(5);

/// How the writer is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Records that wait, but for the one that is being written.
    pub waiting: usize,
    /// Records lost since the start, because too many waited.
    pub lost: u64,
    /// Attempts to write a record that failed.
    pub failed_records: u64,
    /// Attempts to save the state that failed.
    pub failed_saves: u64,
    /// What is wrong now, one sentence each.
    pub problems: Vec<String>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// There is something for the writer.
    work: Condvar,
    /// The writer has tried all that it was asked to flush.
    tried: Condvar,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Inner {
    records: VecDeque<AuditRecord>,
    state: Option<Saved>,
    /// Records lost since the start, and how many of them the log tells of.
    lost: u64,
    told: u64,
    /// How many flushes were asked for, and how many are done.
    flushes: u64,
    flushed: u64,
    /// No more will come.
    closed: bool,
    /// There is no writer any more.
    ended: bool,
    /// Since when the writer has not come back from the disk.
    busy_since: Option<Instant>,
    audit: Trouble,
    saving: Trouble,
}

/// What went wrong with one of the two files.
#[derive(Debug, Default)]
struct Trouble {
    failures: u64,
    /// None: the latest attempt went well.
    problem: Option<String>,
}

/// Which of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Audit,
    State,
}

/// When the writer may try a file: at once, or after a failure later, unless a flush asks for it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gate {
    /// Not before; none: at any time.
    pub(super) not_before: Option<Instant>,
    /// The number of the flush in which it failed.
    pub(super) failed_in: u64,
}

impl Gate {
    fn is_open(&self, now: Instant, flush: u64) -> bool {
        self.failed_in < flush || self.not_before.is_none_or(|time| time <= now)
    }
}

/// What the writer does next: one of each, so that neither keeps the other waiting.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) state: Option<Saved>,
    pub(super) record: Option<AuditRecord>,
    /// Records lost before this one that the log does not tell of yet.
    pub(super) untold: u64,
    /// The number of the flush that this is part of.
    pub(super) flush: u64,
    /// There is more, or will be.
    pub(super) goes_on: bool,
}

impl Queue {
    pub(super) fn new(capacity: usize) -> Self {
        Self { inner: Mutex::default(), work: Condvar::new(), tried: Condvar::new(), capacity }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whoever panicked did so between two moves: what is there is whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn record(&self, record: AuditRecord) {
        let mut inner = self.lock();
        if inner.ended {
            inner.lost += 1;
            return;
        }
        let oldest = if inner.records.len() >= self.capacity { inner.records.pop_front() } else { None };
        inner.lost += u64::from(oldest.is_some());
        inner.records.push_back(record);
        drop(inner);
        self.work.notify_one();
        // Only now: giving memory back is nothing to hold a lock for.
        drop(oldest);
    }

    pub(super) fn save(&self, state: Saved) {
        let mut inner = self.lock();
        if inner.ended {
            return;
        }
        let older = inner.state.replace(state);
        drop(inner);
        self.work.notify_one();
        drop(older);
    }

    pub(super) fn health(&self) -> Health {
        let inner = self.lock();
        Health {
            waiting: inner.records.len(),
            lost: inner.lost,
            failed_records: inner.audit.failures,
            failed_saves: inner.saving.failures,
            problems: inner.problems(Instant::now()),
        }
    }

    pub(super) fn flush(&self, deadline: Duration) -> bool {
        let mut inner = self.lock();
        inner.flushes += 1;
        let mine = inner.flushes;
        self.work.notify_one();
        let waits = |inner: &mut Inner| inner.flushed < mine && !inner.ended;
        inner = self.tried.wait_timeout_while(inner, deadline, waits).unwrap_or_else(PoisonError::into_inner).0;
        let tried = inner.flushed >= mine || inner.ended;
        tried && inner.records.is_empty() && inner.state.is_none()
    }

    /// No more will come. What is there is tried once more.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        inner.flushes += 1;
        drop(inner);
        self.work.notify_one();
    }

    /// The writer has ended.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.tried.notify_all();
    }

    /// For the writer: waits for something that may be tried now. None: that was all.
    pub(super) fn next(&self, audit: Gate, state: Gate) -> Option<Work> {
        let mut inner = self.lock();
        inner.busy_since = None;
        loop {
            let now = Instant::now();
            if let Some(work) = inner.take(now, audit, state) {
                return Some(work);
            }
            inner.flushed = inner.flushes;
            self.tried.notify_all();
            if inner.closed {
                return None;
            }
            let waiting = [(audit, !inner.records.is_empty()), (state, inner.state.is_some())];
            let until = waiting.iter().filter(|(_, some)| *some).filter_map(|(gate, _)| gate.not_before).min();
            inner = match until {
                None => self.work.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let rest = until.saturating_duration_since(now);
                    self.work.wait_timeout(inner, rest).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// It could not be written, and is next again. If the queue filled up meanwhile, it is the oldest.
    pub(super) fn put_back(&self, record: AuditRecord) {
        let mut inner = self.lock();
        if inner.records.len() < self.capacity {
            inner.records.push_front(record);
        } else {
            inner.lost += 1;
        }
    }

    /// It could not be saved, and is to be, unless there is a later one.
    pub(super) fn put_back_state(&self, state: Saved) {
        self.lock().state.get_or_insert(state);
    }

    /// A record that nobody can write.
    pub(super) fn lose(&self) {
        self.lock().lost += 1;
    }

    /// The log tells of so many more lost ones.
    pub(super) fn told(&self, lost: u64) {
        self.lock().told += lost;
    }

    /// What became of an attempt; true: that is news.
    pub(super) fn outcome(&self, which: Which, problem: Option<String>) -> bool {
        let mut inner = self.lock();
        let trouble = if which == Which::Audit { &mut inner.audit } else { &mut inner.saving };
        trouble.failures += u64::from(problem.is_some());
        let failing = problem.is_some();
        mem::replace(&mut trouble.problem, problem).is_some() != failing
    }
}

impl Inner {
    fn take(&mut self, now: Instant, audit: Gate, state: Gate) -> Option<Work> {
        let state = if state.is_open(now, self.flushes) { self.state.take() } else { None };
        let record = if audit.is_open(now, self.flushes) { self.records.pop_front() } else { None };
        if state.is_none() && record.is_none() {
            return None;
        }
        self.busy_since = Some(now);
        let goes_on = !self.records.is_empty();
        Some(Work { state, record, untold: self.lost - self.told, flush: self.flushes, goes_on })
    }

    fn problems(&self, now: Instant) -> Vec<String> {
        let stuck = self.busy_since.map(|since| now.saturating_duration_since(since)).filter(|time| *time >= STUCK);
        let stuck = stuck.map(|time| {
            format!(
                "the disk of the audit log and the state has not answered for {}; {} waiting, {} lost",
                counted(time.as_secs(), "second"),
                counted(self.records.len() as u64, "record"),
                self.lost - self.told
            )
        });
        let gone = (self.ended && !self.closed)
            .then(|| "the thread that writes the audit log and the state has ended: please report it".to_owned());
        [self.audit.problem.clone(), self.saving.problem.clone(), stuck, gone].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_does_not_answer_is_a_problem_after_a_while() {
        let now = Instant::now();
        let inner = Inner { busy_since: Some(now), lost: 3, told: 1, ..Inner::default() };
        assert!(inner.problems(now + Duration::from_secs(4)).is_empty());
        assert_eq!(
            inner.problems(now + Duration::from_secs(5)),
            ["the disk of the audit log and the state has not answered for 5 seconds; 0 records waiting, 2 lost"]
        );
    }

    #[test]
    fn what_failed_waits_but_not_for_a_flush() {
        let now = Instant::now();
        let gate = Gate { not_before: Some(now + Duration::from_secs(1)), failed_in: 4 };
        assert!(!gate.is_open(now, 4));
        assert!(gate.is_open(now, 5), "asked for since");
        assert!(gate.is_open(now + Duration::from_secs(1), 4));
        assert!(Gate::default().is_open(now, 0));
    }

    #[test]
    fn of_states_the_latest_waits() {
        let queue = Queue::new(1);
        let state = |next_id| Saved { next_id, ..Saved::default() };
        queue.save(state(1));
        queue.save(state(2));
        let work = queue.next(Gate::default(), Gate::default()).unwrap();
        assert_eq!(work.state, Some(state(2)));
        queue.save(state(3));
        queue.put_back_state(state(2));
        assert_eq!(queue.next(Gate::default(), Gate::default()).unwrap().state, Some(state(3)));
        queue.put_back_state(state(3));
        assert_eq!(queue.next(Gate::default(), Gate::default()).unwrap().state, Some(state(3)));
    }
}
