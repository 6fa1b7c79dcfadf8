//! Whose machine is where: the inventory that is in force, and a thread that keeps it what its file says. A file server
//! that does not answer stops that thread and nothing else.

use std::{
    sync::{Arc, PoisonError, RwLock},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use log::{info, warn};

use crate::inventory::{
    Inventory,
    watch::{Known, Watcher},
};

/// Between two looks at the file.
const PERIOD: Duration = Duration::from_secs(1);

/// The inventory in force. The file may change at any time, the configuration's other changes make a new context around it.
#[derive(Debug, Default)]
pub struct Machines(RwLock<Known>);

impl Machines {
    /// Those that were known when the agent started.
    #[must_use]
    pub fn new(known: Known) -> Self {
        Self(RwLock::new(known))
    }

    /// The inventory at this moment.
    #[must_use]
    pub fn inventory(&self) -> Arc<Inventory> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).inventory)
    }

    /// What is wrong with its file, in sentences.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).warnings.clone()
    }

    /// Puts another inventory into the place of this one. Nobody waits for more than that: it was read before, and the old
    /// one is freed after.
    pub fn set(&self, known: Known) {
        let before = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), known);
        drop(before);
    }
}

/// Looks at the file once a second for as long as anybody wants to know. Nobody waits for the thread to end.
///
/// # Errors
/// The system has no thread left.
pub fn keep_fresh(machines: &Arc<Machines>, mut watcher: Watcher) -> anyhow::Result<()> {
    let machines = Arc::downgrade(machines);
    let body = move || {
        loop {
            thread::sleep(PERIOD);
            let changed = watcher.changed();
            let Some(machines) = machines.upgrade() else { return };
            if let Some(known) = changed {
                tell(&watcher, &known);
                machines.set(known);
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
