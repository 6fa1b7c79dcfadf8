//! What strangers share, and what becomes of their entries.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dhcp_guard::dataplane::PortSpec;
use dhcp_guard_common::verdict::Reason;
use libtest_mimic::Trial;
use tests::{
    guard_run::{Fate, GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    packets::discover,
};

use super::{KERNEL, about, burst_only, client, counts, discovers, expect, newcomers, reason, refill, ticks};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: strangers share a part of the port, known clients keep the rest", KERNEL, shares),
        trial("kernel: strangers with an entry come back to what newcomers may not have", KERNEL, || {
            come_back((1_000_000, 1_000_000), true)
        }),
        trial("kernel: strangers without an entry come back to what newcomers may not have", KERNEL, || {
            come_back(burst_only(1), false)
        }),
        trial("kernel: a flood of ever new MACs does not shut out strangers that retry", KERNEL, retries_survive),
        trial("kernel: what the strangers' share refuses costs the client nothing", KERNEL, refused_for_free),
        trial("kernel: random MACs cannot fill the table", KERNEL, random_macs),
        trial("kernel: a full table changes no verdict", KERNEL, full_table),
        trial("kernel: a stranger that keeps sending keeps its entry", KERNEL, stalest_goes),
        trial("kernel: the number of strangers is estimated, and begins anew with each reading", KERNEL, distinct),
        trial("kernel: more strangers than can be told are not told", KERNEL, too_many_to_tell),
        trial("kernel: known clients are not among the strangers' number", KERNEL, known_are_not_distinct),
    ]
}

fn shares() -> Result<()> {
    let start = Instant::now();
    let limits = PortSpec { total: burst_only(100), strangers: burst_only(40), ..port(0, 0) };
    let mut with_known = spec(vec![limits]);
    with_known.known_clients = (0..150).map(|i| (port(0, 0).key, Mac::machine(i).0)).collect();
    let mut guard = GuardRun::new(&with_known)?;
    let strangers = guard.send_all(&discovers(1000..1200))? as u64;
    expect("newcomers of 200, with a share of 40", strangers, &about(newcomers(40), start))?;
    let known = guard.send_all(&discovers(0..150))? as u64;
    expect("known clients of 150, with what is left of 100", known, &about(100 - strangers, start))?;
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::PassStranger) == strangers, "strangers are counted as such");
    ensure!(reason(&snapshot, 0, Reason::PassKnown) == known, "known clients are counted as such");
    ensure!(reason(&snapshot, 0, Reason::DropPortLimit) == 150 - known, "the rest is over the port's limit");
    ensure!(reason(&snapshot, 0, Reason::DropStrangerShare) == 200 - strangers, "strangers are over their share");
    Ok(())
}

/// Newcomers spend what they may. Then those who were refused come back, and get what is kept for them, and no more;
/// other newcomers still get nothing. `new_clients` decides whether the refused have an entry.
fn come_back(new_clients: (u32, u32), have_entries: bool) -> Result<()> {
    const SHARE: u32 = 101;
    const KEPT: u64 = SHARE as u64 - newcomers(SHARE);
    let start = Instant::now();
    let mut guard = GuardRun::new(&spec(vec![PortSpec { strangers: burst_only(SHARE), new_clients, ..port(0, 0) }]))?;
    let admitted = guard.send_all(&discovers(0..300))? as u64;
    expect("newcomers", admitted, &about(newcomers(SHARE), start))?;

    let snapshot = guard.snapshot()?;
    let refused = 200..300;
    let entries = refused.clone().filter(|i| client(&snapshot, 0, Mac::machine(*i)).is_some()).count();
    ensure!(entries == if have_entries { 100 } else { 0 }, "{entries} of 100 that were refused have an entry");

    let again = guard.send_all(&discovers(refused))? as u64;
    expect("strangers that came back", again, &about(KEPT, start))?;
    let others = guard.send_all(&discovers(300..600))?;
    ensure!(others == 0, "{others} newcomers passed, though their part is spent");
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::PassStranger) == admitted + again, "counted as strangers");
    ensure!(reason(&snapshot, 0, Reason::DropStrangerShare) == 700 - admitted - again, "or over their share");
    Ok(())
}

/// Each of 20 strangers comes for the first time when a flood has spent the newcomers' part, and again while it goes on.
fn retries_survive() -> Result<()> {
    let limits = PortSpec { strangers: burst_only(100), new_clients: burst_only(10), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    guard.send_all(&discovers(1000..3000))?;
    guard.send_all(&discovers(0..20))?;
    guard.send_all(&discovers(3000..6000))?;
    let passed = guard.send_all(&discovers(0..20))?;
    ensure!(passed == 20, "{passed} of 20 strangers passed with their second packet");
    Ok(())
}

/// A stranger's own limit counts what got through, not what others' packets took from it.
fn refused_for_free() -> Result<()> {
    let limits = PortSpec { strangers: burst_only(101), client_v4: burst_only(2), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    guard.send_all(&discovers(1000..1200))?;
    let frame = discover(Mac::machine(0)).bytes();
    let fates: Vec<_> = (0..4).map(|_| guard.send(&frame)).collect::<Result<_>>()?;
    let snapshot = guard.snapshot()?;
    // A newcomer's packet is refused, unless a second has passed and it is the one that gets the refill.
    ensure!(fates[1] == Fate::Passed, "the second packet of a client that may send two: {fates:?}");
    let (packets, excess, own) = counts(&snapshot, 0, Mac::machine(0));
    ensure!(
        packets == 4 && excess == own + u64::from(fates[0] == Fate::Dropped),
        "{packets} {excess} {own}: {fates:?}"
    );
    if fates[0] == Fate::Dropped {
        ensure!(fates[2] == Fate::Passed, "the refused packet was charged: {fates:?}");
    }
    Ok(())
}

fn random_macs() -> Result<()> {
    let start = Instant::now();
    let limits = PortSpec { strangers: burst_only(30), new_clients: burst_only(20), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    let passed = guard.send_all(&discovers(0..2000))? as u64;
    let snapshot = guard.snapshot()?;
    let entries = snapshot.clients.len() as u64;
    let budgets = newcomers(30) + 20;
    expect("entries", entries, &(budgets..=budgets + 2 * refill(start)))?;
    expect("passed", passed, &about(newcomers(30), start))?;
    ensure!(passed == reason(&snapshot, 0, Reason::PassStranger), "passed frames are counted as such");
    let tracked: u64 = snapshot.clients.iter().map(|client| client.state.packets).sum();
    ensure!(tracked + snapshot.troubles.untracked == 2000, "every packet is counted for its MAC or as untracked");
    Ok(())
}

fn full_table() -> Result<()> {
    let mut small = spec(vec![port(0, 0)]);
    small.stranger_capacity = 64;
    let mut guard = GuardRun::new(&small)?;
    ensure!(guard.send_all(&discovers(0..5000))? == 5000, "a full table must not drop what the limits admit");
    let entries = guard.snapshot()?.clients.len();
    ensure!(entries == 64, "{entries} entries in a table for 64");
    Ok(())
}

/// In a table for eight, one stranger sends in every tick, and a hundred others once.
fn stalest_goes() -> Result<()> {
    const OTHERS: usize = 100;
    let mut small = spec(vec![port(0, 0)]);
    small.stranger_capacity = 8;
    let mut guard = GuardRun::new(&small)?;
    let steady = Mac::machine(0);
    for other in 1..=OTHERS {
        wait_for_a_tick(&mut guard)?;
        guard.send(&discover(steady).bytes())?;
        wait_for_a_tick(&mut guard)?;
        guard.send(&discover(Mac::machine(other)).bytes())?;
    }
    let snapshot = guard.snapshot()?;
    ensure!(snapshot.clients.len() == 8, "{} entries in a table for 8", snapshot.clients.len());
    let (packets, ..) = counts(&snapshot, 0, steady);
    ensure!(packets == OTHERS as u64, "{packets} of {OTHERS} packets are counted: its entry was given away");
    for latest in [OTHERS - 2, OTHERS - 1, OTHERS] {
        ensure!(client(&snapshot, 0, Mac::machine(latest)).is_some(), "stranger {latest} of {OTHERS} has no entry");
    }
    Ok(())
}

/// Entries of the same tick are equally old.
fn wait_for_a_tick(guard: &mut GuardRun) -> Result<()> {
    let (start, tick) = (Instant::now(), ticks(guard)?);
    while ticks(guard)? == tick {
        ensure!(start.elapsed() < Duration::from_secs(10), "the clock stands still");
    }
    Ok(())
}

fn distinct() -> Result<()> {
    // Most of these are refused and have no entry: they are strangers all the same.
    let limits = PortSpec { strangers: burst_only(10), new_clients: burst_only(10), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits, port(100, 0)]))?;
    ensure!(guard.snapshot()?.distinct == [Some(0); 3], "nobody sent anything");
    for strangers in [1usize, 20, 200, 1000] {
        let frames = discovers(0..strangers);
        guard.send_all(&frames)?;
        guard.send_all(&frames)?;
        let distinct = guard.snapshot()?.distinct;
        let estimate = distinct[1].unwrap_or(0);
        let slack = strangers as u64 * 15 / 100 + 2;
        ensure!(estimate.abs_diff(strangers as u64) <= slack, "{estimate} for {strangers} strangers");
        ensure!(distinct[2] == Some(0), "nobody sent on the other port");
    }
    ensure!(guard.snapshot()?.distinct[1] == Some(0), "the last reading began anew");
    Ok(())
}

fn too_many_to_tell() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    guard.send_all(&discovers(0..20_000))?;
    let distinct = guard.snapshot()?.distinct;
    ensure!(distinct[1].is_none(), "{distinct:?} for 20,000 strangers");
    ensure!(guard.snapshot()?.distinct[1] == Some(0), "the last reading began anew");
    Ok(())
}

fn known_are_not_distinct() -> Result<()> {
    let mut with_known = spec(vec![port(0, 0)]);
    with_known.known_clients = (0..100).map(|i| (port(0, 0).key, Mac::machine(i).0)).collect();
    let mut guard = GuardRun::new(&with_known)?;
    guard.send_all(&discovers(0..100))?;
    let distinct = guard.snapshot()?.distinct;
    ensure!(distinct[1] == Some(0), "{distinct:?} for known clients only");
    Ok(())
}
