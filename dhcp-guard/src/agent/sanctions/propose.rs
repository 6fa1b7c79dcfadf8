//! What happens once a window: what is over ends, what is not quiet goes on, and who has deserved it is proposed.

use std::{cmp::Reverse, collections::HashSet, mem, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{Sanctioner, cases::Case, enact::Refused, sentences, world};
use crate::{
    agent::{journal::Draft, names, picture::Picture, plan::Port},
    config::AutoQuarantine,
    engine::{
        self, Standing,
        sanction::{Cause, Deserved, Proposal},
        systemic,
    },
    governor::{self, Author, PortName, Quarantine, Refusal, Request, Sanction, Subject, Target},
    human::duration,
    model::{EventKind, Mode, Times},
};

/// So long before its end it is decided whether a quarantine goes on.
const AHEAD: Duration = Duration::from_secs(5);
/// Those who are held back and told of one by one, in one window: a loop in the network makes thousands.
const TOLD: usize = 32;
/// So long after the latest proposal somebody still counts as spared.
const SPARED: Duration = Duration::from_secs(10);

/// Somebody who has deserved a quarantine, and why it does not begin.
#[derive(Clone, Debug)]
pub(super) struct Spared {
    pub(super) cause: Cause,
    pub(super) why: Refusal,
    pub(super) since: Duration,
    /// The latest proposal.
    seen: Duration,
}

/// What is asked for in the engine's name.
struct Wanted {
    target: Target,
    sanction: Sanction,
    reason: String,
}

impl Sanctioner {
    /// Everything that is decided in one window.
    pub(super) fn decide(&mut self, now: Timestamp, picture: &Picture) {
        let time = picture.moment.monotonic;
        self.look_for_systemic_trouble(picture, time);
        let ended = self.governor.tick(now);
        self.enact(&ended, None, None);
        let deserved = self.judge(picture);
        self.tell_candidates(picture, &deserved);
        self.release_the_protected(now, picture);
        self.prolong(now, picture);
        self.propose(now, picture, deserved.proposals);
        let engine = &self.engine;
        self.first_drops.retain(|subject, at| {
            // A record comes at the end of the window in which the first packet was.
            engine.record(*subject).is_some() || picture.moment.wall.duration_since(*at) < SignedDuration::from_secs(5)
        });
    }

    fn look_for_systemic_trouble(&mut self, picture: &Picture, now: Duration) {
        let ports = self.activity.systemic_samples(&self.context.plan);
        let (kind, message) = match self.systemic.step(now, &ports, self.activity.arrived()) {
            None => return,
            Some(systemic::Change::Begins(sign)) => {
                let sign = sentences::sign(sign);
                (
                    EventKind::Systemic,
                    format!("{sign}: nobody in particular is to blame, no automatic quarantine begins"),
                )
            }
            Some(systemic::Change::Ends) => {
                (EventKind::SystemicOver, "the systemic trouble is over: automatic quarantine goes on".to_owned())
            }
        };
        self.hands.journal.add(Draft::of_nobody(kind, picture.moment.wall, message));
    }

    fn judge(&mut self, picture: &Picture) -> Deserved {
        let plan = &self.context.plan;
        let state = self.governor.state();
        let watched: HashSet<engine::Subject> = state
            .quarantines
            .values()
            .flat_map(|quarantine| &quarantine.target.subjects)
            .filter_map(|subject| names::key(plan, subject))
            .collect();
        // Clients among them allow no port.
        let allowed: HashSet<engine::Subject> =
            state.allowed.keys().filter_map(|subject| names::key(plan, subject)).collect();
        let is_allowed = |port: &Port| port.allowed || allowed.contains(&engine::Subject::Port(port.slot));
        let inventory = self.context.inventory();
        let is_own = |port: &Port| world::is_own(port, &inventory, &self.taps);
        let samples = self.activity.samples(plan, picture, &is_allowed, &is_own);
        self.engine.step(picture.moment.monotonic, samples, &watched)
    }

    fn tell_candidates(&mut self, picture: &Picture, deserved: &Deserved) {
        let after = duration(self.engine.rules().candidate_after.as_secs());
        for subject in &deserved.candidates {
            let Some(name) = names::subject(&self.context.plan, *subject) else { continue };
            let message = format!(
                "{name} has been over its limit for {after}, though not far enough for quarantine: somebody should look"
            );
            self.tell_about(EventKind::CandidateFound, picture.moment.wall, &name, message);
        }
    }

    /// Whoever still sends too much stays in quarantine. Only the engine's own go on; a person's end when they were to end.
    fn prolong(&mut self, now: Timestamp, picture: &Picture) {
        let needed = self.governor.rules().quiet;
        let ends_soon = |quarantine: &&Quarantine| {
            quarantine.author.is_engine()
                && quarantine.until.duration_since(now) <= SignedDuration::try_from(AHEAD).unwrap_or_default()
        };
        let due: Vec<Target> =
            self.governor.state().quarantines.values().filter(ends_soon).map(|one| one.target.clone()).collect();
        for target in due {
            let quiet = self.quiet_for(&target, picture.moment.monotonic);
            if quiet >= needed {
                continue;
            }
            let loud = target.subjects.iter().find_map(|subject| names::key(&self.context.plan, subject));
            let request = Request::Extend(target, needed - quiet + AHEAD);
            let reason = "it still sends more than it may";
            // On hold, or while the trouble is systemic, it ends at its time.
            if let Ok(granted) = self.ask(now, picture, &request, reason) {
                let evidence = loud.map(|key| self.evidence(picture, key));
                self.enact(&granted, Some(&Case { evidence, ..Case::default() }), None);
            }
        }
    }

    /// How long all of a target have kept to their limits. Whoever is not seen is quiet.
    pub(super) fn quiet_for(&self, target: &Target, now: Duration) -> Duration {
        let keys: HashSet<engine::Subject> =
            target.subjects.iter().filter_map(|subject| names::key(&self.context.plan, subject)).collect();
        // A port is as quiet as the loudest on it: it may be blamed for what one client sends.
        let covers =
            |subject: &engine::Subject| keys.contains(subject) || keys.contains(&engine::Subject::Port(subject.slot()));
        let records = self.engine.records().filter(|(subject, _)| covers(subject));
        records.map(|(_, record)| record.quiet_for(now)).min().unwrap_or(Duration::MAX)
    }

    /// Whom the inventory protects by now is let out. What somebody in quarantine sends protects nobody.
    fn release_the_protected(&mut self, now: Timestamp, picture: &Picture) {
        let automatic: Vec<Target> = self.governor.automatic().map(|one| one.target.clone()).collect();
        for target in automatic {
            let inventory = self.context.inventory();
            let Some(why) = target.subjects.iter().find_map(|subject| inventory.protected(subject)) else { continue };
            if let Ok(granted) = self.ask(now, picture, &Request::ReleaseTarget(target), &why) {
                self.enact(&granted, None, None);
            }
        }
    }

    fn propose(&mut self, now: Timestamp, picture: &Picture, mut proposals: Vec<Proposal>) {
        // The caps let few through: they should be the worst.
        proposals.sort_by_key(|proposal| Reverse(weight(proposal.cause)));
        let time = picture.moment.monotonic;
        let guarded = world::guarded(&self.context.plan);
        let mut before = mem::take(&mut self.spared);
        // What is refused to everybody in this window is asked once.
        let mut nobody: Option<Refusal> = None;
        let mut untold = 0;
        for Proposal { subject, cause } in proposals {
            let Some(wanted) = self.wanted(&guarded, subject, cause) else { continue };
            let refused = nobody.clone().map_or_else(|| self.begin(now, picture, subject, wanted), Some);
            let Some(why) = refused else { continue };
            if matches!(why, Refusal::OnHold | Refusal::Systemic | Refusal::TooFast { .. }) {
                nobody = Some(why.clone());
            }
            let known = before.remove(&subject);
            let same = |it: &Spared| mem::discriminant(&it.why) == mem::discriminant(&why);
            if !known.as_ref().is_some_and(same) {
                untold += 1;
                if untold <= TOLD {
                    self.tell_spared(picture, subject, cause, &why);
                }
            }
            let since = known.map_or(time, |known| known.since);
            self.spared.insert(subject, Spared { cause, why, since, seen: time });
        }
        if untold > TOLD {
            let message =
                format!("{} more offenders are held back from quarantine: see `dhcp-guard offenders`", untold - TOLD);
            self.hands.journal.add(Draft::of_nobody(EventKind::QuarantineHeldBack, picture.moment.wall, message));
        }
        before.retain(|subject, spared| {
            time.saturating_sub(spared.seen) < SPARED
                && !self.spared.contains_key(subject)
                && !self.is_covered(*subject)
        });
        self.spared.append(&mut before);
    }

    /// What to ask the governor for; none: nothing, as the configuration or a person wants it, or because it is so already.
    fn wanted(&self, guarded: &[PortName], subject: engine::Subject, cause: Cause) -> Option<Wanted> {
        let plan = &self.context.plan;
        let port = plan.port(subject.slot())?;
        if !self.governor.rules().automatic || !self.facts.borrow().known || port.rules.mode == Mode::Monitor {
            return None;
        }
        let own = sanction_of(port)?;
        let name = names::subject(plan, subject)?;
        let state = self.governor.state();
        if state.covering(&name).is_some() || state.allowed.contains_key(&name) {
            return None;
        }
        let mut target = self.context.inventory().target_of(&name, guarded);
        // The machine's other ports only where there is automatic quarantine, and none of them gets more than its class says.
        let class = |subject: &Subject| {
            plan.named(&subject.port).filter(|port| port.rules.mode == Mode::Enforce).and_then(sanction_of)
        };
        target.subjects.retain(|subject| class(subject).is_some());
        let sanction = target.subjects.iter().filter_map(class).min().unwrap_or(own);
        Some(Wanted { target, sanction, reason: sentences::cause(cause, self.engine.rules()) })
    }

    /// Asks the governor. Some: it says no, and people should know.
    fn begin(
        &mut self,
        now: Timestamp,
        picture: &Picture,
        subject: engine::Subject,
        Wanted { target, sanction, reason }: Wanted,
    ) -> Option<Refusal> {
        let ended_last = self.governor.memory().latest_end(&target);
        let request = Request::Quarantine { targets: vec![target], sanction, ttl: None, max: None, confirm: None };
        match self.ask(now, picture, &request, &reason) {
            Ok(granted) => {
                let mut case = self.case(picture, subject);
                if let Some(times) = &mut case.times {
                    // What was before the one before was answered by that.
                    times.first_excess = times.first_excess.max(ended_last.filter(|end| *end <= now));
                }
                self.enact(&granted, Some(&case), None);
                None
            }
            Err(refusal) => Some(refusal),
        }
    }

    /// Asks the governor in the engine's name.
    fn ask(
        &mut self,
        now: Timestamp,
        picture: &Picture,
        request: &Request,
        reason: &str,
    ) -> Result<governor::Granted, Refusal> {
        let (governor, host) = self.governor_and_host(picture);
        host.with_world(|world| governor.ask(now, world, &Author::Engine, request, reason))
    }

    /// Where the time went so far, and the numbers.
    fn case(&self, picture: &Picture, subject: engine::Subject) -> Case {
        let time = |since: Duration| self.clock.at(since);
        let loud = self.engine.record(subject).and_then(|record| record.loud_since).map(time);
        let event = self.first_drops.get(&subject).copied();
        // The kernel's word is exact, if it is about this time and not about one before.
        let is_this_time =
            |at: &Timestamp| loud.is_none_or(|loud| at.duration_since(loud).abs() <= SignedDuration::from_secs(2));
        let detected = offender_since(picture, subject).map(time);
        let times = Times { first_excess: event.filter(is_this_time).or(loud), detected, ..Times::default() };
        Case { times: Some(times), evidence: Some(self.evidence(picture, subject)), ..Case::default() }
    }

    fn tell_spared(&mut self, picture: &Picture, subject: engine::Subject, cause: Cause, why: &Refusal) {
        let Some(name) = names::subject(&self.context.plan, subject) else { return };
        let cause = sentences::cause(cause, self.engine.rules());
        let message = format!("{name} is held back from quarantine ({why}), and still held to its limit: {cause}");
        self.tell_about(EventKind::QuarantineHeldBack, picture.moment.wall, &name, message);
        let evidence = Some(self.evidence(picture, subject));
        let refused = Refused { action: "quarantine_add", subjects: vec![name], reason: &cause, evidence };
        self.audit_refusal(&Author::Engine, refused, &why.to_string());
    }

    fn is_covered(&self, subject: engine::Subject) -> bool {
        names::subject(&self.context.plan, subject).is_some_and(|name| self.governor.state().covering(&name).is_some())
    }
}

/// Where somebody stands, as far as limits go.
pub(super) fn standing(picture: &Picture, subject: engine::Subject) -> Option<Standing> {
    match subject {
        engine::Subject::Port(slot) => picture.ports.get(slot as usize).map(|port| port.standing),
        engine::Subject::Client(key) => {
            picture.clients.iter().find(|client| client.key == key).map(|client| client.standing)
        }
    }
}

/// Since when somebody is reported as an offender; a port, or the first on it.
fn offender_since(picture: &Picture, subject: engine::Subject) -> Option<Duration> {
    let since = |standing: Standing| if let Standing::Offender { since, .. } = standing { Some(since) } else { None };
    let own = standing(picture, subject).and_then(since);
    let engine::Subject::Port(slot) = subject else { return own };
    let on_it = picture.clients.iter().filter(|client| client.key.slot() == slot);
    own.into_iter().chain(on_it.filter_map(|client| since(client.standing))).min()
}

/// What automatic quarantine may do on a port.
fn sanction_of(port: &Port) -> Option<Sanction> {
    match port.rules.quarantine {
        AutoQuarantine::Off => None,
        AutoQuarantine::Mute => Some(Sanction::Mute),
        AutoQuarantine::Isolate => Some(Sanction::Isolate),
    }
}

/// How bad it is.
fn weight(cause: Cause) -> u64 {
    match cause {
        Cause::Rate { pps, .. } => pps,
        Cause::NewMacs { macs } => macs.unwrap_or(u64::MAX),
    }
}
