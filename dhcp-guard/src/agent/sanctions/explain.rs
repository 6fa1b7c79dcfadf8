//! Why somebody stands where they stand: the numbers, what they mean, and what would change it.

use std::collections::HashMap;

use jiff::Timestamp;

use super::{
    Sanctioner,
    propose::{Spared, standing},
    sentences,
    view::allowance,
};
use crate::{
    agent::{names, picture::Picture, requests::About},
    engine::{Standing, Subject, sanction::Record},
    governor::{self, Quarantine, Refusal},
    human::{counted, duration},
    mac::Mac,
    model::{Covered, Evidence, Explained, Explanation, Kind, State},
};

/// Most that are explained at once: a MAC that is on more ports than that is no machine.
const MOST: usize = 16;

/// What is said about a state.
struct Said {
    because: String,
    next: String,
    next_in_s: Option<u64>,
    since: Option<Timestamp>,
}

impl Sanctioner {
    /// Everybody whom a question is about.
    pub(super) fn explain(&self, about: &About) -> Explained {
        let picture = &self.picture;
        let subjects = self.meant(picture, about);
        let states = self.states(picture);
        let subjects = subjects.into_iter().take(MOST);
        let subjects = subjects.filter_map(|subject| self.explanation(picture, &states, subject)).collect();
        Explained { as_of: picture.moment.wall, subjects }
    }

    fn meant(&self, picture: &Picture, About { port, mac }: &About) -> Vec<Subject> {
        let plan = &self.context.plan;
        let port = match port {
            Some(name) => match plan.called(name) {
                Some(port) => Some(port.slot),
                None => return Vec::new(),
            },
            None => None,
        };
        let Some(mac) = mac else { return port.map(Subject::Port).into_iter().collect() };
        let here = |slot: u32| port.is_none_or(|port| port == slot);
        let seen = picture.clients.iter().filter(|client| here(client.key.slot()) && client.who.mac() == Some(*mac));
        let mut meant: Vec<Subject> = seen.map(|client| Subject::Client(client.key)).collect();
        // Somebody may be in quarantine, or allowed, and never have been seen.
        let state = self.governor.state();
        let covered = state.quarantines.values().flat_map(|quarantine| &quarantine.target.subjects);
        let named = covered.chain(state.allowed.keys()).filter(|subject| is_client(subject, *mac));
        meant.extend(named.filter_map(|subject| names::key(plan, subject)).filter(|key| here(key.slot())));
        meant.sort_unstable();
        meant.dedup();
        meant
    }

    fn explanation(
        &self,
        picture: &Picture,
        states: &HashMap<Subject, State>,
        subject: Subject,
    ) -> Option<Explanation> {
        let plan = &self.context.plan;
        let port = plan.port(subject.slot())?;
        let client = picture.clients.iter().find(|client| Subject::Client(client.key) == subject);
        let name = names::subject(plan, subject);
        let who = Covered {
            interface: port.interface.clone(),
            port: port.name.clone(),
            vlans: port.vlans.clone(),
            mac: match subject {
                Subject::Port(_) => None,
                Subject::Client(key) => {
                    Some(client.map_or_else(|| Mac(key.mac()).to_string(), |it| it.who.to_string()))
                }
            },
        };
        // Whom the allowlist names passes, also where the port is in quarantine.
        let subject_to_it = name.as_ref().filter(|name| self.let_alone(Some(name)).is_none());
        let quarantine = subject_to_it.and_then(|name| self.governor.state().covering(name));
        let state = states.get(&subject).copied().unwrap_or_else(|| state_of(picture, subject));
        let said = self.say(picture, subject, name.as_ref(), state, quarantine);
        let inventory = self.context.inventory();
        let source = name.as_ref().and_then(governor::Subject::source);
        let machine = inventory.machine(&port.interface, &port.vlans, source);
        Some(Explanation {
            kind: if matches!(subject, Subject::Port(_)) { Kind::Port } else { Kind::Client },
            who,
            server_id: machine.map(|machine| machine.server_id.clone()),
            state,
            since: said.since,
            because: said.because,
            next: said.next,
            next_in_s: said.next_in_s,
            held_back: self.spared.get(&subject).map(|spared| spared.why.to_string()),
            evidence: self.evidence(picture, subject),
            quarantine: quarantine.map(|quarantine| self.cases.report(quarantine, &inventory, self.now())),
        })
    }

    fn say(
        &self,
        picture: &Picture,
        subject: Subject,
        name: Option<&governor::Subject>,
        state: State,
        quarantine: Option<&Quarantine>,
    ) -> Said {
        let since = self.since(picture, subject);
        let record = self.engine.record(subject);
        if let Some(quarantine) = quarantine {
            return self.say_quarantined(picture, quarantine);
        }
        if let Some(why) = self.let_alone(name) {
            let next = "nothing: whoever it may send to decides what is too much".to_owned();
            return Said { because: why, next, next_in_s: None, since: None };
        }
        if let (Subject::Port(slot), State::Normal) = (subject, state)
            && let Some(said) = self.say_of_clients(slot)
        {
            return said;
        }
        if let Some(spared) = self.spared.get(&subject) {
            return Said { next: when_free(&spared.why), next_in_s: None, ..self.say_spared(spared, since) };
        }
        match state {
            State::Candidate | State::Offender | State::OverLimit => self.say_over(subject, state, record, since),
            State::Recovered => Said {
                because: format!(
                    "it was an offender and has kept to its limit since, for {} or more",
                    duration(self.context.config.detection.recover_after_s.into())
                ),
                next: format!(
                    "normal after {} without excess",
                    duration(self.context.config.detection.remember_s.into())
                ),
                next_in_s: None,
                since,
            },
            State::Probation => Said {
                because: "it was in quarantine lately, and keeps to its limit".to_owned(),
                next: format!(
                    "normal when {} have passed since its quarantine; one before that lasts longer",
                    duration(self.governor.rules().remember.as_secs())
                ),
                next_in_s: None,
                since,
            },
            _ => Said {
                because: format!("it keeps to its limit of {} pps", self.limit(subject)),
                next: format!(
                    "offender after {} windows of a second running over its limit",
                    self.context.config.detection.offender_windows
                ),
                next_in_s: None,
                since: None,
            },
        }
    }

    /// Of a port whose clients' limits stop what its own would have to.
    fn say_of_clients(&self, port: u32) -> Option<Said> {
        let is_there = |subject: &Subject| matches!(subject, Subject::Client(key) if key.slot() == port);
        let over = self.engine.records().filter(|(subject, record)| is_there(subject) && record.over_since.is_some());
        let clients = over.count() as u64;
        (clients > 0).then(|| Said {
            because: format!("its clients' own limits stop the excess: {} over theirs", is_or_are(clients)),
            next: "see `dhcp-guard offenders` for who they are".to_owned(),
            next_in_s: None,
            since: None,
        })
    }

    fn say_quarantined(&self, picture: &Picture, quarantine: &Quarantine) -> Said {
        let quiet = self.quiet_for(&quarantine.target, picture.moment.monotonic);
        let quiet = quiet.min(std::time::Duration::from_secs(86_400)).as_secs();
        let left = u64::try_from(quarantine.until.duration_since(self.now()).as_secs()).unwrap_or(0);
        Said {
            because: quarantine.reason.clone(),
            next: sentences::next(quarantine, quiet, self.governor.rules().quiet.as_secs()),
            next_in_s: Some(left),
            since: Some(quarantine.since),
        }
    }

    fn say_spared(&self, spared: &Spared, since: Option<Timestamp>) -> Said {
        let because = sentences::cause(spared.cause, self.engine.rules());
        Said { because, next: String::new(), next_in_s: None, since }
    }

    /// Over its limit, and not in quarantine.
    fn say_over(&self, subject: Subject, state: State, record: Option<&Record>, since: Option<Timestamp>) -> Said {
        let rules = self.engine.rules();
        let (limit, over) = (self.limit(subject), record.map_or(0, |record| record.over));
        let because = match state {
            State::Candidate => format!(
                "it has been over its limit of {limit} pps for {} or more, with pauses of some seconds at most",
                duration(rules.candidate_after.as_secs())
            ),
            _ if over > 0 => format!("it is over its limit of {limit} pps, in {over} windows of a second running"),
            _ => format!("it was over its limit of {limit} pps, and has not kept to it for long enough yet"),
        };
        let hot = record.map_or(0, |record| record.hot.max(record.many_macs));
        let port = self.context.plan.port(subject.slot());
        let next = match port {
            Some(port) if port.rules.quarantine == crate::config::AutoQuarantine::Off => {
                format!("it is not put into quarantine: class {} has that switched off", port.rules.class)
            }
            Some(port) if port.rules.mode == crate::model::Mode::Monitor => {
                "it is not put into quarantine: its port is in monitor mode".to_owned()
            }
            _ => format!(
                "quarantine after {} s running at {} pps or more ({hot} s so far); recovered after {} within its limit",
                rules.windows,
                rules.factor * limit.max(1),
                duration(self.context.config.detection.recover_after_s.into())
            ),
        };
        Said { because, next, next_in_s: None, since }
    }

    /// Why nothing concerns it, no quarantine either.
    fn let_alone(&self, name: Option<&governor::Subject>) -> Option<String> {
        allowance(&self.context, &self.governor, name?)
    }

    /// Since when it stands where it stands.
    fn since(&self, picture: &Picture, subject: Subject) -> Option<Timestamp> {
        let since = match standing(picture, subject)? {
            Standing::Offender { since, .. } | Standing::Recovered { since, .. } => since,
            Standing::Normal | Standing::OverLimit { .. } => return None,
        };
        Some(self.clock.at(since))
    }

    /// Packets a second it may send; a client: the larger of its two limits.
    fn limit(&self, subject: Subject) -> u64 {
        let Some(port) = self.context.plan.port(subject.slot()) else { return 0 };
        match subject {
            Subject::Port(_) => port.rules.total.0.into(),
            Subject::Client(_) => port.rules.client_v4.0.max(port.rules.client_v6.0).into(),
        }
    }

    /// The numbers, for an explanation and for the audit log.
    pub(super) fn evidence(&self, picture: &Picture, subject: Subject) -> Evidence {
        let name = names::subject(&self.context.plan, subject);
        let target = name.map(|name| {
            let guarded = super::world::guarded(&self.context.plan);
            self.context.inventory().target_of(&name, &guarded)
        });
        let rules = self.governor.rules();
        let repeat = target.map_or(0, |target| self.governor.memory().times(rules, self.now(), &target));
        let distinct_macs = match subject {
            Subject::Port(slot) => picture.ports.get(slot as usize).and_then(|port| port.distinct),
            Subject::Client(_) => None,
        };
        let numbers = Evidence { limit_pps: self.limit(subject), distinct_macs, repeat, ..Evidence::default() };
        let Some(record) = self.engine.record(subject) else { return latest(picture, subject, numbers) };
        Evidence {
            packets: record.recent.iter().map(|(packets, _)| u64::from(*packets)).collect(),
            own_excess: record.recent.iter().map(|(_, excess)| u64::from(*excess)).collect(),
            windows_over_limit: record.over,
            windows_at_quarantine_rate: record.hot.max(record.many_macs),
            ..numbers
        }
    }
}

fn is_or_are(clients: u64) -> String {
    format!("{} {}", counted(clients, "client"), if clients == 1 { "is" } else { "are" })
}

/// What the limits alone say.
fn state_of(picture: &Picture, subject: Subject) -> State {
    match standing(picture, subject) {
        None | Some(Standing::Normal) => State::Normal,
        Some(Standing::OverLimit { .. }) => State::OverLimit,
        Some(Standing::Offender { .. }) => State::Offender,
        Some(Standing::Recovered { .. }) => State::Recovered,
    }
}

/// Whoever has no history has the last window.
fn latest(picture: &Picture, subject: Subject, numbers: Evidence) -> Evidence {
    let window = match subject {
        Subject::Port(slot) => picture.ports.get(slot as usize).map(|port| port.window),
        Subject::Client(key) => picture.clients.iter().find(|client| client.key == key).map(|client| client.window),
    };
    let Some(window) = window else { return numbers };
    Evidence { packets: vec![window.packets], own_excess: vec![window.own_excess], ..numbers }
}

fn is_client(subject: &governor::Subject, mac: Mac) -> bool {
    subject.source() == Some(mac)
}

/// What would have to happen for somebody who is held back not to be.
fn when_free(why: &Refusal) -> String {
    match why {
        Refusal::AtOnce { .. } | Refusal::TooFast { .. } => "quarantine as soon as the cap has room".to_owned(),
        Refusal::OnHold => "quarantine as soon as the hold ends".to_owned(),
        Refusal::Systemic => "quarantine if it goes on when the systemic trouble is over".to_owned(),
        _ => "no quarantine while that is so; it is held to its limit".to_owned(),
    }
}
