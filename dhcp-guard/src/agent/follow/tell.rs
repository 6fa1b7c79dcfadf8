//! The events of a change: what appeared, went, is called otherwise, cannot be guarded, is guarded again.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use log::warn;

use super::{Done, Follower, Links, Meant};
use crate::{
    agent::{Context, journal::Draft},
    model::{AttachMode, EventKind},
};

impl Follower {
    /// A change was made about these interfaces: tells of it, and goes on from there.
    pub(super) fn take(&mut self, done: Done, links: &Links, tried: &Meant) {
        let Done { context, failed } = done;
        self.tell_interfaces(&context, links);
        let failed: BTreeMap<String, String> = failed.into_iter().collect();
        for (name, why) in failed.iter().filter(|(name, why)| self.failed.get(*name) != Some(*why)) {
            self.tell(&context, EventKind::CannotGuard, name, why.clone());
        }
        self.failed.retain(|name, _| tried.interfaces.iter().all(|(_, tried)| tried != name));
        self.failed.extend(failed);
        let guarded: HashSet<u32> = context.plan.interfaces.iter().map(|one| one.ifindex).collect();
        let tried = tried.interfaces.iter().map(|(ifindex, _)| *ifindex);
        self.impossible.extend(tried.filter(|ifindex| !guarded.contains(ifindex)));
        self.impossible.retain(|ifindex| links.contains_key(ifindex) && !guarded.contains(ifindex));
        for warning in context.warnings.iter().filter(|warning| !self.context.warnings.contains(warning)) {
            if !self.failed.values().any(|why| why == warning) {
                warn!("{warning}");
            }
        }
        self.detached = detached(&context);
        self.context = context;
    }

    fn tell_interfaces(&self, after: &Context, links: &Links) {
        let before: HashMap<u32, (&str, AttachMode)> = names_and_modes(&self.context);
        let now = names_and_modes(after);
        for (ifindex, (name, _)) in before.iter().filter(|(ifindex, _)| !now.contains_key(ifindex)) {
            let why = match links.get(ifindex) {
                None => "was deleted, or moved elsewhere",
                Some(called) if called != name => "is called otherwise",
                Some(_) => "is not meant by the configuration any more",
            };
            let message = format!("interface {name} {why}: it is not guarded any more");
            self.tell(&self.context, EventKind::InterfaceGone, name, message);
        }
        for (ifindex, (name, mode)) in &now {
            let (kind, message) = match before.get(ifindex) {
                None => (EventKind::InterfaceGuarded, format!("interface {name} is guarded from now on")),
                Some((_, AttachMode::Detached)) if *mode != AttachMode::Detached => {
                    (EventKind::Reattached, format!("interface {name} is guarded again"))
                }
                Some((old, _)) if old != name => (
                    EventKind::InterfaceRenamed,
                    format!("interface {old} is called {name} now, and guarded as before"),
                ),
                // What others took off was put back in one step.
                Some(_) if self.detached.contains(ifindex) && *mode != AttachMode::Detached => {
                    (EventKind::Reattached, format!("interface {name} is guarded again"))
                }
                Some(_) => continue,
            };
            self.tell(after, kind, name, message);
        }
    }

    pub(super) fn tell_detached(&self, name: &str) {
        let next =
            if self.context.config.reattach { "it is put back" } else { "nobody puts it back (reattach = false)" };
        let message = format!("somebody took the guard off interface {name}: {next}");
        self.tell(&self.context, EventKind::Detached, name, message);
    }

    pub(super) fn tell_replies_detached(&self, name: &str) {
        let message =
            format!("somebody took the program that counts servers' replies off interface {name}: it is put back");
        self.tell(&self.context, EventKind::RepliesDetached, name, message);
    }

    fn tell(&self, context: &Context, kind: EventKind, interface: &str, message: String) {
        let port = context.plan.ports.iter().find(|port| port.interface == interface && port.vlans.is_empty());
        let draft = Draft { port, ..Draft::of_nobody(kind, Timestamp::now(), message) };
        self.journal.add_with(draft, &context.inventory());
    }
}

/// Interfaces, by index, that should be guarded and are not.
pub(super) fn detached(context: &Context) -> HashSet<u32> {
    with_modes(context).filter(|one| one.1 == AttachMode::Detached).map(|one| one.0).collect()
}

fn with_modes(context: &Context) -> impl Iterator<Item = (u32, AttachMode)> {
    context.plan.interfaces.iter().map(|interface| interface.ifindex).zip(context.modes.iter().copied())
}

fn names_and_modes(context: &Context) -> HashMap<u32, (&str, AttachMode)> {
    let names = context.plan.interfaces.iter().map(|interface| interface.name.as_str());
    with_modes(context).zip(names).map(|((ifindex, mode), name)| (ifindex, (name, mode))).collect()
}
