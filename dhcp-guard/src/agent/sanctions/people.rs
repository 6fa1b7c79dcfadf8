//! What people ask for. It passes the same governor as everything else; a dry run asks a copy of it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{Sanctioner, cases::Case, enact::Refused, sentences, world};
use crate::{
    agent::{
        names,
        picture::Picture,
        requests::{Asked, Change, Denied},
    },
    governor::{Author, Refusal, Request, Subject, Target},
    mac::Mac,
    model::{AllowRequest, Changed, Named, QuarantineRequest, ReleaseRequest},
};

/// A request in the governor's words.
struct Understood {
    request: Request,
    /// Whom it names, for the audit log.
    subjects: Vec<Subject>,
    /// What the audit log calls it, if it is not what it looks like.
    action: Option<&'static str>,
}

impl Sanctioner {
    /// Answers somebody. `publish` gets the picture as it is after a change, before the answer is sent.
    pub fn answer(&mut self, asked: Asked, publish: impl FnOnce(Arc<Picture>)) {
        // Whoever asked may be gone by now: then nobody wants to know, and it is done all the same.
        match asked {
            Asked::Change { change, author, answer } => {
                let changed = self.change(&change, &author);
                if changed.as_ref().is_ok_and(|changed| !changed.dry_run) {
                    publish(self.refreshed());
                }
                drop(answer.send(changed));
            }
            Asked::Explain { about, answer } => drop(answer.send(self.explain(&about))),
        }
    }

    pub(super) fn change(&mut self, change: &Change, author: &Author) -> Result<Changed, Denied> {
        let (reason, dry_run) = about(change);
        let result = self.understand(change).and_then(|understood| {
            let subjects = understood.subjects.clone();
            self.ask_for(author, reason, dry_run, understood)
                .map_err(|refusal| (subjects, Denied::Rules(refusal.to_string())))
        });
        result.map_err(|(subjects, denied)| {
            if !dry_run {
                let refused = Refused { action: action(change), subjects, reason, evidence: None };
                self.audit_refusal(author, refused, &denied.to_string());
            }
            denied
        })
    }

    fn ask_for(
        &mut self,
        author: &Author,
        reason: &str,
        dry_run: bool,
        Understood { request, subjects, action }: Understood,
    ) -> Result<Changed, Refusal> {
        let now = self.now();
        let picture = Arc::clone(&self.picture);
        let (governor, host) = self.governor_and_host(&picture);
        let mut copy = dry_run.then(|| governor.clone());
        let asked = copy.as_mut().unwrap_or(governor);
        let granted = host.with_world(|world| asked.ask(now, world, author, &request, reason))?;
        let changes = granted.changes.iter().map(sentences::change).collect();
        if !dry_run {
            let key = subjects.first().and_then(|subject| names::key(&self.context.plan, subject));
            let evidence = key.map(|key| self.evidence(&picture, key));
            self.enact(&granted, Some(&Case { evidence, ..Case::default() }), action);
        }
        Ok(Changed { dry_run, changes })
    }

    fn understand(&self, change: &Change) -> Result<Understood, (Vec<Subject>, Denied)> {
        let plain = |request| Ok(Understood { request, subjects: Vec::new(), action: None });
        match change {
            Change::Quarantine(request) => self.understand_quarantine(request),
            Change::Release(request) => self.understand_release(request),
            Change::Hold(request) => plain(if request.hold { Request::Hold } else { Request::EndHold }),
            Change::Undo(request) => {
                let ago = SignedDuration::try_from(Duration::from_secs(request.since_s)).unwrap_or(SignedDuration::MAX);
                let since = self.now().saturating_sub(ago).unwrap_or(Timestamp::MIN);
                Ok(Understood { request: Request::Undo(since), subjects: Vec::new(), action: Some("undo") })
            }
            Change::Allow(request) => {
                let subject = self.subject(&request.target)?;
                let ttl = request.for_s.map(Duration::from_secs);
                Ok(Understood { request: Request::Allow(subject.clone(), ttl), subjects: vec![subject], action: None })
            }
            Change::Disallow(request) => {
                let subject = self.subject(&request.target)?;
                Ok(Understood { request: Request::Disallow(subject.clone()), subjects: vec![subject], action: None })
            }
        }
    }

    fn understand_quarantine(&self, request: &QuarantineRequest) -> Result<Understood, (Vec<Subject>, Denied)> {
        // Names are few, or the governor refuses them: no work for those who send ten thousand.
        let named = request.targets.len();
        if named > 1 && request.max.unwrap_or(1) < named {
            return Err((Vec::new(), Denied::Rules(Refusal::Several { named }.to_string())));
        }
        let subjects = request.targets.iter().map(|named| self.subject(named)).collect::<Result<Vec<_>, _>>()?;
        let (guarded, inventory) = (world::guarded(&self.context.plan), self.context.inventory());
        let targets: BTreeSet<Target> = subjects.iter().map(|subject| inventory.target_of(subject, &guarded)).collect();
        let request = Request::Quarantine {
            targets: targets.into_iter().collect(),
            sanction: request.action,
            ttl: request.ttl_s.map(Duration::from_secs),
            max: request.max,
            confirm: request.confirm,
        };
        Ok(Understood { request, subjects, action: None })
    }

    fn understand_release(&self, request: &ReleaseRequest) -> Result<Understood, (Vec<Subject>, Denied)> {
        if let Some(id) = request.id {
            return Ok(Understood { request: Request::Release(id), subjects: Vec::new(), action: None });
        }
        let nobody = || (Vec::new(), Denied::Nonsense("the request names nobody to release".to_owned()));
        let subject = self.subject(request.target.as_ref().ok_or_else(nobody)?)?;
        let covering = self.governor.state().covering(&subject);
        let target = covering.map_or_else(|| Target::one(subject.clone()), |quarantine| quarantine.target.clone());
        Ok(Understood { request: Request::ReleaseTarget(target), subjects: vec![subject], action: None })
    }

    fn subject(&self, Named { port, mac }: &Named) -> Result<Subject, (Vec<Subject>, Denied)> {
        let nonsense = |sentence: String| (Vec::new(), Denied::Nonsense(sentence));
        let Some(found) = self.context.plan.called(port) else {
            return Err(nonsense(format!("there is no port {port:?} here: `dhcp-guard ports` lists them")));
        };
        if let Some(Mac([first, ..])) = mac
            && first & 1 == 1
        {
            return Err(nonsense(format!("nobody can send from a group address: name a machine's MAC on port {port}")));
        }
        Ok(Subject { port: found.port_name(), client: mac.map(crate::governor::ClientName::Mac) })
    }
}

/// Why, and whether it is only asked what would happen.
fn about(change: &Change) -> (&str, bool) {
    match change {
        Change::Quarantine(request) => (&request.reason, request.dry_run),
        Change::Release(request) => (&request.reason, request.dry_run),
        Change::Hold(request) => (&request.reason, request.dry_run),
        Change::Undo(request) => (&request.reason, request.dry_run),
        Change::Allow(AllowRequest { reason, dry_run, .. })
        | Change::Disallow(AllowRequest { reason, dry_run, .. }) => (reason, *dry_run),
    }
}

/// What the audit log calls what was refused.
fn action(change: &Change) -> &'static str {
    match change {
        Change::Quarantine(_) => "quarantine_add",
        Change::Release(_) => "quarantine_end",
        Change::Hold(request) if request.hold => "hold_on",
        Change::Hold(_) => "hold_off",
        Change::Undo(_) => "undo",
        Change::Allow(_) => "allow_add",
        Change::Disallow(_) => "allow_end",
    }
}
