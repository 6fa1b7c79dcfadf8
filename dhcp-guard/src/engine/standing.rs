//! The state machine of one client or port.
//!
//! ```text
//!            excess            excess in `offender_windows` running
//!   normal ─────────▶ over limit ─────────▶ offender ◀──────────────┐
//!     ▲  ◀───────────     │                    │ quiet for          │ excess in
//!     │   a quiet window  │                    ▼ `recover_after`    │ `offender_windows` running
//!     └──────────────── quiet for `remember` ─ recovered ───────────┘
//! ```

use std::time::Duration;

use super::Window;

/// When someone is an offender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Windows running that must each have excess.
    pub offender_windows: u32,
    /// Time without excess after which an offender has recovered.
    pub recover_after: Duration,
    /// Time for which a recovered offender is remembered.
    pub remember: Duration,
}

/// Where a client or port stands. Times are those of the observations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Within its limit.
    Normal,
    /// Over its limit, in this many windows running.
    OverLimit {
        /// At least 1.
        windows: u32,
    },
    /// Over its limit for long enough.
    Offender {
        /// Since when.
        since: Duration,
        /// The latest window with excess.
        last_excess: Duration,
    },
    /// Was an offender.
    Recovered {
        /// Since when it was one.
        offender_since: Duration,
        /// When it recovered.
        since: Duration,
        /// Windows with excess running, since then.
        windows: u32,
    },
}

/// A change that someone should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Became an offender.
    Offends,
    /// Recovered.
    Recovers,
}

impl Standing {
    /// Takes one window, which ended at `now`.
    pub(super) fn observe(&mut self, rules: &Rules, now: Duration, window: Window) -> Option<Change> {
        let excess = window.own_excess > 0;
        let (next, change) = self.next(rules, now, excess);
        *self = next;
        change
    }

    fn next(self, rules: &Rules, now: Duration, excess: bool) -> (Self, Option<Change>) {
        let offends = (Self::Offender { since: now, last_excess: now }, Some(Change::Offends));
        match self {
            Self::Normal if excess && rules.offender_windows <= 1 => offends,
            Self::Normal if excess => (Self::OverLimit { windows: 1 }, None),
            Self::Normal => (Self::Normal, None),

            Self::OverLimit { windows } if excess && windows + 1 >= rules.offender_windows => offends,
            Self::OverLimit { windows } if excess => (Self::OverLimit { windows: windows + 1 }, None),
            Self::OverLimit { .. } => (Self::Normal, None),

            Self::Offender { since, .. } if excess => (Self::Offender { since, last_excess: now }, None),
            Self::Offender { since, last_excess } if now.saturating_sub(last_excess) >= rules.recover_after => {
                (Self::Recovered { offender_since: since, since: now, windows: 0 }, Some(Change::Recovers))
            }
            Self::Offender { .. } => (self, None),

            Self::Recovered { windows, .. } if excess && windows + 1 >= rules.offender_windows => offends,
            Self::Recovered { offender_since, since, windows } if excess => {
                (Self::Recovered { offender_since, since, windows: windows + 1 }, None)
            }
            Self::Recovered { since, .. } if now.saturating_sub(since) >= rules.remember => (Self::Normal, None),
            Self::Recovered { offender_since, since, .. } => {
                (Self::Recovered { offender_since, since, windows: 0 }, None)
            }
        }
    }

    /// Over its limit in the latest window, or an offender.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        matches!(self, Self::OverLimit { .. } | Self::Offender { .. })
    }
}
