//! What is refused before the decision loop sees it is on record all the same: who tried what, and why not.
//!
//! Bounded, because whoever can connect can try as often as they like, and must not be able to push what matters out of
//! the audit log. Those who may change have a budget of their own, so that others cannot spend it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{Api, document::Document};
use crate::{
    agent::peers::{Peer, Right},
    governor::{ClientName, Subject},
    human::counted,
    model::{AuditRecord, Named},
};

/// Records that may be written at once.
const BURST: u32 = 100;
/// And then one in each of these. In a day, with a kilobyte each, that is a tenth of the log's default size.
const EVERY: Duration = Duration::from_secs(10);

/// Whether there is room for another record.
#[derive(Debug)]
pub(super) struct Refusals(Mutex<Budgets>);

#[derive(Debug)]
struct Budgets {
    operators: Budget,
    others: Budget,
}

#[derive(Clone, Copy, Debug)]
struct Budget {
    left: u32,
    /// Up to when what was spent has come back.
    refilled: Instant,
    /// Refusals since the latest record that have none.
    missed: u64,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { left: BURST, refilled: now, missed: 0 }
    }

    /// How many had no record since the latest one, if there may be another.
    fn spend(&mut self, now: Instant) -> Option<u64> {
        let back = now.saturating_duration_since(self.refilled).as_secs() / EVERY.as_secs();
        let back = u32::try_from(back).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(back).min(BURST);
        self.refilled = if self.left == BURST { now } else { self.refilled + EVERY * back };
        if self.left == 0 {
            self.missed += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.missed))
    }
}

impl Default for Refusals {
    fn default() -> Self {
        let full = Budget::new(Instant::now());
        Self(Mutex::new(Budgets { operators: full, others: full }))
    }
}

impl Refusals {
    fn spend(&self, right: Right, now: Instant) -> Option<u64> {
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let budgets = &mut *budgets;
        if right == Right::Change { budgets.operators.spend(now) } else { budgets.others.spend(now) }
    }
}

impl Api {
    /// Puts a refused request on record.
    pub(super) async fn refuse(&self, peer: &Peer, action: &str, document: Document, sentence: &str) {
        let Some(missed) = self.refusals.spend(self.shared.rights.of(peer), Instant::now()) else { return };
        let refused = match missed {
            0 => sentence.to_owned(),
            _ => format!("{sentence} ({} before this one not recorded)", counted(missed, "refused request")),
        };
        let mut record = AuditRecord {
            subjects: document.targets.iter().filter_map(|target| self.subject(target)).collect(),
            refused: Some(refused),
            ..AuditRecord::new(Timestamp::now(), action, document.reason)
        };
        let (api, peer) = (self.clone(), peer.clone());
        // Whoever goes away before the system has said how they are called is on record, too.
        let written = tokio::spawn(async move {
            record.author = Some(api.names.author(&peer).await);
            api.shared.audit.record(record);
        });
        // It fails only if the agent ends, or panics, which is told elsewhere.
        let _ = written.await;
    }

    /// Who is named, if that is somebody here.
    fn subject(&self, target: &Named) -> Option<Subject> {
        let picture = self.shared.picture();
        let port = picture.context.plan.called(&target.port)?;
        Some(Subject { port: port.port_name(), client: target.mac.map(ClientName::Mac) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_of_refusals_is_recorded_once_in_ten_seconds_and_counted() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let at = |second: u64| start + Duration::from_secs(second);
        let recorded: Vec<_> = (0..1000).filter_map(|_| budget.spend(at(0))).collect();
        assert_eq!(recorded, [0; 100]);
        assert_eq!(budget.spend(at(9)), None);
        assert_eq!([budget.spend(at(10)), budget.spend(at(10))], [Some(901), None]);
        assert_eq!([budget.spend(at(29)), budget.spend(at(30)), budget.spend(at(39))], [Some(1), Some(0), None]);
        let later: Vec<_> = (0..1000).filter_map(|_| budget.spend(at(1_000_000))).collect();
        assert_eq!((later.len(), later[0]), (100, 1), "never more than the burst");
    }

    #[test]
    fn nobody_else_spends_the_operators_budget() {
        let (refusals, now) = (Refusals::default(), Instant::now());
        for right in [Right::None, Right::Read].repeat(100) {
            refusals.spend(right, now);
        }
        assert_eq!([Right::None, Right::Read, Right::Change].map(|r| refusals.spend(r, now)), [None, None, Some(0)]);
    }
}
