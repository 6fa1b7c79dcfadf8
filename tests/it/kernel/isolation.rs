//! Isolate: all frames of a port or a client are dropped for a while.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::Array;
use dhcp_guard::dataplane::PortSpec;
use dhcp_guard_common::{
    layout::{Control, FOREVER},
    verdict::{Note, Reason},
};
use libtest_mimic::Trial;
use tests::{
    guard_run::{Fate, GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    orders::{on_port, whole_port},
    packets::{Tag, discover, offer, solicit},
};

use super::{
    KERNEL, discovers, in_future, note, passes_again_at, reason,
    shapes::{arp, name_query},
};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: an isolated port gets no frame through", KERNEL, port_isolated),
        trial("kernel: an isolated client gets no frame through, others all", KERNEL, client_isolated),
        trial("kernel: the isolation of a port with VLANs is of these VLANs alone", KERNEL, vlans_apart),
        trial("kernel: frames of VLANs without a port are isolated with their interface", KERNEL, unknown_vlans),
        trial("kernel: the isolation of a port ends by its deadline with nobody doing anything", KERNEL, || {
            ends_by_deadline(&|guard, until| isolate_port(guard, 0, until))
        }),
        trial("kernel: the isolation of a client ends by its deadline with nobody doing anything", KERNEL, || {
            ends_by_deadline(&|guard, until| isolate(guard, 0, ISOLATED, until))
        }),
        trial("kernel: frames that are not DHCP pay nothing once user space has ended an isolation", KERNEL, ended),
        trial("kernel: frames that are not DHCP pay as long as somebody else is isolated", KERNEL, ended_for_one),
        trial("kernel: a mute costs frames that are not DHCP nothing", KERNEL, mute_is_free),
        trial("kernel: a trusted port cannot be isolated, nor a client on it", KERNEL, trusted),
        trial("kernel: a monitored port is not isolated, but counts the DHCP it would drop", KERNEL, monitored),
        trial("kernel: a policy in the middle of an isolation does not end it", KERNEL, survives_a_policy),
    ]
}

const ISOLATED: Mac = Mac([2, 0, 0, 0, 9, 9]);

fn isolate(guard: &mut GuardRun, place: usize, mac: Mac, until: u64) -> Result<()> {
    guard.isolate(on_port(place, mac), until)
}

fn isolate_port(guard: &mut GuardRun, place: usize, until: u64) -> Result<()> {
    guard.isolate(whole_port(place), until)
}

fn dhcp_of(mac: Mac) -> Vec<Vec<u8>> {
    [discover(mac), solicit(mac), offer(mac, Mac::machine(1), [10, 0, 0, 9].into())].map(|frame| frame.bytes()).into()
}

fn others_of(mac: Mac) -> Vec<Vec<u8>> {
    vec![name_query(mac).bytes(), arp(mac)]
}

fn all_of(mac: Mac) -> Vec<Vec<u8>> {
    [dhcp_of(mac), others_of(mac)].concat()
}

/// The block that the program reads: as the kernel has it, not as the data plane remembers it.
fn control(guard: &mut GuardRun) -> Result<Control> {
    let map = guard.plane().ebpf().map(".bss").context("the control block")?;
    Ok(Array::<_, Control>::try_from(map)?.get(&0, 0)?)
}

fn port_isolated() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    ensure!(guard.send_all(&all_of(ISOLATED))? == 5, "nobody is isolated yet");
    isolate_port(&mut guard, 0, FOREVER)?;
    for mac in [ISOLATED, Mac::machine(0)] {
        ensure!(guard.send_all(&all_of(mac))? == 0, "frames of {mac} passed");
    }
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::DropQuarantine) == 6, "DHCP is counted as quarantine");
    ensure!(note(&snapshot, 0, Note::IsolatedFrame) == 4, "the rest as isolated frames");
    let reasons: u64 = snapshot.ports[1].reasons.iter().sum();
    ensure!(reasons == 9, "{reasons} reasons: what is not DHCP has none");
    Ok(())
}

fn client_isolated() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0), port(100, 0)]))?;
    isolate(&mut guard, 0, ISOLATED, FOREVER)?;
    ensure!(guard.send_all(&all_of(ISOLATED))? == 0, "frames of the isolated client passed");
    for machine in 0..50 {
        ensure!(guard.send_all(&all_of(Mac::machine(machine)))? == 5, "frames of machine {machine} were dropped");
    }
    let elsewhere = name_query(ISOLATED).tagged(&[Tag::c(100)]).bytes();
    ensure!(guard.send(&elsewhere)? == Fate::Passed, "the same MAC on another port");
    let snapshot = guard.snapshot()?;
    ensure!(note(&snapshot, 0, Note::IsolatedFrame) == 2, "counted for its port");
    ensure!(note(&snapshot, 1, Note::IsolatedFrame) == 0, "and for no other");
    Ok(())
}

fn vlans_apart() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0), port(100, 0), port(100, 20)]))?;
    isolate_port(&mut guard, 2, FOREVER)?;
    let under = |tags: &[Tag]| name_query(ISOLATED).tagged(tags).bytes();
    for tags in [&[][..], &[Tag::c(100)], &[Tag::s(100), Tag::c(21)], &[Tag::c(20)]] {
        ensure!(guard.send(&under(tags))? == Fate::Passed, "{tags:?} is another port");
    }
    ensure!(guard.send(&under(&[Tag::s(100), Tag::c(20)]))? == Fate::Dropped, "the isolated port");
    Ok(())
}

fn unknown_vlans() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0), port(100, 0)]))?;
    isolate_port(&mut guard, 0, FOREVER)?;
    let under = |id| name_query(ISOLATED).tagged(&[Tag::c(id)]).bytes();
    ensure!(guard.send(&under(999))? == Fate::Dropped, "a VLAN without a port of its own");
    ensure!(guard.send(&under(100))? == Fate::Passed, "a VLAN with one");
    ensure!(note(&guard.snapshot()?, 0, Note::IsolatedFrame) == 1, "counted for the default port");
    Ok(())
}

fn ends_by_deadline(begin: &dyn Fn(&mut GuardRun, u64) -> Result<()>) -> Result<()> {
    for frame in all_of(ISOLATED) {
        let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
        let until = in_future(&mut guard, Duration::from_millis(200))?;
        begin(&mut guard, until)?;
        passes_again_at(&mut guard, &frame, until)?;
        ensure!(guard.send_all(&all_of(ISOLATED))? == 5, "all passes afterwards");
    }
    Ok(())
}

fn ended() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    ensure!(control(&mut guard)?.isolated_until == 0, "nobody was isolated");
    isolate_port(&mut guard, 0, FOREVER)?;
    isolate(&mut guard, 0, ISOLATED, FOREVER)?;
    ensure!(control(&mut guard)?.isolated_until == FOREVER, "the program must know that somebody is isolated");
    ensure!(guard.send_all(&all_of(ISOLATED))? == 0, "isolated");
    guard.release(whole_port(0))?;
    guard.release(on_port(0, ISOLATED))?;
    ensure!(guard.send_all(&all_of(ISOLATED))? == 5, "it is over at once");
    let control = control(&mut guard)?;
    ensure!((control.isolated_until, control.client_rules) == (0, 0), "{control:?}");
    Ok(())
}

fn ended_for_one() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0), port(100, 0)]))?;
    let until = in_future(&mut guard, Duration::from_secs(3600))?;
    isolate_port(&mut guard, 1, until)?;
    isolate(&mut guard, 0, ISOLATED, until + 7)?;
    ensure!(control(&mut guard)?.isolated_until == until + 7, "the latest end counts");
    guard.release(on_port(0, ISOLATED))?;
    ensure!(control(&mut guard)?.isolated_until == until, "the other port's end is left");
    ensure!(guard.send_all(&all_of(ISOLATED))? == 5, "its isolation is over");
    let other = name_query(ISOLATED).tagged(&[Tag::c(100)]).bytes();
    ensure!(guard.send(&other)? == Fate::Dropped, "the other port's is not");
    Ok(())
}

fn mute_is_free() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![port(0, 0)]))?;
    guard.mute(whole_port(0), FOREVER)?;
    guard.mute(on_port(0, ISOLATED), FOREVER)?;
    let control = control(&mut guard)?;
    ensure!((control.isolated_until, control.client_rules) == (0, 1), "{control:?}");
    Ok(())
}

fn trusted() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![PortSpec { trusted: true, ..port(0, 0) }]))?;
    isolate_port(&mut guard, 0, FOREVER)?;
    isolate(&mut guard, 0, ISOLATED, FOREVER)?;
    for mac in [ISOLATED, Mac::machine(0)] {
        ensure!(guard.send_all(&all_of(mac))? == 5, "frames of {mac} were dropped");
    }
    ensure!(note(&guard.snapshot()?, 0, Note::IsolatedFrame) == 0, "and none is counted");
    Ok(())
}

fn monitored() -> Result<()> {
    let mut guard = GuardRun::new(&spec(vec![PortSpec { monitor: true, ..port(0, 0) }]))?;
    isolate_port(&mut guard, 0, FOREVER)?;
    isolate(&mut guard, 0, ISOLATED, FOREVER)?;
    for mac in [ISOLATED, Mac::machine(0)] {
        ensure!(guard.send_all(&all_of(mac))? == 5, "monitor mode never drops");
    }
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::WouldDropQuarantine) == 6, "DHCP is counted");
    ensure!(reason(&snapshot, 0, Reason::DropQuarantine) == 0, "and not as dropped");
    Ok(())
}

fn survives_a_policy() -> Result<()> {
    let spec = spec(vec![port(0, 0)]);
    let mut guard = GuardRun::new(&spec)?;
    isolate_port(&mut guard, 0, FOREVER)?;
    guard.plane().apply(&spec.policy)?;
    ensure!(guard.send_all(&all_of(ISOLATED))? == 0, "the policy ended the isolation");
    ensure!(guard.send_all(&discovers(0..10))? == 0, "the policy ended the isolation");
    Ok(())
}
