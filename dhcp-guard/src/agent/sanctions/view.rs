//! What queries are answered from: the governor's state in the words of people.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
};

use jiff::Timestamp;

use super::{Sanctioner, cases::Cases, sentences};
use crate::{
    agent::{Context, names, picture::Picture},
    engine::{Standing, Subject},
    governor::{self, Governor},
    human::counted,
    model::{AllowReport, Covered, QuarantineReport, State},
};

/// The part of the picture that queries about quarantines are answered from.
#[derive(Clone, Debug, Default)]
pub struct Sanctioned {
    /// Automatic quarantine is on hold: by whom and why.
    pub hold: Option<String>,
    /// The latest first; times left are those at the picture's moment.
    pub quarantines: Vec<QuarantineReport>,
    /// The allowlist, the configuration's entries first.
    pub allowed: Vec<AllowReport>,
    /// Those whose state is none of the four that the limits alone decide.
    pub states: HashMap<Subject, State>,
    /// Since when, of those whom the engine found: in quarantine or held back themselves, not only because their port is; and
    /// those who burn slowly.
    pub since: HashMap<Subject, Timestamp>,
    /// What people should know: systemic trouble, held back, a disk that is full. One sentence each.
    pub warnings: Vec<String>,
}

impl Sanctioned {
    /// What a governor knows while nobody decides.
    #[must_use]
    pub fn at_rest(context: &Context, governor: &Governor, picture: &Picture) -> Self {
        let (state, inventory, now) = (governor.state(), context.inventory(), picture.moment.wall);
        let cases = Cases::default();
        let reports = state.quarantines.values().map(|quarantine| cases.report(quarantine, &inventory, now));
        let automatic = governor.automatic().flat_map(|quarantine| {
            let keys = quarantine.target.subjects.iter().filter_map(|subject| names::key(&context.plan, subject));
            keys.map(|key| (key, quarantine.since)).collect::<Vec<_>>()
        });
        Self {
            hold: hold(state),
            quarantines: latest_first(reports),
            allowed: allowed(context, governor),
            states: quarantined(context, governor, picture),
            since: automatic.collect(),
            warnings: Vec::new(),
        }
    }
}

fn hold(state: &governor::State) -> Option<String> {
    state.hold.as_ref().map(|hold| format!("{} (by {})", hold.reason, hold.author))
}

fn latest_first(reports: impl Iterator<Item = QuarantineReport>) -> Vec<QuarantineReport> {
    let mut reports: Vec<_> = reports.collect();
    reports.sort_by_key(|quarantine| Reverse((quarantine.since, quarantine.id)));
    reports
}

fn allowed(context: &Context, governor: &Governor) -> Vec<AllowReport> {
    let config = context.config.allowed.iter().map(|allow| AllowReport {
        who: Covered {
            interface: allow.interface.clone(),
            port: crate::config::port_name(&allow.interface, &allow.vlans),
            vlans: allow.vlans.clone(),
            mac: allow.mac.map(|mac| mac.to_string()),
        },
        by: "configuration".to_owned(),
        reason: None,
        since: None,
        expires_at: None,
    });
    let people = governor.state().allowed.iter().map(|(subject, allowance)| AllowReport {
        who: Covered::from(subject),
        by: allowance.author.to_string(),
        reason: Some(allowance.reason.clone()),
        since: Some(allowance.since),
        expires_at: allowance.until,
    });
    config.chain(people).collect()
}

/// Why everything that somebody sends passes, if it does: they are on the allowlist, or their whole port is.
pub(super) fn allowance(context: &Context, governor: &Governor, name: &governor::Subject) -> Option<String> {
    let whole = governor::Subject { client: None, ..name.clone() };
    let allowed = &governor.state().allowed;
    if let Some(allowance) = allowed.get(name).or_else(|| allowed.get(&whole)) {
        return Some(format!("it is on the allowlist (by {}: {})", allowance.author, allowance.reason));
    }
    let port = &name.port;
    let entries = context.config.allowed.iter();
    let mut here = entries.filter(|allow| allow.interface == port.interface && allow.vlans == port.vlans);
    let is_meant = here.any(|allow| allow.mac.is_none() || allow.mac == name.source());
    is_meant.then(|| "it is on the configuration's allowlist".to_owned())
}

/// Everybody in quarantine, also by their port's, but for those who are allowed: what they send passes all the same.
fn quarantined(context: &Context, governor: &Governor, picture: &Picture) -> HashMap<Subject, State> {
    let plan = &context.plan;
    let subjects = governor.state().quarantines.values().flat_map(|quarantine| &quarantine.target.subjects);
    let keys = subjects.filter_map(|subject| names::key(plan, subject));
    let mut states: HashMap<Subject, State> = keys.map(|key| (key, State::Quarantined)).collect();
    let slot = |subject: &Subject| if let Subject::Port(slot) = subject { Some(*slot) } else { None };
    let ports: HashSet<u32> = states.keys().filter_map(slot).collect();
    if !ports.is_empty() {
        let on_them = picture.clients.iter().filter(|client| ports.contains(&client.key.slot()));
        states.extend(on_them.map(|client| (Subject::Client(client.key), State::Quarantined)));
    }
    if !governor.state().allowed.is_empty() || !context.config.allowed.is_empty() {
        let is_allowed = |name: governor::Subject| allowance(context, governor, &name).is_some();
        states.retain(|subject, _| !names::subject(plan, *subject).is_some_and(is_allowed));
    }
    states
}

impl Sanctioner {
    pub(super) fn sanctioned(&self, now: Timestamp, picture: &Picture) -> Sanctioned {
        let state = self.governor.state();
        let inventory = self.context.inventory();
        let reports = state.quarantines.values().map(|quarantine| self.cases.report(quarantine, &inventory, now));
        Sanctioned {
            hold: hold(state),
            quarantines: latest_first(reports),
            allowed: allowed(&self.context, &self.governor),
            states: self.states(picture),
            since: self.since_when(),
            warnings: self.warnings(),
        }
    }

    /// What counts most comes first, and stays.
    pub(super) fn states(&self, picture: &Picture) -> HashMap<Subject, State> {
        let plan = &self.context.plan;
        let keys = |target: &governor::Target| -> Vec<Subject> {
            target.subjects.iter().filter_map(|subject| names::key(plan, subject)).collect()
        };
        let mut states = quarantined(&self.context, &self.governor, picture);
        for subject in self.spared.keys() {
            states.entry(*subject).or_insert(State::HeldBack);
        }
        for (subject, record) in self.engine.records() {
            if record.is_candidate() {
                states.entry(*subject).or_insert(State::Candidate);
            }
        }
        let past: HashSet<Subject> = self.governor.memory().all().flat_map(|(target, _)| keys(target)).collect();
        if !past.is_empty() {
            let ports = (0..).zip(&picture.ports).map(|(slot, port)| (Subject::Port(slot), port.standing));
            let clients = picture.clients.iter().map(|client| (Subject::Client(client.key), client.standing));
            let calm = |standing: &Standing| matches!(standing, Standing::Normal | Standing::Recovered { .. });
            for (subject, _) in ports.chain(clients).filter(|(who, standing)| past.contains(who) && calm(standing)) {
                states.entry(subject).or_insert(State::Probation);
            }
        }
        states
    }

    fn since_when(&self) -> HashMap<Subject, Timestamp> {
        let plan = &self.context.plan;
        let burns = self.engine.records().filter(|(_, record)| record.is_candidate());
        let mut since: HashMap<Subject, Timestamp> =
            burns.filter_map(|(subject, record)| Some((*subject, self.clock.at(record.over_since?)))).collect();
        since.extend(self.spared.iter().map(|(subject, spared)| (*subject, self.clock.at(spared.since))));
        // Whom a person put there may have done nothing.
        for quarantine in self.governor.automatic() {
            let keys = quarantine.target.subjects.iter().filter_map(|subject| names::key(plan, subject));
            since.extend(keys.map(|key| (key, quarantine.since)));
        }
        since
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(sign) = self.systemic.sign() {
            let sign = sentences::sign(sign);
            warnings
                .push(format!("systemic trouble: {sign}; no automatic quarantine begins, limits hold all the same"));
        }
        if !self.facts.borrow().known {
            let sentence = "the host's own addresses and gateways, which are to be protected, are not known: no automatic \
                            quarantine begins";
            warnings.push(sentence.to_owned());
        }
        if let Some(hold) = &self.governor.state().hold {
            warnings.push(format!(
                "automatic quarantine is on hold (by {}: {}): `dhcp-guard hold off` ends that",
                hold.author, hold.reason
            ));
        }
        if let Some(spared) = self.spared.values().next() {
            let who = counted(self.spared.len() as u64, "offender");
            warnings.push(format!("{who} held back from quarantine, and still held to the limit: {}", spared.why));
        }
        if let Some((id, outcome)) = self.cases.failures().into_iter().next() {
            let (actuator, why) = (&outcome.actuator, outcome.error.as_deref().unwrap_or_default());
            warnings.push(format!("{actuator} has not done its part of quarantine {id}: {why}"));
        }
        warnings.extend(self.hands.audit.health().problems);
        warnings
    }
}
