//! What the governor orders, as the program carries it out: several orders may concern the same port or client.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Result, ensure};
use dhcp_guard::{
    dataplane::Spec,
    governor::{Sanction, Subject, Target},
};
use dhcp_guard_common::{layout::FOREVER, message::Sender, verdict::Reason};
use libtest_mimic::Trial;
use tests::{
    guard_run::{Fate, GuardRun, port, spec},
    harness::trial,
    mac::Mac,
    orders::{NOT_GUARDED, behind, on_port, whole_port},
    packets::discover,
};

use super::{
    KERNEL, in_future, passes_again_at, reason,
    shapes::{arp, relayed},
};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        trial("kernel: an order is carried out and taken back, for ports and clients", KERNEL, there_and_back),
        trial("kernel: an order about somebody behind a relay is about nobody else there", KERNEL, behind_a_relay),
        trial("kernel: a quarantine that is extended ends later, with nobody doing anything", KERNEL, extended),
        trial("kernel: a quarantine can become a milder or a harder one", KERNEL, changed),
        trial("kernel: of two quarantines of the same subject, each ends by itself", KERNEL, overlap),
        trial(
            "kernel: an order about a machine covers all of it, and where it is not guarded nothing",
            KERNEL,
            machine,
        ),
        trial("kernel: an allowance has an end, and can be taken back before", KERNEL, allowance),
        trial("kernel: what the configuration allows no order takes away", KERNEL, configured),
        trial("kernel: the same order again changes nothing", KERNEL, again),
    ]
}

const ORDERED: Mac = Mac([2, 0, 0, 0, 9, 9]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 1]);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// What a sanction leaves of a sender's frames, DHCP and others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    All,
    OthersThanDhcp,
    Nothing,
}

impl From<Sanction> for Left {
    fn from(sanction: Sanction) -> Self {
        match sanction {
            Sanction::Mute => Self::OthersThanDhcp,
            Sanction::Isolate => Self::Nothing,
        }
    }
}

fn left(guard: &mut GuardRun, mac: Mac) -> Result<Left> {
    // Often enough for a CPU to remember what it can.
    let dhcp = guard.send_all(&vec![discover(mac).bytes(); 5])?;
    let others = guard.send_all(&vec![arp(mac); 5])?;
    Ok(match (dhcp, others) {
        (5, 5) => Left::All,
        (0, 5) => Left::OthersThanDhcp,
        (0, 0) => Left::Nothing,
        _ => anyhow::bail!("{dhcp} of 5 DHCP frames and {others} of 5 others passed"),
    })
}

fn expect_left(guard: &mut GuardRun, mac: Mac, expected: impl Into<Left>, when: &str) -> Result<()> {
    let (left, expected) = (left(guard, mac)?, expected.into());
    ensure!(left == expected, "{when}: {left:?} of {mac}'s frames passes, not {expected:?}");
    Ok(())
}

fn one_port() -> Spec {
    spec(vec![port(0, 0)])
}

fn machine_of(name: &str, subjects: Vec<Subject>) -> Target {
    Target::new(Some(name.to_owned()), subjects)
}

const SANCTIONS: [Sanction; 2] = [Sanction::Mute, Sanction::Isolate];

fn there_and_back() -> Result<()> {
    for sanction in SANCTIONS {
        for (subject, of_other) in [(whole_port(0), sanction.into()), (on_port(0, ORDERED), Left::All)] {
            let mut guard = GuardRun::new(&one_port())?;
            expect_left(&mut guard, ORDERED, Left::All, "before")?;
            guard.impose(Target::one(subject.clone()), sanction, FOREVER)?;
            expect_left(&mut guard, ORDERED, sanction, "in quarantine")?;
            expect_left(&mut guard, OTHER, of_other, "somebody else")?;
            guard.release(subject)?;
            expect_left(&mut guard, ORDERED, Left::All, "after it")?;
            expect_left(&mut guard, OTHER, Left::All, "after it")?;
        }
    }
    Ok(())
}

fn behind_a_relay() -> Result<()> {
    let of = |client| relayed(OTHER, GATEWAY, client).bytes();
    let mac = |mac: Mac| {
        let [a, b, c, d, e, f] = mac.0;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    };
    let relay = Sender::RELAY_V4 | u64::from(u32::from_le_bytes(GATEWAY.octets()));
    let subject = behind(0, relay, mac(ORDERED));
    for sanction in SANCTIONS {
        let mut guard = GuardRun::new(&one_port())?;
        guard.impose(Target::one(subject.clone()), sanction, FOREVER)?;
        ensure!(guard.send_all(&vec![of(ORDERED); 5])? == 0, "{sanction:?}: its DHCP passed");
        ensure!(guard.send_all(&vec![of(Mac::machine(3)); 5])? == 5, "{sanction:?}: somebody else behind the relay");
        expect_left(&mut guard, OTHER, Left::All, "the relay itself")?;
        expect_left(&mut guard, ORDERED, Left::All, "the same MAC, not behind the relay")?;
        guard.release(subject.clone())?;
        ensure!(guard.send_all(&vec![of(ORDERED); 5])? == 5, "{sanction:?}: after it");
    }
    let mut guard = GuardRun::new(&one_port())?;
    guard.mute(whole_port(0), FOREVER)?;
    guard.allow(subject.clone(), FOREVER)?;
    ensure!(guard.send(&of(ORDERED))? == Fate::Passed, "allowed behind the relay");
    ensure!(guard.send(&of(Mac::machine(3)))? == Fate::Dropped, "nobody else there is");
    guard.disallow(subject)?;
    ensure!(guard.send(&of(ORDERED))? == Fate::Dropped, "and now it is not");
    Ok(())
}

fn extended() -> Result<()> {
    for subject in [whole_port(0), on_port(0, ORDERED)] {
        let mut guard = GuardRun::new(&one_port())?;
        let first = in_future(&mut guard, Duration::from_millis(100))?;
        guard.mute(subject.clone(), first)?;
        expect_left(&mut guard, ORDERED, Sanction::Mute, "in quarantine")?;
        let later = in_future(&mut guard, Duration::from_millis(300))?;
        guard.mute(subject.clone(), later)?;
        passes_again_at(&mut guard, &discover(ORDERED).bytes(), later)?;
        // And the other way round: a person may also make it shorter.
        guard.mute(subject.clone(), FOREVER)?;
        let sooner = in_future(&mut guard, Duration::from_millis(100))?;
        guard.mute(subject, sooner)?;
        passes_again_at(&mut guard, &discover(ORDERED).bytes(), sooner)?;
    }
    Ok(())
}

fn changed() -> Result<()> {
    for subject in [whole_port(0), on_port(0, ORDERED)] {
        let mut guard = GuardRun::new(&one_port())?;
        for sanction in [Sanction::Isolate, Sanction::Mute, Sanction::Isolate] {
            guard.impose(Target::one(subject.clone()), sanction, FOREVER)?;
            expect_left(&mut guard, ORDERED, sanction, "changed")?;
        }
        guard.release(subject)?;
        expect_left(&mut guard, ORDERED, Left::All, "after it")?;
    }
    Ok(())
}

/// Two machines that the inventory has at the same place, or a port and a client of it.
fn overlap() -> Result<()> {
    let (port, client) = (whole_port(0), on_port(0, ORDERED));
    for (one, other) in [(&port, &port), (&client, &client), (&port, &client), (&client, &port)] {
        let mut guard = GuardRun::new(&one_port())?;
        let (one, other) = (machine_of("one", vec![one.clone()]), machine_of("other", vec![other.clone()]));
        let sooner = in_future(&mut guard, Duration::from_millis(300))?;
        guard.impose(one.clone(), Sanction::Isolate, FOREVER)?;
        guard.impose(other.clone(), Sanction::Mute, sooner)?;
        expect_left(&mut guard, ORDERED, Left::Nothing, "both hold")?;
        guard.lift(one)?;
        expect_left(&mut guard, ORDERED, Left::OthersThanDhcp, "the milder one is left")?;
        passes_again_at(&mut guard, &discover(ORDERED).bytes(), sooner)?;
        guard.lift(other)?;
    }
    // Of two of a kind, the later end counts; a tick that is over is one that ends soon.
    for (of_one, of_other, left) in [(FOREVER, 1, Left::All), (1, FOREVER, Left::OthersThanDhcp)] {
        let mut guard = GuardRun::new(&one_port())?;
        let (one, other) = (machine_of("one", vec![port.clone()]), machine_of("other", vec![port.clone()]));
        guard.impose(one.clone(), Sanction::Mute, of_one)?;
        guard.impose(other.clone(), Sanction::Mute, of_other)?;
        expect_left(&mut guard, ORDERED, Left::OthersThanDhcp, "one of both holds")?;
        guard.lift(one)?;
        expect_left(&mut guard, ORDERED, left, "the other one is left")?;
        guard.lift(other)?;
        expect_left(&mut guard, ORDERED, Left::All, "none is left")?;
    }
    Ok(())
}

fn machine() -> Result<()> {
    let mut guard = GuardRun::new(&one_port())?;
    let subjects = vec![on_port(0, ORDERED), on_port(0, OTHER), on_port(NOT_GUARDED, ORDERED), whole_port(NOT_GUARDED)];
    let target = machine_of("em-1", subjects);
    guard.impose(target.clone(), Sanction::Mute, FOREVER)?;
    for mac in [ORDERED, OTHER] {
        expect_left(&mut guard, mac, Sanction::Mute, "the machine's")?;
    }
    expect_left(&mut guard, Mac::machine(7), Left::All, "not the machine's")?;
    guard.lift(target)?;
    for mac in [ORDERED, OTHER] {
        expect_left(&mut guard, mac, Left::All, "after it")?;
    }
    Ok(())
}

fn allowance() -> Result<()> {
    for subject in [on_port(0, ORDERED), whole_port(0)] {
        let mut guard = GuardRun::new(&one_port())?;
        guard.isolate(whole_port(0), FOREVER)?;
        let until = in_future(&mut guard, Duration::from_millis(200))?;
        guard.allow(subject.clone(), until)?;
        expect_left(&mut guard, ORDERED, Left::All, "allowed")?;
        while super::ticks(&mut guard)? < until {}
        expect_left(&mut guard, ORDERED, Left::Nothing, "its time is over")?;
        guard.allow(subject.clone(), FOREVER)?;
        expect_left(&mut guard, ORDERED, Left::All, "allowed for good")?;
        guard.disallow(subject)?;
        expect_left(&mut guard, ORDERED, Left::Nothing, "not any more")?;
    }
    Ok(())
}

fn configured() -> Result<()> {
    let mut guard = GuardRun::new(&Spec { allowed_clients: vec![(port(0, 0).key, ORDERED.0)], ..one_port() })?;
    let client = on_port(0, ORDERED);
    guard.isolate(whole_port(0), FOREVER)?;
    guard.isolate(client.clone(), FOREVER)?;
    expect_left(&mut guard, ORDERED, Left::All, "allowed by the configuration")?;
    guard.release(client.clone())?;
    expect_left(&mut guard, ORDERED, Left::All, "after its quarantine")?;
    guard.allow(client.clone(), 1)?;
    expect_left(&mut guard, ORDERED, Left::All, "an order that it be allowed until a time that is over")?;
    guard.disallow(client)?;
    expect_left(&mut guard, ORDERED, Left::All, "after an order that it be allowed no more")?;
    expect_left(&mut guard, OTHER, Left::Nothing, "the isolation was in force")?;
    Ok(())
}

fn again() -> Result<()> {
    let mut guard = GuardRun::new(&one_port())?;
    let target = machine_of("one", vec![whole_port(0), on_port(0, ORDERED)]);
    for _ in 0..3 {
        guard.impose(target.clone(), Sanction::Mute, FOREVER)?;
        guard.allow(on_port(0, OTHER), FOREVER)?;
    }
    expect_left(&mut guard, ORDERED, Sanction::Mute, "in quarantine")?;
    expect_left(&mut guard, OTHER, Left::All, "allowed")?;
    guard.lift(target)?;
    guard.disallow(on_port(0, OTHER))?;
    expect_left(&mut guard, ORDERED, Left::All, "after one end")?;
    ensure!(reason(&guard.snapshot()?, 0, Reason::DropQuarantine) == 5, "counted as quarantine");
    Ok(())
}
