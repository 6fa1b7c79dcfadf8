//! What survives a restart: read at the start, before anything is guarded, and kept up to date from then on.

use std::sync::Arc;

use jiff::Timestamp;
use log::{info, warn};

use super::{
    journal::{Draft, Journal},
    names,
    orders::{Anchor, Clock},
    plan::Plan,
};
use crate::{
    audit::{self, Report, Settings, Writer},
    config::Config,
    dataplane::{self, DataPlane, tables::InForce},
    engine,
    governor::{Author, Governor, Hold, Quarantine, Rules, Saved, Subject, Target},
    human::counted,
    model::EventKind,
    state_file::StateFile,
};

/// What was kept, and where it goes on being kept.
#[derive(Debug)]
pub struct Kept {
    rules: Rules,
    saved: Saved,
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
            return Kept { rules, saved: Saved::default(), file: None, warnings: vec![warning] };
        }
    };
    let loaded = file.load();
    let mut saved = loaded.saved;
    if loaded.problem.is_some() {
        // Numbers of quarantines are never used again, and what the last one was is not known any more.
        saved.next_id = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        // Nor is who was allowed, or whether somebody had stopped all automation: that waits for a person.
        let reason =
            "the state file could not be used: check `dhcp-guard allow list`, then `dhcp-guard hold off`".to_owned();
        saved.hold = Some(Hold { author: Author::Engine, reason, since: clock.now() });
    }
    Kept { rules, saved, file: Some(file), warnings: loaded.problem.into_iter().collect() }
}

impl Kept {
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

/// The saved state, with what only the maps know: quarantines that it does not have, or not for so long, or not so strong.
#[must_use]
pub fn with_found(mut saved: Saved, in_force: &[InForce], plan: &Plan, anchor: &Anchor) -> Saved {
    let first = saved.quarantines.iter().map(|one| one.id + 1).max().unwrap_or(1).max(saved.next_id);
    let known = saved.quarantines.len();
    for one in in_force {
        let key = one.client.map_or(engine::Subject::Port(one.slot), engine::Subject::Client);
        let Some(subject) = names::subject(plan, key) else { continue };
        let mut is_listed = false;
        for listed in saved.quarantines.iter_mut().filter(|listed| listed.target.subjects.contains(&subject)) {
            is_listed = true;
            // Muted and isolated: the stronger of the two covers both.
            listed.sanction = listed.sanction.max(one.sanction);
            // One tick is how exact an end in the maps is.
            if one.until > anchor.tick_of(Some(listed.until)).saturating_add(1) {
                listed.until = anchor.time_of(one.until);
            }
        }
        if !is_listed {
            let id = first + (saved.quarantines.len() - known) as u64;
            saved.quarantines.push(found(id, subject, one, anchor));
        }
    }
    saved
}

fn found(id: u64, subject: Subject, one: &InForce, anchor: &Anchor) -> Quarantine {
    Quarantine {
        id,
        target: Target::one(subject),
        sanction: one.sanction,
        author: Author::Engine,
        reason: "it was in force when the agent started, and not in its state file".to_owned(),
        since: anchor.time,
        until: anchor.time_of(one.until),
        repeat: 0,
    }
}

#[cfg(test)]
mod tests {
    use dhcp_guard_common::layout::ClientKey;

    use super::*;
    use crate::{dataplane::interface::Interface, governor::Sanction};

    #[test]
    fn what_only_the_maps_know_is_taken_over_once() {
        let plan = Plan::new(&Config::default(), vec![Interface::bare("eth0", 3), Interface::bare("eth1", 4)], false);
        let anchor = Anchor { time: "2026-01-17T15:00:00Z".parse().unwrap(), ticks: 1000, ticks_per_s: 250 };
        let client = ClientKey::from_mac(2, [2, 0, 0, 0, 0, 1]);
        let of = |slot, client, sanction, until| InForce { slot, client, sanction, until };
        let in_force = [
            of(1, None, Sanction::Mute, 1250),
            of(2, Some(client), Sanction::Mute, 1500),
            of(2, Some(client), Sanction::Isolate, 2000),
            of(7, None, Sanction::Mute, 9000),
        ];
        let saved = Saved { next_id: 40, ..Saved::default() };
        let all = with_found(saved.clone(), &in_force, &plan, &anchor).quarantines;
        let seen = all.iter().map(|one| (one.id, one.target.to_string(), one.sanction, one.until.to_string()));
        let seen: Vec<_> = seen.collect();
        let expected = [
            (40, "port eth0".to_owned(), Sanction::Mute, "2026-01-17T15:00:01Z".to_owned()),
            (41, "client 02:00:00:00:00:01 on port eth1".to_owned(), Sanction::Isolate, "2026-01-17T15:00:04Z".into()),
        ];
        assert_eq!(seen, expected, "and nothing on a port that there is not");
        let saved = Saved { quarantines: all, ..saved };
        let same = with_found(saved.clone(), &in_force, &plan, &anchor);
        assert_eq!(same, saved);
    }

    #[test]
    fn what_the_maps_have_for_longer_or_stronger_stays_so() {
        let plan = Plan::new(&Config::default(), vec![Interface::bare("eth0", 3)], false);
        let anchor = Anchor { time: "2026-01-17T15:00:00Z".parse().unwrap(), ticks: 1000, ticks_per_s: 250 };
        let of = |sanction, until| InForce { slot: 1, client: None, sanction, until };
        let saved = with_found(Saved::default(), &[of(Sanction::Mute, 1250)], &plan, &anchor);
        let ends = |in_force: &[InForce]| {
            let saved = with_found(saved.clone(), in_force, &plan, &anchor);
            assert_eq!(saved.quarantines.len(), 1);
            (saved.quarantines[0].sanction, saved.quarantines[0].until.to_string())
        };
        assert_eq!(ends(&[of(Sanction::Mute, 3500)]), (Sanction::Mute, "2026-01-17T15:00:10Z".to_owned()));
        assert_eq!(ends(&[of(Sanction::Isolate, 1250)]), (Sanction::Isolate, "2026-01-17T15:00:01Z".to_owned()));
        assert_eq!(ends(&[of(Sanction::Mute, 1100)]), (Sanction::Mute, "2026-01-17T15:00:01Z".to_owned()));
    }
}
