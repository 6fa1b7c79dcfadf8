//! What a port may send, and which port a frame belongs to.

use std::time::Instant;

use anyhow::{Result, ensure};
use dhcp_guard::dataplane::PortSpec;
use dhcp_guard_common::{
    layout::{EVENT_UNKNOWN_VLAN, NO_PORT_SLOT},
    verdict::Reason,
};
use libtest_mimic::Trial;
use tests::{
    guard_run::{Fate, GuardRun, count, port, spec},
    harness::trial,
    mac::Mac,
    packets::{Tag, discover, offer, request, solicit},
};

use super::{KERNEL, about, burst_only, counts, discovers, expect, reason, shapes::renew};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: monitor mode passes everything and counts what it would drop", KERNEL, monitor),
        trial("kernel: a trusted port has only its own limit", KERNEL, trusted),
        trial("kernel: ports are apart", KERNEL, ports_apart),
        trial("kernel: without any port everything passes", KERNEL, no_port),
        trial("kernel: DISCOVERs have a share, and a port's REQUESTs pass beside it", KERNEL, || {
            discover_share(&discover_v4, &request_v4)
        }),
        trial("kernel: Solicits have a share, and a port's Renews pass beside it", KERNEL, || {
            discover_share(&|mac| solicit(mac).bytes(), &|mac| renew(mac).bytes())
        }),
        trial("kernel: DISCOVERs and Solicits share one limit", KERNEL, discovers_and_solicits),
        trial("kernel: DISCOVERs have all of the port if no share is set", KERNEL, discover_share_is_off),
        trial("kernel: a DISCOVER that its share refuses does not spend the port", KERNEL, discover_refused_for_free),
    ]
}

fn discover_v4(mac: Mac) -> Vec<u8> {
    discover(mac).bytes()
}

fn request_v4(mac: Mac) -> Vec<u8> {
    request(mac, [10, 0, 0, 9].into()).bytes()
}

fn monitor() -> Result<()> {
    let limits = PortSpec { client_v4: burst_only(5), strangers: burst_only(20), monitor: true, ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    let loud = discover(Mac::machine(0)).bytes();
    ensure!(guard.repeat(&loud, 1000)?.0 == Fate::Passed, "monitor mode never drops");
    ensure!(guard.send_all(&discovers(1..101))? == 100, "monitor mode never drops");
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::WouldDropClientLimit) >= 990, "over the client's limit");
    ensure!(reason(&snapshot, 0, Reason::WouldDropStrangerShare) >= 80, "over the strangers' share");
    let dropped: u64 = Reason::ALL.iter().filter(|r| r.is_drop()).map(|r| reason(&snapshot, 0, *r)).sum();
    ensure!(dropped == 0, "{dropped} are counted as dropped");
    let (packets, excess, _) = counts(&snapshot, 0, Mac::machine(0));
    ensure!(packets == 1000 && excess >= 990, "the client's own counts: {packets} packets, {excess} over");
    Ok(())
}

fn trusted() -> Result<()> {
    let start = Instant::now();
    let limits = PortSpec {
        client_v4: burst_only(5),
        strangers: burst_only(5),
        discover: Some(burst_only(5)),
        total: burst_only(300),
        trusted: true,
        ..port(0, 0)
    };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    let frames = [discover_v4(Mac::machine(0)), offer(Mac::machine(1), Mac::machine(2), [10, 0, 0, 1].into()).bytes()];
    let mut passed = 0;
    for _ in 0..200 {
        passed += guard.send_all(&frames)? as u64;
    }
    expect("passed a trusted port's limit of 300", passed, &about(300u32, start))?;
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::PassTrusted) == passed, "counted as trusted");
    ensure!(reason(&snapshot, 0, Reason::DropPortLimit) == 400 - passed, "the rest is over the port's limit");
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

/// 100 machines, half of them known, begin anew and then go on.
fn discover_share(begin: &dyn Fn(Mac) -> Vec<u8>, go_on: &dyn Fn(Mac) -> Vec<u8>) -> Result<()> {
    let start = Instant::now();
    let mut with_known = spec(vec![PortSpec { discover: Some(burst_only(30)), ..port(0, 0) }]);
    with_known.known_clients = (0..100).step_by(2).map(|i| (port(0, 0).key, Mac::machine(i).0)).collect();
    let mut guard = GuardRun::new(&with_known)?;
    let each = |frame: &dyn Fn(Mac) -> Vec<u8>| (0..100).map(|i| frame(Mac::machine(i))).collect::<Vec<_>>();
    let passed = guard.send_all(&each(begin))? as u64;
    expect("of 100 that begin, with a share of 30", passed, &about(30u32, start))?;
    let gone_on = guard.send_all(&each(go_on))?;
    ensure!(gone_on == 100, "{gone_on} of 100 that go on passed");
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::DropDiscoverShare) == 100 - passed, "the rest is over the share");
    Ok(())
}

fn discovers_and_solicits() -> Result<()> {
    let start = Instant::now();
    let mut guard = GuardRun::new(&spec(vec![PortSpec { discover: Some(burst_only(30)), ..port(0, 0) }]))?;
    let frames: Vec<_> =
        (0..50).flat_map(|i| [discover_v4(Mac::machine(i)), solicit(Mac::machine(i)).bytes()]).collect();
    let passed = guard.send_all(&frames)? as u64;
    expect("of 50 DISCOVERs and 50 Solicits, with a share of 30", passed, &about(30u32, start))
}

fn discover_share_is_off() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![PortSpec { discover: None, ..port(0, 0) }]))?;
    let passed = guard.send_all(&discovers(0..2000))?;
    ensure!(passed == 2000, "{passed} of 2000 DISCOVERs passed");
    Ok(())
}

/// The port admits 40 altogether. 100 DISCOVERs, of which 10 may pass, leave 30 of it.
fn discover_refused_for_free() -> Result<()> {
    let start = Instant::now();
    let limits = PortSpec { discover: Some(burst_only(10)), total: burst_only(40), ..port(0, 0) };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    let begun = guard.send_all(&discovers(0..100))? as u64;
    let requests: Vec<_> = (0..100).map(|i| request_v4(Mac::machine(i))).collect();
    let passed = guard.send_all(&requests)? as u64;
    expect("REQUESTs", passed, &about(40 - begun, start))
}
