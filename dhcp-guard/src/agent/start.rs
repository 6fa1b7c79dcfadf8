//! The start: from a configuration to a guarded host, or to one that nothing was done to.

use std::path::Path;

use anyhow::bail;
use log::{info, warn};

use super::{kept::Kept, orders::Clock, plan::Plan};
use crate::{
    actuators::LinkDown,
    config::Config,
    dataplane::{self, DataPlane, attach::Attachment, interface, replies::ReplyWatch},
    doctor,
    model::{Finding, Severity},
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
    let warning = plan.spare_hidden_servers(interface::strips_vlan_tags);
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
    let is_blind = |finding: &&Finding| finding.severity == Severity::Blind;
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

/// Loads the programs, puts what was kept into them, and attaches them to all interfaces, or to none.
///
/// # Errors
/// See [`DataPlane::load`] and [`DataPlane::attach`].
pub async fn guard(plan: &Plan, kept: &mut Kept, clock: &Clock) -> anyhow::Result<Guarded> {
    let mut plane = DataPlane::load(&plan.spec)?;
    kept.put_into(&mut plane, plan, clock)?;
    set_up_again(plan).await;
    let attachments = plan.interfaces.iter().map(|i| plane.attach(i.clone())).collect::<Result<Vec<_>, _>>()?;
    let watches: Vec<_> = plan.interfaces.iter().map(|interface| plane.watch_replies(interface)).collect();
    let mut warnings: Vec<String> = attachments.iter().filter_map(generic_warning).collect();
    warnings.extend(attachments.iter().filter_map(vlan_warning));
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

fn generic_warning(attachment: &Attachment) -> Option<String> {
    let reason = attachment.native_refused.as_ref()?;
    Some(format!(
        "interface {} is guarded in generic mode only, its driver refused the native one ({reason}): a flood costs \
         several times as much CPU there",
        attachment.interface.name
    ))
}

fn vlan_warning(attachment: &Attachment) -> Option<String> {
    let name = &attachment.interface.name;
    interface::strips_vlan_tags(name).then(|| {
        format!(
            "interface {name} takes VLAN tags off before the guard sees them (rx-vlan-offload): all its VLANs count as \
             its untagged port; switch that off with `ethtool -K {name} rxvlan off`"
        )
    })
}
