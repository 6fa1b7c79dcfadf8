//! One limiter, and several CPUs that want it.

use std::time::Instant;

use anyhow::{Result, ensure};
use dhcp_guard::dataplane::{PortSpec, Spec};
use dhcp_guard_common::verdict::Reason;
use libtest_mimic::Trial;
use tests::{
    guard_run::{GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    packets::discover,
};

use super::{KERNEL, about, burst_only, discovers, expect, newcomers, reason};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: two CPUs do not exceed a port's limit", KERNEL, || held(&port_total(), LIMIT.into())),
        trial("kernel: two CPUs do not exceed the strangers' share", KERNEL, || held(&strangers(), newcomers(LIMIT))),
        trial("kernel: two CPUs do not exceed the DISCOVERs' share", KERNEL, || held(&discovers_share(), LIMIT.into())),
        trial("kernel: two CPUs do not exceed the host's budget", KERNEL, || held(&host_total(), LIMIT.into())),
        trial("kernel: two CPUs do not exceed the strangers' share of the host", KERNEL, || {
            held(&host_strangers(), newcomers(LIMIT))
        }),
        trial("kernel: whoever loses a limiter to another CPU is dropped, and counted", KERNEL, lost_races),
    ]
}

const LIMIT: u32 = 500;
const PLENTY: (u32, u32) = (1_000_000, 1_000_000);
const MACHINES: usize = 2000;

fn with_known(limits: PortSpec) -> Spec {
    let mut with_known = spec(vec![limits]);
    with_known.known_clients = (0..MACHINES).map(|i| (port(0, 0).key, Mac::machine(i).0)).collect();
    with_known
}

fn port_total() -> Spec {
    with_known(PortSpec { total: burst_only(LIMIT), ..port(0, 0) })
}

fn strangers() -> Spec {
    spec(vec![PortSpec { strangers: burst_only(LIMIT), ..port(0, 0) }])
}

fn discovers_share() -> Spec {
    with_known(PortSpec { discover: Some(burst_only(LIMIT)), ..port(0, 0) })
}

fn host_total() -> Spec {
    let mut limited = with_known(port(0, 0));
    limited.policy.host.limit = Some((burst_only(LIMIT), PLENTY));
    limited
}

fn host_strangers() -> Spec {
    let mut limited = spec(vec![port(0, 0)]);
    limited.policy.host.limit = Some((PLENTY, burst_only(LIMIT)));
    limited
}

/// Both CPUs send a DISCOVER of each machine. At least so many pass; more only where a machine's second packet, on the
/// other CPU, is that of one who comes back; and never more than the limit.
fn held(spec: &Spec, at_least: u64) -> Result<()> {
    let start = Instant::now();
    let mut guard = GuardRun::new(spec)?;
    let passed: u64 = guard.send_from_cpus(2, &discovers(0..MACHINES))?.into_iter().sum();
    expect("passed on two CPUs", passed, &(at_least..=*about(LIMIT, start).end()))?;
    let snapshot = guard.snapshot()?;
    let all: u64 = snapshot.ports[1].reasons.iter().sum();
    ensure!(all == 2 * MACHINES as u64, "{all} packets are counted");
    let counted = reason(&snapshot, 0, Reason::PassKnown) + reason(&snapshot, 0, Reason::PassStranger);
    ensure!(counted == passed, "{counted} are counted of {passed} that passed");
    Ok(())
}

/// Nothing is over any limit here, so all that is dropped has lost a race. How often that happens is the machine's affair;
/// each time must be counted.
fn lost_races() -> Result<()> {
    const TIMES: u32 = 200_000;
    // Millions of packets a second are no excess.
    let endless = (u32::MAX, u32::MAX);
    let mut guard = GuardRun::new(&with_known(PortSpec { total: endless, client_v4: endless, ..port(0, 0) }))?;
    let frames = [0, 1].map(|i| discover(Mac::machine(i)).bytes());
    let (mut sent, mut lost) = (0, 0);
    while lost == 0 && sent < 10_000_000 {
        guard.repeat_from_cpus(&frames, TIMES)?;
        sent += 2 * u64::from(TIMES);
        let snapshot = guard.snapshot()?;
        lost = snapshot.troubles.lost_races;
        let dropped = reason(&snapshot, 0, Reason::DropPortLimit);
        ensure!(dropped == lost, "{dropped} were dropped and {lost} races lost");
        ensure!(dropped + reason(&snapshot, 0, Reason::PassKnown) == sent, "all are counted");
    }
    println!("{lost} races lost with {sent} packets");
    Ok(())
}
