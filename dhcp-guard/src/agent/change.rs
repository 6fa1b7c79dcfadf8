//! A change of what is guarded, and how: done as a whole on the thread that owns the data plane, or not at all.
//!
//! The order leaves no moment without protection: an interface gets its ports, its clients and the quarantines of its name
//! before the program is on it, and loses them only after the program is off. Whatever fails, all is as it was before.

use std::{collections::HashSet, path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use log::warn;
use tokio::sync::oneshot;

use super::{
    Context,
    inventory::Machines,
    names, pinned,
    plan::Plan,
    start::{Guarded, slow_warning, vlan_warning},
};
use crate::{
    config::Config,
    dataplane::{Error, interface::Interface, replies::ReplyWatch},
    model::AttachMode,
};

/// What a context is made with that no change changes.
#[derive(Clone, Debug, Default)]
pub struct Lasting {
    /// The configuration file; none: defaults.
    pub config_path: Option<PathBuf>,
    /// Print the kernel program's debug messages.
    pub debug_kernel: bool,
    /// When the agent started.
    pub started: Timestamp,
    /// What has made the guard blind or weak from the start.
    pub warnings: Vec<String>,
}

/// An interface that is to be guarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// As the kernel knows it now.
    pub interface: Interface,
    /// If it cannot be guarded, nothing is to be changed at all.
    pub must: bool,
    /// It is guarded, the program was taken off by others, and is to go back.
    pub put_back: bool,
}

/// What is to be.
#[derive(Debug)]
pub struct Wanted {
    /// The configuration, validated.
    pub config: Config,
    /// The interfaces, in the order in which they are listed.
    pub candidates: Vec<Candidate>,
    /// Interfaces that would be among them, if the kernel said what they are; and what it says instead.
    pub failed: Vec<(String, String)>,
    /// Interfaces that could not be guarded before and are not tried this time, and why.
    pub failed_before: Vec<(String, String)>,
    /// Whose machine is where.
    pub machines: Arc<Machines>,
    /// What else a context has.
    pub lasting: Arc<Lasting>,
    /// What people should know about it, one sentence each.
    pub warnings: Vec<String>,
}

/// What became of it.
#[derive(Clone, Debug)]
pub struct Done {
    /// What is in force now.
    pub context: Arc<Context>,
    /// Interfaces that cannot be guarded, and why.
    pub failed: Vec<(String, String)>,
    /// What others had taken off, and this change has found to be so.
    pub lost: Lost,
}

/// Interfaces, by index, from which one of our programs was taken off by somebody else, or with the interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// The one that judges.
    pub guard: HashSet<u32>,
    /// The one that sees replies leave.
    pub replies: HashSet<u32>,
    /// What has become of pins.
    pub pins: Option<pinned::News>,
}

impl Lost {
    /// Nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.guard.is_empty() && self.replies.is_empty() && self.pins.is_none()
    }
}

/// A change, and where it is told what became of it: by the decision loop, after it has taken the new context.
#[derive(Debug)]
pub struct Change {
    /// What is to be.
    pub wanted: Wanted,
    /// Whoever waits for it.
    pub answer: oneshot::Sender<Result<Done, Error>>,
}

/// The way to a change, while it is made.
struct Attempt {
    plan: Plan,
    /// What is not as the configuration says, one sentence each.
    warnings: Vec<String>,
    failed: Vec<(String, String)>,
}

impl Guarded {
    /// Changes what is guarded to what is wanted, or nothing. Answers with the slots that nobody has any more.
    ///
    /// Some interfaces may fail without making the change fail: see [`Candidate::must`] and [`Done::failed`].
    ///
    /// # Errors
    /// The data plane's. Everything is as it was then.
    pub fn change(&mut self, before: &Plan, wanted: Wanted) -> Result<(Done, HashSet<u32>), Error> {
        let held: HashSet<u32> = self.attachments.iter().map(|attachment| attachment.interface.ifindex).collect();
        let lost = self.lost();
        // What others took off is off, whatever becomes of the change; then it is still to be told.
        self.off.extend(&lost.guard);
        for attachment in self.attachments.extract_if(.., |one| lost.guard.contains(&one.interface.ifindex)) {
            attachment.take_off();
        }
        let attempt = self.attempt(before, &wanted).inspect_err(|_| self.undo(before, &held))?;
        let is_wanted = |ifindex: u32| attempt.plan.interfaces.iter().any(|one| one.ifindex == ifindex);
        self.let_go(|ifindex| !is_wanted(ifindex));
        self.watch_replies(&attempt.plan);
        let gone = self.plane.retire(&attempt.plan.spec.policy).unwrap_or_else(|error| {
            // They are tried again with the next change.
            warn!("the slots of ports that are gone are not free yet: {error}");
            Vec::new()
        });
        self.off.clear();
        self.pins.news = None;
        let failed = attempt.failed.clone();
        Ok((Done { context: Arc::new(self.context(attempt, wanted)), failed, lost }, gone.into_iter().collect()))
    }

    /// Puts into force what is wanted, without those that cannot be guarded.
    fn attempt(&mut self, before: &Plan, wanted: &Wanted) -> Result<Attempt, Error> {
        let mut candidates: Vec<&Candidate> = wanted.candidates.iter().collect();
        let mut failed = wanted.failed.clone();
        let is_new = |ifindex: u32| before.interfaces.iter().all(|one| one.ifindex != ifindex);
        loop {
            let interfaces = candidates.iter().map(|candidate| candidate.interface.clone()).collect();
            let mut plan = Plan::new(&wanted.config, interfaces, wanted.lasting.debug_kernel);
            let mut warnings: Vec<String> = plan.spare_hidden_servers().into_iter().collect();
            match self.put_into_force(&mut plan) {
                // Those that fit are guarded all the same.
                Err(error @ Error::TooManyPorts { .. }) => {
                    let may_go = |one: &&Candidate| !one.must && is_new(one.interface.ifindex);
                    let Some(last) = candidates.iter().rposition(may_go) else { return Err(error) };
                    failed.push((candidates.remove(last).interface.name.clone(), error.to_string()));
                    continue;
                }
                done => warnings.append(&mut done?),
            }
            let refused = self.attach_all(before, &candidates, wanted)?;
            // One that was guarded before keeps its ports, and what was counted there, until it is gone.
            let mut out = HashSet::new();
            for (interface, error) in refused {
                // Whoever goes while we try has not failed: netlink says so in a moment.
                let is_here = interface.is_here();
                if !is_here || is_new(interface.ifindex) {
                    out.insert(interface.ifindex);
                }
                if is_here {
                    failed.push((interface.name, error.to_string()));
                }
            }
            if out.is_empty() {
                return Ok(Attempt { plan, warnings, failed });
            }
            candidates.retain(|candidate| !out.contains(&candidate.interface.ifindex));
        }
    }

    /// Policy, clients, and the orders about names, which may lead to other ports by now. Answers with what people should know
    /// about it, one sentence each.
    fn put_into_force(&mut self, plan: &mut Plan) -> Result<Vec<String>, Error> {
        self.plane.apply(&plan.spec.policy)?;
        plan.take_slots(&self.plane);
        let warnings = self.plane.name_clients(&plan.spec);
        self.plane.carry_out_again(&|subject| names::slot(plan, subject))?;
        Ok(warnings)
    }

    /// Attaches whatever is not, and answers which of them could not be.
    fn attach_all(
        &mut self,
        before: &Plan,
        candidates: &[&Candidate],
        wanted: &Wanted,
    ) -> Result<Vec<(Interface, Error)>, Error> {
        let mut failed = Vec::new();
        for Candidate { interface, must, put_back } in candidates {
            if let Some(attachment) = self.attachments.iter_mut().find(|one| one.interface.ifindex == interface.ifindex)
            {
                // It may be called otherwise.
                attachment.interface.name.clone_from(&interface.name);
                continue;
            }
            let was_guarded = before.interfaces.iter().any(|one| one.ifindex == interface.ifindex);
            if was_guarded && !put_back {
                continue;
            }
            // As at the start: who names one that is down has probably named the wrong one.
            if *must && !interface.up {
                return Err(Error::InterfaceDown { name: interface.name.clone() });
            }
            // To attach may take long, and what happens meanwhile is heard all the same.
            self.plane.tell_of_agent()?;
            match self.plane.attach(interface.clone(), wanted.config.hook) {
                Ok(attachment) => self.attachments.push(attachment),
                Err(error) if *must => return Err(error),
                Err(error) => failed.push((interface.clone(), error)),
            }
        }
        Ok(failed)
    }

    /// Everything as it was before an attempt: interfaces that were not `held` then, are not now.
    fn undo(&mut self, before: &Plan, held: &HashSet<u32>) {
        self.let_go(|ifindex| !held.contains(&ifindex));
        let mut before = before.clone();
        let undone = self.put_into_force(&mut before).and_then(|_| self.plane.retire(&before.spec.policy));
        if let Err(error) = undone {
            warn!("what was tried and failed could not be undone as a whole, the next change will: {error}");
        }
    }

    /// Takes the programs off some interfaces.
    fn let_go(&mut self, is_meant: impl Fn(u32) -> bool) {
        for attachment in self.attachments.extract_if(.., |one| is_meant(one.interface.ifindex)) {
            attachment.take_off();
        }
        for (_, watch) in self.replies.extract_if(.., |(ifindex, _)| is_meant(*ifindex)) {
            let _ = watch.map(ReplyWatch::take_off);
        }
    }

    /// Servers' replies are watched wherever they can be. What others took off goes back.
    pub(super) fn watch_replies(&mut self, plan: &Plan) {
        let is_lost = |watch: &mut Result<ReplyWatch, _>| !watch.as_ref().is_ok_and(ReplyWatch::is_in_place);
        for (_, watch) in self.replies.extract_if(.., |(_, watch)| is_lost(watch)) {
            let _ = watch.map(ReplyWatch::take_off);
        }
        for interface in &plan.interfaces {
            if !self.replies.iter().any(|(ifindex, _)| *ifindex == interface.ifindex) {
                let watch = self.plane.watch_replies(interface, plan.hook).map_err(|error| error.to_string());
                self.replies.push((interface.ifindex, watch));
            }
        }
    }

    /// What is not where it was put.
    #[must_use]
    pub fn lost(&self) -> Lost {
        let judging = self.attachments.iter().filter(|one| !one.is_in_place());
        let counting = self.replies.iter().filter(|(_, watch)| watch.as_ref().is_ok_and(|watch| !watch.is_in_place()));
        Lost {
            guard: judging.map(|one| one.interface.ifindex).chain(self.off.iter().copied()).collect(),
            replies: counting.map(|(ifindex, _)| *ifindex).collect(),
            pins: self.pins.news.clone(),
        }
    }

    /// How each interface of a plan is attached, in its order.
    pub(super) fn modes(&self, plan: &Plan) -> Vec<AttachMode> {
        let mode = |interface: &Interface| {
            let attachment = self.attachments.iter().find(|one| one.interface.ifindex == interface.ifindex);
            attachment.map_or(AttachMode::Detached, |attachment| attachment.mode)
        };
        plan.interfaces.iter().map(mode).collect()
    }

    /// What makes the guard blind or weak on some interface, one sentence each. Of those whose name is `told`, it is told already
    /// why they are not guarded.
    pub(super) fn weaknesses(&self, plan: &Plan, told: &HashSet<&str>) -> Vec<String> {
        let mut warnings: Vec<String> = self.attachments.iter().filter_map(slow_warning).collect();
        warnings.extend(self.attachments.iter().filter_map(|attachment| vlan_warning(attachment, plan.hook)));
        warnings.extend(self.replies.iter().filter_map(|(_, watch)| watch.as_ref().err().cloned()));
        warnings.extend(self.pins.trouble.clone());
        warnings.extend(self.others_pins(plan));
        let modes = self.modes(plan);
        let detached = plan.interfaces.iter().zip(modes).filter(|(_, mode)| *mode == AttachMode::Detached);
        let untold = detached.filter(|(interface, _)| !told.contains(interface.name.as_str()));
        warnings.extend(untold.map(|(interface, _)| {
            let name = &interface.name;
            format!(
                "interface {name} is not guarded: the guard was taken off it, or never got there; `dhcp-guard reload` puts it \
                 there as soon as nothing is in its place"
            )
        }));
        warnings
    }

    fn context(&self, attempt: Attempt, wanted: Wanted) -> Context {
        let Attempt { plan, warnings: of_attempt, failed } = attempt;
        let lasting = &wanted.lasting;
        let mut warnings = lasting.warnings.clone();
        warnings.extend(wanted.config.warnings());
        warnings.extend(of_attempt);
        let failed: Vec<(String, String)> = wanted.failed_before.into_iter().chain(failed).collect();
        let told = failed.iter().map(|(name, _)| name.as_str()).collect();
        warnings.extend(self.weaknesses(&plan, &told));
        warnings.extend(wanted.warnings);
        warnings.extend(failed.into_iter().map(|(_, why)| why));
        Context {
            modes: self.modes(&plan),
            config: wanted.config,
            config_path: lasting.config_path.clone(),
            plan,
            machines: wanted.machines,
            started: lasting.started,
            last_agent: Some(Duration::ZERO),
            warnings,
        }
    }
}
