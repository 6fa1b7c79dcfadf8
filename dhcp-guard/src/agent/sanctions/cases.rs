//! What is known about each quarantine beside what the governor has: where the time went, the numbers it was decided from,
//! what became of its actuators. It helps people to understand; nothing depends on it, and a restart forgets it.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::{
    actuators,
    config::ActuatorName,
    governor::{Quarantine, Sanction},
    inventory::Inventory,
    model::{Covered, Evidence, Kind, OutcomeReport, QuarantineReport, Times},
};

/// Outcomes that are kept of one quarantine: the latest.
const OUTCOMES: usize = 16;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Case {
    /// None: a person's, or one of before a restart.
    pub(super) times: Option<Times>,
    /// The same.
    pub(super) evidence: Option<Evidence>,
    pub(super) outcomes: Vec<OutcomeReport>,
    /// What was told of it: each actuator's failure once.
    pub(super) failed: Vec<String>,
}

/// Cases by the quarantine's number.
#[derive(Clone, Debug, Default)]
pub(super) struct Cases(HashMap<u64, Case>);

impl Cases {
    pub(super) fn open(&mut self, id: u64, case: Case) {
        self.0.insert(id, case);
    }

    /// What has failed of the quarantines in force: number and outcome, the earliest quarantine first.
    pub(super) fn failures(&self) -> Vec<(u64, &OutcomeReport)> {
        let outcomes = self.0.iter().flat_map(|(id, case)| case.outcomes.iter().map(|one| (*id, one)));
        let mut failures: Vec<_> = outcomes.filter(|(_, outcome)| outcome.error.is_some()).collect();
        failures.sort_by_key(|(id, _)| *id);
        failures
    }

    /// Lets go of all that are not in force any more.
    pub(super) fn keep(&mut self, in_force: impl Fn(u64) -> bool) {
        self.0.retain(|id, _| in_force(*id));
    }

    /// The data plane has it, since now.
    pub(super) fn quarantined(&mut self, id: u64, at: Timestamp) {
        let times = self.0.get_mut(&id).and_then(|case| case.times.as_mut());
        if let Some(times) = times {
            times.quarantined.get_or_insert(at);
        }
    }

    /// An actuator is done, or is not. True: it failed, and nobody was told.
    pub(super) fn outcome(&mut self, id: u64, report: OutcomeReport) -> bool {
        let Some(case) = self.0.get_mut(&id) else { return report.error.is_some() };
        let notifies =
            [ActuatorName::Command, ActuatorName::Webhook].iter().any(|name| name.as_str() == report.actuator);
        if let (true, None, Some(times)) = (notifies, &report.error, case.times.as_mut()) {
            times.notified.get_or_insert(report.at);
        }
        let is_news = report.error.is_some() && !case.failed.contains(&report.actuator);
        match &report.error {
            None => case.failed.retain(|actuator| *actuator != report.actuator),
            Some(_) if is_news => case.failed.push(report.actuator.clone()),
            Some(_) => {}
        }
        // Of each actuator the latest word: an extension of the quarantine is one more outcome.
        case.outcomes.retain(|before| before.actuator != report.actuator);
        case.outcomes.push(report);
        let surplus = case.outcomes.len().saturating_sub(OUTCOMES);
        case.outcomes.drain(..surplus);
        is_news
    }

    /// A quarantine as people get to see it.
    pub(super) fn report(&self, quarantine: &Quarantine, inventory: &Inventory, now: Timestamp) -> QuarantineReport {
        let case = self.0.get(&quarantine.id);
        let covers: Vec<Covered> = quarantine.target.subjects.iter().map(Covered::from).collect();
        let first = quarantine.target.subjects.first();
        let found = first.and_then(|subject| {
            let port = &subject.port;
            inventory.machine(&port.interface, &port.vlans, subject.source())
        });
        // The decision was about the machine that it names, whoever has the port today.
        let machine = found.filter(|machine| Some(&machine.server_id) == quarantine.target.machine.as_ref());
        QuarantineReport {
            id: quarantine.id,
            kind: if quarantine.target.has_port() { Kind::Port } else { Kind::Client },
            covers,
            server_id: quarantine.target.machine.clone(),
            server_name: machine.and_then(|machine| machine.name.clone()),
            owner: machine.and_then(|machine| machine.owner.clone()),
            action: quarantine.sanction,
            by: quarantine.author.to_string(),
            reason: quarantine.reason.clone(),
            since: quarantine.since,
            expires_at: quarantine.until,
            expires_in_s: u64::try_from(quarantine.until.duration_since(now).as_secs()).unwrap_or(0),
            repeat: quarantine.repeat,
            times: case.and_then(|case| case.times),
            outcomes: case.map_or_else(Vec::new, |case| case.outcomes.clone()),
        }
    }
}

/// What is done, as a past participle.
pub(super) fn done(sanction: Sanction) -> &'static str {
    match sanction {
        Sanction::Mute => "muted",
        Sanction::Isolate => "isolated",
    }
}

/// The number of a job: the end that it sets, in seconds, so that the same order has the same number after a restart.
pub(super) fn number(quarantine: &Quarantine, what: actuators::What) -> u64 {
    let end = u64::try_from(quarantine.until.as_second()).unwrap_or(0);
    match what {
        actuators::What::Impose => end,
        actuators::What::Lift => end.saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(actuator: &str, error: Option<&str>) -> OutcomeReport {
        let (actuator, error) = (actuator.to_owned(), error.map(str::to_owned));
        OutcomeReport { actuator, at: Timestamp::UNIX_EPOCH, error, took_ms: 1 }
    }

    #[test]
    fn a_failure_is_news_once_and_again_after_a_success() {
        let mut cases = Cases::default();
        cases.open(1, Case::default());
        let news =
            ["x", "x", "", "x"].map(|error| cases.outcome(1, outcome("webhook", (!error.is_empty()).then_some(error))));
        assert_eq!(news, [true, false, false, true]);
        assert_eq!(cases.0[&1].outcomes.len(), 1, "of each actuator the latest");
        assert!(cases.outcome(2, outcome("webhook", Some("of one that has ended"))));
    }

    #[test]
    fn the_first_word_is_what_counts_for_the_times() {
        let mut cases = Cases::default();
        cases.open(1, Case { times: Some(Times::default()), ..Case::default() });
        let at = |second| Timestamp::from_second(second).unwrap();
        cases.quarantined(1, at(10));
        cases.quarantined(1, at(20));
        cases.outcome(1, OutcomeReport { at: at(11), ..outcome("data_plane", None) });
        cases.outcome(1, OutcomeReport { at: at(12), ..outcome("webhook", Some("no")) });
        cases.outcome(1, OutcomeReport { at: at(13), ..outcome("webhook", None) });
        cases.outcome(1, OutcomeReport { at: at(14), ..outcome("command", None) });
        let times = cases.0[&1].times.unwrap();
        assert_eq!((times.quarantined, times.notified), (Some(at(10)), Some(at(13))));
    }
}
