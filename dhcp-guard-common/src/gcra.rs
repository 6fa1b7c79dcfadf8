//! Rate limiting with one `u64` per limiter: the generic cell rate algorithm (GCRA, ITU-T I.371 annex A, in its
//! virtual-scheduling form).
//!
//! The word of a limiter is the *theoretical arrival time* (TAT): when the next packet would arrive if the sender kept
//! exactly to its rate. A packet conforms while the TAT is at most `tolerance` in the future, and then pushes it on by
//! `interval`. A limiter that was never used, or not for years, has a TAT in the past and needs no special case.
//!
//! Time is counted in *grains*: 1/2^20 of a kernel tick (jiffy). The kernel's tick counter costs about 1 ns to read,
//! the fraction leaves room for rates far above one packet a tick. 64 bits last for centuries at any tick rate.

/// Grains in a tick, as a power of two.
pub const GRAIN_BITS: u32 = 20;

/// A rate limit as the kernel uses it: both in grains.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Time between two packets at exactly the permitted rate.
    pub interval: u64,
    /// How far ahead of its schedule a sender may be: `(burst - 1) * interval`.
    pub tolerance: u64,
}

impl Limit {
    /// `rate_pps` packets a second and bursts of up to `burst` packets, with a clock of `ticks_per_s` (the kernel's HZ).
    ///
    /// The interval is rounded up, so the limiter is never faster than asked for. A rate or a burst of 0 counts as 1.
    #[must_use]
    pub fn new(rate_pps: u32, burst: u32, ticks_per_s: u32) -> Self {
        let grains_per_s = u64::from(ticks_per_s) << GRAIN_BITS;
        let interval = grains_per_s.div_ceil(u64::from(rate_pps.max(1))).max(1);
        Self { interval, tolerance: interval * u64::from(burst.max(1) - 1) }
    }
}

/// What a limiter says about one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The packet conforms; the limiter's word becomes this.
    Conforms(u64),
    /// The packet is over the limit, and so is every other one before this time (grains).
    ExceedsUntil(u64),
}

/// Decides about a packet that arrives at `now` (grains), for a limiter whose word is `tat`. Changes nothing.
#[inline(always)]
#[must_use]
pub fn decide(tat: u64, now: u64, limit: &Limit) -> Decision {
    if tat > now.wrapping_add(limit.tolerance) {
        return Decision::ExceedsUntil(tat - limit.tolerance);
    }
    let base = if tat > now { tat } else { now };
    Decision::Conforms(base + limit.interval)
}

/// The word of a limiter that several CPUs share.
pub trait Word {
    /// Reads the word.
    fn load(&self) -> u64;
    /// Writes `new` if the word still is `old`. True: written.
    fn compare_and_swap(&self, old: u64, new: u64) -> bool;
}

/// How often [`take`] tries to write before it gives up.
pub const ATTEMPTS: u32 = 2;

/// The packet got through the limiter, or how long nobody will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Within the limit, and accounted for.
    Yes,
    /// Over the limit until this time (grains).
    NoUntil(u64),
    /// Other CPUs took the word [`ATTEMPTS`] times in a row. The packet counts as over the limit, so that the limit
    /// holds whatever the race; the sender's next packet decides anew.
    LostRace,
}

/// Takes one packet's worth out of the limiter behind `word`, at time `now` (grains).
///
/// Lock-free and bounded: at most [`ATTEMPTS`] compare-and-swaps, none for a packet over the limit. Nothing is ever
/// admitted without a successful swap, so any number of CPUs together stay within the limit exactly.
#[inline(always)]
pub fn take<W: Word>(word: &W, now: u64, limit: &Limit) -> Taken {
    for _ in 0..ATTEMPTS {
        let tat = word.load();
        match decide(tat, now, limit) {
            Decision::ExceedsUntil(until) => return Taken::NoUntil(until),
            Decision::Conforms(next) => {
                if word.compare_and_swap(tat, next) {
                    return Taken::Yes;
                }
            }
        }
    }
    Taken::LostRace
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::sync::atomic::{AtomicU64, Ordering};
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    impl Word for AtomicU64 {
        fn load(&self) -> u64 {
            AtomicU64::load(self, Ordering::Relaxed)
        }
        fn compare_and_swap(&self, old: u64, new: u64) -> bool {
            self.compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed).is_ok()
        }
    }

    const HZ: u32 = 250;
    const SECOND: u64 = (HZ as u64) << GRAIN_BITS;
    /// Where a machine's tick counter may stand: just booted, or up for years.
    const BOOT: u64 = 1 << 52;

    fn admitted(limit: &Limit, times: impl IntoIterator<Item = u64>) -> u64 {
        let word = AtomicU64::new(0);
        times.into_iter().map(|now| u64::from(take(&word, now, limit) == Taken::Yes)).sum()
    }

    #[test]
    fn an_idle_limiter_admits_exactly_its_burst_at_once() {
        for (rate, burst) in [(2, 20), (50, 250), (1, 1), (1000, 1000), (u32::MAX, 1)] {
            let limit = Limit::new(rate, burst, HZ);
            assert_eq!(admitted(&limit, (0..5000).map(|_| BOOT)), u64::from(burst), "{rate} pps, burst {burst}");
        }
    }

    #[test]
    fn after_the_burst_it_admits_its_rate() {
        let limit = Limit::new(50, 250, HZ);
        let per_grain_step = SECOND / 10_000;
        let ten_seconds = (0..100_000).map(|i| BOOT + i * per_grain_step);
        assert_eq!(admitted(&limit, ten_seconds), 250 + 50 * 10 - 1);
    }

    #[test]
    fn zero_rate_and_zero_burst_count_as_one() {
        assert_eq!(Limit::new(0, 0, HZ), Limit::new(1, 1, HZ));
    }

    #[test]
    fn says_until_when_it_is_certain() {
        let limit = Limit::new(2, 20, HZ);
        let word = AtomicU64::new(0);
        while take(&word, BOOT, &limit) == Taken::Yes {}
        let Taken::NoUntil(until) = take(&word, BOOT, &limit) else { panic!("must be over its limit") };
        assert_eq!(until, BOOT + SECOND / 2);
        assert_eq!(take(&word, until - 1, &limit), Taken::NoUntil(until));
        assert_eq!(take(&word, until, &limit), Taken::Yes);
    }

    #[test]
    fn a_word_that_others_keep_taking_is_given_up_after_the_allowed_attempts() {
        struct Contended(core::cell::Cell<u32>);
        impl Word for Contended {
            fn load(&self) -> u64 {
                0
            }
            fn compare_and_swap(&self, _: u64, _: u64) -> bool {
                self.0.set(self.0.get() + 1);
                false
            }
        }
        let word = Contended(core::cell::Cell::new(0));
        assert_eq!(take(&word, BOOT, &Limit::new(2, 20, HZ)), Taken::LostRace);
        assert_eq!(word.0.get(), ATTEMPTS);
    }

    #[test]
    fn many_cpus_together_stay_within_one_limit() {
        let limit = Limit::new(1, 500, HZ);
        let word = AtomicU64::new(0);
        let total: u64 = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..20_000).filter(|_| take(&word, BOOT, &limit) == Taken::Yes).count() as u64))
                .collect();
            workers.into_iter().map(|w| w.join().unwrap()).sum()
        });
        assert!(total <= 500, "{total} admitted by a limit with a burst of 500");
        assert!(total >= 490, "{total} admitted of 500: far more lost races than retries allow");
    }

    proptest! {
        #[test]
        fn never_more_than_rate_times_time_plus_burst(
            rate in 1u32..100_000,
            burst in 1u32..2_000,
            start in 0u64..u64::MAX / 4,
            gaps in proptest::collection::vec(0u64..SECOND / 4, 1..400),
        ) {
            let limit = Limit::new(rate, burst, HZ);
            let times: Vec<u64> = gaps.iter().scan(start, |now, gap| { *now += gap; Some(*now) }).collect();
            let span = times[times.len() - 1] - times[0];
            let bound = u64::from(burst) + (u128::from(span) * u128::from(rate) / u128::from(SECOND)) as u64;
            prop_assert!(admitted(&limit, times.iter().copied()) <= bound);
        }

        #[test]
        fn a_stream_at_the_rate_is_always_admitted(
            rate in 1u32..100_000,
            start in 0u64..u64::MAX / 4,
            extra in proptest::collection::vec(0u64..SECOND, 1..400),
        ) {
            let limit = Limit::new(rate, 1, HZ);
            let times: Vec<u64> =
                extra.iter().scan(start, |now, e| { *now += limit.interval + e; Some(*now) }).collect();
            prop_assert_eq!(admitted(&limit, times.iter().copied()), times.len() as u64);
        }

        #[test]
        fn idle_for_years_is_the_same_as_new(rate in 1u32..100_000, burst in 1u32..2_000, years in 1u64..50) {
            let limit = Limit::new(rate, burst, 1000);
            let word = AtomicU64::new(0);
            while take(&word, BOOT, &limit) == Taken::Yes {}
            let later = BOOT + years * 365 * 86_400 * (1000 << GRAIN_BITS);
            let again = (0..burst + 10).filter(|_| take(&word, later, &limit) == Taken::Yes).count();
            prop_assert_eq!(again, burst as usize);
        }
    }
}
