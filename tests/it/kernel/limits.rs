//! What one client may send, and how it is counted.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dhcp_guard::dataplane::PortSpec;
use dhcp_guard_common::verdict::Reason;
use libtest_mimic::Trial;
use tests::{
    guard_run::{Fate, GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    packets::{discover, solicit},
};

use super::{KERNEL, about, burst_only, counts, expect, newcomers, reason, refill};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: a client gets its burst and then its rate", KERNEL, client_limit),
        trial("kernel: counts of every MAC are exact", KERNEL, exact_counts),
        trial("kernel: counts and limits hold when two CPUs see the same MACs", KERNEL, two_cpus),
        trial("kernel: a loud stranger does not spend the port's budget", KERNEL, loud_stranger),
        trial("kernel: a client's DHCPv4 and DHCPv6 have limits of their own", KERNEL, families_apart),
        trial("kernel: a client is remembered for one protocol and not for the other", KERNEL, memo_families),
    ]
}

fn client_limit() -> Result<()> {
    // A machine that is busy with something else may take longer for the burst than the limit takes to refill.
    let quickly = (0..10).find_map(|_| client_limit_within(Duration::from_millis(400)).transpose());
    quickly.unwrap_or_else(|| anyhow::bail!("20 packets took more than 400 ms, ten times: this machine is too busy"))
}

/// None: sending the burst took longer than this, so nothing can be said.
fn client_limit_within(bound: Duration) -> Result<Option<()>> {
    let mut guard = GuardRun::new(&spec(vec![PortSpec { client_v4: (2, 20), ..port(0, 0) }]))?;
    let frame = discover(Mac::machine(0)).bytes();
    let start = Instant::now();
    let burst = guard.send_all(&vec![frame.clone(); 20])?;
    let next = guard.send(&frame)?;
    if start.elapsed() > bound {
        return Ok(None);
    }
    ensure!(burst == 20, "{burst} of the burst of 20 passed");
    ensure!(next == Fate::Dropped, "the 21st packet at once");
    // The limiter says when the next one is due: half a second after the first. Wait for that event, bounded.
    while guard.send(&frame)? == Fate::Dropped {
        ensure!(start.elapsed() < Duration::from_secs(10), "no packet in 10 s, though 2 a second may pass");
    }
    ensure!(start.elapsed() >= Duration::from_millis(490), "the next packet came too early: {:?}", start.elapsed());
    Ok(Some(()))
}

fn exact_counts() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![PortSpec { client_v4: (2, 20), ..port(0, 0) }]))?;
    // Two whose memos share a place (the last bytes, and the middle ones folded in), and a hundred others.
    let mut macs = vec![Mac([2, 0, 0, 0, 0, 7]), Mac([2, 0, 0, 0, 1, 7])];
    macs.extend((0..100).map(|i| Mac([2, 0, 9, i, 3, i.wrapping_mul(37)])));
    let mut sent = vec![0; macs.len()];
    for round in 0..30 {
        for (mac, sent) in macs.iter().zip(&mut sent) {
            let times = 1 + (round * 7) % 11;
            guard.send_all(&vec![discover(*mac).bytes(); times])?;
            *sent += times as u64;
        }
    }
    let snapshot = guard.snapshot()?;
    let mut dropped = 0;
    for (mac, sent) in macs.iter().zip(&sent) {
        let (packets, excess, own) = counts(&snapshot, 0, *mac);
        ensure!(packets == *sent, "{mac}: counted {packets} of {sent}");
        ensure!(excess == own, "{mac}: only its own limit can have dropped anything");
        dropped += excess;
    }
    ensure!(dropped == reason(&snapshot, 0, Reason::DropClientLimit), "drops by MAC and by port differ");
    let total: u64 = sent.iter().sum();
    ensure!(total == dropped + reason(&snapshot, 0, Reason::PassStranger), "packets and verdicts differ");
    Ok(())
}

/// Two threads, on CPUs of their own, send the same frames: one limit is one limit, and nothing is counted twice or lost.
/// Where both meet a new MAC in the same instant, one of the two packets may be counted as nobody's.
fn two_cpus() -> Result<()> {
    const ROUNDS: usize = 2000;
    const MACS: usize = 8;
    const SENT: u64 = (2 * ROUNDS * MACS) as u64;
    let start = Instant::now();
    let mut guard = GuardRun::new(&spec(vec![PortSpec { client_v4: burst_only(20), ..port(0, 0) }]))?;
    let frames: Vec<_> = (0..MACS * ROUNDS).map(|i| discover(Mac::machine(i % MACS)).bytes()).collect();
    let passed: u64 = guard.send_from_cpus(2, &frames)?.into_iter().sum();
    let snapshot = guard.snapshot()?;
    let allowed = MACS as u64 * (20 + refill(start));
    ensure!(passed <= allowed, "{passed} passed on two CPUs, {allowed} may");
    ensure!(passed >= MACS as u64 * 19, "{passed} passed: many fewer than the limits admit");
    let mut tracked = 0;
    for machine in 0..MACS {
        let (packets, excess, own) = counts(&snapshot, 0, Mac::machine(machine));
        let sent = 2 * ROUNDS as u64;
        expect(&format!("packets of machine {machine}"), packets, &(sent - 1..=sent))?;
        ensure!(excess == own, "machine {machine}: only its own limit can have dropped anything");
        tracked += packets;
    }
    let untracked = snapshot.troubles.untracked;
    ensure!(tracked + untracked == SENT, "{tracked} for their MAC and {untracked} for nobody, of {SENT}");
    let dropped = reason(&snapshot, 0, Reason::DropClientLimit);
    ensure!(dropped + passed == SENT, "{dropped} dropped and {passed} passed");
    Ok(())
}

fn loud_stranger() -> Result<()> {
    let start = Instant::now();
    // The loud one's burst, and one packet of each quiet one, are exactly what newcomers may take.
    let limits = PortSpec { client_v4: burst_only(5), strangers: burst_only(60), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    guard.repeat(&discover(Mac::machine(0)).bytes(), 100_000)?;
    let quiet = super::discovers(1..101);
    let passed = guard.send_all(&quiet)? as u64;
    let expected = about(newcomers(60) - 5, start);
    // What the loud one got of the refill is spent, too.
    expect("quiet strangers beside a loud one", passed, &(expected.start() - refill(start)..=*expected.end()))
}

fn families_apart() -> Result<()> {
    let start = Instant::now();
    let limits = PortSpec { client_v4: burst_only(3), client_v6: burst_only(7), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    let mac = Mac::machine(0);
    let v4 = guard.send_all(&vec![discover(mac).bytes(); 50])? as u64;
    expect("DHCPv4 packets with a limit of 3", v4, &about(3u32, start))?;
    let v6 = guard.send_all(&vec![solicit(mac).bytes(); 60])? as u64;
    expect("DHCPv6 packets with a limit of 7", v6, &about(7u32, start))?;
    let snapshot = guard.snapshot()?;
    let dropped = 110 - v4 - v6;
    let seen = counts(&snapshot, 0, mac);
    ensure!(seen == (110, dropped, dropped), "one client sends both: {seen:?}");
    ensure!(snapshot.clients.len() == 1, "one client: {:?}", snapshot.clients);
    Ok(())
}

/// What a CPU remembers of a client's DHCPv4 must not answer its DHCPv6, nor the other way round.
fn memo_families() -> Result<()> {
    let discover = |machine| discover(Mac::machine(machine)).bytes();
    let solicit = |machine| solicit(Mac::machine(machine)).bytes();
    let limits = PortSpec { client_v4: burst_only(1), client_v6: burst_only(1), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    for (machine, first, second) in [(0, discover(0), solicit(0)), (1, solicit(1), discover(1))] {
        guard.repeat(&first, 1000)?;
        ensure!(guard.send(&second)? == Fate::Passed, "machine {machine}: the other protocol's limit is untouched");
        guard.repeat(&second, 1000)?;
        let packets = counts(&guard.snapshot()?, 0, Mac::machine(machine)).0;
        ensure!(packets == 2001, "machine {machine}: {packets} of 2001 packets are counted");
    }
    Ok(())
}
