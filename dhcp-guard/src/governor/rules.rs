//! How much may be taken away.

use std::time::Duration;

/// The caps, and how long quarantines last. The defaults are those of the configuration's `[quarantine]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether the engine may quarantine at all.
    pub automatic: bool,
    /// Share of the host's active ports, and of a port's active clients, that may be in automatic quarantine at once, in
    /// percent; one always may.
    pub at_once_percent: u32,
    /// Automatic quarantines that may begin within [`Rules::window`].
    pub new_in_window: usize,
    /// See above.
    pub window: Duration,
    /// How long the first one lasts; each further one within [`Rules::remember`] twice as long.
    pub first: Duration,
    /// The longest that an automatic one lasts, whatever happens.
    pub longest: Duration,
    /// How long somebody must be quiet before it ends.
    pub quiet: Duration,
    /// How long a quarantine counts for the next one.
    pub remember: Duration,
    /// The longest that a person may set.
    pub longest_by_hand: Duration,
    /// How many changes can be undone.
    pub undo_depth: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            automatic: true,
            at_once_percent: 10,
            new_in_window: 3,
            window: Duration::from_secs(600),
            first: Duration::from_secs(300),
            longest: Duration::from_secs(3600),
            quiet: Duration::from_secs(60),
            remember: Duration::from_secs(86_400),
            longest_by_hand: Duration::from_secs(7 * 86_400),
            undo_depth: 10_000,
        }
    }
}

impl Rules {
    /// How many of `active` may be in automatic quarantine at once.
    #[must_use]
    pub fn at_once(&self, active: usize) -> usize {
        (active * self.at_once_percent as usize / 100).max(1)
    }
}
