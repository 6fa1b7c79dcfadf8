//! From counters that only grow to what happened in the last window.

use std::time::Duration;

/// Counts of a client or port since its entry exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Which entry this is: another generation means that the counters started anew (a stranger's entry can be
    /// evicted and come back). Its first packet's tick serves well.
    pub generation: u64,
    /// Tick of the latest packet; carried along for reports, not judged.
    pub latest: u64,
    /// DHCP packets.
    pub packets: u64,
    /// Packets over any limit, dropped or not.
    pub excess: u64,
    /// Packets over the subject's own limit: what it is to blame for.
    pub own_excess: u64,
}

/// What one window brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// DHCP packets.
    pub packets: u64,
    /// Packets over any limit.
    pub excess: u64,
    /// Packets over the subject's own limit.
    pub own_excess: u64,
    /// How long the window was.
    pub length: Duration,
}

impl Totals {
    /// Moves on to `new` and answers the difference.
    ///
    /// Counts of one generation never go back here: a reading may miss packets that were just being handed over inside
    /// the kernel, and the next one has them again.
    pub(super) fn advance(&mut self, new: Self, length: Duration) -> Window {
        let old = if new.generation == self.generation { *self } else { Self::default() };
        *self = Self {
            generation: new.generation,
            latest: new.latest.max(old.latest),
            packets: new.packets.max(old.packets),
            excess: new.excess.max(old.excess),
            own_excess: new.own_excess.max(old.own_excess),
        };
        Window {
            packets: self.packets - old.packets,
            excess: self.excess - old.excess,
            own_excess: self.own_excess - old.own_excess,
            length,
        }
    }

    /// Adds what a window brought: counts go on over the end of an entry, for whoever is remembered.
    pub(super) fn accumulate(&mut self, window: Window, reading: &Self) {
        if self.packets == 0 {
            self.generation = reading.generation;
        }
        self.latest = self.latest.max(reading.latest);
        self.packets += window.packets;
        self.excess += window.excess;
        self.own_excess += window.own_excess;
    }
}

impl Window {
    /// DHCP packets a second, rounded.
    #[must_use]
    pub fn rate_pps(&self) -> u64 {
        per_second(self.packets, self.length)
    }

    /// Packets over any limit a second, rounded.
    #[must_use]
    pub fn excess_pps(&self) -> u64 {
        per_second(self.excess, self.length)
    }
}

fn per_second(count: u64, length: Duration) -> u64 {
    let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    (count.saturating_mul(1000) + millis / 2).checked_div(millis).unwrap_or(0)
}
