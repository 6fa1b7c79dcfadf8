//! Undoing: every change knows what was there before.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{Entry, Governor, Key, Refusal, World, time};

impl Governor {
    /// All places that changed since then, with what was there. What ended by itself, before or meanwhile, stays ended; and
    /// whoever has come under protection since is not sanctioned again.
    pub(super) fn before(
        &self,
        now: Timestamp,
        world: &World<'_>,
        since: Timestamp,
    ) -> Result<Vec<(Key, Option<Entry>)>, Refusal> {
        if let Some(known) = self.known_since
            && known >= since
        {
            return Err(Refusal::TooLongAgo { known: time::between(known, now) });
        }
        let mut places = BTreeMap::new();
        for change in self.changes.iter().filter(|change| change.at >= since) {
            places.entry(change.key.clone()).or_insert_with(|| change.before.clone());
        }
        if places.is_empty() {
            return Err(Refusal::NothingToUndo);
        }
        let still = |entry: Entry| match &entry {
            Entry::Quarantine(quarantine) => {
                let protected = quarantine.target.subjects.iter().any(|one| (world.protection)(one).is_some());
                (quarantine.until > now && !protected).then_some(entry)
            }
            Entry::Allowed(allowance) => allowance.until.is_none_or(|end| end > now).then_some(entry),
            Entry::Hold(_) => Some(entry),
        };
        Ok(places.into_iter().map(|(key, before)| (key, before.and_then(still))).collect())
    }
}
