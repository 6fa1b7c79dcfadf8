//! Nanoseconds for one frame, by BPF_PROG_TEST_RUN: the program and nothing around it.
//!
//! **The clock.** The kernel reports whole nanoseconds for one run, too coarse for figures around 1. So it is the CPU
//! time of the calling thread over the whole system call that counts, less what a call costs that runs the program
//! twice: that is what it takes to change the kernel's XDP dispatcher, and most of it is waiting, which takes no CPU time.
//! Resolution: about 0.2 ns with the 100,000 runs of one call.
//!
//! **The neighbours.** On a shared machine everything may take a quarter longer for some milliseconds or seconds, and
//! nothing makes it faster. So a repetition is [`SLICES`] short runs of the control and of the guard in turns, and the
//! fastest of each count; figures are medians over the repetitions. One in which even the fastest control was slower, by
//! more than a tenth, than the fastest of all is taken again, for as long as there is patience. What the guard took is not
//! asked.
//!
//! **What it is not.** The same frame a million times: caches are warm and branches are predicted. It says what the
//! program adds at best; [`super::line_rate`] has the whole path.

use std::{cell::Cell, io};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, PerCpuArray, PerCpuValues},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use dhcp_guard::dataplane::{Spec, load::slot_of};
use dhcp_guard_common::{
    layout::{ClientMemo, CpuState, PortPolicy, Shared, policy_index},
    verdict::Reason,
};

use super::{
    Effort, Only,
    branches::{self, Branch, Expected},
    frames,
    machine::Cpus,
    spread::Spread,
};
use crate::{
    control::{self, Verdict},
    guard_run::{self, GuardRun, IFINDEX},
    orders::whole_port,
};

/// What one kind of frame costs.
#[derive(Clone, Debug)]
pub struct FrameFigure {
    /// Stable name.
    pub name: &'static str,
    /// The same for people.
    pub text: &'static str,
    /// Pass or drop.
    pub verdict: Verdict,
    /// The empty program.
    pub control_ns: Spread,
    /// The guard, less the control that ran next to it.
    pub over_control_ns: Spread,
    /// Promised.
    pub budget_ns: Option<f64>,
    /// Pairs that are in the figures although the machine was slow, because too many had been taken again already.
    pub pairs_disturbed: usize,
}

impl FrameFigure {
    /// Whether it breaks a promise.
    #[must_use]
    pub fn is_over_budget(&self) -> bool {
        self.budget_ns.is_some_and(|budget| self.over_control_ns.median > budget)
    }
}

/// Measures all branches, and first the control against itself.
///
/// # Errors
/// The kernel's; a branch that is not the one measured.
pub fn measure(effort: Effort, only: &Only, progress: &mut impl FnMut(&str)) -> Result<Vec<FrameFigure>> {
    let cpus = Cpus::current()?;
    // The memos and most counters are the CPU's own.
    cpus.last().keep_to()?;
    let figures = measure_all(effort, only, progress);
    cpus.keep_to()?;
    figures
}

fn measure_all(effort: Effort, only: &Only, progress: &mut impl FnMut(&str)) -> Result<Vec<FrameFigure>> {
    let meter = Meter { effort, overhead_ns: Controls::load()?.call_overhead_ns()?, fastest_ns: Cell::new(f64::MAX) };
    meter.find_pace()?;
    let mut figures = Vec::new();
    for (name, text, verdict) in [
        ("noise_pass", "noise: empty XDP_PASS against itself", Verdict::Pass),
        ("noise_drop", "noise: empty XDP_DROP against itself", Verdict::Drop),
    ] {
        if !only.includes(name) {
            continue;
        }
        progress(text);
        let pairs = meter.loads(|| {
            let (control, itself) = (Controls::load()?, Controls::load()?);
            Ok(meter.pairs(&frames::tcp_v4(), control.program(verdict)?, itself.program(verdict)?, verdict)?.pairs)
        })?;
        figures.push(figure(&pairs, (name, text), verdict, None)?);
    }
    for branch in branches::all().into_iter().filter(|branch| only.includes(branch.name)) {
        progress(branch.text);
        figures.push(meter.branch(&branch).with_context(|| format!("`{}`", branch.name))?);
    }
    Ok(figures)
}

fn figure(
    pairs: &[Pair],
    (name, text): (&'static str, &'static str),
    verdict: Verdict,
    budget_ns: Option<f64>,
) -> Result<FrameFigure> {
    let control: Vec<_> = pairs.iter().map(|pair| pair.control_ns).collect();
    let over: Vec<_> = pairs.iter().map(|pair| pair.guard_ns - pair.control_ns).collect();
    let (control_ns, over_control_ns) = (Spread::of(&control)?, Spread::of(&over)?);
    let pairs_disturbed = pairs.iter().filter(|pair| pair.disturbed).count();
    Ok(FrameFigure { name, text, verdict, control_ns, over_control_ns, budget_ns, pairs_disturbed })
}

/// Measured next to each other.
struct Pair {
    control_ns: f64,
    guard_ns: f64,
    /// The machine was slow.
    disturbed: bool,
}

/// The pairs of one load, and how often the guard ran for them.
struct Taken {
    pairs: Vec<Pair>,
    calls: u64,
}

/// How to measure.
struct Meter {
    effort: Effort,
    overhead_ns: f64,
    /// The fastest control so far.
    fastest_ns: Cell<f64>,
}

impl Meter {
    fn branch(&self, branch: &Branch) -> Result<FrameFigure> {
        let pairs = self.loads(|| self.load(branch))?;
        figure(&pairs, (branch.name, branch.text), branch.verdict, branch.budget_ns)
    }

    /// The pairs of all loads; see [`Effort::frame_loads`].
    fn loads(&self, mut load: impl FnMut() -> Result<Vec<Pair>>) -> Result<Vec<Pair>> {
        let mut pairs = Vec::new();
        for _ in 0..self.effort.frame_loads {
            pairs.extend(load()?);
        }
        Ok(pairs)
    }

    /// Loads guard and control, measures, and checks that it was the branch that was to be measured.
    fn load(&self, branch: &Branch) -> Result<Vec<Pair>> {
        let controls = Controls::load()?;
        let control = controls.program(branch.verdict)?;
        let mut guard = prepare(branch)?;
        let before = Counters::read(&mut guard)?;
        let Taken { pairs, calls } = self.pairs(&branch.frame, control, guard.plane().program()?, branch.verdict)?;
        let runs = u64::from(self.effort.frame_runs / SLICES) * calls;
        let counted = Counters::read(&mut guard)?.since(&before);
        let expected = Counters::expected(branch.expected, runs);
        ensure!(
            counted == expected,
            "this is not the branch that was to be measured: the counters should have moved by {expected:?}, and \
             moved by {counted:?}"
        );
        Ok(pairs)
    }

    /// Guard and control in turns.
    fn pairs(&self, frame: &[u8], control: &Xdp, guard: &Xdp, verdict: Verdict) -> Result<Taken> {
        let mut taken = Taken { pairs: Vec::new(), calls: 0 };
        let mut repetitions = 0;
        while taken.pairs.len() < self.effort.frame_pairs {
            let (mut control_ns, mut guard_ns) = (f64::MAX, f64::MAX);
            for _ in 0..SLICES {
                control_ns = control_ns.min(self.nanoseconds(control, frame, verdict)?);
                guard_ns = guard_ns.min(self.nanoseconds(guard, frame, verdict)?);
            }
            taken.calls += u64::from(SLICES);
            repetitions += 1;
            self.note_pace(control_ns);
            let pair = Pair { control_ns, guard_ns, disturbed: self.is_slow(control_ns) };
            let patience = repetitions <= MOST_AGAIN * self.effort.frame_pairs;
            if !(pair.disturbed && patience) {
                taken.pairs.push(pair);
            }
        }
        Ok(taken)
    }

    /// Runs the control some times, to know how fast it can be here.
    fn find_pace(&self) -> Result<()> {
        for _ in 0..PACE_LOADS {
            let controls = Controls::load()?;
            for _ in 0..PACE_LOADS {
                let pace = self.nanoseconds(controls.program(Verdict::Pass)?, &frames::tcp_v4(), Verdict::Pass)?;
                self.note_pace(pace);
            }
        }
        Ok(())
    }

    fn note_pace(&self, control_ns: f64) {
        self.fastest_ns.set(self.fastest_ns.get().min(control_ns));
    }

    fn is_slow(&self, control_ns: f64) -> bool {
        control_ns > self.fastest_ns.get() * SLOW
    }

    /// CPU time of one run, on average over all of a call.
    fn nanoseconds(&self, program: &Xdp, frame: &[u8], verdict: Verdict) -> Result<f64> {
        let runs = self.effort.frame_runs / SLICES;
        let total = cpu_time_ns(program, frame, runs, verdict)?;
        Ok((total - self.overhead_ns) / f64::from(runs))
    }
}

/// Runs of either program in one repetition.
pub const SLICES: u32 = 10;
/// How often at most pairs are taken again, as a multiple of the pairs asked for.
const MOST_AGAIN: usize = 10;
/// Loads and runs to find the machine's pace with.
const PACE_LOADS: usize = 5;
/// A control that takes so much longer than the fastest one shares its core with somebody. Loads of the same program
/// differ by less.
const SLOW: f64 = 1.1;

/// CPU time of one system call that runs `program` on `frame` so many times.
fn cpu_time_ns(program: &Xdp, frame: &[u8], runs: u32, verdict: Verdict) -> Result<f64> {
    let options = TestRunOptions { data_in: Some(frame), repeat: runs, ..TestRunOptions::default() };
    let start = thread_cpu_time_ns()?;
    let answer = program.test_run(options)?.return_value;
    let end = thread_cpu_time_ns()?;
    // `xdp_action` of include/uapi/linux/bpf.h.
    let expected = match verdict {
        Verdict::Drop => 1,
        Verdict::Pass => 2,
    };
    ensure!(answer == expected, "the program answered {answer}, not {expected} ({verdict:?})");
    Ok((end - start) as f64)
}

fn thread_cpu_time_ns() -> Result<i64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid clock id and a valid place for the result.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot read the thread's CPU time");
    }
    Ok(time.tv_sec * 1_000_000_000 + time.tv_nsec)
}

/// The empty programs.
struct Controls {
    pass: Ebpf,
    drop: Ebpf,
}

impl Controls {
    fn load() -> Result<Self> {
        let load = |name| -> Result<Ebpf> {
            let mut object = control::load_with(&mut EbpfLoader::new())?;
            control::program(&mut object, name)?;
            Ok(object)
        };
        Ok(Self { pass: load("pass")?, drop: load("drop")? })
    }

    fn program(&self, verdict: Verdict) -> Result<&Xdp> {
        let (object, name) = match verdict {
            Verdict::Pass => (&self.pass, "pass"),
            Verdict::Drop => (&self.drop, "drop"),
        };
        Ok(object.program(name).with_context(|| format!("no control program `{name}`"))?.try_into()?)
    }

    /// CPU time of a call that does next to nothing, but changes the dispatcher as a long one does.
    fn call_overhead_ns(&self) -> Result<f64> {
        const CALLS: usize = 11;
        let program = self.program(Verdict::Pass)?;
        let frame = frames::tcp_v4();
        let times = (0..CALLS).map(|_| cpu_time_ns(program, &frame, 2, Verdict::Pass)).collect::<Result<Vec<_>>>()?;
        Ok(Spread::of(&times)?.median)
    }
}

/// The guard in the state that the branch needs.
fn prepare(branch: &Branch) -> Result<GuardRun> {
    let port = |mac: &crate::mac::Mac| branch.ports.first().map(|port| (port.key, mac.0));
    let known_clients = branch.known.iter().filter_map(port).collect();
    let spec = Spec { known_clients, ..guard_run::spec(branch.ports.clone()) };
    let mut guard = GuardRun::new(&spec)?;
    set_limits(&mut guard, branch)?;
    if branch.muted {
        // For as long as any measurement, at any tick rate.
        let until = guard.snapshot()?.moment.ticks + (1 << 24);
        guard.mute(whole_port(0), until)?;
    }
    if branch.memos_taken {
        take_memos(&mut guard)?;
    }
    // One by one, on this thread: the memos are those of its CPU.
    for frame in &branch.before {
        let options = TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() };
        guard.plane().program()?.test_run(options)?;
    }
    Ok(guard)
}

/// Limits that no configuration can express; see [`branches`].
fn set_limits(guard: &mut GuardRun, branch: &Branch) -> Result<()> {
    let map = guard.plane().ebpf().map_mut("POLICIES").context("no map `POLICIES`")?;
    let mut policies: Array<_, PortPolicy> = map.try_into()?;
    for place in 0..branch.ports.len() {
        let slot = slot_of(place);
        let branches::Limits { total, strangers, new_clients, client } = branch.limits;
        let strangers = Shared {
            interval: strangers.interval,
            tolerance: strangers.tolerance,
            newcomer_tolerance: strangers.tolerance,
        };
        // Whichever bank is in force.
        for index in [policy_index(slot, 0), policy_index(slot, 1)] {
            let policy = policies.get(&index, 0)?;
            let limits = PortPolicy { total, strangers, new_clients, client_v4: client, client_v6: client, ..policy };
            policies.set(index, limits, 0)?;
        }
    }
    Ok(())
}

/// Gives every memo to a client that never appears, as many clients over their limit at the same time would.
fn take_memos(guard: &mut GuardRun) -> Result<()> {
    let version = guard.plane().version();
    let map = guard.plane().ebpf().map_mut("CPU").context("no map `CPU`")?;
    let mut cpus: PerCpuArray<_, CpuState> = map.try_into()?;
    let taken =
        ClientMemo { port: u64::from(IFINDEX), who: u64::MAX, version, until: u64::MAX, ..ClientMemo::default() };
    let with_memos = |cpu: &CpuState| CpuState { memos: [taken; _], memos_until: u64::MAX, ..*cpu };
    let values = cpus.get(&0, 0)?.iter().map(with_memos).collect::<Vec<_>>();
    cpus.set(0, PerCpuValues::try_from(values)?, 0)?;
    Ok(())
}

/// The program's own counts, as far as they tell the branches apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counters {
    /// Reasons with their counts, without those of 0.
    reasons: Vec<(Reason, u64)>,
    by_memo: u64,
    untracked: u64,
}

impl Counters {
    fn read(guard: &mut GuardRun) -> Result<Self> {
        let snapshot = guard.snapshot()?;
        let count =
            |reason: Reason| (0..snapshot.ports.len()).map(|slot| guard_run::count(&snapshot, slot, reason)).sum();
        Ok(Self {
            reasons: Reason::ALL.iter().map(|reason| (*reason, count(*reason))).collect(),
            by_memo: pending(guard)?,
            untracked: snapshot.troubles.untracked,
        })
    }

    /// What came to it since an earlier reading.
    fn since(&self, before: &Self) -> Self {
        let reasons = self.reasons.iter().zip(&before.reasons);
        Self {
            reasons: reasons.map(|(now, then)| (now.0, now.1 - then.1)).filter(|(_, count)| *count > 0).collect(),
            by_memo: self.by_memo - before.by_memo,
            untracked: self.untracked - before.untracked,
        }
    }

    /// What so many frames of one branch must come to.
    fn expected(branch: Expected, frames: u64) -> Self {
        let reasons = |reason| vec![(reason, frames)];
        match branch {
            // Nothing counts them.
            Expected::NotDhcp => Self::default(),
            Expected::Reason(reason) => Self { reasons: reasons(reason), ..Self::default() },
            Expected::Memo(reason) => Self { reasons: reasons(reason), by_memo: frames, ..Self::default() },
            Expected::Untracked(reason) => Self { reasons: reasons(reason), untracked: frames, ..Self::default() },
        }
    }
}

/// Frames that the memos have answered and not handed over.
fn pending(guard: &mut GuardRun) -> Result<u64> {
    Ok(guard.memos()?.iter().map(|memo| memo.pending).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_tell_the_branches_apart() {
        let before =
            Counters { reasons: vec![(Reason::PassKnown, 5), (Reason::DropClientLimit, 7)], by_memo: 1, untracked: 2 };
        let mut after = before.clone();
        after.reasons[1].1 += 10;
        after.by_memo += 10;
        let counted = after.since(&before);
        assert_eq!(counted, Counters::expected(Expected::Memo(Reason::DropClientLimit), 10));
        assert_ne!(counted, Counters::expected(Expected::Reason(Reason::DropClientLimit), 10));
        assert_ne!(counted, Counters::expected(Expected::Memo(Reason::DropClientLimit), 11));
    }

    #[test]
    fn a_budget_is_held_against_the_median() {
        let pairs = |over: f64| {
            (0..3).map(|_| Pair { control_ns: 25.0, guard_ns: 25.0 + over, disturbed: false }).collect::<Vec<_>>()
        };
        let over = |over, budget| figure(&pairs(over), ("a", "b"), Verdict::Pass, budget).unwrap().is_over_budget();
        assert!(!over(5.0, Some(5.0)));
        assert!(over(5.5, Some(5.0)));
        assert!(!over(500.0, None), "what is not promised cannot be broken");
    }
}
