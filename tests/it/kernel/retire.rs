//! Ports that are gone for good: their slots are others' later, and nothing of them is.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::{
    dataplane::{HostSpec, Policy, PortSpec, Snapshot},
    governor::{Sanction, Target},
};
use dhcp_guard_common::{layout::PortCounters, verdict::Reason};
use libtest_mimic::Trial;
use tests::{
    guard_run::{Fate, GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    orders::{on_port, whole_port},
    packets::{Tag, discover},
};

use super::{KERNEL, burst_only, in_future};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: nothing of a port that is gone is the next one's in its slot", KERNEL, nothing_is_inherited),
        trial("kernel: a slot that a CPU still remembers packets of is used again last", KERNEL, remembered_last),
        trial("kernel: 3,000 ports that come and go need no more room than those there at once", KERNEL, thousands),
        trial("kernel: an order holds where its name leads by now", KERNEL, orders_follow_names),
    ]
}

const KNOWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
const STRANGER: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn policy(ports: Vec<PortSpec>) -> Policy {
    Policy { ports, host: HostSpec::default() }
}

fn frame(vlan: u16, mac: Mac) -> Vec<u8> {
    discover(mac).tagged(&[Tag::c(vlan)]).bytes()
}

/// Whether anything at all is known of a slot.
fn is_clean(snapshot: &Snapshot, slot: u32) -> bool {
    let counters = snapshot.ports.get(slot as usize);
    counters.is_none_or(|counters| *counters == PortCounters::ZERO)
        && !snapshot.clients.iter().any(|client| client.key.slot() == slot)
}

fn nothing_is_inherited() -> Result<()> {
    // So small that the limiter of the port is empty when the port goes.
    let small = |vlan| PortSpec { total: burst_only(30), ..port(vlan, 0) };
    let mut guard = GuardRun::new(&spec(vec![port(0, 0), small(1)]))?;
    let slot = guard.plane().slot(small(1).key).context("no slot")?;
    let known = guard.plane().client(small(1).key, KNOWN.0).context("no port")?;
    guard.plane().add_known(known)?;
    for mac in [KNOWN, STRANGER].into_iter().chain((0..40).map(Mac::machine)) {
        guard.send_all(&vec![frame(1, mac); 10])?;
    }
    let until = in_future(&mut guard, Duration::from_secs(3600))?;
    guard.impose(Target::one(whole_port(1)), Sanction::Mute, until)?;
    guard.impose(Target::one(on_port(1, STRANGER)), Sanction::Isolate, until)?;

    let without = policy(vec![port(0, 0)]);
    guard.plane().apply(&without)?;
    ensure!(!is_clean(&guard.snapshot()?, slot), "until it is retired, it may come back as it was");
    ensure!(guard.plane().retire(&without)? == [slot], "one is gone");
    ensure!(is_clean(&guard.snapshot()?, slot) && guard.plane().slot(small(1).key).is_none(), "something is left");
    ensure!(guard.plane().retire(&without)?.is_empty(), "nobody is gone twice");
    ensure!(guard.send(&frame(1, STRANGER))? == Fate::Passed, "it is on the interface's port now");

    guard.plane().apply(&policy(vec![port(0, 0), small(2)]))?;
    ensure!(guard.plane().slot(small(2).key) == Some(slot), "the slot is free for another");
    let passed = guard.send_all(&vec![frame(2, STRANGER); 4])? + guard.send_all(&vec![frame(2, KNOWN); 4])?;
    let snapshot = guard.snapshot()?;
    ensure!(passed == 8, "of 8 packets on the new port {passed} passed");
    let strangers = tests::guard_run::count(&snapshot, slot as usize, Reason::PassStranger);
    ensure!(strangers == 8, "{strangers}: nobody is known there");
    let packets: Vec<u64> =
        snapshot.clients.iter().filter(|c| c.key.slot() == slot).map(|client| client.state.packets).collect();
    ensure!(packets == [4, 4], "{packets:?}");
    Ok(())
}

/// What a CPU has counted and not handed over stays there until somebody needs the place.
fn remembered_last() -> Result<()> {
    let limited = |vlan| PortSpec { client_v4: burst_only(5), ..port(vlan, 0) };
    let with =
        |vlans: &[u16]| policy([port(0, 0)].into_iter().chain(vlans.iter().map(|vlan| limited(*vlan))).collect());
    let mut small = spec(vec![port(0, 0), limited(1)]);
    small.port_capacity = 3;
    let mut guard = GuardRun::new(&small)?;
    guard.send_all(&vec![frame(1, STRANGER); 1000])?;
    let slot = |guard: &mut GuardRun, vlan| guard.plane().slot(port(vlan, 0).key);
    let remembered = slot(&mut guard, 1);
    guard.plane().apply(&with(&[]))?;
    guard.plane().retire(&with(&[]))?;
    for vlan in [2, 3, 4] {
        guard.plane().apply(&with(&[vlan]))?;
        ensure!(slot(&mut guard, vlan) == Some(3), "not {remembered:?}, while there are others");
        guard.plane().apply(&with(&[]))?;
        guard.plane().retire(&with(&[]))?;
    }
    guard.plane().apply(&with(&[5, 6]))?;
    ensure!([5, 6].map(|vlan| slot(&mut guard, vlan)) == [Some(3), remembered], "rather than refusing a port");
    Ok(())
}

/// Twenty at once, a hundred and fifty times, in tables for 41 ports and few clients.
fn thousands() -> Result<()> {
    const AT_ONCE: u16 = 20;
    let mut small = spec(vec![port(0, 0)]);
    (small.port_capacity, small.known_capacity) = (41, 64);
    let mut guard = GuardRun::new(&small)?;
    let mut highest = 0;
    for round in 0..150 {
        let vlans: Vec<u16> = (0..AT_ONCE).map(|n| 1 + (round * AT_ONCE + n) % 4000).collect();
        let all = [port(0, 0)].into_iter().chain(vlans.iter().map(|vlan| port(*vlan, 0))).collect();
        let policy = policy(all);
        guard.plane().apply(&policy)?;
        // Those of the round before: they and these are there at the same time for a moment.
        guard.plane().retire(&policy)?;
        for vlan in vlans {
            let key = port(vlan, 0).key;
            let known = guard.plane().client(key, KNOWN.0).context("no slot")?;
            guard.plane().add_known(known).with_context(|| format!("round {round}"))?;
            highest = highest.max(known.slot());
            ensure!(guard.send_all(&[frame(vlan, KNOWN), frame(vlan, STRANGER)])? == 2, "round {round}");
        }
        let snapshot = guard.snapshot()?;
        let clients = snapshot.clients.len();
        ensure!(clients == 2 * usize::from(AT_ONCE), "round {round}: {clients} clients are left");
        let packets: u64 = snapshot.ports.iter().flat_map(|port| port.reasons).sum();
        ensure!(packets == 2 * u64::from(AT_ONCE), "round {round}: {packets} packets, no more than this round's");
    }
    ensure!(highest <= 41, "slot {highest}");
    Ok(())
}

/// Names are places in the tests' orders.
fn orders_follow_names() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0), port(1, 0), port(2, 0)]))?;
    let until = in_future(&mut guard, Duration::from_secs(3600))?;
    guard.impose(Target::one(whole_port(1)), Sanction::Mute, until)?;
    let both = |guard: &mut GuardRun| -> Result<[Fate; 2]> {
        Ok([guard.send(&frame(1, STRANGER))?, guard.send(&frame(2, STRANGER))?])
    };
    ensure!(both(&mut guard)? == [Fate::Dropped, Fate::Passed]);
    let second = guard.plane().slot(port(2, 0).key);
    guard.plane().carry_out_again(&|_| second)?;
    ensure!(both(&mut guard)? == [Fate::Passed, Fate::Dropped], "the name leads elsewhere");
    guard.plane().carry_out_again(&|_| None)?;
    ensure!(both(&mut guard)? == [Fate::Passed; 2], "nobody has the name");
    let first = guard.plane().slot(port(1, 0).key);
    guard.plane().carry_out_again(&|_| first)?;
    ensure!(both(&mut guard)? == [Fate::Dropped, Fate::Passed], "it is there again");
    guard.lift(Target::one(whole_port(1)))?;
    guard.plane().carry_out_again(&|_| first)?;
    ensure!(both(&mut guard)? == [Fate::Passed; 2], "what has ended does not begin again");
    Ok(())
}
