//! How much of a flood a limit lets through.

use std::time::Duration;

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Packets a second.
    pub rate: u64,
    /// Packets in a burst.
    pub burst: u64,
}

impl Limit {
    /// The guard's default for a client.
    pub const CLIENT: Self = Self { rate: 2, burst: 20 };

    /// Packets that may pass in some time: one more for a tick at either end.
    #[must_use]
    pub fn allowed(self, elapsed: Duration) -> u64 {
        self.burst + (elapsed.as_secs_f64() * self.rate as f64).ceil() as u64 + 1
    }

    /// How long an empty bucket takes to be full.
    #[must_use]
    pub fn fills_in(self) -> Duration {
        Duration::from_millis(1000 * self.burst / self.rate)
    }
}
