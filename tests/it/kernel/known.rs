//! Strangers become known, and known clients strangers, while the program runs.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::dataplane::{PortSpec, Snapshot, snapshot::ClientSample};
use dhcp_guard_common::verdict::Reason;
use libtest_mimic::Trial;
use tests::{
    guard_run::{Fate, GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    packets::{discover, solicit},
};

use super::{KERNEL, about, burst_only, counts, discovers, expect, key, reason, refill, shapes::relayed};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: a promoted stranger is known from its next packet on", KERNEL, is_known),
        trial("kernel: a promoted stranger keeps its limiters and counts", KERNEL, keeps_state),
        trial("kernel: a stranger promoted while it is over its limit loses no packet", KERNEL, keeps_memo),
        trial("kernel: a promoted stranger leaves its place to others", KERNEL, place_is_free),
        trial("kernel: a promoted stranger behind a relay stays behind it", KERNEL, relayed_client),
        trial("kernel: nobody is promoted who has no entry", KERNEL, nobody),
        trial("kernel: a full table of known clients refuses, and the stranger stays one", KERNEL, table_full),
        trial("kernel: whom the configuration names takes the room of a learned one", KERNEL, named_before_learned),
        trial("kernel: a forgotten client is a stranger with a limiter of its own", KERNEL, forgotten),
        trial("kernel: a client forgotten while over its limit begins anew at once", KERNEL, forget_memo),
    ]
}

const CLIENT: Mac = Mac([2, 0, 0, 0, 9, 9]);

/// The one sample of a client.
fn sample(snapshot: &Snapshot) -> Result<ClientSample> {
    let found: Vec<_> = snapshot.clients.iter().filter(|client| client.key == key(0, CLIENT)).collect();
    ensure!(found.len() == 1, "{} entries for one client", found.len());
    found.first().map(|sample| **sample).context("no entry")
}

fn promote(guard: &mut GuardRun) -> Result<()> {
    ensure!(guard.plane().promote(key(0, CLIENT))?, "there is no such stranger");
    Ok(())
}

fn is_known() -> Result<()> {
    let start = Instant::now();
    let mut guard = GuardRun::new(&spec(vec![PortSpec { strangers: burst_only(10), ..port(0, 0) }]))?;
    let frame = discover(CLIENT).bytes();
    guard.send(&frame)?;
    promote(&mut guard)?;
    guard.send_all(&discovers(0..100))?;
    ensure!(guard.send_all(&vec![frame; 50])? == 50, "a known client needs none of the strangers' share");
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::PassKnown) == 50, "counted as known");
    expect("strangers beside it", reason(&snapshot, 0, Reason::PassStranger), &(7..=9 + refill(start)))?;
    ensure!(sample(&snapshot)?.known, "it is in the known table");
    Ok(())
}

fn keeps_state() -> Result<()> {
    let start = Instant::now();
    let limits = PortSpec { client_v4: burst_only(20), client_v6: burst_only(20), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    let (v4, v6) = (discover(CLIENT).bytes(), solicit(CLIENT).bytes());
    guard.send_all(&vec![v4.clone(); 15])?;
    guard.send_all(&vec![v6.clone(); 5])?;
    let before = sample(&guard.snapshot()?)?;
    promote(&mut guard)?;
    let after = sample(&guard.snapshot()?)?;
    ensure!(after == ClientSample { known: true, ..before }, "{before:?} became {after:?}");
    let more = guard.send_all(&vec![v4; 50])? as u64;
    expect("DHCPv4 packets that were left of 20", more, &about(5u32, start))?;
    let more = guard.send_all(&vec![v6; 50])? as u64;
    expect("DHCPv6 packets that were left of 20", more, &about(15u32, start))?;
    let packets = sample(&guard.snapshot()?)?.state.packets;
    ensure!(packets == 120, "{packets} of 120 packets are counted");
    Ok(())
}

/// What a CPU's memory holds of the stranger is the known client's, too.
fn keeps_memo() -> Result<()> {
    let start = Instant::now();
    let mut guard = GuardRun::new(&spec(vec![PortSpec { client_v4: burst_only(5), ..port(0, 0) }]))?;
    let frame = discover(CLIENT).bytes();
    guard.repeat(&frame, 1000)?;
    promote(&mut guard)?;
    let (packets, ..) = counts(&guard.snapshot()?, 0, CLIENT);
    ensure!(packets == 1000, "{packets} of 1000 packets are counted when it is known");
    guard.repeat(&frame, 1000)?;
    let (packets, ..) = counts(&guard.snapshot()?, 0, CLIENT);
    ensure!(packets == 2000, "{packets} of 2000 packets are counted when it went on");
    // Until the memory is used for something else, or for the client's new state.
    while guard.send(&frame)? == Fate::Dropped {
        ensure!(start.elapsed().as_secs() < 30, "no packet in 30 s, though 1 a second may pass");
    }
    guard.repeat(&frame, 1000)?;
    let snapshot = guard.snapshot()?;
    let seen = sample(&snapshot)?.state;
    let port: u64 = snapshot.ports[1].reasons.iter().sum();
    ensure!(seen.packets == port, "{} of {port} packets are counted", seen.packets);
    ensure!(seen.excess == seen.own_excess, "only its own limit dropped anything: {seen:?}");
    ensure!(snapshot.troubles.untracked == 0, "{} are nobody's", snapshot.troubles.untracked);
    Ok(())
}

fn place_is_free() -> Result<()> {
    let mut small = spec(vec![port(0, 0)]);
    small.stranger_capacity = 8;
    let mut guard = GuardRun::new(&small)?;
    for machine in 0..100 {
        guard.send(&discover(Mac::machine(machine)).bytes())?;
        ensure!(guard.plane().promote(key(0, Mac::machine(machine)))?, "machine {machine} has no entry");
        let snapshot = guard.snapshot()?;
        let strangers = snapshot.clients.iter().filter(|client| !client.known).count();
        ensure!(strangers == 0 && snapshot.clients.len() == machine + 1, "{:?}", snapshot.clients);
    }
    Ok(())
}

fn relayed_client() -> Result<()> {
    let start = Instant::now();
    let mut guard = GuardRun::new(&spec(vec![PortSpec { client_v4: burst_only(20), ..port(0, 0) }]))?;
    let frame = relayed(Mac::machine(0), [10, 0, 0, 1].into(), CLIENT).bytes();
    guard.send_all(&vec![frame.clone(); 15])?;
    let before = guard.snapshot()?.clients;
    ensure!(before.len() == 1 && guard.plane().promote(before[0].key)?, "{before:?}");
    let passed = guard.send_all(&vec![frame; 50])? as u64;
    expect("packets that were left of 20", passed, &about(5u32, start))?;
    let after = guard.snapshot()?.clients;
    ensure!(after.len() == 1 && after[0].known && after[0].state.packets == 65, "{after:?}");
    ensure!(
        (after[0].state.relay, after[0].state.client) == (before[0].state.relay, before[0].state.client),
        "{after:?}"
    );
    Ok(())
}

fn nobody() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    ensure!(!guard.plane().promote(key(0, CLIENT))?, "it has sent nothing");
    guard.send(&discover(CLIENT).bytes())?;
    promote(&mut guard)?;
    ensure!(!guard.plane().promote(key(0, CLIENT))?, "it is known already");
    ensure!(!guard.plane().promote(key(0, Mac::machine(0)))?, "another one has sent nothing");
    ensure!(guard.snapshot()?.clients.len() == 1, "and is not known now");
    Ok(())
}

fn table_full() -> Result<()> {
    let mut small = spec(vec![port(0, 0)]);
    small.known_capacity = 4;
    let mut guard = GuardRun::new(&small)?;
    guard.send_all(&discovers(0..5))?;
    for machine in 0..4 {
        ensure!(guard.plane().promote(key(0, Mac::machine(machine)))?, "machine {machine} has no entry");
    }
    ensure!(guard.plane().promote(key(0, Mac::machine(4))).is_err(), "a fifth found room among four");
    guard.send_all(&discovers(4..5))?;
    let snapshot = guard.snapshot()?;
    ensure!(counts(&snapshot, 0, Mac::machine(4)).0 == 2, "it is a stranger still");
    ensure!(snapshot.clients.len() == 5, "{:?}", snapshot.clients);
    Ok(())
}

fn named_before_learned() -> Result<()> {
    let mut named = spec(vec![port(0, 0)]);
    named.known_capacity = 4;
    let mut guard = GuardRun::new(&named)?;
    guard.send_all(&discovers(0..4))?;
    for machine in 0..4 {
        ensure!(guard.plane().promote(key(0, Mac::machine(machine)))?, "machine {machine} has no entry");
    }
    let name = |machines: std::ops::Range<usize>| -> Vec<_> {
        machines.map(|machine| (port(0, 0).key, Mac::machine(machine).0)).collect()
    };
    named.known_clients = name(3..6);
    let problems = guard.plane().name_clients(&named);
    ensure!(problems.is_empty(), "{problems:?}");
    let snapshot = guard.snapshot()?;
    let is_known =
        |machine: &usize| snapshot.clients.iter().any(|one| one.known && one.key == key(0, Mac::machine(*machine)));
    let known: Vec<usize> = (0..6).filter(is_known).collect();
    ensure!(known.len() == 4 && known.ends_with(&[3, 4, 5]), "{known:?} are known");
    // No room even so: the others are known all the same.
    named.known_clients = name(0..6);
    let problems = guard.plane().name_clients(&named);
    ensure!(problems.len() == 1 && problems[0].contains("2 clients could not be written"), "{problems:?}");
    ensure!(guard.snapshot()?.clients.iter().filter(|one| one.known).count() == 4);
    Ok(())
}

fn forgotten() -> Result<()> {
    let mut with_known = spec(vec![PortSpec { client_v4: burst_only(30), ..port(0, 0) }]);
    with_known.known_clients = vec![(port(0, 0).key, CLIENT.0)];
    let mut guard = GuardRun::new(&with_known)?;
    let frame = discover(CLIENT).bytes();
    guard.send_all(&vec![frame.clone(); 10])?;
    guard.plane().forget(key(0, CLIENT))?;
    ensure!(guard.snapshot()?.clients.is_empty(), "it has an entry still");
    guard.send_all(&vec![frame; 10])?;
    let snapshot = guard.snapshot()?;
    let sample = sample(&snapshot)?;
    ensure!(!sample.known && sample.state.packets == 10, "{sample:?}");
    ensure!(reason(&snapshot, 0, Reason::PassStranger) == 10, "counted as a stranger");
    guard.plane().forget(key(0, Mac::machine(0))).context("who is not known can be forgotten")
}

/// What a CPU remembers of the known client is not the stranger's: its packets are counted from the first one on. What the
/// memory held ended with the known client's counts, and comes to light as nobody's.
fn forget_memo() -> Result<()> {
    let start = Instant::now();
    let mut with_known = spec(vec![PortSpec { client_v4: burst_only(5), ..port(0, 0) }]);
    with_known.known_clients = vec![(port(0, 0).key, CLIENT.0)];
    let mut guard = GuardRun::new(&with_known)?;
    // On one CPU, and quickly: its memory of the client lasts for a second.
    let frames = vec![discover(CLIENT).bytes(); 100];
    guard.send_from_cpus(1, &frames)?;
    guard.plane().forget(key(0, CLIENT))?;
    let passed: u64 = guard.send_from_cpus(1, &frames)?.into_iter().sum();
    expect("packets of a stranger with a limiter of its own", passed, &about(5u32, start))?;
    let snapshot = guard.snapshot()?;
    let (packets, ..) = counts(&snapshot, 0, CLIENT);
    ensure!(packets == 100, "{packets} of 100 packets are the stranger's");
    let untracked = snapshot.troubles.untracked;
    ensure!(untracked <= 100, "{untracked} of the known client's 100 packets are nobody's");
    Ok(())
}
