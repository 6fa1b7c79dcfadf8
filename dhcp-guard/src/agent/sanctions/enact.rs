//! What is done about what the governor has granted, and what comes back from those who do it.

use jiff::Timestamp;

use super::{
    Sanctioner,
    cases::{self, Case},
    sentences,
};
use crate::{
    actuators::{self, Concerned, Job, What},
    agent::{journal::Draft, orders},
    governor::{Action, Author, Change, Entry, Granted, Key, Order, Quarantine, Subject},
    model::{AuditRecord, EventKind, Evidence, OutcomeReport},
};

/// What was refused.
pub(super) struct Refused<'a> {
    /// As the audit log calls it.
    pub(super) action: &'a str,
    /// About whom.
    pub(super) subjects: Vec<Subject>,
    /// Why it was asked for.
    pub(super) reason: &'a str,
    /// The numbers that it was asked for with.
    pub(super) evidence: Option<Evidence>,
}

impl Sanctioner {
    /// Hands over what was granted. `case`: what is known about the quarantine that begins. `action`: what the audit log
    /// calls it, where it is not what it looks like.
    pub(super) fn enact(&mut self, granted: &Granted, case: Option<&Case>, action: Option<&str>) {
        if granted.changes.is_empty() {
            return;
        }
        self.hands.orders.send(granted.orders.clone(), self.anchor);
        let evidence = case.and_then(|case| case.evidence.clone());
        for change in &granted.changes {
            if let (None, Some(Entry::Quarantine(quarantine))) = (&change.before, &change.after) {
                self.cases.open(quarantine.id, case.cloned().unwrap_or_default());
            }
            self.hands.audit.record(record(change, action, evidence.clone()));
            self.tell(change);
        }
        granted.orders.iter().for_each(|order| self.dispatch(order));
        let state = self.governor.state();
        self.cases.keep(|id| state.by_id(id).is_some());
        self.hands.audit.save(self.governor.save());
    }

    /// What was restored is known again, to the actuators too: a reboot may have undone what they did. It is saved also if
    /// nothing has changed, so that a state file that is missing later is known to be lost.
    pub(super) fn take_up(&mut self) {
        self.hands.audit.save(self.governor.save());
        let restored: Vec<Quarantine> = self.governor.state().quarantines.values().cloned().collect();
        for quarantine in restored {
            self.cases.open(quarantine.id, Case::default());
            // What has ended meanwhile is ended in the first window.
            if quarantine.until > self.now() {
                self.send_job(What::Impose, &quarantine);
            }
        }
    }

    fn dispatch(&self, order: &Order) {
        match order.action() {
            Action::Impose(quarantine) => self.send_job(What::Impose, quarantine),
            Action::Lift(quarantine) => self.send_job(What::Lift, quarantine),
            Action::Allow(..) | Action::Disallow(_) => {}
        }
    }

    fn send_job(&self, what: What, quarantine: &Quarantine) {
        let report = self.cases.report(quarantine, &self.context.inventory(), self.now());
        let (number, interfaces) = (cases::number(quarantine, what), self.concerned(quarantine));
        self.hands.actuators.dispatch(Job { what, number, report, interfaces });
    }

    fn concerned(&self, quarantine: &Quarantine) -> Vec<Concerned> {
        let (plan, inventory) = (&self.context.plan, self.context.inventory());
        let facts = self.facts.borrow().clone();
        let mut all: Vec<Concerned> = Vec::new();
        for subject in &quarantine.target.subjects {
            let interface = &subject.port.interface;
            let actuators = plan.named(&subject.port).map_or_else(Vec::new, |port| port.rules.actuators.clone());
            if let Some(known) = all.iter_mut().find(|known| known.interface == *interface) {
                known.actuators.extend(actuators);
                continue;
            }
            let owner = inventory.machine(interface, &[], None).map(|machine| &machine.server_id);
            let is_its_own = owner.is_some() && owner == quarantine.target.machine.as_ref();
            all.push(Concerned {
                interface: interface.clone(),
                ports: plan.ports.iter().filter(|port| port.interface == *interface).count(),
                default_route: facts.default_route.iter().any(|way| way.interface == *interface),
                one_machine: is_its_own || self.taps.contains(interface),
                actuators,
            });
        }
        all
    }

    /// The data plane has done it, or has not.
    pub fn take_outcome(&mut self, outcome: &orders::Outcome) {
        let at = self.clock.now();
        if outcome.what == What::Impose && outcome.error.is_none() {
            self.cases.quarantined(outcome.quarantine, at);
        }
        let took_ms = u64::try_from(outcome.took.as_millis()).unwrap_or(u64::MAX);
        let report = OutcomeReport { actuator: "data_plane".to_owned(), at, error: outcome.error.clone(), took_ms };
        self.note_outcome(outcome.quarantine, report);
    }

    /// An actuator has done it, or has not.
    pub fn take_actuator_outcome(&mut self, outcome: &actuators::Outcome) {
        let report = outcome.report();
        self.audit_outcome(outcome, report.error.clone());
        self.note_outcome(outcome.quarantine, report);
    }

    /// What was done outside is on record, as far as those who did it say.
    fn audit_outcome(&self, outcome: &actuators::Outcome, error: Option<String>) {
        let quarantine = self.governor.state().by_id(outcome.quarantine);
        let (action, reason) =
            (format!("{}_{}", outcome.actuator, outcome.what), format!("quarantine {}", outcome.quarantine));
        self.hands.audit.record(AuditRecord {
            author: Some(Author::Engine),
            subjects: quarantine.map_or_else(Vec::new, |quarantine| quarantine.target.subjects.clone()),
            refused: error,
            ..AuditRecord::new(outcome.at, action, reason)
        });
    }

    fn note_outcome(&mut self, id: u64, report: OutcomeReport) {
        let (actuator, error) = (report.actuator.clone(), report.error.clone());
        if !self.cases.outcome(id, report) {
            return;
        }
        let whom = self.governor.state().by_id(id).map(|quarantine| quarantine.target.clone());
        let of = whom.as_ref().map_or_else(String::new, |target| format!(" ({})", sentences::who(target)));
        let message = format!("{actuator} could not do its part of quarantine {id}{of}: {}", error.unwrap_or_default());
        match whom.and_then(|target| target.subjects.into_iter().next()) {
            Some(subject) => self.tell_about(EventKind::ActuatorFailed, self.now(), &subject, message),
            None => self.hands.journal.add(Draft::of_nobody(EventKind::ActuatorFailed, self.now(), message)),
        }
    }

    fn tell(&self, change: &Change) {
        let Some((kind, message)) = sentences::event(change) else { return };
        match about(&change.key).first() {
            Some(subject) => self.tell_about(kind, change.at, subject, message),
            None => self.hands.journal.add(Draft::of_nobody(kind, change.at, message)),
        }
    }

    pub(super) fn tell_about(&self, kind: EventKind, at: Timestamp, subject: &Subject, message: String) {
        let (port, source) = (self.context.plan.named(&subject.port), subject.source());
        let draft = Draft { kind, at, port, mac: source, source, vlans: None, message };
        self.hands.journal.add_with(draft, &self.context.inventory());
    }

    pub(super) fn audit_refusal(&self, author: &Author, of: Refused<'_>, why: &str) {
        self.hands.audit.record(AuditRecord {
            author: Some(author.clone()),
            subjects: of.subjects,
            refused: Some(why.to_owned()),
            evidence: of.evidence,
            ..AuditRecord::new(self.now(), of.action, of.reason)
        });
    }
}

/// The audit log's line for a change.
fn record(change: &Change, action: Option<&str>, evidence: Option<Evidence>) -> AuditRecord {
    // Entries are plain data: they can always be written.
    let json = |entry: &Option<Entry>| entry.as_ref().and_then(|entry| serde_json::to_value(entry).ok());
    let action = action.unwrap_or_else(|| sentences::action(change));
    AuditRecord {
        author: change.author.clone(),
        subjects: about(&change.key),
        evidence,
        before: json(&change.before),
        after: json(&change.after),
        ..AuditRecord::new(change.at, action, change.reason.as_str())
    }
}

fn about(key: &Key) -> Vec<Subject> {
    match key {
        Key::Quarantine(target) => target.subjects.clone(),
        Key::Allowed(subject) => vec![subject.clone()],
        Key::Hold => Vec::new(),
    }
}
