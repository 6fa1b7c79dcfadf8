//! The start: from a configuration to a guarded host, or to one that nothing was done to.

use std::{collections::HashSet, io, path::Path};

use anyhow::bail;
use log::{debug, info, warn};

use super::{
    kept::Kept,
    links::{self, Links},
    orders::Clock,
    pinned,
    plan::Plan,
};
use crate::{
    actuators::LinkDown,
    config::{Config, names},
    dataplane::{
        self, DataPlane,
        attach::Attachment,
        hook::{Hook, Kind},
        interface::{self, Interface},
        pins::{LinkPin, PinError, PinFolder},
        replies::ReplyWatch,
    },
    doctor,
    governor::Governor,
    model::{AttachMode, Finding, Severity, Subject},
};

/// The data plane, and all that holds it on the interfaces.
#[derive(Debug)]
pub struct Guarded {
    /// Its maps.
    pub plane: DataPlane,
    /// The program on its interfaces.
    pub attachments: Vec<Attachment>,
    /// By interface index the one that sees servers' replies leave, or why there is none.
    pub replies: Vec<(u32, Result<ReplyWatch, String>)>,
    /// Interfaces, by index, that others have taken the program off, which is not told yet.
    pub off: HashSet<u32>,
    /// What is known of the pins.
    pub pins: pinned::Watch,
    /// What makes the guard blind or weak from the start, one sentence each.
    pub warnings: Vec<String>,
    /// An agent goes on with it. Before, it is what a start has done so far, and is undone when this is dropped.
    pub is_begun: bool,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if !self.is_begun {
            self.give_up();
        }
    }
}

/// What is to be guarded, of the interfaces that there are: those that are named, which must be there and up, and those that
/// match a pattern, as they are.
///
/// # Errors
/// An interface that is named is not there, or down.
pub async fn plan(config: &Config, links: &Links, debug_kernel: bool) -> anyhow::Result<(Plan, Option<String>)> {
    let meant = links::meant(&config.interfaces, links);
    let names: Vec<String> = meant.interfaces.into_iter().map(|(_, name)| name).collect();
    let set_down = set_down_by_us(&names).await;
    if let Some(name) = meant.missing.into_iter().next() {
        bail!(dataplane::Error::NoInterface { name });
    }
    let mut interfaces = Vec::new();
    for name in names {
        let is_named = config.interfaces.contains(&name);
        match interface::find(&name).await {
            Ok(interface) if is_named && !interface.up && !set_down.contains(&interface.name) => {
                bail!(dataplane::Error::InterfaceDown { name: interface.name });
            }
            Ok(interface) => interfaces.push(interface),
            Err(error) if is_named => return Err(error.into()),
            Err(dataplane::Error::NoInterface { .. }) => debug!("interface {name} has gone before it could be guarded"),
            // Whatever guards it goes on, and it is tried again.
            Err(error) => warn!("{error}"),
        }
    }
    let mut plan = Plan::new(config, interfaces, debug_kernel);
    let warning = plan.spare_hidden_servers();
    Ok((plan, warning))
}

/// What `dhcp-guard doctor` finds before anything is attached, one sentence each.
///
/// # Errors
/// The guard would be blind, and nobody said that it is to run all the same.
pub async fn weaknesses(config: &Config, file: Option<&Path>) -> anyhow::Result<Vec<String>> {
    let findings = match doctor::before_guarding(config, file).await {
        Ok(findings) => findings,
        // To know less is no reason not to guard.
        Err(error) => return Ok(vec![format!("cannot look for what makes the guard weak on this host: {error:#}")]),
    };
    // Of interfaces that only match a pattern nobody said that they must be guarded right.
    let is_named = |subject: &Subject| match subject {
        Subject::Interface(name) => config.named_interfaces().any(|named| named == name),
        Subject::Host | Subject::File(_) => true,
    };
    let is_blind = |finding: &&Finding| finding.severity == Severity::Blind && is_named(&finding.subject);
    if let Some(blind) = findings.iter().find(is_blind).filter(|_| !config.even_if_blind) {
        let more = match findings.iter().filter(is_blind).count() - 1 {
            0 => String::new(),
            more => format!(" (and {more} more like this: see `dhcp-guard doctor`)"),
        };
        bail!("the guard would be blind: {}{more}; or start it with --even-if-blind", blind.sentence());
    }
    // What only weakens the guard is said of tags below, when the program is on.
    let said_below = |finding: &Finding| finding.id == "vlan_offload";
    Ok(findings.iter().filter(|finding| !said_below(finding)).map(Finding::sentence).collect())
}

/// Loads the programs, puts what was kept into them, and puts them on all interfaces, into the place of those that an agent
/// before this one has left there: on all that are named, or on none that was not guarded before; and on those that match a
/// pattern, if that is possible. The plan learns which slots its ports have.
///
/// # Errors
/// See [`DataPlane::load_pinned`] and [`DataPlane::attach`]. Whatever was guarded before still is.
pub async fn guard(
    plan: &mut Plan,
    config: &Config,
    kept: &mut Kept,
    clock: &Clock,
) -> anyhow::Result<(Guarded, Governor)> {
    let (plane, warnings) = load(config, plan)?;
    plan.take_slots(&plane);
    let mut guarded = Guarded {
        plane,
        attachments: Vec::new(),
        replies: Vec::new(),
        off: HashSet::new(),
        pins: pinned::Watch::default(),
        warnings,
        is_begun: false,
    };
    let governor = kept.put_into(&mut guarded.plane, plan, clock)?;
    // What the programs tell from their first packet on waits for us, and is heard.
    guarded.plane.tell_of_agent()?;
    let refused = guarded.attach(plan, config)?;
    guarded.leave_out(plan, config, &refused)?;
    // Before this, a start that fails has taken nothing from what goes on.
    guarded.plane.end_what_nobody_ordered(&plan.spec.policy)?;
    guarded.watch_replies(plan);
    guarded.plane.stays()?;
    guarded.let_go_of_others(plan, config);
    // Of interfaces that went while nobody looked.
    guarded.plane.retire(&plan.spec.policy)?;
    guarded.warnings.append(&mut guarded.plane.take_warnings());
    guarded.attachments.iter().for_each(tell_of_lost_speed);
    set_up_again(plan, &governor).await;
    Ok((guarded, governor))
}

/// With maps that outlive the agent, or, where there is no place for them, without.
fn load(config: &Config, plan: &Plan) -> Result<(DataPlane, Vec<String>), dataplane::Error> {
    match PinFolder::open(&config.pin_dir) {
        Ok(pins) => Ok((DataPlane::load_pinned(&plan.spec, pins)?, Vec::new())),
        Err(error @ PinError::InUse(_)) => Err(error.into()),
        // A guard that ends with its agent is better than none.
        Err(error) => Ok((DataPlane::load(&plan.spec)?, vec![error.to_string()])),
    }
}

impl Guarded {
    /// First where no guard is yet, because that is what can fail: then those that are there are still as they were. Answers
    /// with the interfaces, by index, that refuse and only match a pattern.
    fn attach(&mut self, plan: &Plan, config: &Config) -> Result<HashSet<u32>, dataplane::Error> {
        let mut refused = HashSet::new();
        let pinned: HashSet<u32> = self.plane.pinned_links().iter().map(|link| link.ifindex).collect();
        let mut order: Vec<&Interface> = plan.interfaces.iter().collect();
        order.sort_by_key(|interface| pinned.contains(&interface.ifindex));
        for interface in order {
            match self.plane.attach(interface.clone(), plan.hook) {
                Ok(attachment) => self.attachments.push(attachment),
                Err(error) if config.interfaces.contains(&interface.name) => return Err(error),
                Err(error) => {
                    warn!("{error}");
                    refused.insert(interface.ifindex);
                }
            }
        }
        let place = |one: &Attachment| plan.interfaces.iter().position(|interface| *interface == one.interface);
        self.attachments.sort_by_key(place);
        Ok(refused)
    }

    /// Goes on without interfaces that refused, as if they had appeared and could not be guarded: then they are tried again,
    /// and told. Whatever was ordered about clients there stays in the maps, for a guard that an agent before this one may
    /// have left there.
    fn leave_out(&mut self, plan: &mut Plan, config: &Config, refused: &HashSet<u32>) -> Result<(), dataplane::Error> {
        if refused.is_empty() {
            return Ok(());
        }
        let others = plan.interfaces.iter().filter(|one| !refused.contains(&one.ifindex)).cloned().collect();
        *plan = Plan::new(config, others, plan.spec.debug_kernel);
        // If there was one to spare, that is told already.
        let _ = plan.spare_hidden_servers();
        self.plane.apply(&plan.spec.policy)?;
        plan.take_slots(&self.plane);
        Ok(())
    }

    /// Takes the guard off where it was not before this start.
    fn give_up(&mut self) {
        let attachments = std::mem::take(&mut self.attachments);
        if attachments.is_empty() {
            return;
        }
        let (replaced, new): (Vec<_>, Vec<_>) = attachments.into_iter().partition(|one| one.replaced);
        for attachment in new {
            let ifindex = attachment.interface.ifindex;
            attachment.take_off();
            for (_, watch) in self.replies.extract_if(.., |(watched, _)| *watched == ifindex) {
                let _ = watch.map(ReplyWatch::take_off);
            }
        }
        if replaced.is_empty() {
            self.plane.goes();
        } else if let Err(error) = self.plane.stays_beside_others() {
            // Somewhere these maps are in use by now.
            warn!("some of what was spent of the limits may be granted once more: {error}");
        }
    }

    /// Takes the guard off interfaces that an agent before this one guarded and this one is not to. That one is not among
    /// those of this start is no reason: it may have been called otherwise for a moment, or have refused. What counts is
    /// whether the configuration means it.
    fn let_go_of_others(&mut self, plan: &Plan, config: &Config) {
        let is_meant = |name: &str| config.interfaces.iter().any(|word| names(word, name));
        let is_guarded = |link: &LinkPin| plan.interfaces.iter().any(|interface| interface.ifindex == link.ifindex);
        for link in self.plane.pinned_links() {
            match (link.holds(), interface::name_of(link.ifindex)) {
                (Ok(false), _) => {}
                (Ok(true), Ok(Some(name))) if !is_guarded(&link) && is_meant(&name) => {
                    info!("interface {name} is guarded as it was, until it is its turn");
                    continue;
                }
                (Ok(true), Ok(Some(name))) if !is_guarded(&link) => {
                    info!("interface {name} is not to be guarded any more: its guard is taken off");
                }
                // What is elsewhere, or none of ours, is left alone; it is told while that is so.
                _ => continue,
            }
            if let Err(error) = link.take_off() {
                let path = link.path.display();
                self.warnings.push(format!("cannot take off what the pinned link {path} holds: {error}"));
            }
        }
    }

    /// Pins that no interface of this plan has, and that are left alone: one sentence each.
    pub(super) fn others_pins(&self, plan: &Plan) -> Vec<String> {
        let guarded: HashSet<u32> = plan.interfaces.iter().map(|interface| interface.ifindex).collect();
        let links = self.plane.pinned_links();
        links.iter().filter(|link| !guarded.contains(&link.ifindex)).filter_map(of_others).collect()
    }
}

/// What is to be said of a pin that is not for an interface that is guarded.
fn of_others(link: &LinkPin) -> Option<String> {
    let path = link.path.display();
    match link.holds() {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Some(format!(
            "what is pinned as {path} is none of dhcp-guard's: remove the pin if nobody needs it; an interface with that index \
             could not be guarded"
        )),
        Ok(false) => None,
        _ => match interface::name_of(link.ifindex) {
            Ok(Some(_)) => None,
            Ok(None) => Some(format!(
                "the pinned link {path} holds a program in another network namespace, which goes on: remove the pin if nobody \
                 needs it, and let every agent have a pin folder of its own"
            )),
            Err(error) => Some(format!(
                "it cannot be told on which interface the pinned link {path} holds a program, which goes on: {error}"
            )),
        },
    }
}

/// Interfaces that are down because an agent has set them down for a quarantine: nobody has named the wrong one.
async fn set_down_by_us(names: &[String]) -> Vec<String> {
    let found = LinkDown.held(names).await;
    found
        .inspect_err(|error| warn!("cannot look for interfaces that are down for quarantines: {error}"))
        .unwrap_or_default()
}

/// Interfaces that an agent before this one has set down for quarantines that have ended. Only once the start can go on: one
/// that fails must not give back what is taken away.
async fn set_up_again(plan: &Plan, governor: &Governor) {
    let names: Vec<String> = plan.interfaces.iter().map(|interface| interface.name.clone()).collect();
    let in_force: Vec<u64> = governor.state().quarantines.values().map(|one| one.id).collect();
    match LinkDown.release_forgotten(&names, &in_force).await {
        Ok(released) => {
            released
                .iter()
                .for_each(|name| info!("interface {name}, which was down for a quarantine, is set up again"));
        }
        Err(error) => warn!("cannot look for interfaces that were set down for quarantines: {error}"),
    }
}

/// Of an interface whose driver is not to have the guard in it, or not as it is.
pub(super) fn slow_warning(attachment: &Attachment) -> Option<String> {
    let Interface { name, facts, .. } = &attachment.interface;
    if attachment.mode == AttachMode::Generic && facts.kind == Kind::Bond {
        return Some(format!(
            "interface {name} is guarded in generic mode, since in the drivers of its members the guard would not know that \
             the frames are {name}'s: a flood costs less CPU with `hook = \"auto\"`"
        ));
    }
    let reason = attachment.native_refused.as_ref()?;
    let hook = match attachment.mode {
        AttachMode::Tcx => "by TCX",
        AttachMode::Clsact => "by clsact",
        _ => "in generic mode",
    };
    Some(format!(
        "interface {name} is guarded {hook} only, its driver refused native XDP ({reason}): a flood costs several times as \
         much CPU there"
    ))
}

/// Nothing is wrong with such an interface, but with one command it could be guarded at less cost.
fn tell_of_lost_speed(attachment: &Attachment) {
    let Interface { name, facts, .. } = &attachment.interface;
    let by = match attachment.mode {
        AttachMode::Tcx => "TCX",
        AttachMode::Clsact => "clsact",
        _ => return,
    };
    if facts.strips_vlan_tags {
        info!(
            "interface {name} is guarded by {by}, since XDP would not see its VLAN tags (rx-vlan-offload): a flood costs less \
             CPU with XDP, after `ethtool -K {name} rxvlan off` and a new start"
        );
    }
}

pub(super) fn vlan_warning(attachment: &Attachment, hook: Hook) -> Option<String> {
    let Interface { name, facts, .. } = &attachment.interface;
    facts.hides_vlan_tags(hook).then(|| {
        format!(
            "interface {name} takes VLAN tags off before the guard sees them (rx-vlan-offload): all its VLANs count as \
             its untagged port; switch that off with `ethtool -K {name} rxvlan off`, or guard it with `hook = \"tcx\"`"
        )
    })
}
