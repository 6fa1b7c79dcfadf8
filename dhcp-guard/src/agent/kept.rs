//! What survives a restart: read at the start, before anything is guarded, and kept up to date from then on.

use std::sync::Arc;

use jiff::Timestamp;
use log::{info, warn};

use super::{
    found::with_found,
    journal::{Draft, Journal},
    names,
    orders::{Anchor, Clock},
    plan::Plan,
};
use crate::{
    audit::{self, Report, Settings, Writer},
    config::Config,
    dataplane::{self, DataPlane},
    governor::{Author, Governor, Hold, Rules, Saved},
    human::counted,
    model::EventKind,
    state_file::StateFile,
};

/// What was kept, and where it goes on being kept.
#[derive(Debug)]
pub struct Kept {
    rules: Rules,
    saved: Saved,
    /// There was no state file.
    is_missing: bool,
    /// None: the folder cannot be used, and nothing is saved.
    file: Option<StateFile>,
    /// What is wrong with all that, one sentence each.
    pub warnings: Vec<String>,
}

/// Reads the state file. An agent whose folder or file is unusable guards all the same, and says so.
#[must_use]
pub fn load(config: &Config, clock: &Clock) -> Kept {
    let rules = config.governor_rules();
    let mut file = match StateFile::open(&config.state_dir) {
        Ok(file) => file,
        Err(error) => {
            let error = format!("{:#}", anyhow::Error::new(error));
            let warning = format!(
                "{error}: quarantines, hold and allowlist will not survive a restart, and there is no audit log"
            );
            return Kept { rules, saved: Saved::default(), is_missing: false, file: None, warnings: vec![warning] };
        }
    };
    let loaded = file.load();
    let mut kept =
        Kept { rules, saved: loaded.saved, is_missing: loaded.is_missing, file: Some(file), warnings: Vec::new() };
    if let Some(problem) = loaded.problem {
        kept.begin_on_hold("the state file could not be used", clock);
        kept.warnings.push(problem);
    }
    kept
}

impl Kept {
    /// What was kept is not known any more: neither who was allowed, nor whether somebody had stopped all automation. That waits
    /// for a person.
    fn begin_on_hold(&mut self, why: &str, clock: &Clock) {
        // Numbers of quarantines are never used again, and what the last one was is not known: there was not one a second.
        self.saved.next_id = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        let reason = format!("{why}: check `dhcp-guard allow list`, then `dhcp-guard hold off`");
        self.saved.hold = Some(Hold { author: Author::Engine, reason, since: clock.now() });
    }

    /// Every agent writes its state when it starts. So where there are maps of one, a file that is not there is lost.
    fn miss_what_is_lost(&mut self, plane: &DataPlane, clock: &Clock) {
        let Some(file) = self.file.as_ref().filter(|_| self.is_missing && plane.has_predecessor()) else { return };
        self.warnings.push(format!(
            "there is no state in {}, and an agent was here before: its hold, its allowlist and who was in quarantine before \
             are lost, so automatic quarantine is on hold; check `dhcp-guard quarantine list` and `dhcp-guard allow list`, \
             then `dhcp-guard hold off`",
            file.path().display()
        ));
        self.begin_on_hold("the state file was gone", clock);
    }

    /// Puts what was kept into a data plane before it judges anything, and answers with the governor that goes on from
    /// there. What the maps alone know, because the agent before was killed before it could save it, or the file is lost, the
    /// governor takes over: nobody gets out of quarantine that way, and everybody who is in one is listed.
    ///
    /// # Errors
    /// The kernel refuses to read its clock. An order that cannot be carried out is only a warning: the guard is needed all
    /// the same.
    pub fn put_into(
        &mut self,
        plane: &mut DataPlane,
        plan: &Plan,
        clock: &Clock,
    ) -> Result<Governor, dataplane::Error> {
        let moment = plane.moment(clock.epoch())?;
        let anchor = Anchor { time: clock.at(moment.monotonic), ticks: moment.ticks, ticks_per_s: moment.ticks_per_s };
        self.miss_what_is_lost(plane, clock);
        let saved = std::mem::take(&mut self.saved);
        let known = saved.quarantines.len();
        let saved = with_found(saved, &plane.in_force(moment.ticks), plan, &anchor);
        if saved.quarantines.len() > known {
            let count = counted((saved.quarantines.len() - known) as u64, "quarantine");
            info!("{count} in force that the state file does not have: taken over");
        }
        let (governor, orders) = Governor::restore(self.rules.clone(), saved, anchor.time);
        let restored = governor.state().quarantines.len();
        if restored > 0 {
            info!("{} of before the restart in force", counted(restored as u64, "quarantine"));
        }
        for order in orders {
            let slot = |subject: &_| names::slot(plan, subject);
            if let Err(error) = plane.carry_out(&order, &slot, &|time| anchor.tick_of(time)) {
                self.warnings.push(format!("a quarantine or allowance of before the restart is not in force: {error}"));
            }
        }
        Ok(governor)
    }

    /// Starts the thread that writes to the disk, and answers with the governor and the way to that thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn keep(self, config: &Config, journal: &Arc<Journal>) -> std::io::Result<audit::Handle> {
        let settings = Settings::new(&config.state_dir, &config.audit);
        let journal = Arc::clone(journal);
        // Whoever has the folder has the audit log in it.
        let Some(file) = self.file else { return Ok(audit::Handle::nowhere()) };
        Writer::start(settings, Some(file), move |report| match report {
            Report::Failed(sentence) => {
                journal.add(Draft::of_nobody(EventKind::CannotSave, Timestamp::now(), sentence));
            }
            Report::WorksAgain(sentence) => warn!("{sentence}"),
        })
    }
}
