//! A new policy while the program runs.

use std::time::Instant;

use anyhow::{Result, ensure};
use dhcp_guard::dataplane::{Error, HostSpec, Policy, PortSpec, load::slot_of};
use dhcp_guard_common::verdict::Reason;
use libtest_mimic::Trial;
use tests::{
    guard_run::{Fate, GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    packets::{Tag, discover, offer},
};

use super::{KERNEL, about, burst_only, counts, discovers, expect, reason, refill};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: a port that is gone falls to its interface, and comes back as it was", KERNEL, gone_and_back),
        trial("kernel: a port that is gone without another one has no limit", KERNEL, gone_for_good),
        trial("kernel: a new port is in force from its next packet on", KERNEL, new_port),
        trial("kernel: too many ports are refused, and the old policy stays", KERNEL, too_many),
        trial("kernel: after a policy with too many ports, one that fits is taken", KERNEL, fits_after_too_many),
        trial("kernel: a client over its limit passes right after a policy with a larger one", KERNEL, larger_limit),
        trial("kernel: a smaller limit is in force from the next packet on", KERNEL, smaller_limit),
        trial("kernel: flags of ports and host are in force from the next packet on", KERNEL, flags),
        trial("kernel: the same policy again changes nothing", KERNEL, again),
        trial("kernel: no packet meets half a policy", KERNEL, at_once),
    ]
}

fn policy(ports: Vec<PortSpec>) -> Policy {
    Policy { ports, host: HostSpec::default() }
}

fn tagged(mac: Mac) -> Vec<u8> {
    discover(mac).tagged(&[Tag::c(100)]).bytes()
}

fn gone_and_back() -> Result<()> {
    let start = Instant::now();
    let vlan = PortSpec { total: burst_only(50), ..port(100, 0) };
    let both = policy(vec![port(0, 0), vlan]);
    let mut guard = GuardRun::new(&spec(both.ports.clone()))?;
    let frames: Vec<_> = (0..20).map(|i| tagged(Mac::machine(i))).collect();
    ensure!(guard.send_all(&frames)? == 20, "within the port's limit");

    guard.plane().apply(&policy(vec![port(0, 0)]))?;
    for _ in 0..5 {
        ensure!(guard.send_all(&frames)? == 20, "the default port has room");
    }
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::PassStranger) == 100, "the default port took them");
    ensure!(reason(&snapshot, 1, Reason::PassStranger) == 20, "and the port that is gone did not");

    guard.plane().apply(&both)?;
    ensure!(guard.plane().slot(vlan.key) == Some(slot_of(1)), "it has its slot again");
    let mut passed = 0;
    for _ in 0..5 {
        passed += guard.send_all(&frames)? as u64;
    }
    expect("what was left of the port's 50", passed, &about(30u32, start))?;
    let (packets, ..) = counts(&guard.snapshot()?, 1, Mac::machine(0));
    ensure!(packets == 6, "{packets}: its clients go on where they were");
    Ok(())
}

fn gone_for_good() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![PortSpec { total: burst_only(1), ..port(0, 0) }]))?;
    guard.send_all(&discovers(0..10))?;
    guard.plane().apply(&policy(vec![]))?;
    ensure!(guard.send_all(&discovers(0..100))? == 100, "there is no port any more");
    ensure!(guard.snapshot()?.ports[0].reasons[Reason::PassNoPort.index()] == 100, "and that is what is counted");
    Ok(())
}

fn new_port() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    ensure!(guard.send(&tagged(Mac::machine(0)))? == Fate::Passed, "on the default port");
    let vlan = PortSpec { client_v4: burst_only(3), ..port(100, 0) };
    guard.plane().apply(&policy(vec![port(0, 0), vlan]))?;
    let start = Instant::now();
    let passed = guard.send_all(&vec![tagged(Mac::machine(0)); 50])? as u64;
    expect("on the new port, with its limit of 3", passed, &about(3u32, start))?;
    ensure!(counts(&guard.snapshot()?, 1, Mac::machine(0)).0 == 50, "counted there");
    Ok(())
}

/// Room for two ports, of which one is taken.
fn small() -> Result<GuardRun> {
    let mut small = spec(vec![PortSpec { client_v4: burst_only(1), ..port(0, 0) }]);
    small.port_capacity = 2;
    GuardRun::new(&small)
}

fn too_many() -> Result<()> {
    let mut guard = small()?;
    let version = guard.plane().version();
    let result = guard.plane().apply(&policy(vec![port(0, 0), port(1, 0), port(2, 0)]));
    ensure!(matches!(result, Err(Error::TooManyPorts { wanted: 3, capacity: 2 })), "{result:?}");
    ensure!(guard.plane().version() == version, "the old policy stays");
    guard.repeat(&discover(Mac::machine(0)).bytes(), 100)?;
    let start = Instant::now();
    let passed = guard.send_all(&vec![discover(Mac::machine(0)).bytes(); 50])? as u64;
    expect("over the old limit", passed, &(0..=refill(start)))
}

fn fits_after_too_many() -> Result<()> {
    let mut guard = small()?;
    ensure!(
        guard.plane().apply(&policy(vec![port(0, 0), port(1, 0), port(2, 0)])).is_err(),
        "two ports fit, not three"
    );
    guard.plane().apply(&policy(vec![port(0, 0), port(100, 0)]))?;
    ensure!(guard.send(&tagged(Mac::machine(0)))? == Fate::Passed, "the new port");
    ensure!(reason(&guard.snapshot()?, 1, Reason::PassStranger) == 1, "has the next slot");
    Ok(())
}

fn larger_limit() -> Result<()> {
    let limited = |burst| PortSpec { client_v4: burst_only(burst), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limited(5)]))?;
    let frame = discover(Mac::machine(0)).bytes();
    guard.repeat(&frame, 1000)?;
    guard.plane().apply(&policy(vec![limited(100)]))?;
    let start = Instant::now();
    let passed = guard.send_all(&vec![frame; 200])? as u64;
    // A second or two may have gone by since the burst of five.
    expect("what is left of 100", passed, &(94..=96 + refill(start)))?;
    let (packets, excess, own) = counts(&guard.snapshot()?, 0, Mac::machine(0));
    ensure!(packets == 1200 && excess == own, "{packets} of 1200 are counted, {excess} and {own} over");
    Ok(())
}

fn smaller_limit() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    ensure!(guard.send_all(&discovers(0..100))? == 100, "within the old limit");
    guard.plane().apply(&policy(vec![PortSpec { total: burst_only(10), ..port(0, 0) }]))?;
    let start = Instant::now();
    let passed = guard.send_all(&discovers(0..100))? as u64;
    // At a million packets a second, nothing is left of the old limit's hundred.
    expect("within the new limit", passed, &about(10u32, start))
}

fn flags() -> Result<()> {
    let strict = PortSpec { total: burst_only(1), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![strict]))?;
    let frame = discover(Mac::machine(0)).bytes();
    let reply = offer(Mac::machine(1), Mac::machine(2), [10, 0, 0, 9].into()).bytes();
    let mut both = |host: HostSpec, port: PortSpec| -> Result<(usize, usize)> {
        guard.plane().apply(&Policy { ports: vec![port], host })?;
        Ok((guard.send_all(&vec![frame.clone(); 50])?, guard.send_all(&vec![reply.clone(); 50])?))
    };
    let rogue = HostSpec { drop_rogue_servers: true, limit: None };
    let open = HostSpec::default();
    let (limited, replies) = both(open, strict)?;
    ensure!(limited < 25 && replies == 50, "{limited} and {replies}");
    ensure!(both(open, PortSpec { monitor: true, ..strict })? == (50, 50), "monitor mode");
    ensure!(both(rogue, PortSpec { allowed: true, ..strict })? == (50, 50), "an allowed port");
    let (limited, replies) = both(rogue, strict)?;
    ensure!(limited < 25 && replies == 0, "{limited} and {replies}");
    Ok(())
}

fn again() -> Result<()> {
    let start = Instant::now();
    let limits = PortSpec { client_v4: burst_only(20), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    let frame = discover(Mac::machine(0)).bytes();
    let mut passed = 0;
    for _ in 0..10 {
        passed += guard.send_all(&vec![frame.clone(); 5])? as u64;
        guard.plane().apply(&policy(vec![limits]))?;
    }
    expect("a limit of 20 over ten policies", passed, &about(20u32, start))?;
    let (packets, excess, own) = counts(&guard.snapshot()?, 0, Mac::machine(0));
    ensure!((packets, excess) == (50, own) && 50 - excess == passed, "{packets} {excess} {own}");
    Ok(())
}

/// Two policies that differ in all: port by port one of the two must be what a packet meets.
fn at_once() -> Result<()> {
    let one = policy(vec![PortSpec { allowed: true, ..port(0, 0) }]);
    let other = policy(vec![PortSpec { trusted: true, ..port(0, 0) }, PortSpec { allowed: true, ..port(100, 0) }]);
    let mut guard = GuardRun::new(&spec(one.ports.clone()))?;
    for round in 1..=20 {
        let is_other = round % 2 == 1;
        guard.plane().apply(if is_other { &other } else { &one })?;
        let before = guard.snapshot()?;
        guard.send_all(&[discover(Mac::machine(0)).bytes(), tagged(Mac::machine(0))])?;
        let after = guard.snapshot()?;
        let delta = |place, which| reason(&after, place, which) - reason(&before, place, which);
        let seen = [delta(0, Reason::PassAllowed), delta(0, Reason::PassTrusted), delta(1, Reason::PassAllowed)];
        let expected = if is_other { [0, 1, 1] } else { [2, 0, 0] };
        ensure!(seen == expected, "round {round}: {seen:?}");
    }
    Ok(())
}
