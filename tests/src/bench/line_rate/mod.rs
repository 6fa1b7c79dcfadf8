//! Frames dropped per second on a veth, against an empty XDP_DROP and against what hosts have without the guard:
//! generator, driver and program together, on one CPU.
//!
//! Links side by side, one for each receiver, take turns, so that nothing is attached or detached during the
//! measurement. The rate is taken from the receiving interface's own counter while the flood runs, because its start
//! takes the kernel 24 ms and more.

mod receiver;
mod wire;

use anyhow::{Context as _, Result};

use self::{
    receiver::Receiver,
    wire::{Measured, TestBed},
};
use super::{Effort, Only, spread::Spread};
use crate::{
    flood::{Mode, Traffic},
    mac::Mac,
    packets::Tag,
};

/// What one kind of flood comes to.
#[derive(Clone, Debug)]
pub struct FloodFigure {
    /// Stable name.
    pub name: &'static str,
    /// The same for people.
    pub text: &'static str,
    /// Frames per second that the control drops.
    pub control_pps: Spread,
    /// Frames per second that the guard drops.
    pub guard_pps: Spread,
    /// The guard's as a share of the control's.
    pub ratio: Spread,
    /// Promised: at least this.
    pub budget_ratio: Option<f64>,
    /// What hosts have without the guard, on the same flood.
    pub others: Vec<Comparison>,
    /// Rounds that were taken again, because others used the CPU or the control itself was slow.
    pub rounds_repeated: usize,
    /// Rounds that are in the figures all the same, because too many had been taken again already. Not 0: the machine was
    /// too busy for this figure.
    pub rounds_disturbed: usize,
}

/// The guard against something that drops DHCP in its place.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Stable name.
    pub name: &'static str,
    /// The same for people.
    pub text: &'static str,
    /// Frames per second that it drops.
    pub pps: Spread,
    /// Frames per second that the guard drops, as a multiple of that.
    pub times: Spread,
    /// Promised: at least this.
    pub budget_times: Option<f64>,
}

impl FloodFigure {
    /// Whether it is the control against itself.
    #[must_use]
    pub fn is_noise(&self) -> bool {
        self.name.starts_with("noise")
    }

    /// Whether it breaks a promise.
    #[must_use]
    pub fn is_over_budget(&self) -> bool {
        self.budget_ratio.is_some_and(|budget| self.ratio.median < budget)
            || self.others.iter().any(Comparison::is_over_budget)
    }
}

impl Comparison {
    /// Whether it breaks a promise.
    #[must_use]
    pub fn is_over_budget(&self) -> bool {
        self.budget_times.is_some_and(|budget| self.times.median < budget)
    }
}

/// A flood to measure.
struct Kind {
    name: &'static str,
    text: &'static str,
    traffic: Traffic,
    budget_ratio: Option<f64>,
    /// Whom it is measured against: the control first, then the guard or, for the noise, a second control.
    receivers: &'static [What],
}

/// What is to be on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Control,
    Guard,
    Nftables,
    Stack,
}

const SEED: u64 = 0x6463_7067_7561_7264;
const BASE: Mac = Mac([2, 0, 0xf1, 0, 0, 0]);
/// Design §9.
const ONE_MAC_BUDGET: f64 = 0.88;
const RANDOM_MACS_BUDGET: f64 = 0.85;
const NFTABLES_BUDGET: f64 = 4.0;

fn kinds() -> [Kind; 6] {
    const NOISE: &[What] = &[What::Control, What::Control];
    const ALONE: &[What] = &[What::Control, What::Guard];
    const ALL: &[What] = &[What::Control, What::Guard, What::Nftables, What::Stack];
    let kind = |name, text, mode: Mode, budget_ratio, receivers| {
        let traffic = Traffic::from(mode);
        Kind { name, text, traffic, budget_ratio, receivers }
    };
    let macs = |count| Mode::Macs { base: BASE, count };
    let everything = Traffic::from(Mode::RandomAll { seed: SEED }).tagged(&[Tag::s(1), Tag::c(1)]).with_random_vlans();
    [
        kind("noise_flood", "noise: empty XDP_DROP against itself", Mode::One(BASE), None, NOISE),
        kind("flood_one_mac", "one MAC", Mode::One(BASE), Some(ONE_MAC_BUDGET), ALL),
        kind("flood_1000_macs", "1,000 MACs in turn", macs(1000), None, ALL),
        kind("flood_4096_macs", "4,096 MACs in turn", macs(4096), None, ALONE),
        kind("flood_random_macs", "random MACs", Mode::Random { seed: SEED }, Some(RANDOM_MACS_BUDGET), ALL),
        Kind {
            name: "flood_random_everything",
            text: "random MACs, VLANs, messages",
            traffic: everything,
            budget_ratio: None,
            receivers: ALONE,
        },
    ]
}

/// Measures all floods.
///
/// # Errors
/// The kernel's; a guard, or a packet filter, that did not drop the flood.
pub fn measure(effort: Effort, only: &Only, progress: &mut impl FnMut(&str)) -> Result<Vec<FloodFigure>> {
    let mut figures = Vec::new();
    for kind in kinds().into_iter().filter(|kind| only.includes(kind.name)) {
        progress(&format!("flood: {}", kind.text));
        figures.push(measure_kind(&kind, effort).with_context(|| format!("`{}`", kind.name))?);
    }
    Ok(figures)
}

fn measure_kind(kind: &Kind, effort: Effort) -> Result<FloodFigure> {
    let bed = TestBed::new(kind.receivers.len())?;
    let mut receivers = Vec::new();
    for (link, what) in kind.receivers.iter().enumerate() {
        receivers.push(Receiver::new(&bed, link, *what).with_context(|| format!("{what:?}"))?);
    }
    let rounds = Rounds::take(effort, kind.receivers.len(), |link| {
        receivers[link]
            .rate(&bed, &kind.traffic, effort.flood_time)
            .with_context(|| format!("{:?}", kind.receivers[link]))
    })?;
    let others = kind.receivers.iter().enumerate().skip(2);
    Ok(FloodFigure {
        name: kind.name,
        text: kind.text,
        control_pps: rounds.pps(0)?,
        guard_pps: rounds.pps(1)?,
        ratio: rounds.guard_against(0)?,
        budget_ratio: kind.budget_ratio,
        others: others.map(|(link, what)| rounds.comparison(link, *what)).collect::<Result<_>>()?,
        rounds_repeated: rounds.repeated,
        rounds_disturbed: rounds.disturbed,
    })
}

/// How often at most rounds are taken again, as a multiple of the rounds asked for: where neighbours are busy all the
/// time, more patience only takes longer.
const MOST_AGAIN: usize = 2;
/// A round in which the control itself reached less than this share of its best says more about the machine.
const SLOW: f64 = 0.94;

/// One round: frames per second on every link.
#[derive(Clone, Debug)]
struct Round {
    /// In the order of the links.
    pps: Vec<f64>,
    /// Others used the CPU.
    disturbed: bool,
}

/// Frames per second on every link, one after the other, again and again.
#[derive(Debug, Default)]
struct Rounds {
    /// One list for each round, in the order of the links.
    pps: Vec<Vec<f64>>,
    repeated: usize,
    disturbed: usize,
}

impl Rounds {
    /// Who comes first changes from round to round, so that what changes slowly favours nobody. The first round warms up
    /// and does not count.
    fn take(effort: Effort, links: usize, mut rate: impl FnMut(usize) -> Result<Measured>) -> Result<Self> {
        let mut rounds: Vec<Round> = Vec::new();
        for number in 0..=effort.flood_rounds * (1 + MOST_AGAIN) {
            let mut round = Round { pps: vec![0.0; links], disturbed: false };
            for turn in 0..links {
                let link = (number + turn) % links;
                let measured = rate(link)?;
                round.pps[link] = measured.pps;
                round.disturbed |= measured.is_disturbed();
            }
            if number > 0 {
                rounds.push(round);
            }
            if Self::part(&rounds).0.len() == effort.flood_rounds {
                break;
            }
        }
        Ok(Self::of(&rounds, effort.flood_rounds))
    }

    /// The rounds in which nobody took much of the CPU, and the control was about as fast as it can be; and the others.
    /// What the guard did is not asked.
    fn part(rounds: &[Round]) -> (Vec<&Round>, Vec<&Round>) {
        let best = rounds.iter().map(|round| round.pps[0]).fold(0.0, f64::max);
        rounds.iter().partition(|round| !round.disturbed && round.pps[0] >= SLOW * best)
    }

    /// The quiet rounds; if there are too few, the latest of the others, too.
    fn of(rounds: &[Round], wanted: usize) -> Self {
        let (quiet, others) = Self::part(rounds);
        let disturbed = wanted.saturating_sub(quiet.len());
        let taken = quiet.into_iter().chain(others.into_iter().rev().take(disturbed));
        let pps = taken.map(|round| round.pps.clone()).collect();
        Self { pps, repeated: rounds.len() - wanted.min(rounds.len()), disturbed }
    }

    fn pps(&self, link: usize) -> Result<Spread> {
        Spread::of(&self.pps.iter().map(|round| round[link]).collect::<Vec<_>>())
    }

    /// The guard's frames as a multiple of another link's, round by round.
    fn guard_against(&self, link: usize) -> Result<Spread> {
        Spread::of(&self.pps.iter().map(|round| round[1] / round[link]).collect::<Vec<_>>())
    }

    fn comparison(&self, link: usize, what: What) -> Result<Comparison> {
        let (name, text, budget_times) = match what {
            What::Control => ("control", "empty XDP_DROP", None),
            What::Guard => ("guard", "guard", None),
            What::Nftables => ("nftables", "nftables, same limits", Some(NFTABLES_BUDGET)),
            What::Stack => ("stack", "bare stack", None),
        };
        Ok(Comparison { name, text, pps: self.pps(link)?, times: self.guard_against(link)?, budget_times })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(disturbed: impl Fn(usize) -> bool) -> Rounds {
        let effort = Effort { flood_rounds: 2, ..Effort::QUICK };
        let mut calls = 0;
        Rounds::take(effort, 2, |link| {
            calls += 1;
            Ok(Measured::for_tests([4e6, 3e6][link], if disturbed((calls - 1) / 2) { 0.5 } else { 0.0 }))
        })
        .unwrap()
    }

    #[test]
    fn rounds_are_compared_link_by_link() {
        let rounds = rounds(|_| false);
        assert_eq!((rounds.pps.len(), rounds.repeated, rounds.disturbed), (2, 0, 0));
        assert_eq!(rounds.pps(0).unwrap().median, 4e6);
        assert_eq!(rounds.guard_against(0).unwrap().max, 0.75);
    }

    #[test]
    fn disturbed_rounds_are_taken_again_but_not_for_ever() {
        let once = rounds(|round| round == 1);
        assert_eq!((once.pps.len(), once.repeated, once.disturbed), (2, 1, 0));
        let always = rounds(|_| true);
        assert_eq!((always.pps.len(), always.repeated, always.disturbed), (2, 4, 2));
    }

    #[test]
    fn rounds_with_a_slow_control_are_taken_again_whatever_the_guard_did() {
        let effort = Effort { flood_rounds: 2, ..Effort::QUICK };
        let mut control = [1.0, 3.0, 4.0, 3.0, 4.0].into_iter();
        let rounds = Rounds::take(effort, 2, |link| {
            Ok(Measured::for_tests(if link == 0 { control.next().unwrap() * 1e6 } else { 2e6 }, 0.0))
        })
        .unwrap();
        assert_eq!((rounds.pps, rounds.repeated, rounds.disturbed), (vec![vec![4e6, 2e6]; 2], 2, 0));
    }

    #[test]
    fn names_are_stable_and_differ() {
        let names: std::collections::BTreeSet<_> = kinds().iter().map(|kind| kind.name).collect();
        assert_eq!(names.len(), kinds().len());
        assert!(kinds().iter().all(|kind| kind.receivers.len() >= 2 && kind.receivers[0] == What::Control));
    }
}
