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
    Context,
    inventory::Machines,
    kept,
    orders::Anchor,
    picture::{self, Picture, Viewer},
    plan::Plan,
    sanctions::Sanctioned,
};
use crate::{
    config::Config,
    dataplane::{interface, pins::LinkKind, remains::Remains},
    engine::Rules,
    governor::Governor,
    human::duration,
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
    let (plan, modes) = guarded(&config, &remains).await;
    let watcher = config.inventory.as_deref().map(Watcher::new);
    let age = remains.heartbeat_age();
    let now = Timestamp::now();
    let context = Arc::new(Context {
        modes,
        plan,
        config_path: config_path.map(Path::to_owned),
        machines: Arc::new(Machines::new(watcher.as_ref().map(Watcher::known).unwrap_or_default())),
        started: now.saturating_sub(age.unwrap_or_default()).unwrap_or(now),
        last_agent: age,
        warnings: vec![no_agent(age)],
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

/// The interfaces that are guarded here, with the ports that the data plane has there.
async fn guarded(config: &Config, remains: &Remains) -> (Plan, Vec<AttachMode>) {
    let (mut interfaces, mut modes) = (Vec::new(), Vec::new());
    for link in remains.links() {
        // One that is elsewhere belongs to another network namespace.
        let Ok(Some(name)) = interface::name_of(link.ifindex) else { continue };
        let Ok(interface) = interface::find(&name).await else { continue };
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
    (plan, modes)
}

/// The quarantines in the maps, in the words of the state file where it has them.
fn sanctioned(context: &Context, remains: &Remains, picture: &Picture) -> anyhow::Result<Sanctioned> {
    let saved = state_file::peek(&context.config.state_dir);
    let saved = saved.inspect_err(|error| debug!("the state file cannot be read: {error}")).unwrap_or_default();
    let (ticks, ticks_per_s) = remains.now();
    let anchor = Anchor { time: picture.moment.wall, ticks, ticks_per_s };
    let saved = kept::with_found(saved, &remains.in_force()?, &context.plan, &anchor);
    let (governor, _) = Governor::restore(context.config.governor_rules(), saved, anchor.time);
    Ok(Sanctioned::at_rest(context, &governor, picture))
}
