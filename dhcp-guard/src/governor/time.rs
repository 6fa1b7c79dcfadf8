//! Arithmetic with times that cannot fail: at the ends of the calendar it stops.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// `time`, and `duration` after it.
pub(super) fn after(time: Timestamp, duration: Duration) -> Timestamp {
    let signed = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    time.checked_add(signed).unwrap_or(Timestamp::MAX)
}

/// From `start` to `end`; nothing if that is backwards.
pub(super) fn between(start: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(start)).unwrap_or_default()
}
