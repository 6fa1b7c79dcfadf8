//! The start: from a configuration to a guarded host, or to one that nothing was done to.

use log::{info, warn};

use super::{kept::Kept, orders::Clock, plan::Plan};
use crate::{
    actuators::LinkDown,
    config::Config,
    dataplane::{
        self, DataPlane,
        attach::Attachment,
        hook::Hook,
        interface::{self, Interface},
        replies::ReplyWatch,
    },
    model::AttachMode,
};

/// The data plane, and all that holds it on the interfaces.
#[derive(Debug)]
pub struct Guarded {
    /// Its maps.
    pub plane: DataPlane,
    /// The program on its interfaces.
    pub attachments: Vec<Attachment>,
    /// The one that sees servers' replies leave, where there is one.
    _replies: Vec<ReplyWatch>,
    /// What makes the guard blind or weak, one sentence each.
    pub warnings: Vec<String>,
}

/// What is to be guarded.
///
/// # Errors
/// An interface is not there.
pub async fn plan(config: &Config, debug_kernel: bool) -> anyhow::Result<(Plan, Option<String>)> {
    let mut interfaces = Vec::new();
    for name in &config.interfaces {
        interfaces.push(interface::find(name).await?);
    }
    let mut plan = Plan::new(config, interfaces, debug_kernel);
    let warning = plan.spare_hidden_servers();
    Ok((plan, warning))
}

/// Loads the programs, puts what was kept into them, and attaches them to all interfaces, or to none.
///
/// # Errors
/// See [`DataPlane::load`] and [`DataPlane::attach`].
pub async fn guard(plan: &Plan, kept: &mut Kept, clock: &Clock) -> anyhow::Result<Guarded> {
    let mut plane = DataPlane::load(&plan.spec)?;
    kept.put_into(&mut plane, plan, clock)?;
    set_up_again(plan).await;
    let attachments =
        plan.interfaces.iter().map(|i| plane.attach(i.clone(), plan.hook)).collect::<Result<Vec<_>, _>>()?;
    let watches: Vec<_> = plan.interfaces.iter().map(|interface| plane.watch_replies(interface)).collect();
    attachments.iter().for_each(tell_of_lost_speed);
    let mut warnings: Vec<String> = attachments.iter().filter_map(slow_warning).collect();
    warnings.extend(attachments.iter().filter_map(|attachment| vlan_warning(attachment, plan.hook)));
    warnings.extend(watches.iter().filter_map(|watch| watch.as_ref().err()).map(dataplane::Error::to_string));
    Ok(Guarded { plane, attachments, _replies: watches.into_iter().filter_map(Result::ok).collect(), warnings })
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

/// Of an interface whose driver is not to have the guard in it, or not as it is.
fn slow_warning(attachment: &Attachment) -> Option<String> {
    let reason = attachment.native_refused.as_ref()?;
    let hook = if attachment.mode == AttachMode::Tcx { "by TCX" } else { "in generic mode" };
    Some(format!(
        "interface {} is guarded {hook} only, its driver refused native XDP ({reason}): a flood costs several times as much \
         CPU there",
        attachment.interface.name
    ))
}

/// Nothing is wrong with such an interface, but with one command it could be guarded at less cost.
fn tell_of_lost_speed(attachment: &Attachment) {
    let Interface { name, facts, .. } = &attachment.interface;
    if attachment.mode == AttachMode::Tcx && facts.strips_vlan_tags {
        info!(
            "interface {name} is guarded by TCX, since XDP would not see its VLAN tags (rx-vlan-offload): a flood costs less \
             CPU with XDP, after `ethtool -K {name} rxvlan off` and a new start"
        );
    }
}

fn vlan_warning(attachment: &Attachment, hook: Hook) -> Option<String> {
    let Interface { name, facts, .. } = &attachment.interface;
    facts.hides_vlan_tags(hook).then(|| {
        format!(
            "interface {name} takes VLAN tags off before the guard sees them (rx-vlan-offload): all its VLANs count as \
             its untagged port; switch that off with `ethtool -K {name} rxvlan off`, or guard it with `hook = \"tcx\"` \
             (kernel 6.6)"
        )
    })
}
