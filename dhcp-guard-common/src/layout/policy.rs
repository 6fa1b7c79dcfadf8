//! What user space decides. The program only reads it.
//!
//! Policies are in two banks. A new policy is written as a whole into the bank that is not in force, and comes into force
//! by one store to [`Control::version`]. A packet reads that word once, and everything else from the bank it names.

use crate::gcra::Limit;

/// The port exists in this bank.
pub const PORT_PRESENT: u64 = 1;
/// The port is trusted (DHCP server, relay, uplink towards them): only its own limit applies.
pub const PORT_TRUSTED: u64 = 1 << 1;
/// The port is watched, not policed: verdicts are computed and counted, nothing is dropped.
pub const PORT_MONITOR: u64 = 1 << 2;
/// The port is on the allowlist: its packets always pass.
pub const PORT_ALLOWED: u64 = 1 << 3;
/// A message that names another hardware address than its frame is dropped.
pub const PORT_DROP_CHADDR_MISMATCH: u64 = 1 << 4;
/// DISCOVERs and Solicits have a limit of their own, [`PortPolicy::discover`].
pub const PORT_LIMITS_DISCOVER: u64 = 1 << 5;

/// What user space decided about a port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPolicy {
    /// Everything together.
    pub total: Limit,
    /// What strangers may take of it.
    pub strangers: Shared,
    /// What DISCOVERs and Solicits may take of it, if [`PORT_LIMITS_DISCOVER`].
    pub discover: Limit,
    /// How many new MACs may be given a place in the strangers' table for the sake of counting their drops.
    pub new_clients: Limit,
    /// Each client, DHCPv4.
    pub client_v4: Limit,
    /// Each client, DHCPv6.
    pub client_v6: Limit,
    /// The `PORT_` constants.
    pub flags: u64,
}

/// A limit that those who come back have before those who are new.
///
/// Both take from one limiter, but newcomers find it full earlier: what is between the two tolerances, and then the whole
/// rate, is there for whoever was seen before. So a flood of ever new MACs cannot shut out those who retry while they are
/// remembered: see [`Head::seen`](super::Head::seen) for how long that is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// As in [`Limit`].
    pub interval: u64,
    /// As in [`Limit`], for those who were seen before.
    pub tolerance: u64,
    /// The same for newcomers; at most `tolerance`.
    pub newcomer_tolerance: u64,
}

impl Shared {
    /// Quarters of the burst that newcomers may use.
    const NEWCOMERS_QUARTERS: u64 = 3;

    /// Of a limit.
    #[must_use]
    pub const fn new(limit: Limit) -> Self {
        let newcomer_tolerance = limit.tolerance / 4 * Self::NEWCOMERS_QUARTERS;
        Self { interval: limit.interval, tolerance: limit.tolerance, newcomer_tolerance }
    }

    /// The limit for those who come back, or for newcomers.
    #[must_use]
    #[inline(always)]
    pub const fn limit(&self, comes_back: bool) -> Limit {
        let tolerance = if comes_back { self.tolerance } else { self.newcomer_tolerance };
        Limit { interval: self.interval, tolerance }
    }
}

/// Servers' messages from ports that are not trusted are dropped.
pub const HOST_DROP_ROGUE_SERVERS: u64 = 1;
/// [`HostPolicy::total`] and [`HostPolicy::strangers`] are in force.
pub const HOST_LIMITED: u64 = 1 << 1;

/// What user space decided about the host: all untrusted ports together.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostPolicy {
    /// Everything together.
    pub total: Limit,
    /// What strangers may take of it.
    pub strangers: Shared,
    /// The `HOST_` constants.
    pub flags: u64,
}

/// What user space decided about one client. All times in ticks; the rule is void when they have passed, whether or not
/// there still is an agent to take it away.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientRule {
    /// Its DHCP is dropped until then.
    #[cfg(not(feature = "other-layout"))]
    pub muted_until: u64,
    /// All its frames are dropped until then.
    pub isolated_until: u64,
    /// Its DHCP passes, whatever else says otherwise, until then; [`FOREVER`] for no end.
    pub allowed_until: u64,
    /// Its DHCP is dropped until then.
    #[cfg(feature = "other-layout")]
    pub muted_until: u64,
}

/// A time that never comes.
pub const FOREVER: u64 = u64::MAX;

/// The one block that the program reads without any lookup.
///
/// User space writes it as a whole. Each word is aligned and so is never seen half-written on any machine we know; were
/// one, the lowest byte of `version` would still name the old bank or the new one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// Grows with every change of policies or of rules. Bit 0 names the bank in force. What a CPU remembers under another
    /// version does not count any more.
    pub version: u64,
    /// The latest end of an isolation, in ticks; 0: there is none, and frames that are not DHCP need no second look.
    pub isolated_until: u64,
    /// How many client rules there are; 0: none need to be looked for.
    pub client_rules: u64,
}

impl Control {
    /// The bank in force under a version: 0 or 1.
    #[must_use]
    #[inline(always)]
    pub const fn bank(version: u64) -> u32 {
        (version & 1) as u32
    }

    /// The version after a change of rules only: the same bank.
    #[must_use]
    pub const fn next_version(version: u64) -> u64 {
        version.wrapping_add(2)
    }

    /// The version that puts the other bank in force.
    #[must_use]
    pub const fn next_policy(version: u64) -> u64 {
        version.wrapping_add(1)
    }
}

/// Where a slot's policy is in a bank: the two banks alternate.
#[must_use]
#[inline(always)]
pub const fn policy_index(slot: u32, bank: u32) -> u32 {
    slot * 2 + bank
}

const _: () = {
    assert!(size_of::<PortPolicy>() == 5 * 16 + 24 + 8);
    assert!(size_of::<HostPolicy>() == 48);
    assert!(size_of::<ClientRule>() == 24);
    assert!(size_of::<Control>() == 24);
};

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::gcra::{Decision, decide};

    /// Packets at their times: whether they come from somebody who comes back, and whether they are admitted.
    fn admitted(shared: &Shared, packets: &[(u64, bool)]) -> Vec<bool> {
        let mut word = 0;
        let mut admit = |now: u64, comes_back: bool| match decide(word, now, &shared.limit(comes_back)) {
            Decision::Conforms(next) => {
                word = next;
                true
            }
            Decision::ExceedsUntil(_) => false,
        };
        packets.iter().map(|(now, comes_back)| admit(*now, *comes_back)).collect()
    }

    #[test]
    fn newcomers_leave_a_quarter_to_those_who_come_back() {
        let shared = Shared::new(Limit::new(1, 101, 250));
        let packets: Vec<_> = (0..200).map(|_| (1 << 52, false)).chain((0..200).map(|_| (1 << 52, true))).collect();
        let admitted = admitted(&shared, &packets);
        let count = |part: &[bool]| part.iter().filter(|admitted| **admitted).count();
        assert_eq!((count(&admitted[..200]), count(&admitted[200..])), (76, 25));
    }

    #[test]
    fn the_smallest_share_admits_a_newcomer() {
        let shared = Shared::new(Limit::new(1, 1, 250));
        assert_eq!(admitted(&shared, &[(1 << 52, false), (1 << 52, false), (1 << 52, true)]), [true, false, false]);
    }

    proptest! {
        /// At one moment, whatever the order: a newcomer is admitted while less than three quarters are spent, whoever
        /// comes back while anything is left.
        #[test]
        fn a_bucket_with_two_levels(burst in 1u32..500, who in prop::collection::vec(any::<bool>(), 0..1000)) {
            let shared = Shared::new(Limit::new(7, burst, 250));
            let packets: Vec<_> = who.iter().map(|comes_back| (1 << 52, *comes_back)).collect();
            let newcomers = u64::from(burst - 1) * 3 / 4;
            let mut spent = 0u64;
            for (comes_back, admitted) in who.iter().zip(admitted(&shared, &packets)) {
                let level = if *comes_back { u64::from(burst - 1) } else { newcomers };
                prop_assert_eq!(admitted, spent <= level, "with {} spent of {}", spent, burst);
                spent += u64::from(admitted);
            }
        }

        /// Over any time, both together stay within the limit, and newcomers alone within theirs.
        #[test]
        fn both_together_stay_within_the_limit(
            (rate, burst) in (1u32..1000, 1u32..300),
            packets in prop::collection::vec((0u64..1 << 24, any::<bool>()), 1..500),
        ) {
            let shared = Shared::new(Limit::new(rate, burst, 250));
            let mut now = 1 << 52;
            let at: Vec<_> = packets.iter().map(|(wait, comes_back)| { now += wait; (now, *comes_back) }).collect();
            let most = |tolerance: u64| (now - (1 << 52) + tolerance) / shared.interval + 1;
            let all = admitted(&shared, &at).into_iter().filter(|admitted| *admitted).count() as u64;
            prop_assert!(all <= most(shared.tolerance));
            let newcomers: Vec<_> = at.iter().map(|(now, _)| (*now, false)).collect();
            let alone = admitted(&shared, &newcomers).into_iter().filter(|admitted| *admitted).count() as u64;
            prop_assert!(alone <= most(shared.newcomer_tolerance));
        }
    }
}
