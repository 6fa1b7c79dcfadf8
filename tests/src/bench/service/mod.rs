//! Who still gets a lease while a flood runs: real clients, a real server, the real agent.
//!
//! Every row is a lab of its own ([`Layout::Mixed`]). Behind its uplink, where the flood comes in, are strangers and
//! known clients; the others are on interfaces of their own. Half of each group has leases from before the flood and
//! renews them, the other half asks for the first time; they begin one shortly after the other, and each has
//! [`Effort::service_patience`].
//!
//! **What the lab itself loses.** The ring of the veth in front of the guard has 256 places, and a flood at full rate can
//! have them all. A client's frame that finds no place is gone before the guard can judge it, as on a real card whose
//! queue is full; such frames are counted and shown, not hidden.

mod flooding;

use std::{fmt::Write as _, ops::Range, time::Duration};

use anyhow::{Context as _, Result, ensure};

use self::flooding::{Flooding, Running};
use super::{Effort, Only, spread::Spread};
use crate::{
    agent::Agent,
    client::{self, Client, Outcome, leases},
    link,
    topology::{Lab, Layout},
};

/// Between two machines that begin to ask, so that the latencies are not those of sixty processes on two CPUs.
const APART: Duration = Duration::from_millis(30);
/// How long machines may take to get a lease while nothing is wrong.
const IN_PEACE: Duration = Duration::from_secs(20);

/// What became of everybody during one flood.
#[derive(Clone, Debug)]
pub struct ServiceFigure {
    /// Stable name.
    pub name: &'static str,
    /// The same for people.
    pub text: &'static str,
    /// Whether the agent ran.
    pub guarded: bool,
    /// Frames of the flood that came in by the uplink, per second, while the machines tried.
    pub flood_pps: f64,
    /// Ordinary frames that found no place in the ring in front of the guard. When the flood has its full rate these are
    /// the machines' own; else frames of the flood are among them.
    pub lost_before_guard: u64,
    /// One for each group.
    pub groups: Vec<GroupFigure>,
}

/// What became of one group.
#[derive(Clone, Debug)]
pub struct GroupFigure {
    /// Which.
    pub group: Group,
    /// Those who asked for the first time.
    pub first_lease: Served,
    /// Those who had a lease.
    pub renewal: Served,
    /// Whether all of them have to be served.
    pub promised: bool,
}

/// How many of some machines were served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Served {
    /// Machines that asked.
    pub asked: usize,
    /// Of these, those that had a lease in time.
    pub served: usize,
    /// From their first message to the lease, in milliseconds; of those that were served, if any was.
    pub latency_ms: Option<Spread>,
}

/// Machines that a flood concerns alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// On the flooded port, and nobody told the agent about them.
    Strangers,
    /// On the flooded port, and named in the agent's configuration.
    Known,
    /// Each on a port of its own.
    Elsewhere,
}

impl Group {
    /// In the order of the machines.
    pub const ALL: [Self; 3] = [Self::Strangers, Self::Known, Self::Elsewhere];

    /// Stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Strangers => "strangers",
            Self::Known => "known_clients",
            Self::Elsewhere => "other_ports",
        }
    }

    /// The same for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Strangers => "strangers on its port",
            Self::Known => "known clients on its port",
            Self::Elsewhere => "machines on other ports",
        }
    }

    /// Which machines, when each half of a group has this many.
    fn machines(self, half: usize) -> Range<usize> {
        let start = self as usize * 2 * half;
        start..start + 2 * half
    }
}

impl Served {
    fn of(outcomes: &[Outcome]) -> Result<Self> {
        let leases = leases(outcomes);
        let latency_ms: Vec<_> = leases.iter().map(|lease| lease.exchange.as_secs_f64() * 1e3).collect();
        let latency_ms = if latency_ms.is_empty() { None } else { Some(Spread::of(&latency_ms)?) };
        Ok(Self { asked: outcomes.len(), served: leases.len(), latency_ms })
    }

    /// Whether everybody was.
    #[must_use]
    pub fn all(&self) -> bool {
        self.served == self.asked
    }
}

impl GroupFigure {
    /// Whether a promise is broken.
    #[must_use]
    pub fn is_over_budget(&self) -> bool {
        self.promised && !(self.first_lease.all() && self.renewal.all())
    }
}

impl ServiceFigure {
    /// Whether a promise is broken.
    #[must_use]
    pub fn is_over_budget(&self) -> bool {
        self.groups.iter().any(GroupFigure::is_over_budget)
    }
}

/// A row of the table.
struct Row {
    name: &'static str,
    text: &'static str,
    flooding: Flooding,
    guarded: bool,
    /// Whether it is in a first look, too.
    quick: bool,
}

fn rows() -> [Row; 8] {
    let row = |name, text, flooding| Row { name, text, flooding, guarded: true, quick: false };
    let without = |row| Row { guarded: false, ..row };
    let quick = |row| Row { quick: true, ..row };
    let random = |rate_pps| Flooding::RandomMacs { rate_pps };
    [
        quick(row("service_no_flood", "no flood", Flooding::None)),
        quick(row("service_one_mac", "one MAC, full rate", Flooding::OneMac)),
        row("service_random_1k", "random MACs, 1,000/s", random(Some(1_000))),
        row("service_random_10k", "random MACs, 10,000/s", random(Some(10_000))),
        row("service_random_100k", "random MACs, 100,000/s", random(Some(100_000))),
        quick(row("service_random_full", "random MACs, full rate", random(None))),
        quick(without(row("service_one_mac_unguarded", "one MAC, full rate", Flooding::OneMac))),
        without(row("service_random_100k_unguarded", "random MACs, 100,000/s", random(Some(100_000)))),
    ]
}

/// Measures all rows.
///
/// # Errors
/// A lab or an agent that does not start; machines that get no lease in peace.
pub fn measure(effort: Effort, only: &Only, progress: &mut impl FnMut(&str)) -> Result<Vec<ServiceFigure>> {
    let mut figures = Vec::new();
    // Who names a row wants it.
    let wanted = |row: &Row| only.includes(row.name) && (row.quick || effort.all_services || !only.0.is_empty());
    for row in rows().into_iter().filter(wanted) {
        progress(&format!("service: {}{}", row.text, if row.guarded { "" } else { ", without the guard" }));
        figures.push(measure_row(&row, effort).with_context(|| format!("`{}`", row.name))?);
    }
    Ok(figures)
}

fn measure_row(row: &Row, effort: Effort) -> Result<ServiceFigure> {
    let half = effort.service_machines;
    let lab = Lab::new(Layout::Mixed { behind_uplink: Group::Elsewhere.machines(half).start }, 6 * half)?;
    let agent =
        if row.guarded { Some(Agent::start(&lab.host, &lab.guarded(), &known_clients(&lab, half))?) } else { None };
    let (mut first, mut renewing) = (Vec::new(), Vec::new());
    for group in Group::ALL {
        let Range { start, end } = group.machines(half);
        first.extend(lab.clients(start..start + half)?);
        renewing.extend(lab.clients(start + half..end)?);
    }
    let in_peace = client::run_all(&mut renewing, IN_PEACE)?;
    ensure!(leases(&in_peace).len() == in_peace.len(), "not all machines get a lease in peace: {in_peace:?}");

    let from = lab.injection(0);
    let lost_before = link::sent_lost(&from.netns, &from.interface)?;
    let running = Running::start(&row.flooding, &lab, row.guarded)?;
    let outcomes = ask(first, renewing, effort.service_patience)?;
    let flood_pps = running.stop()?;
    let lost_before_guard = link::sent_lost(&from.netns, &from.interface)? - lost_before;
    drop(agent);
    let groups = Group::ALL.into_iter().map(|group| {
        let of = |outcomes: &[Outcome]| Served::of(&outcomes[group as usize * half..][..half]);
        let (first_lease, renewal) = (of(&outcomes.0)?, of(&outcomes.1)?);
        let promised = row.guarded && row.flooding.promises(group);
        Ok(GroupFigure { group, first_lease, renewal, promised })
    });
    let groups = groups.collect::<Result<_>>()?;
    let Row { name, text, guarded, .. } = *row;
    Ok(ServiceFigure { name, text, guarded, flood_pps, lost_before_guard, groups })
}

/// Has both halves ask, one machine shortly after the other.
fn ask(mut first: Vec<Client>, renewing: Vec<Client>, patience: Duration) -> Result<(Vec<Outcome>, Vec<Outcome>)> {
    let half = first.len();
    first.extend(renewing);
    let mut outcomes = client::run_paced(&mut first, APART, patience)?;
    let renewed = outcomes.split_off(half);
    Ok((outcomes, renewed))
}

/// The agent's configuration.
fn known_clients(lab: &Lab, half: usize) -> String {
    let mut config = String::new();
    for machine in &lab.machines[Group::Known.machines(half)] {
        let (interface, mac) = (&machine.guarded, machine.mac);
        writeln!(config, "[[known_client]]\ninterface = \"{interface}\"\nmac = \"{mac}\"")
            .expect("writing to a string cannot fail");
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_share_no_machine() {
        assert_eq!(Group::ALL.map(|group| group.machines(3)), [0..6, 6..12, 12..18]);
    }

    #[test]
    fn a_promise_is_about_everybody_in_both_halves() {
        let served = |served| Served { asked: 3, served, latency_ms: None };
        let group = |first, renewed, promised| GroupFigure {
            group: Group::Known,
            first_lease: served(first),
            renewal: served(renewed),
            promised,
        };
        assert!(!group(3, 3, true).is_over_budget());
        assert!(group(2, 3, true).is_over_budget() && group(3, 2, true).is_over_budget());
        assert!(!group(0, 0, false).is_over_budget());
    }

    #[test]
    fn names_are_stable_and_differ() {
        let names: std::collections::BTreeSet<_> = rows().iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows().len());
        assert!(names.iter().all(|name| name.starts_with("service_")));
    }
}
