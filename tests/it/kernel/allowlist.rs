//! The allowlist wins over everything.

use std::time::Duration;

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
    packets::{discover, offer, solicit},
};

use super::{
    KERNEL, about, burst_only, discovers, expect, in_future, newcomers, reason,
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
    ]
}

const ALLOWED: Mac = Mac([2, 0, 0, 0, 9, 9]);

/// Every limit admits one packet, and everything that can be dropped is.
fn strict(allowed: bool) -> Spec {
    let limits = PortSpec {
        total: burst_only(1),
        strangers: burst_only(1),
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
    let start = std::time::Instant::now();
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
    let frame = spoofed(ALLOWED, Mac::machine(2)).bytes();
    let start = std::time::Instant::now();
    loop {
        let before = super::ticks(&mut guard)?;
        if guard.send(&frame)? == Fate::Dropped {
            break;
        }
        ensure!(before < until, "passed at tick {before}, though it may only until {until}");
        ensure!(start.elapsed() < Duration::from_secs(30), "the clock does not come to tick {until}");
    }
    ensure!(super::ticks(&mut guard)? >= until, "the allowance ended before its time");
    Ok(())
}
