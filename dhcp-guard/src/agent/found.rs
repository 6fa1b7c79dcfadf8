//! What the maps alone know of quarantines when an agent starts: the one before was killed before the disk had it, or the
//! state file is lost.
//!
//! Nobody gets out of quarantine by a start, and nobody gets further into one. Several quarantines may cover the same port or
//! client, and the maps have only what they come to: so a quarantine in the file is made longer or stronger only if the maps
//! say so of everybody whom it covers, and no other one accounts for it. What is left over is listed of those alone whom the
//! maps say it of.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use super::{names, orders::Anchor, plan::Plan};
use crate::{
    dataplane::tables::InForce,
    engine,
    governor::{Author, Quarantine, Sanction, Saved, Subject, Target},
};

/// Until which tick somebody is muted or isolated. Of each the stronger first.
type Words = BTreeMap<(Subject, Reverse<Sanction>), u64>;

/// The saved state, with what only the maps know: quarantines that it does not have, or not for so long, or not so strong.
#[must_use]
pub fn with_found(mut saved: Saved, in_force: &[InForce], plan: &Plan, anchor: &Anchor) -> Saved {
    let words = words(in_force, plan);
    let mut listed = Listed::of(std::mem::take(&mut saved.quarantines), saved.next_id);
    (0..listed.all.len()).for_each(|place| listed.bring_up_to_date(place, &words, anchor));
    for ((subject, Reverse(sanction)), until) in &words {
        if !listed.accounts_for(subject, *sanction, *until, anchor) {
            listed.add(subject, *sanction, *until, anchor);
        }
    }
    saved.quarantines = listed.all;
    saved
}

fn words(in_force: &[InForce], plan: &Plan) -> Words {
    let word = |one: &InForce| {
        let key = one.client.map_or(engine::Subject::Port(one.slot), engine::Subject::Client);
        Some(((names::subject(plan, key)?, Reverse(one.sanction)), one.until))
    };
    in_force.iter().filter_map(word).collect()
}

/// Quarantines, and which of them cover whom. There may be thousands.
struct Listed {
    all: Vec<Quarantine>,
    covering: HashMap<Subject, Vec<usize>>,
    next_id: u64,
}

impl Listed {
    fn of(all: Vec<Quarantine>, next_id: u64) -> Self {
        let first_free = all.iter().map(|one| one.id.saturating_add(1)).max().unwrap_or(1);
        let mut listed = Self { all: Vec::new(), covering: HashMap::new(), next_id: next_id.max(first_free) };
        all.into_iter().for_each(|one| listed.push(one));
        listed
    }

    fn push(&mut self, quarantine: Quarantine) {
        for subject in &quarantine.target.subjects {
            self.covering.entry(subject.clone()).or_default().push(self.all.len());
        }
        self.all.push(quarantine);
    }

    fn of_subject(&self, subject: &Subject) -> impl Iterator<Item = &Quarantine> {
        let places = self.covering.get(subject).map_or(&[][..], Vec::as_slice);
        places.iter().filter_map(|place| self.all.get(*place))
    }

    /// Whether one of them says it of somebody. Whoever is isolated is muted, too.
    fn accounts_for(&self, subject: &Subject, sanction: Sanction, until: u64, anchor: &Anchor) -> bool {
        self.of_subject(subject).any(|one| one.sanction >= sanction && until <= last_tick(one, anchor))
    }

    /// Until when at least the maps say this of everybody whom the quarantine covers, and none that is listed does; none: not
    /// of everybody.
    fn said_of_all(&self, one: &Quarantine, sanction: Sanction, words: &Words, anchor: &Anchor) -> Option<u64> {
        let of_one = |subject: &Subject| {
            let until = *words.get(&(subject.clone(), Reverse(sanction)))?;
            (!self.accounts_for(subject, sanction, until, anchor)).then_some(until)
        };
        let all: Option<Vec<u64>> = one.target.subjects.iter().map(of_one).collect();
        all?.into_iter().min()
    }

    /// Makes the quarantine in this place as long and as strong as the maps say of everybody whom it covers.
    fn bring_up_to_date(&mut self, place: usize, words: &Words, anchor: &Anchor) {
        for sanction in [Sanction::Mute, Sanction::Isolate] {
            let Some(one) = self.all.get(place).filter(|one| one.sanction <= sanction) else { continue };
            let Some(until) = self.said_of_all(one, sanction, words, anchor) else { continue };
            // An hour's mute and five minutes' isolation are two things, and never an hour's isolation.
            if until.saturating_add(1) < anchor.tick_of(Some(one.until)) {
                continue;
            }
            let end = one.until.max(anchor.time_of(until));
            if let Some(one) = self.all.get_mut(place) {
                (one.sanction, one.until, one.found) = (sanction, end, true);
            }
        }
    }

    /// Adds one of this subject alone, beside those that it may have.
    fn add(&mut self, subject: &Subject, sanction: Sanction, until: u64, anchor: &Anchor) {
        let is_free = |target: &Target| self.of_subject(subject).all(|one| one.target != *target);
        let mut targets = (0..=u8::MAX).map(|beside| Target { beside, ..Target::one(subject.clone()) });
        // Each is stronger, or lasts longer, than the one before: there are two at most.
        let Some(target) = targets.find(is_free) else { return };
        let id = self.next_id;
        self.next_id = id.saturating_add(1);
        self.push(Quarantine {
            id,
            target,
            sanction,
            author: Author::Engine,
            reason: "it was in force when the agent started, and not in its state file".to_owned(),
            since: anchor.time,
            until: anchor.time_of(until),
            found: true,
            repeat: 0,
        });
    }
}

/// The last tick of a quarantine in the maps. One is how exact an end is there.
fn last_tick(one: &Quarantine, anchor: &Anchor) -> u64 {
    anchor.tick_of(Some(one.until)).saturating_add(1)
}

#[cfg(test)]
mod tests;
