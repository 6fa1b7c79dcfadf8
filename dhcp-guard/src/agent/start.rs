//! The start: from a configuration to a guarded host, or to one that nothing was done to.

use anyhow::bail;
use log::{debug, info, warn};

use super::{
    kept::Kept,
    links::{self, Links},
    orders::Clock,
    plan::Plan,
};
use crate::{
    actuators::LinkDown,
    config::Config,
    dataplane::{self, DataPlane, attach::Attachment, interface, replies::ReplyWatch},
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
}

/// What is to be guarded, of the interfaces that there are: those that are named, which must be there and up, and those that
/// match a pattern, as they are.
///
/// # Errors
/// An interface that is named is not there, or down.
pub async fn plan(config: &Config, links: &Links, debug_kernel: bool) -> anyhow::Result<(Plan, Option<String>)> {
    for name in config.named_interfaces() {
        let interface = interface::find(name).await?;
        if !interface.up {
            bail!(dataplane::Error::InterfaceDown { name: interface.name });
        }
    }
    let mut interfaces = Vec::new();
    for (_, name) in links::meant(&config.interfaces, links).interfaces {
        match interface::find(&name).await {
            Ok(interface) => interfaces.push(interface),
            Err(error) if config.interfaces.contains(&name) => return Err(error.into()),
            Err(_) => debug!("interface {name} has gone before it could be guarded"),
        }
    }
    let mut plan = Plan::new(config, interfaces, debug_kernel);
    let warning = plan.spare_hidden_servers(interface::strips_vlan_tags);
    Ok((plan, warning))
}

/// Loads the programs, puts what was kept into them, and attaches them to all interfaces that are named, or to none; and to
/// those that match a pattern, if that is possible.
///
/// # Errors
/// See [`DataPlane::load`] and [`DataPlane::attach`].
pub async fn guard(plan: &mut Plan, config: &Config, kept: &mut Kept, clock: &Clock) -> anyhow::Result<Guarded> {
    let mut plane = DataPlane::load(&plan.spec)?;
    plan.take_slots(&plane);
    kept.put_into(&mut plane, plan, clock)?;
    set_up_again(plan).await;
    let mut guarded = Guarded { plane, attachments: Vec::new(), replies: Vec::new() };
    for interface in &plan.interfaces {
        match guarded.plane.attach(interface.clone()) {
            Ok(attachment) => guarded.attachments.push(attachment),
            Err(error) if config.interfaces.contains(&interface.name) => return Err(error.into()),
            // It is tried again, and told then.
            Err(error) => warn!("{error}"),
        }
    }
    guarded.watch_replies(plan);
    Ok(guarded)
}

/// Interfaces that an agent before this one has set down for quarantines. They are guarded again, and those whose quarantine
/// is still in force go down again then.
async fn set_up_again(plan: &Plan) {
    let names: Vec<String> = plan.interfaces.iter().map(|interface| interface.name.clone()).collect();
    match LinkDown.release_forgotten(&names, &[]).await {
        Ok(released) => {
            released
                .iter()
                .for_each(|name| info!("interface {name}, which was down for a quarantine, is set up again"));
        }
        Err(error) => warn!("cannot look for interfaces that were set down for quarantines: {error}"),
    }
}

pub(super) fn generic_warning(attachment: &Attachment) -> Option<String> {
    let reason = attachment.native_refused.as_ref()?;
    Some(format!(
        "interface {} is guarded in generic mode only, its driver refused the native one ({reason}): a flood costs \
         several times as much CPU there",
        attachment.interface.name
    ))
}

pub(super) fn vlan_warning(attachment: &Attachment) -> Option<String> {
    let name = &attachment.interface.name;
    interface::strips_vlan_tags(name).then(|| {
        format!(
            "interface {name} takes VLAN tags off before the guard sees them (rx-vlan-offload): all its VLANs count as \
             its untagged port; switch that off with `ethtool -K {name} rxvlan off`"
        )
    })
}
