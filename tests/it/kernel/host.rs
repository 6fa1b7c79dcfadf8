//! What all ports of the host together may send.

use std::time::Instant;

use anyhow::{Result, ensure};
use dhcp_guard::dataplane::{HostSpec, Policy, PortSpec, Spec};
use dhcp_guard_common::{layout::EVENT_HOST_OVER_LIMIT, verdict::Reason};
use libtest_mimic::Trial;
use tests::{
    guard_run::{GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    packets::{Tag, discover},
};

use super::{KERNEL, about, burst_only, counts, discovers, expect, newcomers, reason, refill};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: all ports together are held to the host's budget", KERNEL, together),
        trial("kernel: without a budget for the host its ports have what they have", KERNEL, no_budget),
        trial("kernel: strangers of all ports have a share of the host, known clients the rest", KERNEL, shares),
        trial("kernel: strangers that come back have what the host keeps for them", KERNEL, come_back),
        trial("kernel: a port takes no more than its own limit from the host's budget", KERNEL, own_limit_first),
        trial("kernel: trusted ports neither need nor spend the host's budget", KERNEL, trusted_is_exempt),
        trial(
            "kernel: what the host refuses costs the port nothing, and its sender what it sent",
            KERNEL,
            refused_for_free,
        ),
        trial("kernel: monitored ports pass over the host's budget, and it is counted", KERNEL, monitored),
        trial("kernel: the host's excess is told once", KERNEL, told_once),
    ]
}

/// The VLANs of two ports.
const VLANS: [u16; 2] = [100, 200];

/// DISCOVERs of these machines on a port.
fn on_port(vlan: u16, machines: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    machines.map(|i| discover(Mac::machine(i)).tagged(&[Tag::c(vlan)]).bytes()).collect()
}

/// Two ports and a budget; machines 0 to 99 are known on both.
fn two_ports(limits: impl Fn(u16) -> PortSpec, total: u32, strangers: u32) -> Spec {
    let mut spec = spec(VLANS.map(limits).to_vec());
    spec.policy.host.limit = Some((burst_only(total), burst_only(strangers)));
    spec.known_clients =
        VLANS.iter().flat_map(|vlan| (0..100).map(|i| (port(*vlan, 0).key, Mac::machine(i).0))).collect();
    spec
}

fn plenty(vlan: u16) -> PortSpec {
    port(vlan, 0)
}

fn together() -> Result<()> {
    let start = Instant::now();
    let mut guard = GuardRun::new(&two_ports(plenty, 120, 1))?;
    let first = guard.send_all(&on_port(100, 0..100))? as u64;
    ensure!(first == 100, "{first} of 100 known clients passed within the host's budget");
    let second = guard.send_all(&on_port(200, 0..100))? as u64;
    expect("known clients on the second port", second, &about(20u32, start))?;
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 1, Reason::DropHostLimit) == 100 - second, "the rest is over the host's budget");
    ensure!(reason(&snapshot, 1, Reason::PassKnown) == second, "what passed is counted as known");
    Ok(())
}

fn no_budget() -> Result<()> {
    let mut unlimited = two_ports(plenty, 1, 1);
    unlimited.policy.host.limit = None;
    let mut guard = GuardRun::new(&unlimited)?;
    let passed = guard.send_all(&on_port(100, 0..500))? + guard.send_all(&on_port(200, 0..500))?;
    ensure!(passed == 1000, "{passed} of 1000 passed");
    Ok(())
}

fn shares() -> Result<()> {
    let start = Instant::now();
    let mut guard = GuardRun::new(&two_ports(plenty, 150, 80))?;
    let mut strangers = 0;
    for (place, vlan) in VLANS.into_iter().enumerate() {
        let passed = guard.send_all(&on_port(vlan, 1000 + 100 * place..1050 + 100 * place))? as u64;
        let snapshot = guard.snapshot()?;
        ensure!(reason(&snapshot, place, Reason::PassStranger) == passed, "passed as strangers");
        ensure!(reason(&snapshot, place, Reason::DropHostLimit) == 50 - passed, "or are over the host's budget");
        strangers += passed;
    }
    expect("strangers of two ports, with a share of 80", strangers, &about(newcomers(80), start))?;
    let known = guard.send_all(&on_port(100, 0..100))? as u64;
    expect("known clients", known, &about(150 - strangers, start))
}

fn come_back() -> Result<()> {
    let start = Instant::now();
    let mut guard = GuardRun::new(&two_ports(plenty, 1000, 101))?;
    let first = guard.send_all(&on_port(100, 1000..1200))? as u64;
    expect("newcomers on one port", first, &about(newcomers(101), start))?;
    let newcomers_elsewhere = guard.send_all(&on_port(200, 2000..2200))? as u64;
    expect("newcomers on the other port", newcomers_elsewhere, &(0..=refill(start)))?;
    let again = guard.send_all(&on_port(200, 2100..2200))? as u64;
    let kept = 101 - newcomers(101);
    expect("strangers that came back on the other port", again, &about(kept, start))
}

fn own_limit_first() -> Result<()> {
    let start = Instant::now();
    let limits = |vlan| PortSpec { total: if vlan == 100 { burst_only(20) } else { port(0, 0).total }, ..plenty(vlan) };
    let mut guard = GuardRun::new(&two_ports(limits, 110, 1))?;
    let first = guard.send_all(&on_port(100, 0..100))? as u64;
    expect("a port with a limit of 20", first, &about(20u32, start))?;
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::DropPortLimit) == 100 - first, "the rest is over the port's limit");
    let second = guard.send_all(&on_port(200, 0..100))? as u64;
    expect("the other port has what is left", second, &(110 - first..=100))
}

fn trusted_is_exempt() -> Result<()> {
    let start = Instant::now();
    let mut guard = GuardRun::new(&two_ports(|vlan| PortSpec { trusted: vlan == 100, ..plenty(vlan) }, 30, 30))?;
    let trusted = guard.send_all(&on_port(100, 0..500))?;
    ensure!(trusted == 500, "{trusted} of 500 passed on the trusted port");
    let others = guard.send_all(&on_port(200, 0..100))? as u64;
    expect("the budget of 30 is there for the others", others, &about(30u32, start))?;
    let trusted = guard.send_all(&on_port(100, 0..500))?;
    ensure!(trusted == 500, "{trusted} of 500 passed on the trusted port when the budget was spent");
    Ok(())
}

/// The host's budget is spent on one port. 1,000 packets of the other one are refused, ten of each client; without the
/// budget, that port has all of its burst, and its clients what is left of their thirteen.
fn refused_for_free() -> Result<()> {
    let limits = |vlan| match vlan {
        100 => PortSpec {
            total: burst_only(60),
            client_v4: burst_only(13),
            discover: Some(burst_only(60)),
            ..plenty(vlan)
        },
        _ => plenty(vlan),
    };
    let budgeted = two_ports(limits, 50, 50);
    let mut guard = GuardRun::new(&budgeted)?;
    guard.send_all(&on_port(200, 0..100))?;
    let start = Instant::now();
    for _ in 0..10 {
        guard.send_all(&on_port(100, 0..100))?;
    }
    let snapshot = guard.snapshot()?;
    let passed = reason(&snapshot, 0, Reason::PassKnown);
    let refused = reason(&snapshot, 0, Reason::DropHostLimit);
    ensure!(passed + refused == 1000 && passed <= refill(start), "{passed} passed and {refused} were refused");
    let spent: Vec<_> = (0..100).map(|i| counts(&snapshot, 0, Mac::machine(i))).collect();
    ensure!(spent.iter().all(|(packets, _, own)| (*packets, *own) == (10, 0)), "{spent:?}");

    let unlimited = Policy { host: HostSpec::default(), ..budgeted.policy };
    guard.plane().apply(&unlimited)?;
    // 20 clients with three packets each are the port's 60.
    let frames: Vec<_> = (0..4).flat_map(|_| on_port(100, 50..70)).collect();
    let admitted = guard.send_all(&frames)? as u64;
    expect("packets within the port's and the clients' bursts", admitted, &(60 - passed..=60 + refill(start)))
}

fn monitored() -> Result<()> {
    let start = Instant::now();
    let mut guard = GuardRun::new(&two_ports(|vlan| PortSpec { monitor: true, ..plenty(vlan) }, 30, 1))?;
    let passed = guard.send_all(&on_port(100, 0..100))?;
    ensure!(passed == 100, "{passed} of 100 passed: monitor mode never drops");
    let would = reason(&guard.snapshot()?, 0, Reason::WouldDropHostLimit);
    expect("within the budget of 30", 100 - would, &about(30u32, start))
}

fn told_once() -> Result<()> {
    let mut untagged = spec(vec![port(0, 0)]);
    untagged.policy.host.limit = Some((burst_only(10), burst_only(10)));
    let mut guard = GuardRun::new(&untagged)?;
    guard.send_all(&discovers(0..500))?;
    let kinds: Vec<u32> = guard.events().iter().map(|event| event.kind).collect();
    ensure!(kinds == [EVENT_HOST_OVER_LIMIT], "{kinds:?}");
    Ok(())
}
