//! The allowlist wins over everything.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dhcp_guard::{
    dataplane::{HostSpec, PortSpec, Spec},
    governor::{Sanction, Target},
};
use dhcp_guard_common::{layout::FOREVER, verdict::Reason};
use libtest_mimic::Trial;
use tests::{
    guard_run::{Fate, GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    orders::{on_port, whole_port},
    packets::{Frame, Tag, discover, offer, solicit},
};

use super::{
    KERNEL, about, burst_only, discovers, expect, in_future, newcomers, reason, refill,
    shapes::{arp, name_query, spoofed},
};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: an allowed client passes over every limit", KERNEL, client_over_limits),
        trial("kernel: an allowed client passes over the quarantine of its port", KERNEL, client_over_port),
        trial("kernel: an allowed client passes over its own quarantine", KERNEL, client_over_itself),
        trial("kernel: an allowed port passes over every limit", KERNEL, port_over_limits),
        trial("kernel: an allowed port passes over quarantine of itself and of its clients", KERNEL, port_over_all),
        trial("kernel: what is allowed spends nothing of anybody's", KERNEL, spends_nothing),
        trial("kernel: an allowance ends by itself", KERNEL, ends),
        trial("kernel: a port that an order allows passes over every limit at once", KERNEL, port_over_limits_by_order),
        trial("kernel: a port that an order allows passes over any quarantine", KERNEL, port_over_quarantine_by_order),
        trial("kernel: an order that allows a port is about no other one", KERNEL, port_alone_by_order),
        trial("kernel: the allowance of a port ends by itself, and it is policed again", KERNEL, port_ends_by_order),
    ]
}

const ALLOWED: Mac = Mac([2, 0, 0, 0, 9, 9]);
const LOUD: Mac = Mac([2, 0, 0, 0, 8, 8]);

/// Every limit admits one packet, and everything that can be dropped is.
fn strict(allowed: bool) -> Spec {
    let limits = PortSpec {
        total: burst_only(1),
        strangers: burst_only(1),
        new_clients: burst_only(1),
        discover: Some(burst_only(1)),
        client_v4: burst_only(1),
        client_v6: burst_only(1),
        drop_chaddr_mismatch: true,
        allowed,
        ..port(0, 0)
    };
    let mut strict = spec(vec![limits]);
    strict.policy.host = HostSpec { limit: Some((burst_only(1), burst_only(1))), drop_rogue_servers: true };
    strict
}

fn with_allowed_client() -> Result<GuardRun> {
    let mut allowed = strict(false);
    allowed.allowed_clients = vec![(port(0, 0).key, ALLOWED.0)];
    GuardRun::new(&allowed)
}

/// All that a client may send and somebody may object to.
fn all_of(mac: Mac) -> [Vec<u8>; 4] {
    let reply = offer(mac, Mac::machine(1), [10, 0, 0, 9].into());
    [discover(mac), solicit(mac), spoofed(mac, Mac::machine(2)), reply].map(|frame| frame.bytes())
}

fn all_pass(guard: &mut GuardRun, mac: Mac) -> Result<()> {
    let before = reason(&guard.snapshot()?, 0, Reason::PassAllowed);
    for frame in all_of(mac) {
        ensure!(guard.send_all(&vec![frame; 50])? == 50, "something that is allowed was dropped");
    }
    let counted = reason(&guard.snapshot()?, 0, Reason::PassAllowed) - before;
    ensure!(counted == 200, "{counted} of 200 are counted as allowed");
    Ok(())
}

fn client_over_limits() -> Result<()> {
    let mut guard = with_allowed_client()?;
    // The limits are spent, and others feel it.
    guard.send_all(&discovers(0..100))?;
    all_pass(&mut guard, ALLOWED)?;
    ensure!(reason(&guard.snapshot()?, 0, Reason::DropStrangerShare) > 50, "the limits were not in force");
    Ok(())
}

fn client_over_port() -> Result<()> {
    for what in [Sanction::Mute, Sanction::Isolate] {
        let mut guard = with_allowed_client()?;
        guard.impose(Target::one(whole_port(0)), what, FOREVER)?;
        all_pass(&mut guard, ALLOWED)?;
        ensure!(guard.send(&name_query(ALLOWED).bytes())? == Fate::Passed, "{what:?}: not DHCP");
        ensure!(guard.send(&discover(Mac::machine(0)).bytes())? == Fate::Dropped, "{what:?} was not in force");
    }
    Ok(())
}

fn client_over_itself() -> Result<()> {
    let mut guard = GuardRun::new(&strict(false))?;
    guard.isolate(on_port(0, ALLOWED), FOREVER)?;
    guard.allow(on_port(0, ALLOWED), FOREVER)?;
    all_pass(&mut guard, ALLOWED)?;
    ensure!(guard.send(&arp(ALLOWED))? == Fate::Passed, "not DHCP");
    guard.disallow(on_port(0, ALLOWED))?;
    ensure!(guard.send(&discover(ALLOWED).bytes())? == Fate::Dropped, "the quarantine was not in force");
    ensure!(guard.send(&arp(ALLOWED))? == Fate::Dropped, "the isolation was not in force");
    Ok(())
}

fn port_over_limits() -> Result<()> {
    let mut guard = GuardRun::new(&strict(true))?;
    all_pass(&mut guard, Mac::machine(0))?;
    ensure!(guard.send_all(&discovers(0..500))? == 500, "everyone on the port is allowed");
    ensure!(guard.snapshot()?.clients.is_empty(), "nobody is tracked on an allowed port");
    Ok(())
}

fn port_over_all() -> Result<()> {
    let mut guard = GuardRun::new(&strict(true))?;
    guard.isolate(on_port(0, Mac::machine(0)), FOREVER)?;
    for what in [Sanction::Mute, Sanction::Isolate] {
        guard.impose(Target::one(whole_port(0)), what, FOREVER)?;
        all_pass(&mut guard, Mac::machine(0))?;
        ensure!(guard.send(&arp(Mac::machine(0)))? == Fate::Passed, "{what:?}: not DHCP");
    }
    Ok(())
}

fn spends_nothing() -> Result<()> {
    let start = Instant::now();
    let mut allowed = spec(vec![PortSpec { total: burst_only(40), strangers: burst_only(40), ..port(0, 0) }]);
    allowed.policy.host.limit = Some((burst_only(40), burst_only(40)));
    allowed.allowed_clients = vec![(port(0, 0).key, ALLOWED.0)];
    let mut guard = GuardRun::new(&allowed)?;
    guard.repeat(&discover(ALLOWED).bytes(), 1000)?;
    let others = guard.send_all(&discovers(0..100))? as u64;
    expect("others beside an allowed client", others, &about(newcomers(40), start))
}

fn ends() -> Result<()> {
    let mut guard = GuardRun::new(&strict(false))?;
    guard.send_all(&discovers(0..10))?;
    let until = in_future(&mut guard, Duration::from_millis(300))?;
    guard.allow(on_port(0, ALLOWED), until)?;
    ends_at(&mut guard, &spoofed(ALLOWED, Mac::machine(2)).bytes(), until)
}

/// A frame that passes now must be dropped from the tick `until` on, and not before, with nobody doing anything.
fn ends_at(guard: &mut GuardRun, frame: &[u8], until: u64) -> Result<()> {
    let start = Instant::now();
    let mut passed = 0;
    loop {
        let before = super::ticks(guard)?;
        if guard.send(frame)? == Fate::Dropped {
            break;
        }
        passed += 1;
        ensure!(before < until, "passed at tick {before}, though it may only until {until}");
        ensure!(start.elapsed() < Duration::from_secs(30), "the clock does not come to tick {until}");
    }
    ensure!(passed > 0, "it did not pass in the first place");
    ensure!(super::ticks(guard)? >= until, "the allowance ended before its time");
    Ok(())
}

/// What everybody sends who is over a limit: one client in a memo, and many whom the short way answers.
fn everybodys() -> Vec<Vec<u8>> {
    let others = [spoofed(LOUD, Mac::machine(2)), offer(LOUD, Mac::machine(1), [10, 0, 0, 9].into())];
    let loud = std::iter::repeat_n(discover(LOUD).bytes(), 50);
    loud.chain(discovers(0..200)).chain(others.map(|frame| frame.bytes())).collect()
}

/// What is remembered of those over a limit does not outlive the beginning, and an allowance leaves nothing to remember.
fn port_over_limits_by_order() -> Result<()> {
    let start = Instant::now();
    let mut guard = GuardRun::new(&strict(false))?;
    let frames = everybodys();
    expect("under limits", guard.send_all(&frames)? as u64, &about(1u64, start))?;
    let entries = guard.snapshot()?.clients.len();
    ensure!(entries < 10, "too many have entries for the short way");
    guard.allow(whole_port(0), FOREVER)?;
    ensure!(guard.send_all(&frames)? == frames.len(), "something of an allowed port was dropped");
    guard.repeat(&discover(LOUD).bytes(), 1000)?;
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::PassAllowed) == frames.len() as u64 + 1000, "counted as allowed");
    ensure!(snapshot.clients.len() == entries, "nobody gets an entry on an allowed port");
    guard.disallow(whole_port(0))?;
    expect("after the allowance", guard.send_all(&frames)? as u64, &(0..=refill(start)))
}

fn port_over_quarantine_by_order() -> Result<()> {
    for what in [Sanction::Mute, Sanction::Isolate] {
        let mut guard = GuardRun::new(&strict(false))?;
        guard.impose(Target::one(whole_port(0)), what, FOREVER)?;
        guard.impose(Target::one(on_port(0, LOUD)), what, FOREVER)?;
        guard.send_all(&everybodys())?;
        guard.allow(whole_port(0), FOREVER)?;
        for mac in [LOUD, Mac::machine(0), Mac::machine(77)] {
            all_pass(&mut guard, mac)?;
            ensure!(guard.send_all(&[name_query(mac).bytes(), arp(mac)])? == 2, "{what:?}: {mac}, not DHCP");
        }
        guard.disallow(whole_port(0))?;
        ensure!(guard.send_all(&everybodys())? == 0, "{what:?} was not in force any more");
        let others = if what == Sanction::Isolate { 0 } else { 2 };
        ensure!(guard.send_all(&[name_query(LOUD).bytes(), arp(LOUD)])? == others, "{what:?}: others");
    }
    Ok(())
}

fn port_alone_by_order() -> Result<()> {
    let mut two = strict(false);
    two.policy.ports.push(PortSpec { key: port(100, 0).key, ..two.policy.ports[0] });
    let mut guard = GuardRun::new(&two)?;
    guard.isolate(whole_port(0), FOREVER)?;
    guard.isolate(whole_port(1), FOREVER)?;
    guard.allow(whole_port(1), FOREVER)?;
    let on_the_other = |frame: Frame| frame.tagged(&[Tag::c(100)]).bytes();
    for frame in [discover(LOUD), name_query(LOUD)] {
        ensure!(guard.send(&frame.bytes())? == Fate::Dropped, "another port is allowed, not this one");
        ensure!(guard.send(&on_the_other(frame))? == Fate::Passed, "this port is allowed");
    }
    guard.plane().apply(&two.policy)?;
    ensure!(guard.send(&on_the_other(name_query(LOUD)))? == Fate::Passed, "a policy does not end it");
    Ok(())
}

/// Under each rule by itself: the deadline is looked at for every packet, so nothing lets one more through.
fn port_ends_by_order() -> Result<()> {
    let cases: [(Option<Sanction>, Vec<u8>); 5] = [
        (None, spoofed(LOUD, Mac::machine(2)).bytes()),
        (Some(Sanction::Mute), discover(LOUD).bytes()),
        (Some(Sanction::Isolate), discover(LOUD).bytes()),
        (Some(Sanction::Isolate), name_query(LOUD).bytes()),
        (Some(Sanction::Isolate), arp(LOUD)),
    ];
    for (quarantine, frame) in cases {
        let start = Instant::now();
        let mut guard = GuardRun::new(&strict(false))?;
        if let Some(what) = quarantine {
            guard.impose(Target::one(whole_port(0)), what, FOREVER)?;
        }
        guard.send_all(&everybodys())?;
        let until = in_future(&mut guard, Duration::from_millis(300))?;
        guard.allow(whole_port(0), until)?;
        ensure!(guard.send_all(&everybodys())? == everybodys().len(), "allowed for a while");
        ends_at(&mut guard, &frame, until)?;
        expect("policed again", guard.send_all(&everybodys())? as u64, &(0..=refill(start)))?;
    }
    Ok(())
}
