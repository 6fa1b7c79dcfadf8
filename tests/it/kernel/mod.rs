//! The program's rules, run in the kernel on frames of an independent builder.
//!
//! * [`limits`]: what one client may send, and how it is counted.
//! * [`strangers`]: what those share who are not known, and what becomes of their entries.
//! * [`short_way`]: that what a CPU remembers changes no verdict and no count.
//! * [`ports`], [`host`]: what a port and all ports together may send.
//! * [`servers`], [`senders`], [`allowlist`]: who sends, and what follows from that.
//! * [`quarantine`], [`isolation`]: who may not send for a while; [`orders`]: who says so.
//! * [`replies`]: what servers send, on its way out; [`tcx`]: what is different at that hook.
//! * [`known`], [`policy`]: what user space changes while the program runs.
//! * [`mayhem`], [`contention`]: that nothing is lost, whatever comes, on however many CPUs.
//! * [`program`]: the program itself: events, clock, log, verifier.

mod allowlist;
mod contention;
mod host;
mod isolation;
mod known;
mod limits;
mod mayhem;
mod orders;
mod policy;
mod ports;
mod program;
mod quarantine;
pub(crate) mod replies;
mod retire;
mod senders;
mod servers;
mod shapes;
mod short_way;
mod strangers;
mod tcx;

use std::{
    ops::{Add, Range, RangeInclusive},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use dhcp_guard::dataplane::{Snapshot, clock, load::slot_of, snapshot::ClientSample};
use dhcp_guard_common::{
    layout::ClientKey,
    verdict::{Note, Reason},
};
use libtest_mimic::Trial;
use tests::{
    guard_run::{Fate, GuardRun},
    harness::Need,
    mac::Mac,
    packets::discover,
};

pub(crate) const KERNEL: &[Need] = &[Need::Root, Need::BpfObject];

pub(crate) fn trials() -> Vec<Trial> {
    [
        limits::trials(),
        strangers::trials(),
        short_way::trials(),
        ports::trials(),
        host::trials(),
        servers::trials(),
        senders::trials(),
        allowlist::trials(),
        quarantine::trials(),
        isolation::trials(),
        orders::trials(),
        replies::trials(),
        tcx::trials(),
        known::trials(),
        policy::trials(),
        retire::trials(),
        mayhem::trials(),
        contention::trials(),
        program::trials(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A limit that lets nothing more through after its burst, however long the test takes.
const fn burst_only(burst: u32) -> (u32, u32) {
    (1, burst)
}

/// How many newcomers a strangers' share of `burst` packets admits at once: three quarters of what it may be ahead of its
/// schedule, and the packet that finds it there. The rest is for those who come back.
const fn newcomers(burst: u32) -> u64 {
    (3 * (burst as u64 - 1)) / 4 + 1
}

/// How much a `burst_only` limit may let through beyond its burst: 1 pps over the time the test took, rounded up.
fn refill(since: Instant) -> u64 {
    since.elapsed().as_secs() + 1
}

/// What a `burst_only` limit of so many may have let through by now.
fn about(burst: impl Into<u64>, since: Instant) -> RangeInclusive<u64> {
    let burst = burst.into();
    burst..=burst + refill(since)
}

/// `what` must be in a range.
fn expect(what: &str, value: u64, expected: &RangeInclusive<u64>) -> Result<()> {
    ensure!(expected.contains(&value), "{what}: {value:?}, expected {expected:?}");
    Ok(())
}

/// A DISCOVER of each of these machines.
fn discovers(machines: Range<usize>) -> Vec<Vec<u8>> {
    machines.map(|machine| discover(Mac::machine(machine)).bytes()).collect()
}

/// The client on the port at this place of the policy.
fn key(place: usize, mac: Mac) -> ClientKey {
    ClientKey::from_mac(slot_of(place), mac.0)
}

/// A client's entry.
fn client(snapshot: &Snapshot, place: usize, mac: Mac) -> Option<ClientSample> {
    let key = key(place, mac);
    snapshot.clients.iter().find(|client| client.key == key).copied()
}

/// A client's packets, those over any limit, and those over its own.
fn counts(snapshot: &Snapshot, place: usize, mac: Mac) -> (u64, u64, u64) {
    client(snapshot, place, mac).map_or((0, 0, 0), |c| (c.state.packets, c.state.excess, c.state.own_excess))
}

/// Packets of a reason on the port at this place of the policy.
fn reason(snapshot: &Snapshot, place: usize, reason: Reason) -> u64 {
    tests::guard_run::count(snapshot, slot_of(place) as usize, reason)
}

/// The same for a note.
fn note(snapshot: &Snapshot, place: usize, note: Note) -> u64 {
    snapshot.ports.get(slot_of(place) as usize).map_or(0, |counters| counters.notes[note.index()])
}

/// The kernel's clock.
fn ticks(guard: &mut GuardRun) -> Result<u64> {
    Ok(guard.snapshot()?.moment.ticks)
}

/// The tick that is so far away.
fn in_future(guard: &mut GuardRun, distance: Duration) -> Result<u64> {
    let ticks_per_s = u128::from(clock::ticks_per_s());
    let distance = u64::try_from(distance.as_nanos() * ticks_per_s / 1_000_000_000)?;
    Ok(ticks(guard)?.add(distance))
}

/// A frame that is dropped now must pass from the tick `until` on, and not before, with nobody doing anything.
fn passes_again_at(guard: &mut GuardRun, frame: &[u8], until: u64) -> Result<()> {
    let start = Instant::now();
    let mut dropped = 0;
    loop {
        let before = ticks(guard)?;
        if guard.send(frame)? == Fate::Passed {
            break;
        }
        dropped += 1;
        ensure!(before < until, "dropped at tick {before}, though it may pass from {until} on");
        ensure!(start.elapsed() < Duration::from_secs(30), "the clock does not come to tick {until}");
    }
    ensure!(dropped > 0, "it was not dropped in the first place");
    let after = ticks(guard)?;
    ensure!(after >= until, "passed before tick {after}, though it may not before {until}");
    Ok(())
}
