//! Mute: a port's or a client's DHCP is dropped for a while, in both directions.

use std::{net::Ipv6Addr, time::Duration};

use anyhow::{Result, ensure};
use dhcp_guard::dataplane::PortSpec;
use dhcp_guard_common::{
    layout::FOREVER,
    verdict::{Note, Reason},
};
use libtest_mimic::Trial;
use tests::{
    guard_run::{Fate, GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    orders::{on_port, whole_port},
    packets::{Tag, discover, offer, request, solicit},
};

use super::{
    KERNEL, burst_only, client, counts, in_future, note, passes_again_at, reason,
    shapes::{advertise, arp, name_query, relay_forward, relayed},
};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: a muted port sends and gets no DHCP, and all else", KERNEL, port_muted),
        trial("kernel: a muted client sends no DHCP, and all else", KERNEL, client_muted),
        trial("kernel: a muted port does not touch other ports", KERNEL, other_ports),
        trial("kernel: a muted client does not touch other clients, nor itself elsewhere", KERNEL, other_clients),
        trial("kernel: the mute of a port ends by its deadline with nobody doing anything", KERNEL, port_deadline),
        trial("kernel: the mute of a client ends by its deadline with nobody doing anything", KERNEL, client_deadline),
        trial("kernel: the later of a port's and its client's deadlines counts", KERNEL, later_deadline),
        trial("kernel: a mute that user space ends is over at once", KERNEL, ended_early),
        trial(
            "kernel: a mute begins at once for a client that is remembered as over its limit",
            KERNEL,
            begins_at_once,
        ),
        trial("kernel: packets of a muted client are counted exactly", KERNEL, exact_counts),
        trial("kernel: packets of a muted client without an entry are counted as untracked", KERNEL, untracked),
        trial("kernel: a muted client's limits are untouched when it comes back", KERNEL, limits_untouched),
        trial("kernel: a trusted port cannot be muted, nor a client on it", KERNEL, trusted),
        trial("kernel: a monitored port is not muted, but counts what it would drop", KERNEL, monitored),
    ]
}

const MUTED: Mac = Mac([2, 0, 0, 0, 9, 9]);

/// DHCP from `mac`: to servers and to clients, of both protocols, for itself and as a relay.
fn dhcp_of(mac: Mac) -> [Vec<u8>; 7] {
    let address = [10, 0, 0, 9].into();
    let (link, peer) = ("2001:db8::1".parse().unwrap_or(Ipv6Addr::LOCALHOST), Ipv6Addr::LOCALHOST);
    [
        discover(mac),
        request(mac, address),
        solicit(mac),
        offer(mac, Mac::machine(1), address),
        advertise(mac),
        relayed(mac, address, Mac::machine(77)),
        relay_forward(mac, link, Mac::machine(78), peer),
    ]
    .map(|frame| frame.bytes())
}

fn others_of(mac: Mac) -> [Vec<u8>; 2] {
    [name_query(mac).bytes(), arp(mac)]
}

/// All of a sender's DHCP meets the same fate, ten times each, and other frames pass.
fn dhcp_is(guard: &mut GuardRun, mac: Mac, fate: Fate) -> Result<()> {
    let expected = if fate == Fate::Passed { 10 } else { 0 };
    for (place, frame) in dhcp_of(mac).into_iter().enumerate() {
        let passed = guard.send_all(&vec![frame; 10])?;
        ensure!(passed == expected, "{passed} of 10 passed of frame {place} of {mac}");
    }
    ensure!(guard.send_all(&others_of(mac))? == 2, "frames of {mac} that are not DHCP");
    Ok(())
}

fn mute(guard: &mut GuardRun, place: usize, mac: Mac, until: u64) -> Result<()> {
    guard.mute(on_port(place, mac), until)
}

fn mute_port(guard: &mut GuardRun, place: usize, until: u64) -> Result<()> {
    guard.mute(whole_port(place), until)
}

fn port_muted() -> Result<()> {
    let mut with_known = spec(vec![port(0, 0)]);
    with_known.known_clients = vec![(port(0, 0).key, Mac::machine(3).0)];
    let mut guard = GuardRun::new(&with_known)?;
    dhcp_is(&mut guard, Mac::machine(0), Fate::Passed)?;
    mute_port(&mut guard, 0, FOREVER)?;
    for mac in [0, 2, 3].map(Mac::machine) {
        dhcp_is(&mut guard, mac, Fate::Dropped)?;
    }
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::DropQuarantine) == 210, "counted as quarantine");
    ensure!(note(&snapshot, 0, Note::IsolatedFrame) == 0, "nobody is isolated");
    Ok(())
}

fn client_muted() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    dhcp_is(&mut guard, MUTED, Fate::Passed)?;
    mute(&mut guard, 0, MUTED, FOREVER)?;
    dhcp_is(&mut guard, MUTED, Fate::Dropped)?;
    ensure!(reason(&guard.snapshot()?, 0, Reason::DropQuarantine) == 70, "counted as quarantine");
    Ok(())
}

fn other_ports() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0), port(100, 0)]))?;
    mute_port(&mut guard, 0, FOREVER)?;
    dhcp_is(&mut guard, MUTED, Fate::Dropped)?;
    let elsewhere = discover(MUTED).tagged(&[Tag::c(100)]).bytes();
    ensure!(guard.send_all(&vec![elsewhere; 50])? == 50, "the same MAC on another port");
    let no_port_of_its_own = discover(MUTED).tagged(&[Tag::c(999)]).bytes();
    ensure!(guard.send(&no_port_of_its_own)? == Fate::Dropped, "a VLAN that falls to the muted port");
    Ok(())
}

fn other_clients() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0), port(100, 0)]))?;
    mute(&mut guard, 0, MUTED, FOREVER)?;
    for machine in 0..20 {
        dhcp_is(&mut guard, Mac::machine(machine), Fate::Passed)?;
    }
    let elsewhere = discover(MUTED).tagged(&[Tag::c(100)]).bytes();
    ensure!(guard.send_all(&vec![elsewhere; 50])? == 50, "the same MAC on another port");
    dhcp_is(&mut guard, MUTED, Fate::Dropped)
}

fn port_deadline() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    let until = in_future(&mut guard, Duration::from_millis(300))?;
    mute_port(&mut guard, 0, until)?;
    passes_again_at(&mut guard, &discover(MUTED).bytes(), until)?;
    dhcp_is(&mut guard, MUTED, Fate::Passed)
}

fn client_deadline() -> Result<()> {
    for frame in [discover(MUTED), solicit(MUTED), offer(MUTED, Mac::machine(1), [10, 0, 0, 9].into())] {
        let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
        let until = in_future(&mut guard, Duration::from_millis(300))?;
        mute(&mut guard, 0, MUTED, until)?;
        passes_again_at(&mut guard, &frame.bytes(), until)?;
        dhcp_is(&mut guard, MUTED, Fate::Passed)?;
    }
    Ok(())
}

fn later_deadline() -> Result<()> {
    let (sooner, later) = (Duration::from_millis(100), Duration::from_millis(300));
    for (of_port, of_client) in [(sooner, later), (later, sooner)] {
        let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
        let (of_port, of_client) = (in_future(&mut guard, of_port)?, in_future(&mut guard, of_client)?);
        mute_port(&mut guard, 0, of_port)?;
        mute(&mut guard, 0, MUTED, of_client)?;
        passes_again_at(&mut guard, &discover(MUTED).bytes(), of_port.max(of_client))?;
    }
    Ok(())
}

fn ended_early() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    mute_port(&mut guard, 0, FOREVER)?;
    dhcp_is(&mut guard, MUTED, Fate::Dropped)?;
    guard.release(whole_port(0))?;
    dhcp_is(&mut guard, MUTED, Fate::Passed)?;

    mute(&mut guard, 0, MUTED, FOREVER)?;
    dhcp_is(&mut guard, MUTED, Fate::Dropped)?;
    guard.release(on_port(0, MUTED))?;
    dhcp_is(&mut guard, MUTED, Fate::Passed)?;

    mute(&mut guard, 0, MUTED, FOREVER)?;
    dhcp_is(&mut guard, MUTED, Fate::Dropped)?;
    mute(&mut guard, 0, MUTED, 0)?;
    dhcp_is(&mut guard, MUTED, Fate::Passed)
}

/// What a CPU remembers of the client ends with the mute, and not before.
fn begins_at_once() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![PortSpec { client_v4: burst_only(5), ..port(0, 0) }]))?;
    let frame = discover(MUTED).bytes();
    guard.repeat(&frame, 1000)?;
    mute(&mut guard, 0, MUTED, FOREVER)?;
    guard.repeat(&frame, 1000)?;
    let muted = reason(&guard.snapshot()?, 0, Reason::DropQuarantine);
    ensure!(muted == 1000, "{muted} of 1000 packets were dropped for the mute");
    Ok(())
}

fn exact_counts() -> Result<()> {
    const KNOWN: Mac = Mac([2, 0, 0, 0, 7, 7]);
    let mut with_known = spec(vec![PortSpec { client_v4: burst_only(50), ..port(0, 0) }]);
    with_known.known_clients = vec![(port(0, 0).key, KNOWN.0)];
    let mut guard = GuardRun::new(&with_known)?;
    for mac in [MUTED, KNOWN] {
        let frame = discover(mac).bytes();
        guard.send_all(&vec![frame.clone(); 20])?;
        mute(&mut guard, 0, mac, FOREVER)?;
        guard.repeat(&frame, 1000)?;
        let seen = counts(&guard.snapshot()?, 0, mac);
        ensure!(seen == (1020, 1000, 0), "{mac}, while muted: {seen:?}");
        guard.release(on_port(0, mac))?;
        guard.send_all(&vec![frame.clone(); 10])?;
        let seen = counts(&guard.snapshot()?, 0, mac);
        ensure!(seen == (1030, 1000, 0), "{mac}, afterwards: {seen:?}");
        // What the memo held of the mute must not become the client's own excess when it goes over its limit.
        guard.repeat(&frame, 500)?;
        let (packets, excess, own) = counts(&guard.snapshot()?, 0, mac);
        ensure!(packets == 1530 && excess == 1000 + own, "{mac}, over its limit: {packets} {excess} {own}");
    }
    ensure!(guard.snapshot()?.troubles.untracked == 0, "all are somebody's");
    Ok(())
}

fn untracked() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    mute(&mut guard, 0, MUTED, FOREVER)?;
    let frame = discover(MUTED).bytes();
    guard.repeat(&frame, 1000)?;
    ensure!(client(&guard.snapshot()?, 0, MUTED).is_none(), "a muted client gets no entry");
    guard.release(on_port(0, MUTED))?;
    guard.send_all(&vec![frame; 10])?;
    let snapshot = guard.snapshot()?;
    let (packets, ..) = counts(&snapshot, 0, MUTED);
    let total = packets + snapshot.troubles.untracked;
    ensure!(total == 1010, "{packets} and {} untracked of 1010", snapshot.troubles.untracked);
    Ok(())
}

fn limits_untouched() -> Result<()> {
    let limits = PortSpec {
        client_v4: burst_only(5),
        strangers: burst_only(20),
        discover: Some(burst_only(20)),
        total: burst_only(20),
        ..port(0, 0)
    };
    let mut guard = GuardRun::new(&spec(vec![limits]))?;
    mute(&mut guard, 0, MUTED, FOREVER)?;
    let frame = discover(MUTED).bytes();
    guard.repeat(&frame, 1000)?;
    guard.release(on_port(0, MUTED))?;
    ensure!(guard.send_all(&vec![frame; 5])? == 5, "what was dropped was charged");
    Ok(())
}

fn trusted() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![PortSpec { trusted: true, ..port(0, 0) }]))?;
    mute_port(&mut guard, 0, FOREVER)?;
    mute(&mut guard, 0, MUTED, FOREVER)?;
    for mac in [MUTED, Mac::machine(0)] {
        dhcp_is(&mut guard, mac, Fate::Passed)?;
    }
    Ok(())
}

fn monitored() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![PortSpec { monitor: true, ..port(0, 0) }]))?;
    mute(&mut guard, 0, MUTED, FOREVER)?;
    dhcp_is(&mut guard, MUTED, Fate::Passed)?;
    dhcp_is(&mut guard, Mac::machine(0), Fate::Passed)?;
    ensure!(reason(&guard.snapshot()?, 0, Reason::WouldDropQuarantine) == 70, "a muted client's are counted");
    mute_port(&mut guard, 0, FOREVER)?;
    dhcp_is(&mut guard, Mac::machine(0), Fate::Passed)?;
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::WouldDropQuarantine) == 140, "a muted port's are counted");
    ensure!(reason(&snapshot, 0, Reason::DropQuarantine) == 0, "nothing was dropped");
    Ok(())
}
