//! When automatic quarantine comes, how long it lasts, and what stops it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Config, Problem, ProblemKind,
    check::{DAY_S, Number},
};
use crate::{
    engine::{sanction, systemic},
    governor,
};

/// When automatic quarantine comes, how long it lasts, and what stops it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Quarantine {
    /// Whether there is any. What people ask for is done all the same.
    pub automatic: bool,
    /// It comes to who sends so many times its limit; 2 to 1,000.
    pub rate_factor: u32,
    /// In so many windows of one second running; 1 to 3,600.
    pub windows: u32,
    /// Or to a port that shows more new MACs than this in each of as many windows; 1 to 5,000.
    pub new_macs: u32,
    /// Seconds over the limit, however slightly, after which somebody should look; 1 to 86,400.
    pub candidate_after_s: u32,
    /// Seconds that the first one lasts, each further one twice as long; 1 to 604,800.
    pub first_s: u32,
    /// Seconds that one lasts at most; 1 to 604,800, and no less than `first_s`.
    pub longest_s: u32,
    /// Seconds that one set by a person lasts at most; 1 to 31,536,000 (a year).
    pub longest_by_hand_s: u32,
    /// Seconds that somebody must keep to the limit before it ends; 1 to 86,400.
    pub quiet_s: u32,
    /// Seconds after its end for which it makes the next one longer; 1 to 2,592,000 (30 days).
    pub remember_s: u32,
    /// Of the host's active ports, and of a port's active clients, so many may be in it at once, percent; 1 to 100. One
    /// always may.
    pub at_once_percent: u32,
    /// So many may begin within `window_s`; 1 to 1,000.
    pub new_per_window: u32,
    /// Seconds; 1 to 86,400.
    pub window_s: u32,
    /// None begins while more than this share of the active ports is over its limit, percent; 1 to 100.
    pub systemic_over_limit_percent: u32,
    /// Nor while servers answer less than this share of the requests, percent; 1 to 100.
    pub systemic_replies_percent: u32,
    /// In the last seconds, this many; 1 to 600.
    pub systemic_replies_window_s: u32,
    /// On so many ports at least, both; 1 to 4,096.
    pub systemic_ports: u32,
    /// Or, where there are fewer than four ports, of so many clients at least; 1 to 100,000.
    pub systemic_clients: u32,
    /// Seconds without either after which it is over; 1 to 86,400.
    pub systemic_over_after_s: u32,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self {
            automatic: true,
            rate_factor: 5,
            windows: 10,
            new_macs: 128,
            candidate_after_s: 300,
            first_s: 300,
            longest_s: 3600,
            longest_by_hand_s: 7 * DAY_S,
            quiet_s: 60,
            remember_s: DAY_S,
            // Envoy ejects at most 10 % of its hosts at once, and at least one.
            at_once_percent: 10,
            new_per_window: 3,
            window_s: 600,
            systemic_over_limit_percent: 50,
            systemic_replies_percent: 20,
            systemic_replies_window_s: 30,
            systemic_ports: 3,
            systemic_clients: 10,
            systemic_over_after_s: 60,
        }
    }
}

impl Quarantine {
    /// All its numbers.
    pub(super) fn numbers(&self) -> impl Iterator<Item = Number> {
        let numbers = [
            ("rate_factor", self.rate_factor, 2..=1_000),
            ("windows", self.windows, 1..=3_600),
            // More than some 5,000 in a second cannot be told from any number.
            ("new_macs", self.new_macs, 1..=5_000),
            ("candidate_after_s", self.candidate_after_s, 1..=DAY_S),
            ("first_s", self.first_s, 1..=7 * DAY_S),
            ("longest_s", self.longest_s, 1..=7 * DAY_S),
            ("longest_by_hand_s", self.longest_by_hand_s, 1..=365 * DAY_S),
            ("quiet_s", self.quiet_s, 1..=DAY_S),
            ("remember_s", self.remember_s, 1..=30 * DAY_S),
            ("at_once_percent", self.at_once_percent, 1..=100),
            ("new_per_window", self.new_per_window, 1..=1_000),
            ("window_s", self.window_s, 1..=DAY_S),
            ("systemic_over_limit_percent", self.systemic_over_limit_percent, 1..=100),
            ("systemic_replies_percent", self.systemic_replies_percent, 1..=100),
            ("systemic_replies_window_s", self.systemic_replies_window_s, 1..=600),
            ("systemic_ports", self.systemic_ports, 1..=4_096),
            ("systemic_clients", self.systemic_clients, 1..=100_000),
            ("systemic_over_after_s", self.systemic_over_after_s, 1..=DAY_S),
        ];
        numbers.into_iter().map(|(key, value, range)| (["quarantine", key].into(), value, range))
    }

    /// What no number by itself shows.
    pub(super) fn contradictions(&self) -> Option<Problem> {
        let (first, longest) = (self.first_s, self.longest_s);
        let kind = ProblemKind::FirstOverLongest { first, longest };
        (first > longest).then(|| Problem { line: None, key: ["quarantine", "first_s"].into(), kind })
    }
}

impl Config {
    /// What the governor holds every quarantine to.
    #[must_use]
    pub fn governor_rules(&self) -> governor::Rules {
        let own = &self.quarantine;
        governor::Rules {
            automatic: own.automatic,
            at_once_percent: own.at_once_percent,
            new_in_window: count(own.new_per_window),
            window: seconds(own.window_s),
            first: seconds(own.first_s),
            longest: seconds(own.longest_s),
            quiet: seconds(own.quiet_s),
            remember: seconds(own.remember_s),
            longest_by_hand: seconds(own.longest_by_hand_s),
            ..governor::Rules::default()
        }
    }

    /// When the engine finds that a quarantine is deserved.
    #[must_use]
    pub fn sanction_rules(&self) -> sanction::Rules {
        let own = &self.quarantine;
        sanction::Rules {
            factor: own.rate_factor.into(),
            windows: own.windows,
            new_macs: own.new_macs.into(),
            candidate_after: seconds(own.candidate_after_s),
        }
    }

    /// When the engine finds that nobody in particular is to blame.
    #[must_use]
    pub fn systemic_rules(&self) -> systemic::Rules {
        let own = &self.quarantine;
        systemic::Rules {
            over_limit_percent: own.systemic_over_limit_percent.into(),
            replies_percent: own.systemic_replies_percent.into(),
            replies_window: seconds(own.systemic_replies_window_s),
            ports: count(own.systemic_ports),
            clients: count(own.systemic_clients),
            over_after: seconds(own.systemic_over_after_s),
        }
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

fn count(count: u32) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(change: impl FnOnce(&mut Quarantine)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config.quarantine);
        config.validate().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_are_those_of_the_governor_and_the_engine() {
        let config = Config::default();
        assert_eq!(config.governor_rules(), governor::Rules::default());
        assert_eq!(config.sanction_rules(), sanction::Rules::default());
        assert_eq!(config.systemic_rules(), systemic::Rules::default());
    }

    /// Each key by itself, with a value that no other has.
    #[test]
    fn every_key_reaches_its_rule() {
        let text = "[quarantine]
            automatic = false
            rate_factor = 2
            windows = 3
            new_macs = 4
            candidate_after_s = 5
            first_s = 6
            longest_s = 7
            longest_by_hand_s = 8
            quiet_s = 9
            remember_s = 10
            at_once_percent = 11
            new_per_window = 12
            window_s = 13
            systemic_over_limit_percent = 14
            systemic_replies_percent = 15
            systemic_replies_window_s = 16
            systemic_ports = 17
            systemic_clients = 18
            systemic_over_after_s = 19";
        let config = Config::from_toml(text).unwrap();
        let governor = governor::Rules {
            automatic: false,
            first: seconds(6),
            longest: seconds(7),
            longest_by_hand: seconds(8),
            quiet: seconds(9),
            remember: seconds(10),
            at_once_percent: 11,
            new_in_window: 12,
            window: seconds(13),
            undo_depth: 10_000,
        };
        assert_eq!(config.governor_rules(), governor);
        let sanction = sanction::Rules { factor: 2, windows: 3, new_macs: 4, candidate_after: seconds(5) };
        assert_eq!(config.sanction_rules(), sanction);
        let systemic = systemic::Rules {
            over_limit_percent: 14,
            replies_percent: 15,
            replies_window: seconds(16),
            ports: 17,
            clients: 18,
            over_after: seconds(19),
        };
        assert_eq!(config.systemic_rules(), systemic);
    }

    #[test]
    fn each_number_has_its_range() {
        for (change, sentence) in [
            (
                (|q| q.rate_factor = 1) as fn(&mut Quarantine),
                "quarantine.rate_factor: 1 is out of range, use 2 to 1,000",
            ),
            (|q| q.windows = 0, "quarantine.windows: 0 is out of range, use 1 to 3,600"),
            (|q| q.new_macs = 5_001, "quarantine.new_macs: 5,001 is out of range, use 1 to 5,000"),
            (|q| q.candidate_after_s = 0, "quarantine.candidate_after_s: 0 is out of range, use 1 to 86,400"),
            (|q| q.first_s = 0, "quarantine.first_s: 0 is out of range, use 1 to 604,800"),
            (|q| q.longest_s = 604_801, "quarantine.longest_s: 604,801 is out of range, use 1 to 604,800"),
            (|q| q.longest_by_hand_s = 0, "quarantine.longest_by_hand_s: 0 is out of range, use 1 to 31,536,000"),
            (|q| q.quiet_s = 0, "quarantine.quiet_s: 0 is out of range, use 1 to 86,400"),
            (|q| q.remember_s = 0, "quarantine.remember_s: 0 is out of range, use 1 to 2,592,000"),
            (|q| q.at_once_percent = 101, "quarantine.at_once_percent: 101 is out of range, use 1 to 100"),
            (|q| q.new_per_window = 0, "quarantine.new_per_window: 0 is out of range, use 1 to 1,000"),
            (|q| q.window_s = 0, "quarantine.window_s: 0 is out of range, use 1 to 86,400"),
            (
                |q| q.systemic_over_limit_percent = 0,
                "quarantine.systemic_over_limit_percent: 0 is out of range, use 1 to 100",
            ),
            (
                |q| q.systemic_replies_percent = 101,
                "quarantine.systemic_replies_percent: 101 is out of range, use 1 to 100",
            ),
            (
                |q| q.systemic_replies_window_s = 601,
                "quarantine.systemic_replies_window_s: 601 is out of range, use 1 to 600",
            ),
            (|q| q.systemic_ports = 4_097, "quarantine.systemic_ports: 4,097 is out of range, use 1 to 4,096"),
            (|q| q.systemic_clients = 0, "quarantine.systemic_clients: 0 is out of range, use 1 to 100,000"),
            (|q| q.systemic_over_after_s = 0, "quarantine.systemic_over_after_s: 0 is out of range, use 1 to 86,400"),
        ] {
            assert_eq!(problems(change), [sentence]);
        }
        assert!(problems(|q| (q.first_s, q.quiet_s, q.window_s) = (1, 1, 1)).is_empty());
    }

    #[test]
    fn the_first_one_is_no_longer_than_the_longest() {
        assert_eq!(
            problems(|q| (q.first_s, q.longest_s) = (61, 60)),
            ["quarantine.first_s: 61 is more than quarantine.longest_s (60), lower it or raise the other"]
        );
        assert!(problems(|q| (q.first_s, q.longest_s) = (60, 60)).is_empty());
    }
}
