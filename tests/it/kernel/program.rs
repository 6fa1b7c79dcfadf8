//! The program itself: its events, its clock, its log, what the verifier thinks of it.

use std::{
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use dhcp_guard::dataplane::{PortSpec, Spec, clock};
use dhcp_guard_common::layout::{EVENT_CLIENT_OVER_LIMIT, EVENT_PORT_OVER_LIMIT, UNATTENDED_S};
use libtest_mimic::Trial;
use tests::{
    guard_run::{GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    packets::discover,
    program::Program,
};

use super::{KERNEL, burst_only, discovers, refill};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: events are told once, not for every packet", KERNEL, events_once),
        trial("kernel: a storm of state changes stays within the events' budget", KERNEL, event_budget),
        trial("kernel: what happens while no agent gives a sign of life is counted apart", KERNEL, unattended),
        trial("kernel: the clock ticks as user space believes", KERNEL, ticks),
        trial("kernel: the debug log is free when it is off", KERNEL, debug_log_is_free),
        trial("kernel: the program is far from the verifier's limits", KERNEL, verifier_margin),
    ]
}

fn events_once() -> Result<()> {
    let limits = PortSpec { client_v4: burst_only(5), strangers: burst_only(30), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    guard.repeat(&discover(Mac::machine(0)).bytes(), 100_000)?;
    let others = discovers(1..501);
    guard.send_all(&others)?;
    let kinds: Vec<u32> = guard.events().iter().map(|event| event.kind).collect();
    ensure!(kinds == [EVENT_CLIENT_OVER_LIMIT, EVENT_PORT_OVER_LIMIT], "{kinds:?}");
    Ok(())
}

fn event_budget() -> Result<()> {
    let start = Instant::now();
    let mut guard = GuardRun::new(&spec(vec![PortSpec { client_v4: burst_only(1), ..port(0, 0) }]))?;
    // Each of these clients goes over its limit with its second packet.
    let frames: Vec<_> =
        (0..2000).flat_map(|i| [discover(Mac::machine(i)).bytes(), discover(Mac::machine(i)).bytes()]).collect();
    guard.send_all(&frames)?;
    let cpus = thread::available_parallelism()?.get() as u64;
    let allowed = cpus * (128 + 64 * refill(start));
    let suppressed = guard.snapshot()?.troubles.events_suppressed;
    let sent = guard.events().len() as u64;
    ensure!(sent >= 128 && sent <= allowed, "{sent} events sent, {allowed} allowed");
    ensure!(sent + suppressed == 2000, "{sent} sent and {suppressed} suppressed of 2000 state changes");
    Ok(())
}

/// The program knows how old the agent's latest word is.
fn unattended() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![PortSpec { client_v4: burst_only(1), ..port(0, 0) }]))?;
    let seconds = |n: u64| n * u64::from(clock::ticks_per_s());
    // The second packet of each of these machines is a state change: how many of them nobody was there to hear.
    let mut unheard = |mut machines: Range<usize>, word_age: Option<u64>| -> Result<u64> {
        let before = guard.snapshot()?;
        if let Some(age) = word_age {
            guard.plane().beat(before.moment.ticks - age);
        }
        machines.try_for_each(|i| guard.repeat(&discover(Mac::machine(i)).bytes(), 2).map(drop))?;
        Ok(guard.snapshot()?.troubles.events_unheard - before.troubles.events_unheard)
    };
    ensure!(unheard(0..3, None)? == 0, "an agent that has just loaded the program is there");
    ensure!(unheard(3..6, Some(seconds(UNATTENDED_S - 2)))? == 0, "its word is not old yet");
    ensure!(unheard(6..9, Some(seconds(UNATTENDED_S + 1)))? == 3, "its word is too old");
    ensure!(unheard(9..12, Some(0))? == 0, "it is there again");
    ensure!(guard.events().len() == 12, "whoever is only late still hears of them");
    Ok(())
}

/// The limiters believe in `ticks_per_s`. Two readings, far enough apart, must agree with the wall clock. On an emulated
/// machine ticks may come late and many at once, so one of several pairs must; a wrong rate agrees with none.
fn ticks() -> Result<()> {
    const PAIRS: usize = 5;
    let tick = 1.0 / f64::from(clock::ticks_per_s());
    let mut guard = GuardRun::new(&spec(vec![]))?;
    let mut seen = Vec::new();
    for _ in 0..PAIRS {
        let first = guard.snapshot()?.moment;
        // why: the passing of real time is what is measured.
        thread::sleep(Duration::from_millis(400));
        let second = guard.snapshot()?.moment;
        let elapsed = (second.monotonic - first.monotonic).as_secs_f64();
        let ticked = (second.ticks - first.ticks) as f64 * tick;
        if (elapsed - ticked).abs() <= 2.5 * tick {
            return Ok(());
        }
        seen.push(format!("{elapsed:.4} s by the clock are {ticked:.4} s by the ticks"));
    }
    bail!("{}", seen.join(", "))
}

/// Off, the log is not a branch that is never taken: the verifier has removed it.
fn debug_log_is_free() -> Result<()> {
    let size = |debug_kernel| -> Result<u32> {
        let mut guard = GuardRun::new(&Spec { debug_kernel, ..spec(vec![port(0, 0)]) })?;
        Ok(Program::of(guard.plane())?.info()?.size_translated().unwrap_or(0))
    };
    let (off, on) = (size(false)?, size(true)?);
    ensure!(off > 0 && off < on, "{off} bytes without the log, {on} with it");
    Ok(())
}

/// The verifier gives up at a million instructions, and half of that leaves room.
///
/// How much of a program a verifier looks at again and again is another number with each kernel (`cargo xtask vm --group load`
/// tells): from a seventh to half of what it may come to. More than that is for kernels to come.
fn verifier_margin() -> Result<()> {
    const LIMIT: u32 = 1_000_000;
    let start = Instant::now();
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    let info = Program::of(guard.plane())?.info()?;
    let took = start.elapsed();
    let processed = info.verified_instruction_count().unwrap_or(0);
    println!("verifier: {processed} instructions processed, limit {LIMIT}; loaded in {:.1} s", took.as_secs_f64());
    ensure!(
        processed > 0 && processed <= LIMIT / 2,
        "{processed} instructions processed, at most {} are wanted",
        LIMIT / 2
    );
    Ok(())
}
