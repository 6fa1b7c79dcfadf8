//! Servers' messages on ports where no server should be.

use std::time::Duration;

use anyhow::{Result, ensure};
use dhcp_guard::dataplane::{HostSpec, PortSpec, Spec};
use dhcp_guard_common::{
    layout::{ClientKey, EVENT_ROGUE_SERVER, FOREVER, QUIET_S},
    verdict::{Note, Reason},
};
use libtest_mimic::Trial;
use tests::{
    guard_run::{Fate, GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    orders::on_port,
    packets::{Frame, GIADDR_IN_MESSAGE, Tag, offer},
    wait,
};

use super::{KERNEL, burst_only, key, note, reason, shapes::advertise};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: a server on a port that is not trusted is reported and passes", KERNEL, || rogue(&offered())),
        trial("kernel: a DHCPv6 server on a port that is not trusted is reported and passes", KERNEL, || {
            rogue(&advertise(SERVER))
        }),
        trial("kernel: a rogue server is reported and dropped where that is wanted", KERNEL, || dropped(&offered())),
        trial("kernel: a rogue DHCPv6 server is reported and dropped where that is wanted", KERNEL, || {
            dropped(&advertise(SERVER))
        }),
        trial("kernel: a rogue server passes a monitored port, and it is counted", KERNEL, monitored),
        trial("kernel: a second rogue server is reported behind a steady first one", KERNEL, second),
        trial("kernel: a trusted port's servers pass where rogue ones are dropped", KERNEL, trusted),
        trial("kernel: an allowed client's server messages pass where rogue ones are dropped", KERNEL, allowed),
        trial("kernel: a server is who sends the frame, whatever relay it names", KERNEL, names_a_relay),
        trial("kernel: a server's message names its client, and that is no mismatch", KERNEL, no_mismatch),
    ]
}

const SERVER: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn offered() -> Frame {
    offer(SERVER, Mac::machine(1), [10, 0, 0, 9].into())
}

/// One port with limits that any client would be over at once.
fn strict(drop_rogue_servers: bool) -> Spec {
    let limits = PortSpec {
        client_v4: burst_only(5),
        client_v6: burst_only(5),
        strangers: burst_only(5),
        total: burst_only(5),
        ..port(0, 0)
    };
    let mut strict = spec(vec![limits]);
    strict.policy.host = HostSpec { limit: Some((burst_only(5), burst_only(5))), drop_rogue_servers };
    strict
}

fn is_reported_once(guard: &mut GuardRun) -> Result<()> {
    let events = guard.events();
    ensure!(events.len() == 1 && events[0].kind == EVENT_ROGUE_SERVER, "{events:?}");
    ensure!(ClientKey(events[0].client) == key(0, SERVER), "the event names the server: {events:?}");
    Ok(())
}

fn rogue(frame: &Frame) -> Result<()> {
    let mut guard = GuardRun::new(&strict(false))?;
    ensure!(guard.repeat(&frame.bytes(), 1000)?.0 == Fate::Passed, "replies pass while no server is trusted");
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::PassServer) == 1000, "and are counted apart");
    ensure!(snapshot.clients.is_empty(), "a server is no client: {:?}", snapshot.clients);
    is_reported_once(&mut guard)
}

fn dropped(frame: &Frame) -> Result<()> {
    let mut guard = GuardRun::new(&strict(true))?;
    ensure!(guard.repeat(&frame.bytes(), 1000)?.0 == Fate::Dropped, "it passed");
    let snapshot = guard.snapshot()?;
    ensure!(reason(&snapshot, 0, Reason::DropRogueServer) == 1000, "counted as such");
    ensure!(snapshot.clients.is_empty() && snapshot.troubles.untracked == 0, "a server is no client");
    is_reported_once(&mut guard)
}

fn monitored() -> Result<()> {
    let mut watched = strict(true);
    watched.policy.ports[0].monitor = true;
    let mut guard = GuardRun::new(&watched)?;
    ensure!(guard.repeat(&offered().bytes(), 100)?.0 == Fate::Passed, "monitor mode never drops");
    ensure!(reason(&guard.snapshot()?, 0, Reason::WouldDropRogueServer) == 100, "counted as such");
    is_reported_once(&mut guard)
}

/// The first one goes on all the while, and is not reported again for it.
fn second() -> Result<()> {
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    let mut guard = GuardRun::new(&strict(false))?;
    let other = offer(OTHER, Mac::machine(1), [10, 0, 0, 9].into());
    let start = guard.snapshot()?.moment;
    // why: what is tested is that so much time matters, by the kernel's clock.
    wait::until("the next report is due", Duration::from_secs(QUIET_S + 5), || {
        for frame in [offered(), other.clone(), offered()] {
            guard.send(&frame.bytes())?;
        }
        let now = guard.snapshot()?.moment;
        Ok(now.ticks - start.ticks > (QUIET_S + 1) * u64::from(now.ticks_per_s))
    })?;
    let servers: Vec<_> = guard.events().iter().map(|event| (event.kind, ClientKey(event.client))).collect();
    let expected = [SERVER, OTHER].map(|mac| (EVENT_ROGUE_SERVER, key(0, mac)));
    ensure!(servers == expected, "{servers:x?}");
    Ok(())
}

fn trusted() -> Result<()> {
    let mut with_trusted = strict(true);
    with_trusted.policy.ports.push(PortSpec { trusted: true, ..port(100, 0) });
    let mut guard = GuardRun::new(&with_trusted)?;
    for frame in [offered(), advertise(SERVER)] {
        let frame = frame.tagged(&[Tag::c(100)]).bytes();
        ensure!(guard.repeat(&frame, 100)?.0 == Fate::Passed, "dropped on the trusted port");
    }
    ensure!(reason(&guard.snapshot()?, 1, Reason::PassTrusted) == 200, "counted as trusted");
    ensure!(guard.events().is_empty(), "and nothing is reported");
    Ok(())
}

fn allowed() -> Result<()> {
    let mut guard = GuardRun::new(&strict(true))?;
    guard.allow(on_port(0, SERVER), FOREVER)?;
    for frame in [offered(), advertise(SERVER)] {
        ensure!(guard.repeat(&frame.bytes(), 100)?.0 == Fate::Passed, "an allowed server's message was dropped");
    }
    let other = offer(Mac::machine(7), Mac::machine(1), [10, 0, 0, 9].into()).bytes();
    ensure!(guard.send(&other)? == Fate::Dropped, "another server's message passed");
    ensure!(reason(&guard.snapshot()?, 0, Reason::PassAllowed) == 200, "counted as allowed");
    Ok(())
}

/// A gateway address in a reply is the word of whoever sends it: it must not hide the server from its rule.
fn names_a_relay() -> Result<()> {
    let mut guard = GuardRun::new(&strict(false))?;
    let mut frame = offered();
    frame.payload[GIADDR_IN_MESSAGE..][..4].copy_from_slice(&[10, 0, 0, 1]);
    ensure!(guard.send(&frame.bytes())? == Fate::Passed, "nothing is dropped yet");
    guard.mute(on_port(0, SERVER), FOREVER)?;
    ensure!(guard.send(&frame.bytes())? == Fate::Dropped, "a muted server got through by naming a relay");
    ensure!(note(&guard.snapshot()?, 0, Note::Relayed) == 0, "no client was behind a relay");
    is_reported_once(&mut guard)
}

fn no_mismatch() -> Result<()> {
    let mut guard = GuardRun::new(&strict(false))?;
    guard.send(&offered().bytes())?;
    ensure!(note(&guard.snapshot()?, 0, Note::ChaddrMismatch) == 0, "counted as a mismatch");
    Ok(())
}
