//! Rate limiting with one `u64` per limiter: the generic cell rate algorithm (GCRA, ITU-T I.371 annex A, in its
//! virtual-scheduling form).
//!
//! The word of a limiter is the *theoretical arrival time* (TAT): when the next packet would arrive if the sender kept
//! exactly to its rate. A packet conforms while the TAT is at most `tolerance` in the future, and then pushes it on by
//! `interval`. A limiter that was never used, or not for years, has a TAT in the past and needs no special case.
//!
//! Time is counted in *grains*: 1/2^20 of a kernel tick (jiffy). The kernel's tick counter costs about 1 ns to read,
//! the fraction leaves room for rates far above one packet a tick. Times are compared by their difference, so a clock that
//! wraps does no harm; a limiter that was idle for more than half of the clock's range (278 years of 1,000 ticks a second)
//! would seem to be ahead of its schedule.
//!
//! A clock of ticks sees packets up to one tick closer together than they are. A sender at exactly its rate is therefore
//! only certain to be admitted with a burst of at least `2 + rate_pps / ticks_per_s`.

/// Grains in a tick, as a power of two.
pub const GRAIN_BITS: u32 = 20;

/// No limiter is further ahead of its schedule than that, or its distance from now would not fit a signed word.
const MAX_TOLERANCE: u64 = 1 << 62;

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
        let tolerance = interval.saturating_mul(u64::from(burst.max(1) - 1)).min(MAX_TOLERANCE);
        Self { interval, tolerance }
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
    // Negative for a schedule in the past, and right even where one of the two has wrapped and the other has not.
    let ahead = tat.wrapping_sub(now).cast_signed();
    if ahead > limit.tolerance.cast_signed() {
        return Decision::ExceedsUntil(tat.wrapping_sub(limit.tolerance));
    }
    let base = if ahead > 0 { tat } else { now };
    Decision::Conforms(base.wrapping_add(limit.interval))
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
        assert!((0..20).all(|_| take(&word, BOOT, &limit) == Taken::Yes));
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

    /// Times from `start`, these gaps apart, on a clock that may wrap.
    fn times(start: u64, gaps: &[u64]) -> Vec<u64> {
        gaps.iter().scan(start, |now, gap| Some(core::mem::replace(now, now.wrapping_add(*gap)))).collect()
    }

    /// Which packets a limiter admits that was last used `idle` before the first of them.
    fn verdicts(limit: &Limit, times: &[u64], idle: u64) -> Vec<bool> {
        let word = AtomicU64::new(times[0].wrapping_sub(idle));
        times.iter().map(|now| take(&word, *now, limit) == Taken::Yes).collect()
    }

    /// Somewhere, or where the clock is about to wrap.
    fn starts() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), (0..20 * SECOND).prop_map(|left| u64::MAX - left)]
    }

    /// From all at once to slower than any rate.
    fn gaps() -> impl Strategy<Value = Vec<u64>> {
        let gap = prop_oneof![Just(0), 0..1u64 << 12, 0..1u64 << GRAIN_BITS, 0..SECOND / 4, 0..2 * SECOND];
        proptest::collection::vec(gap, 1..300)
    }

    /// Never used up to centuries ago.
    const IDLE: core::ops::Range<u64> = 0..1 << 62;

    proptest! {
        /// In every span of time, not only from the beginning.
        #[test]
        fn never_more_than_rate_times_time_plus_burst(
            rate in 1u32..100_000, burst in 1u32..2_000, start in starts(), idle in IDLE, gaps in gaps(),
        ) {
            let limit = Limit::new(rate, burst, HZ);
            let times = times(start, &gaps);
            let verdicts = verdicts(&limit, &times, idle);
            let admitted: Vec<u64> = times.into_iter().zip(verdicts).filter_map(|(time, yes)| yes.then_some(time)).collect();
            for (i, first) in admitted.iter().enumerate() {
                for (count, last) in (1u128..).zip(&admitted[i..]) {
                    let span = u128::from(last.wrapping_sub(*first));
                    prop_assert!(count <= u128::from(burst) + span * u128::from(rate) / u128::from(SECOND));
                }
            }
        }

        #[test]
        fn the_interval_is_the_shortest_that_is_not_too_short(rate: u32, ticks_per_s in 1u32..10_000) {
            let (interval, rate) = (Limit::new(rate, 1, ticks_per_s).interval, u64::from(rate.max(1)));
            let second = u64::from(ticks_per_s) << GRAIN_BITS;
            prop_assert!(interval * rate >= second && (interval - 1) * rate < second);
        }

        /// Exactly what a bucket admits that holds `burst` tokens and gets one every interval: a conforming stream loses
        /// nothing, whatever else it does, and no other gets more.
        #[test]
        fn admits_what_a_token_bucket_admits(
            rate in 1u32..100_000, burst in 1u32..2_000, start in starts(), idle in IDLE, gaps in gaps(),
        ) {
            let limit = Limit::new(rate, burst, HZ);
            let verdicts = verdicts(&limit, &times(start, &gaps), idle);
            let (token, full) = (u128::from(limit.interval), u128::from(limit.interval) * u128::from(burst));
            let mut bucket = full;
            for (i, (verdict, gap)) in verdicts.into_iter().zip(gaps).enumerate() {
                prop_assert_eq!(verdict, bucket >= token, "packet {}", i);
                bucket = full.min(bucket - if verdict { token } else { 0 } + u128::from(gap));
            }
        }

        #[test]
        fn a_stream_at_the_rate_is_always_admitted(
            rate in 1u32..100_000, start in starts(), extra in proptest::collection::vec(0u64..SECOND, 1..400),
        ) {
            let limit = Limit::new(rate, 1, HZ);
            let gaps: Vec<u64> = extra.iter().map(|extra| limit.interval + extra).collect();
            prop_assert!(verdicts(&limit, &times(start, &gaps), 0).into_iter().all(|yes| yes));
        }

        /// The kernel's clock is one of whole ticks.
        #[test]
        fn a_stream_at_the_rate_is_always_admitted_by_a_clock_of_ticks(
            rate in 1u32..100_000, start in starts(), extra in proptest::collection::vec(prop_oneof![4 => Just(0), 1 => 0u64..1 << 22], 1..400),
        ) {
            let limit = Limit::new(rate, 2 + rate / HZ, HZ);
            let gaps: Vec<u64> = extra.iter().map(|extra| limit.interval + extra).collect();
            let times: Vec<u64> = times(start, &gaps).iter().map(|time| time >> GRAIN_BITS << GRAIN_BITS).collect();
            prop_assert!(verdicts(&limit, &times, 0).into_iter().all(|yes| yes));
        }

        #[test]
        fn idle_for_years_is_the_same_as_new(
            rate in 1u32..100_000, burst in 1u32..2_000, start in starts(), years in 1u64..250,
        ) {
            const YEAR: u64 = 365 * 86_400 * (1000 << GRAIN_BITS);
            let limit = Limit::new(rate, burst, 1000);
            let word = AtomicU64::new(start);
            prop_assert!((0..burst).all(|_| take(&word, start, &limit) == Taken::Yes));
            let later = start.wrapping_add(years * YEAR);
            let again = (0..burst + 10).filter(|_| take(&word, later, &limit) == Taken::Yes).count();
            prop_assert_eq!(again, burst as usize);
        }

        /// And then admits.
        #[test]
        fn says_until_when_wherever_the_clock_stands(rate in 1u32..100_000, burst in 1u32..2_000, start in starts()) {
            let limit = Limit::new(rate, burst, HZ);
            let word = AtomicU64::new(start);
            prop_assert!((0..burst).all(|_| take(&word, start, &limit) == Taken::Yes));
            let Taken::NoUntil(until) = take(&word, start, &limit) else { panic!("must be over its limit") };
            prop_assert_eq!(until.wrapping_sub(start), limit.interval);
            prop_assert_eq!(take(&word, until.wrapping_sub(1), &limit), Taken::NoUntil(until));
            prop_assert_eq!(take(&word, until, &limit), Taken::Yes);
        }
    }

    #[test]
    fn no_limit_is_too_large_for_the_clock() {
        let limit = Limit::new(1, u32::MAX, 100_000);
        assert_eq!(limit.tolerance, MAX_TOLERANCE);
        assert_eq!(decide(BOOT, BOOT, &limit), Decision::Conforms(BOOT + limit.interval));
    }
}
