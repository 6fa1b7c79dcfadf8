//! The kernel's tick counter and its relation to the clocks of user space.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// The kernel's HZ: ticks of `jiffies` a second.
///
/// The resolution of CLOCK_MONOTONIC_COARSE *is* one tick (`KTIME_LOW_RES`, include/linux/hrtimer.h; `TICK_NSEC`,
/// include/linux/jiffies.h), so nothing has to be measured. A test in the kernel compares it with the clock.
#[must_use]
pub fn ticks_per_s() -> u32 {
    let mut resolution = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid clock id and a valid place for the result.
    unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut resolution) };
    let nanos = resolution.tv_nsec.clamp(100_000, 1_000_000_000);
    u32::try_from((1_000_000_000 + nanos / 2) / nanos).unwrap_or(250)
}

/// CLOCK_MONOTONIC: the same for all processes since the machine's start.
#[must_use]
pub fn monotonic() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid clock id and a valid place for the result.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// One moment on all clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Wall clock, for people.
    pub wall: Timestamp,
    /// Since an arbitrary start; never goes back, for differences.
    pub monotonic: Duration,
    /// Kernel ticks.
    pub ticks: u64,
    /// The kernel's HZ.
    pub ticks_per_s: u32,
}

impl Moment {
    /// The wall-clock time of an earlier or later tick.
    #[must_use]
    pub fn wall_of(&self, ticks: u64) -> Timestamp {
        let distance = i128::from(ticks) - i128::from(self.ticks);
        let nanos = distance * 1_000_000_000 / i128::from(self.ticks_per_s.max(1));
        // A tick of long before the machine's start is a corrupt entry; show it as long ago rather than fail.
        self.wall.saturating_add(SignedDuration::from_nanos_i128(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hz_is_one_that_linux_can_be_built_with() {
        assert!([100, 250, 300, 1000].contains(&ticks_per_s()), "HZ={}", ticks_per_s());
    }

    #[test]
    fn ticks_become_wall_clock_times() {
        let now: Timestamp = "2026-01-17T15:23:41Z".parse().unwrap();
        let moment = Moment { wall: now, monotonic: Duration::ZERO, ticks: 1 << 32, ticks_per_s: 250 };
        assert_eq!(moment.wall_of((1 << 32) - 250 * 41).to_string(), "2026-01-17T15:23:00Z");
        assert_eq!(moment.wall_of((1 << 32) + 125).to_string(), "2026-01-17T15:23:41.5Z");
        let _ = moment.wall_of(0);
    }
}
