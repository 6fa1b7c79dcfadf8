//! Keeps the agent's inventory what its file says, on a thread of its own: a file server that does not answer stops this
//! thread and nothing else.

use std::{
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use log::{info, warn};

use super::Context;
use crate::inventory::watch::{Known, Watcher};

/// Between two looks at the file.
const PERIOD: Duration = Duration::from_secs(1);

/// Looks at the file once a second for as long as there is a context. Nobody waits for the thread to end.
///
/// # Errors
/// The system has no thread left.
pub fn keep_fresh(context: &Arc<Context>, mut watcher: Watcher) -> anyhow::Result<()> {
    let context = Arc::downgrade(context);
    let body = move || {
        loop {
            thread::sleep(PERIOD);
            let changed = watcher.changed();
            let Some(context) = Weak::upgrade(&context) else { return };
            if let Some(known) = changed {
                tell(&watcher, &known);
                context.set_inventory(known);
            }
        }
    };
    thread::Builder::new().name("inventory".into()).spawn(body).context("no thread for the inventory")?;
    Ok(())
}

fn tell(watcher: &Watcher, known: &Known) {
    let machines = known.inventory.machines();
    info!("inventory {}: it changed; machines that are known now: {machines}", watcher.path().display());
    known.warnings.iter().for_each(|warning| warn!("{warning}"));
}
