//! The events of a change: what appeared, went, is called otherwise, cannot be guarded, is guarded again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use log::warn;

use super::{Done, Follower, Interface, Links, Lost, Portion};
use crate::{
    agent::{Context, journal::Draft},
    model::{AttachMode, EventKind},
};

impl Follower {
    /// A change was made about these interfaces: tells of it, and goes on from there.
    pub(super) fn take(&mut self, done: Done, links: &Links, tried: &Portion) {
        let Done { context, failed, lost } = done;
        // What others took off was found by the change itself, and may be put back already.
        self.tell_lost(&lost);
        self.tell_interfaces(&context, links);
        let failed: BTreeMap<String, String> = failed.into_iter().collect();
        for (name, why) in failed.iter().filter(|(name, why)| self.failed.get(*name) != Some(*why)) {
            self.tell(&context, EventKind::CannotGuard, name, why.clone());
        }
        self.wait_for_others(&context, links, tried, &failed);
        self.failed.retain(|name, _| tried.interfaces.iter().all(|(_, tried)| tried != name));
        self.failed.extend(failed);
        for warning in context.warnings.iter().filter(|warning| !self.context.warnings.contains(warning)) {
            if !self.failed.values().any(|why| why == warning) {
                warn!("{warning}");
            }
        }
        self.detached = detached(&context);
        self.context = context;
    }

    /// Those that were tried and are not guarded are not tried at once again.
    fn wait_for_others(
        &mut self,
        context: &Context,
        links: &Links,
        tried: &Portion,
        failed: &BTreeMap<String, String>,
    ) {
        let guarded: HashSet<u32> = context.plan.interfaces.iter().map(|one| one.ifindex).collect();
        let off = detached(context);
        for one in tried.interfaces.iter().filter(|(ifindex, _)| !guarded.contains(ifindex)) {
            let waiting = &mut self.waiting;
            let place = if failed.contains_key(&one.1) { &mut waiting.impossible } else { &mut waiting.vanished };
            place.insert(one.clone());
        }
        self.waiting.impossible.retain(|(ifindex, _)| links.contains_key(ifindex));
        self.waiting.refused.extend(tried.put_back.intersection(&off));
        self.waiting.refused.retain(|ifindex| off.contains(ifindex));
    }

    /// Tells what others took off, unless it is known. Answers whether something is new.
    pub(super) fn tell_lost(&mut self, lost: &Lost) -> bool {
        let context = Arc::clone(&self.context);
        let mut is_new = false;
        if let Some(news) = lost.pins.as_ref().filter(|news| news.number > self.told_of_pins) {
            self.told_of_pins = news.number;
            let draft = Draft::of_nobody(EventKind::PinsRemoved, Timestamp::now(), news.what.clone());
            self.journal.add_with(draft, &context.inventory());
            is_new = true;
        }
        // What went with its interface is told by netlink.
        for Interface { name, ifindex, .. } in context.plan.interfaces.iter().filter(|one| one.is_here()) {
            if lost.guard.contains(ifindex) && self.detached.insert(*ifindex) {
                self.tell_detached(name);
                is_new = true;
            }
            if lost.replies.contains(ifindex) {
                self.tell_replies_detached(name);
                is_new = true;
            }
        }
        is_new
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
