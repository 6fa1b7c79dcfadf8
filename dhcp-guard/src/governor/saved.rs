//! What of the governor survives a restart.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    Action, Allowance, Governor, Hold, Memory, Order, Quarantine, Rules, State, Subject, Target, memory::Past,
};

/// Everything that must survive a restart, and a reboot. Lists, because not every format has keys that are more than text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The number of the next quarantine.
    pub next_id: u64,
    /// Quarantines.
    pub quarantines: Vec<Quarantine>,
    /// The hold.
    pub hold: Option<Hold>,
    /// The allowlist.
    pub allowed: Vec<(Subject, Allowance)>,
    /// Who was in quarantine before.
    pub past: Vec<(Target, Past)>,
    /// When automatic quarantines began, for the cap on how many in ten minutes: a restart is no way around it.
    pub began: Vec<Timestamp>,
    /// Whom a person has let out, and until when the engine leaves them alone.
    #[serde(default)]
    pub pardoned: Vec<(Target, Timestamp)>,
}

impl Governor {
    /// What is to be saved. In a fixed order, so that what has not changed reads the same.
    #[must_use]
    pub fn save(&self) -> Saved {
        let mut past: Vec<_> = self.memory.all().map(|(target, past)| (target.clone(), *past)).collect();
        past.sort_by(|one, other| one.0.cmp(&other.0));
        Saved {
            next_id: self.state.next_id,
            quarantines: self.state.quarantines.values().cloned().collect(),
            hold: self.state.hold.clone(),
            allowed: self.state.allowed.iter().map(|(subject, one)| (subject.clone(), one.clone())).collect(),
            past,
            began: self.began.clone(),
            pardoned: self.pardoned.iter().map(|(target, end)| (target.clone(), *end)).collect(),
        }
    }

    /// A governor that goes on where another one ended, and what is to be done so that it is as it was. Quarantines that
    /// have ended meanwhile are for the first [`Governor::tick`] to end: somebody outside may still wait for that. Their end
    /// is no later than the rules allow from now on, whatever the file says.
    #[must_use]
    pub fn restore(rules: Rules, saved: Saved, now: Timestamp) -> (Self, Vec<Order>) {
        let something = saved != Saved::default();
        let longest_pardon = super::time::after(now, rules.first);
        let mut governor = Self::new(rules);
        let first_free = saved.quarantines.iter().map(|quarantine| quarantine.id.saturating_add(1)).max().unwrap_or(0);
        let mut state = State { next_id: saved.next_id.max(first_free).max(1), hold: saved.hold, ..State::default() };
        for mut quarantine in saved.quarantines {
            let rules = &governor.rules;
            let is_engines = quarantine.author.is_engine() && !quarantine.found;
            let most = if is_engines { rules.longest } else { rules.longest_by_hand };
            quarantine.until = quarantine.until.min(super::time::after(now, most));
            if !quarantine.target.subjects.is_empty() {
                state.quarantines.insert(quarantine.target.clone(), quarantine);
            }
        }
        let lasts = |one: &Allowance| one.until.is_none_or(|end| end > now);
        state.allowed = saved.allowed.into_iter().filter(|(_, one)| lasts(one)).collect();
        let allowed = state.allowed.iter().map(|(subject, one)| Action::Allow(subject.clone(), one.until));
        let imposed = state.quarantines.values().filter(|one| one.until > now).cloned().map(Action::Impose);
        let orders = allowed.chain(imposed).map(Order::new).collect();
        governor.state = state;
        governor.memory = Memory::restore(saved.past);
        governor.memory.forget(&governor.rules, now);
        // A clock that was set back must not open the cap.
        governor.began = saved.began.into_iter().map(|began| began.min(now)).collect();
        governor.pardoned = saved.pardoned.into_iter().map(|(target, end)| (target, end.min(longest_pardon))).collect();
        governor.known_since = something.then_some(now);
        (governor, orders)
    }
}
