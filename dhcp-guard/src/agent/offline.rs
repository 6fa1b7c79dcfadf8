//! Answers without an agent: from the maps that one has left, and its state file. Nothing is changed.
//!
//! What takes time to tell is not there: who has been an offender for how long, what is held back, whether the trouble is
//! systemic. Whoever is over a limit in the second for which this looks is shown as an offender.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use jiff::Timestamp;
use log::debug;

use super::{
    Context, found,
    inventory::Machines,
    links::{self, Links},
    orders::Anchor,
    picture::{self, Picture, Viewer},
    plan::Plan,
    sanctions::Sanctioned,
};
use crate::{
    config::Config,
    dataplane::{self, interface, pins::LinkKind, received, remains::Remains},
    engine::Rules,
    governor::{Governor, Saved},
    human::{duration, some_of},
    inventory::watch::Watcher,
    model::AttachMode,
    state_file,
};

/// Between the two readings that a rate needs.
const WINDOW: Duration = Duration::from_secs(1);

/// What is guarded without an agent; `None`: nothing.
///
/// # Errors
/// The maps cannot be read.
pub async fn picture(config: Config, config_path: Option<&Path>) -> anyhow::Result<Option<Picture>> {
    let Some(remains) = Remains::open(&config.pin_dir)? else { return Ok(None) };
    let (plan, modes, unseen) = guarded(&config, &remains).await;
    let watcher = config.inventory.as_deref().map(Watcher::new);
    let age = remains.heartbeat_age();
    let now = Timestamp::now();
    let unguarded = unguarded(&config, &interfaces(), &plan).into_iter().collect();
    let context = Arc::new(Context {
        modes,
        plan,
        config_path: config_path.map(Path::to_owned),
        machines: Arc::new(Machines::new(watcher.as_ref().map(Watcher::known).unwrap_or_default())),
        started: now.saturating_sub(age.unwrap_or_default()).unwrap_or(now),
        last_agent: age,
        warnings: [vec![no_agent(age)], unseen, unguarded].concat(),
        config,
    });
    let epoch = Instant::now();
    // Who is over a limit in this one window.
    let rules = Rules { offender_windows: 1, ..picture::rules(&context.config) };
    let mut viewer = Viewer::new(rules);
    let read = || remains.snapshot(epoch).context("cannot read the pinned maps");
    viewer.step(&context, &read()?);
    tokio::time::sleep(WINDOW).await;
    let (mut picture, _) = viewer.step(&context, &read()?);
    picture.sanctioned = Arc::new(sanctioned(&context, &remains, &picture)?);
    Ok(Some(picture))
}

fn no_agent(age: Option<Duration>) -> String {
    let last = age.map_or_else(
        || "none ever said that it was here".to_owned(),
        |age| format!("the last one was here {} ago", duration(age.as_secs())),
    );
    format!(
        "no agent runs ({last}): limits and quarantines hold, nobody new is put into quarantine; this is read from the pinned \
         maps"
    )
}

/// What there is that should be guarded and is not.
fn unguarded(config: &Config, links: &Links, plan: &Plan) -> Option<String> {
    let is_guarded = |ifindex| plan.interfaces.iter().any(|interface| interface.ifindex == ifindex);
    let meant = links::meant(&config.interfaces, links).interfaces;
    let names: Vec<&str> =
        meant.iter().filter(|(ifindex, _)| !is_guarded(*ifindex)).map(|(_, name)| name.as_str()).collect();
    let start = "start an agent: `systemctl start dhcp-guard`";
    match names.as_slice() {
        [] => None,
        [name] => Some(format!("interface {name} is configured and not guarded, nothing meets a limit there: {start}")),
        _ => Some(format!(
            "interfaces {} are configured and not guarded, nothing meets a limit there: {start}",
            some_of(names.into_iter())
        )),
    }
}

/// Those of this network namespace; none where the kernel does not say.
fn interfaces() -> Links {
    let names = received::frames().unwrap_or_default().into_keys();
    names.filter_map(|name| Some((interface::index_of(&name).ok().flatten()?, name))).collect()
}

/// The interfaces that are guarded here, with the ports that the data plane has there; and what could not be seen.
async fn guarded(config: &Config, remains: &Remains) -> (Plan, Vec<AttachMode>, Vec<String>) {
    let (mut interfaces, mut modes, mut unseen) = (Vec::new(), Vec::new(), Vec::new());
    for link in remains.links() {
        // One that is elsewhere belongs to another network namespace.
        let name = match interface::name_of(link.ifindex) {
            Ok(Some(name)) => name,
            Ok(None) => continue,
            Err(error) => {
                unseen.push(format!(
                    "cannot ask for the name of interface {}: {error}; it is guarded, and left out here",
                    link.ifindex
                ));
                continue;
            }
        };
        let interface = match interface::find(&name).await {
            Ok(interface) => interface,
            // It has gone since.
            Err(dataplane::Error::NoInterface { .. }) => continue,
            Err(error) => {
                unseen.push(format!("{error}; it is guarded, and left out here"));
                continue;
            }
        };
        modes.push(match link.kind {
            LinkKind::Tcx => AttachMode::Tcx,
            LinkKind::Clsact => AttachMode::Clsact,
            _ if interface.xdp_is_generic => AttachMode::Generic,
            _ => AttachMode::Native,
        });
        interfaces.push(interface);
    }
    let mut plan = Plan::new(config, interfaces, false);
    plan.keep_ports_in(|port| remains.slot(port));
    (plan, modes, unseen)
}

/// The quarantines in the maps, in the words of the state file where it has them.
fn sanctioned(context: &Context, remains: &Remains, picture: &Picture) -> anyhow::Result<Sanctioned> {
    let saved = state_file::peek(&context.config.state_dir);
    let saved = saved.inspect_err(|error| debug!("the state file cannot be read: {error}")).unwrap_or_default();
    let (ticks, ticks_per_s) = remains.now();
    let anchor = Anchor { time: picture.moment.wall, ticks, ticks_per_s };
    let saved = found::with_found(saved, &remains.in_force()?, &context.plan, &anchor);
    let saved = still_in_force(saved, anchor.time);
    let (governor, _) = Governor::restore(context.config.governor_rules(), saved, anchor.time);
    Ok(Sanctioned::at_rest(context, &governor, picture))
}

/// Without those that the kernel has ended by now: nobody is there who would take them out of the file.
fn still_in_force(mut saved: Saved, now: Timestamp) -> Saved {
    saved.quarantines.retain(|quarantine| quarantine.until > now);
    saved
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dataplane::interface::Interface,
        governor::{Author, Quarantine, Sanction, Target},
    };

    #[test]
    fn what_has_ended_is_not_listed() {
        let now: Timestamp = "2025-01-17T16:07:00Z".parse().unwrap();
        let until = |seconds: i64| Quarantine {
            id: 1,
            target: Target::new(None, Vec::new()),
            sanction: Sanction::Mute,
            author: Author::Engine,
            reason: String::new(),
            since: now,
            until: now + jiff::SignedDuration::from_secs(seconds),
            found: false,
            repeat: 0,
        };
        let saved = Saved { quarantines: [-3, 0, 1].map(until).into(), ..Saved::default() };
        assert_eq!(still_in_force(saved, now).quarantines, [until(1)]);
    }

    #[test]
    fn what_is_configured_and_not_guarded_is_said() {
        let config = Config { interfaces: vec!["eth0".into(), "tap*".into(), "gone0".into()], ..Config::default() };
        let links = Links::from([(2, "eth0".into()), (3, "tap1".into()), (4, "tap2".into()), (5, "other".into())]);
        let with = |names: &[(&str, u32)]| {
            let interfaces = names.iter().map(|(name, ifindex)| Interface::bare(name, *ifindex)).collect();
            unguarded(&config, &links, &Plan::new(&config, interfaces, false))
        };
        assert_eq!(with(&[("eth0", 2), ("tap1", 3), ("tap2", 4)]), None);
        let one = with(&[("eth0", 2), ("tap1", 3)]).unwrap();
        assert!(one.starts_with("interface tap2 is configured and not guarded"), "{one}");
        assert!(with(&[]).unwrap().starts_with("interfaces eth0, tap1, tap2 are configured and not guarded"));
    }
}
