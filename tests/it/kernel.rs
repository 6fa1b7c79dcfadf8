//! The program's rules, run in the kernel on frames of an independent builder.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use dhcp_guard::dataplane::{PortSpec, Snapshot, Spec, clock, load::slot_of};
use dhcp_guard_common::{
    layout::{
        ClientKey, EVENT_CLIENT_OVER_LIMIT, EVENT_PORT_OVER_LIMIT, EVENT_ROGUE_SERVER, EVENT_UNKNOWN_VLAN, NO_PORT_SLOT,
    },
    verdict::Reason,
};
use libtest_mimic::Trial;
use tests::{
    guard_run::{Fate, GuardRun, count, port, spec},
    harness::{Need, trial},
    mac::Mac,
    packets::{Tag, discover, offer},
};

const KERNEL: &[Need] = &[Need::Root, Need::BpfObject];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: a client gets its burst and then its rate", KERNEL, client_limit),
        trial("kernel: counts of every MAC are exact", KERNEL, exact_counts),
        trial("kernel: counts and limits hold when two CPUs see the same MACs", KERNEL, two_cpus),
        trial("kernel: strangers share a part of the port, known clients keep the rest", KERNEL, shares),
        trial("kernel: a loud stranger does not spend the port's budget", KERNEL, loud_stranger),
        trial("kernel: random MACs cannot fill the table", KERNEL, random_macs),
        trial("kernel: a full table changes no verdict", KERNEL, full_table),
        trial("kernel: monitor mode passes everything and counts what it would drop", KERNEL, monitor),
        trial("kernel: a trusted port has only its own limit", KERNEL, trusted),
        trial("kernel: ports are apart", KERNEL, ports_apart),
        trial("kernel: without any port everything passes", KERNEL, no_port),
        trial("kernel: a server on a port that is not trusted is reported and passes", KERNEL, rogue_server),
        trial("kernel: events are told once, not for every packet", KERNEL, events_once),
        trial("kernel: a storm of state changes stays within the events' budget", KERNEL, event_budget),
        trial("kernel: the clock ticks as user space believes", KERNEL, ticks),
        trial("kernel: the debug log is free when it is off", KERNEL, debug_log_is_free),
        trial("kernel: the program is far from the verifier's limits", KERNEL, verifier_margin),
    ]
}

/// A limit that lets nothing more through after its burst, however long the test takes.
const fn burst_only(burst: u32) -> (u32, u32) {
    (1, burst)
}

/// How much a `burst_only` limit may let through beyond its burst: 1 pps over the time the test took, rounded up.
fn refill(since: Instant) -> u64 {
    since.elapsed().as_secs() + 1
}

fn stranger_of(snapshot: &Snapshot, place: usize, mac: Mac) -> Option<(u64, u64, u64)> {
    let key = ClientKey::from_mac(slot_of(place), mac.0);
    let client = snapshot.clients.iter().find(|client| client.key == key)?;
    Some((client.state.packets, client.state.excess, client.state.own_excess))
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
        let (packets, excess, own) = stranger_of(&snapshot, 0, *mac).unwrap_or_default();
        ensure!(packets == *sent, "{mac}: counted {packets} of {sent}");
        ensure!(excess == own, "{mac}: only its own limit can have dropped anything");
        dropped += excess;
    }
    ensure!(dropped == count(&snapshot, 1, Reason::DropClientLimit), "drops by MAC and by port differ");
    let total: u64 = sent.iter().sum();
    ensure!(total == dropped + count(&snapshot, 1, Reason::PassStranger), "packets and verdicts differ");
    Ok(())
}

/// Two threads, on CPUs of their own, send the same frames: one limit is one limit, and nothing is counted twice or lost.
fn two_cpus() -> Result<()> {
    const ROUNDS: usize = 2000;
    const MACS: usize = 8;
    let start = Instant::now();
    let mut guard = GuardRun::new(&spec(vec![PortSpec { client_v4: burst_only(20), ..port(0, 0) }]))?;
    let frames: Vec<_> = (0..MACS * ROUNDS).map(|i| discover(Mac::machine(i % MACS)).bytes()).collect();
    let passed: u64 = guard.send_from_cpus(2, &frames)?.into_iter().sum();
    let snapshot = guard.snapshot()?;
    let allowed = MACS as u64 * (20 + refill(start));
    ensure!(passed <= allowed, "{passed} passed on two CPUs, {allowed} may");
    ensure!(passed >= MACS as u64 * 19, "{passed} passed: many fewer than the limits admit");
    for index in 0..MACS {
        let (packets, excess, own) = stranger_of(&snapshot, 0, Mac::machine(index)).unwrap_or_default();
        ensure!(packets == 2 * ROUNDS as u64, "machine {index}: {packets} of {} packets", 2 * ROUNDS);
        ensure!(excess == own, "machine {index}: only its own limit can have dropped anything");
    }
    let dropped = count(&snapshot, 1, Reason::DropClientLimit);
    ensure!(dropped + passed == (2 * ROUNDS * MACS) as u64, "{dropped} dropped and {passed} passed");
    ensure!(snapshot.troubles.untracked == 0, "{:?}", snapshot.troubles);
    Ok(())
}

fn shares() -> Result<()> {
    let start = Instant::now();
    let limits = PortSpec { total: burst_only(100), strangers: burst_only(40), ..port(0, 0) };
    let mut with_known = spec(vec![limits]);
    with_known.known_clients = (0..100).map(|i| (port(0, 0).key, Mac::machine(i).0)).collect();
    let mut guard = GuardRun::new(&with_known)?;
    let strangers: Vec<_> = (1000..1200).map(|i| discover(Mac::machine(i)).bytes()).collect();
    let passed = guard.send_all(&strangers)? as u64;
    ensure!((40..=40 + refill(start)).contains(&passed), "{passed} of 200 strangers passed a share of 40");
    let known: Vec<_> = (0..100).map(|i| discover(Mac::machine(i)).bytes()).collect();
    let passed = guard.send_all(&known)? as u64;
    ensure!((59..=60 + refill(start)).contains(&passed), "{passed} of 100 known clients passed the remaining 60");
    let snapshot = guard.snapshot()?;
    ensure!(count(&snapshot, 1, Reason::PassKnown) == passed, "known clients are counted as such");
    ensure!(count(&snapshot, 1, Reason::DropPortLimit) == 100 - passed, "the rest is over the port's limit");
    ensure!(count(&snapshot, 1, Reason::DropStrangerShare) > 150, "strangers are over their share");
    Ok(())
}

fn loud_stranger() -> Result<()> {
    let limits = PortSpec { client_v4: burst_only(5), strangers: burst_only(50), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    guard.repeat(&discover(Mac::machine(0)).bytes(), 100_000)?;
    let quiet: Vec<_> = (1..=40).map(|i| discover(Mac::machine(i)).bytes()).collect();
    let passed = guard.send_all(&quiet)?;
    ensure!(passed == 40, "{passed} of 40 quiet strangers passed beside a loud one");
    Ok(())
}

fn random_macs() -> Result<()> {
    let start = Instant::now();
    let limits = PortSpec { strangers: burst_only(30), new_clients: burst_only(20), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    let frames: Vec<_> = (0..2000).map(|i| discover(Mac::machine(i)).bytes()).collect();
    let passed = guard.send_all(&frames)? as u64;
    let snapshot = guard.snapshot()?;
    let entries = snapshot.clients.len() as u64;
    ensure!((50..=50 + 2 * refill(start)).contains(&entries), "{entries} entries of budgets of 30 and 20");
    ensure!(passed == count(&snapshot, 1, Reason::PassStranger), "passed frames are counted as such");
    let tracked: u64 = snapshot.clients.iter().map(|client| client.state.packets).sum();
    ensure!(tracked + snapshot.troubles.untracked == 2000, "every packet is counted for its MAC or as untracked");
    Ok(())
}

fn full_table() -> Result<()> {
    let mut small = spec(vec![port(0, 0)]);
    small.stranger_capacity = 64;
    let mut guard = GuardRun::new(&small)?;
    let frames: Vec<_> = (0..5000).map(|i| discover(Mac::machine(i)).bytes()).collect();
    ensure!(guard.send_all(&frames)? == 5000, "a full table must not drop what the limits admit");
    Ok(())
}

fn monitor() -> Result<()> {
    let limits = PortSpec { client_v4: burst_only(5), strangers: burst_only(20), monitor: true, ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    let loud = discover(Mac::machine(0)).bytes();
    ensure!(guard.repeat(&loud, 1000)?.0 == Fate::Passed, "monitor mode never drops");
    let frames: Vec<_> = (1..=100).map(|i| discover(Mac::machine(i)).bytes()).collect();
    ensure!(guard.send_all(&frames)? == 100, "monitor mode never drops");
    let snapshot = guard.snapshot()?;
    ensure!(count(&snapshot, 1, Reason::WouldDropClientLimit) >= 990, "over the client's limit");
    ensure!(count(&snapshot, 1, Reason::WouldDropStrangerShare) >= 80, "over the strangers' share");
    ensure!(count(&snapshot, 1, Reason::DropClientLimit) == 0, "nothing was dropped");
    let (packets, excess, _) = stranger_of(&snapshot, 0, Mac::machine(0)).unwrap_or_default();
    ensure!(packets == 1000 && excess >= 990, "the client's own counts: {packets} packets, {excess} over");
    Ok(())
}

fn trusted() -> Result<()> {
    let start = Instant::now();
    let limits = PortSpec { client_v4: burst_only(5), total: burst_only(300), trusted: true, ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    let frames =
        [discover(Mac::machine(0)).bytes(), offer(Mac::machine(1), Mac::machine(2), [10, 0, 0, 1].into()).bytes()];
    let mut passed = 0;
    for _ in 0..200 {
        passed += guard.send_all(&frames)? as u64;
    }
    ensure!((300..=300 + refill(start)).contains(&passed), "{passed} of 400 passed a trusted port's limit of 300");
    let snapshot = guard.snapshot()?;
    ensure!(count(&snapshot, 1, Reason::PassTrusted) == passed, "counted as trusted");
    ensure!(count(&snapshot, 1, Reason::DropPortLimit) == 400 - passed, "the rest is over the port's limit");
    ensure!(snapshot.clients.is_empty(), "no client is tracked behind a relay");
    Ok(())
}

fn ports_apart() -> Result<()> {
    let limits = |outer, inner| PortSpec { client_v4: burst_only(5), ..port(outer, inner) };
    let mut guard = GuardRun::new(&spec(vec![limits(0, 0), limits(100, 0), limits(100, 20)]))?;
    let mac = Mac::machine(0);
    guard.repeat(&discover(mac).bytes(), 1000)?;
    for tags in [&[Tag::c(100)][..], &[Tag::s(100), Tag::c(20)][..]] {
        let frame = discover(mac).tagged(tags).bytes();
        ensure!(guard.send(&frame)? == Fate::Passed, "the same MAC on another port is another client");
    }
    // A VLAN without a port of its own is the default port's business, and reported.
    ensure!(guard.send(&discover(mac).tagged(&[Tag::c(999)]).bytes())? == Fate::Dropped, "an unknown VLAN");
    let unknown: Vec<_> = guard.events().into_iter().filter(|e| e.kind == EVENT_UNKNOWN_VLAN).collect();
    ensure!(unknown.len() == 1 && unknown[0].port.outer_vlan == 999 && unknown[0].slot == 1, "{unknown:?}");
    Ok(())
}

fn no_port() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![]))?;
    ensure!(guard.repeat(&discover(Mac::machine(0)).bytes(), 5000)?.0 == Fate::Passed, "there is no limit");
    let snapshot = guard.snapshot()?;
    ensure!(count(&snapshot, NO_PORT_SLOT as usize, Reason::PassNoPort) == 5000, "and it is counted");
    Ok(())
}

fn rogue_server() -> Result<()> {
    let mut guard =
        GuardRun::new(&spec(vec![PortSpec { client_v4: burst_only(5), total: burst_only(5), ..port(0, 0) }]))?;
    let frame = offer(Mac::machine(0), Mac::machine(1), [10, 0, 0, 1].into()).bytes();
    ensure!(guard.repeat(&frame, 1000)?.0 == Fate::Passed, "replies pass while no server is configured as trusted");
    ensure!(count(&guard.snapshot()?, 1, Reason::PassServer) == 1000, "and are counted apart");
    let events = guard.events();
    ensure!(events.len() == 1 && events[0].kind == EVENT_ROGUE_SERVER, "{events:?}");
    ensure!(ClientKey(events[0].client).mac() == Mac::machine(0).0, "the event names the server");
    Ok(())
}

fn events_once() -> Result<()> {
    let limits = PortSpec { client_v4: burst_only(5), strangers: burst_only(30), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    guard.repeat(&discover(Mac::machine(0)).bytes(), 100_000)?;
    let others: Vec<_> = (1..=500).map(|i| discover(Mac::machine(i)).bytes()).collect();
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

/// The limiters believe in `ticks_per_s`. Two readings, far enough apart, must agree with the wall clock.
fn ticks() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![]))?;
    let first = guard.snapshot()?.moment;
    // why: the passing of real time is what is measured.
    thread::sleep(Duration::from_millis(400));
    let second = guard.snapshot()?.moment;
    let elapsed = (second.monotonic - first.monotonic).as_secs_f64();
    let ticked = (second.ticks - first.ticks) as f64 / f64::from(clock::ticks_per_s());
    let tick = 1.0 / f64::from(clock::ticks_per_s());
    ensure!((elapsed - ticked).abs() <= 2.5 * tick, "{elapsed:.4} s by the clock, {ticked:.4} s by the ticks");
    Ok(())
}

/// Off, the log is not a branch that is never taken: the verifier has removed it.
fn debug_log_is_free() -> Result<()> {
    let size = |debug_kernel| -> Result<u32> {
        let mut guard = GuardRun::new(&Spec { debug_kernel, ..spec(vec![port(0, 0)]) })?;
        Ok(guard.plane().program()?.info()?.size_translated().unwrap_or(0))
    };
    let (off, on) = (size(false)?, size(true)?);
    ensure!(off > 0 && off < on, "{off} bytes without the log, {on} with it");
    Ok(())
}

/// The verifier gives up at a million instructions; a quarter of that leaves room for older and stricter ones.
fn verifier_margin() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    let info = guard.plane().program()?.info()?;
    let processed = info.verified_instruction_count().unwrap_or(0);
    println!("verifier: {processed} instructions processed, limit 1,000,000");
    ensure!(processed > 0 && processed <= 250_000, "{processed} instructions processed");
    Ok(())
}
