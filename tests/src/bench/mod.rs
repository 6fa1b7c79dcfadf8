//! What the guard costs, always against a control measured in the same run.
//!
//! * [`per_frame`]: nanoseconds for each kind of frame ([`branches`]), over an empty program with the same verdict.
//! * [`line_rate`]: how much of a flood over a veth is dropped each second, against an empty XDP_DROP, nftables and the
//!   bare stack.
//! * [`service`]: who still gets a lease while a flood runs, and how fast.
//! * [`footprint`]: what the verifier had to do, and the memory of the maps.
//! * [`report`]: all of it as a table, as JSON and as a picture; [`spread`], [`machine`] and [`contention`] are what makes the figures
//!   honest.
//!
//! Machines are noisy, shared and of changing speed. So guard and control take turns, every figure is the median of many
//! such pairs and shown with its extremes, and the control is also measured against itself: what comes out of that is
//! noise, and no smaller difference means anything.

pub mod branches;
pub mod contention;
pub mod footprint;
pub mod frames;
pub mod line_rate;
pub mod machine;
pub mod per_frame;
pub mod report;
pub mod service;
pub mod spread;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use self::{
    footprint::Footprint, line_rate::FloodFigure, machine::Machine, per_frame::FrameFigure, service::ServiceFigure,
};

/// How thoroughly to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// How often guard and control are loaded anew for each kind of frame: where the kernel puts a program decides how
    /// its jumps share cache lines and predictors, which is worth a nanosecond and stays for as long as it is loaded.
    pub frame_loads: usize,
    /// Pairs of guard and control for each of these.
    pub frame_pairs: usize,
    /// Runs of the program in each of them.
    pub frame_runs: u32,
    /// Rounds of guard, control and whoever else is compared, for each kind of flood.
    pub flood_rounds: usize,
    /// How long each flood is measured.
    pub flood_time: Duration,
    /// Machines in each half of each group that asks for leases under a flood.
    pub service_machines: usize,
    /// Under all floods; else only under some, because whoever is not served takes all of its patience.
    pub all_services: bool,
    /// How long each of them tries.
    pub service_patience: Duration,
    /// How often the program is loaded.
    pub loads: usize,
}

impl Effort {
    /// Figures to be quoted; takes six to nine minutes, the longer the busier the machine is.
    pub const FULL: Self = Self {
        frame_loads: 5,
        frame_pairs: 2,
        frame_runs: 1_000_000,
        flood_rounds: 11,
        flood_time: Duration::from_millis(400),
        service_machines: 10,
        all_services: true,
        // Three tries (RFC 2131, section 4.1).
        service_patience: Duration::from_secs(20),
        loads: 11,
    };
    /// A first look; takes two minutes.
    pub const QUICK: Self = Self {
        frame_loads: 3,
        frame_pairs: 2,
        frame_runs: 1_000_000,
        flood_rounds: 3,
        flood_time: Duration::from_millis(200),
        service_machines: 3,
        all_services: false,
        service_patience: Duration::from_secs(20),
        loads: 3,
    };
}

/// Which figures are wanted: those with one of these words in their name, or all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Only(pub Vec<String>);

impl Only {
    /// Whether the figure of this name is wanted.
    #[must_use]
    pub fn includes(&self, name: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|word| name.contains(word.as_str()))
    }
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Where.
    pub machine: Machine,
    /// How thoroughly.
    pub effort: Effort,
    /// One for each kind of frame.
    pub frames: Vec<FrameFigure>,
    /// One for each kind of flood.
    pub floods: Vec<FloodFigure>,
    /// One for each flood that machines had to live with.
    pub service: Vec<ServiceFigure>,
    /// Verifier and memory.
    pub footprint: Footprint,
}

impl Figures {
    /// The figures that are over a budget which this version promises, by name.
    #[must_use]
    pub fn over_budget(&self) -> Vec<&'static str> {
        let frames = self.frames.iter().filter(|figure| figure.is_over_budget()).map(|figure| figure.name);
        let floods = self.floods.iter().filter(|figure| figure.is_over_budget()).map(|figure| figure.name);
        let service = self.service.iter().filter(|figure| figure.is_over_budget()).map(|figure| figure.name);
        frames.chain(floods).chain(service).collect()
    }
}

/// Measures what is wanted, and loading in any case. `progress` is told what comes next.
///
/// # Errors
/// If something cannot be measured, or if the program's own counters say that it did not do what was to be measured.
pub fn measure(effort: Effort, only: &Only, mut progress: impl FnMut(&str)) -> Result<Figures> {
    let machine = Machine::describe();
    progress("verifier and memory");
    let footprint = footprint::measure(effort.loads).context("verifier and memory")?;
    let frames = per_frame::measure(effort, only, &mut progress).context("nanoseconds per frame")?;
    let floods = line_rate::measure(effort, only, &mut progress).context("floods over a veth")?;
    let service = service::measure(effort, only, &mut progress).context("service under floods")?;
    let nothing = frames.is_empty() && floods.is_empty() && service.is_empty();
    ensure!(!nothing, "no figure has one of the words {:?} in its name", only.0);
    Ok(Figures { machine, effort, frames, floods, service, footprint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_some_or_all() {
        let some = Only(vec!["tcp".into(), "flood".into()]);
        assert!(some.includes("tcp_ipv4") && some.includes("noise_flood"));
        assert!(!some.includes("arp"));
        assert!(Only::default().includes("arp"));
    }
}
