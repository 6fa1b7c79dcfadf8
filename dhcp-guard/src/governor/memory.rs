//! Who was in quarantine before, and what that means for the next one.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Rules, Target, time};

/// Targets with a past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory(HashMap<Target, Past>);

/// What is remembered of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Automatic quarantines that it had.
    pub times: u32,
    /// When the latest one ended, or was to end.
    pub latest_end: Timestamp,
}

impl Memory {
    /// How many automatic quarantines the target had, as far as they count.
    #[must_use]
    pub fn times(&self, rules: &Rules, now: Timestamp, target: &Target) -> u32 {
        let counts = |past: &&Past| time::between(past.latest_end, now) < rules.remember;
        self.0.get(target).filter(counts).map_or(0, |past| past.times)
    }

    /// When the target's latest automatic quarantine ended, or is to end.
    #[must_use]
    pub fn latest_end(&self, target: &Target) -> Option<Timestamp> {
        self.0.get(target).map(|past| past.latest_end)
    }

    /// Everyone, in no order.
    pub fn all(&self) -> impl Iterator<Item = (&Target, &Past)> {
        self.0.iter()
    }

    /// From what was saved.
    pub(super) fn restore(all: impl IntoIterator<Item = (Target, Past)>) -> Self {
        Self(all.into_iter().collect())
    }

    /// The target's quarantine began: the `times`th one, and it lasts until `end`.
    pub(super) fn note(&mut self, target: &Target, times: u32, end: Timestamp) {
        self.0.insert(target.clone(), Past { times, latest_end: end });
    }

    /// Its quarantine ends at another time.
    pub(super) fn ends(&mut self, target: &Target, end: Timestamp) {
        if let Some(past) = self.0.get_mut(target) {
            past.latest_end = end;
        }
    }

    /// Forgets the one quarantine that was undone.
    pub(super) fn take_back(&mut self, target: &Target) {
        if let Some(past) = self.0.get_mut(target) {
            past.times = past.times.saturating_sub(1);
        }
        self.0.retain(|_, past| past.times > 0);
    }

    /// Forgets what does not count any more.
    pub(super) fn forget(&mut self, rules: &Rules, now: Timestamp) {
        self.0.retain(|_, past| time::between(past.latest_end, now) < rules.remember);
    }
}

/// How long a quarantine lasts at least, after `times` earlier ones: each twice as long as the one before, up to the
/// longest, and up to a tenth more or less, so that machines that began together do not all come back together.
#[must_use]
pub fn length(rules: &Rules, target: &Target, times: u32) -> Duration {
    let doubled = rules.first.saturating_mul(1u32.checked_shl(times.min(16)).unwrap_or(u32::MAX));
    let nominal = doubled.min(rules.longest);
    // Not random, so that the engine stays a function of what it sees; different for each target and time.
    let mut hasher = DefaultHasher::new();
    (target, times).hash(&mut hasher);
    let tenth = nominal / 10;
    let jitter = tenth.mul_f64((hasher.finish() >> 11) as f64 / (1u64 << 53) as f64 * 2.0);
    let (shortest, length) = (rules.first.min(rules.longest), nominal - tenth + jitter);
    // What would be too short or too long is mirrored at the bound, or half of the first ones would end together.
    let within = if length < shortest { shortest + (shortest - length) } else { length };
    let within = if within > rules.longest { rules.longest.saturating_sub(within - rules.longest) } else { within };
    within.clamp(shortest, rules.longest)
}
