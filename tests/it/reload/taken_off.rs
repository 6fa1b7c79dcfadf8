//! Somebody else takes the guard off, or has something in its place.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::XdpMode;
use dhcp_guard::model::EventKind;
use tests::{
    agent::Agent,
    attached::{guard, guarded, programs, replies, take_off, take_off_replies},
    control::{Control, Verdict},
    flood::{Flood, Limits, Mode},
    follower::Follower,
    topology::{Lab, Layout},
    wait,
};

use super::{FLOODER, FOLLOWED, NOTICED, SEEN, about, add, host, next};

pub(super) fn taken_off() -> Result<()> {
    let lab = Lab::new(Layout::Uplink, 1)?;
    let agent = Agent::start(&lab.host, &lab.guarded(), "[quarantine]\nautomatic = false\n")?;
    let mut follower = Follower::start(&agent)?;
    for _ in 0..3 {
        let before = programs(&lab.host)?;
        take_off(&lab.host, "uplink0")?;
        ensure!(programs(&lab.host)?.is_empty(), "it is off");
        let start = Instant::now();
        let (at, _) = follower.wait_for(NOTICED, about(EventKind::Detached, "uplink0"))?;
        println!("noticed after {:?}", at.saturating_duration_since(start));
        next(&mut follower, FOLLOWED, EventKind::Reattached, "uplink0")?;
        ensure!(programs(&lab.host)? == before, "{:?}", programs(&lab.host)?);
    }
    let mode = guard(&lab.host, "uplink0")?.way.mode();
    ensure!(agent.warnings()?.is_empty() && agent.json(&["status"])?["interfaces"][0]["mode"] == mode.word());
    let start = Instant::now();
    let before = lab.server.counts()?.of(FLOODER);
    Flood::start(&lab.injection(0), Mode::One(FLOODER), Limits::packets(3000).at(3000))?.wait()?;
    let passed = lab.server.counts()?.of(FLOODER) - before;
    ensure!(passed <= 20 + 2 * (start.elapsed().as_secs() + 1), "{passed} passed");
    Ok(())
}

pub(super) fn replies_taken_off() -> Result<()> {
    let host = host()?;
    add(&host, "up0")?;
    let agent = Agent::start(&host, &["up0"], "")?;
    let mut follower = Follower::start(&agent)?;
    take_off_replies(&host, "up0")?;
    let told = next(&mut follower, NOTICED, EventKind::RepliesDetached, "up0")?;
    ensure!(told.message.contains("counts servers' replies"), "{}", told.message);
    wait::until("it to be back", SEEN, || Ok(replies(&host, "up0")?.is_some()))?;
    ensure!(agent.warnings()?.is_empty() && guarded(&host)? == ["up0"], "{:?}", agent.warnings()?);
    ensure!(follower.of_kind(EventKind::Detached)?.is_empty(), "the guard was there all the time");
    Ok(())
}

pub(super) fn another_in_its_place() -> Result<()> {
    let host = host()?;
    add(&host, "up0")?;
    let agent = Agent::start(&host, &["up0"], "")?;
    let mut follower = Follower::start(&agent)?;
    // In the instant between, the guard may look: then it is back, and it is tried again.
    let mut other = None;
    for _ in 0..20 {
        take_off(&host, "up0")?;
        if let Ok(control) = Control::attach(&host, "up0", Verdict::Pass, XdpMode::Driver) {
            other = Some(control);
            break;
        }
    }
    let other = other.context("the guard is always back at once")?;
    let theirs = programs(&host)?;
    next(&mut follower, NOTICED, EventKind::Detached, "up0")?;
    wait::until("a warning", SEEN, || {
        Ok(agent.warnings()?.iter().any(|warning| warning.contains("interface up0 already runs the XDP program")))
    })?;
    ensure!(agent.json(&["status"])?["interfaces"][0]["mode"] == "detached", "{}", agent.json(&["status"])?);
    ensure!(programs(&host)? == theirs, "it was displaced");
    drop(other);
    next(&mut follower, SEEN, EventKind::Reattached, "up0")?;
    ensure!(guarded(&host)? == ["up0"] && agent.warnings()?.is_empty(), "{:?}", agent.warnings()?);
    Ok(())
}

pub(super) fn one_warning() -> Result<()> {
    let host = host()?;
    add(&host, "up0")?;
    let other = Control::attach(&host, "up0", Verdict::Pass, XdpMode::Driver)?;
    let agent = Agent::start_with(&host, &[], "interfaces = [\"up*\"]\n", &["--hook", "xdp"])?;
    let one = || -> Result<bool> {
        let warnings = agent.warnings()?;
        Ok(matches!(&warnings[..], [one] if one.contains("interface up0 already runs the XDP program")))
    };
    wait::until("one warning, and no more", SEEN, one)?;
    // Also when it is tried again, and when it is not.
    for _ in 0..70 {
        ensure!(one()?, "{:?}", agent.warnings()?);
        thread::sleep(Duration::from_millis(100));
    }
    drop(other);
    Ok(())
}

pub(super) fn not_put_back() -> Result<()> {
    let host = host()?;
    add(&host, "up0")?;
    let agent = Agent::start(&host, &["up0"], "reattach = false\n")?;
    let mut follower = Follower::start(&agent)?;
    take_off(&host, "up0")?;
    next(&mut follower, NOTICED, EventKind::Detached, "up0")?;
    wait::until("a warning", SEEN, || {
        Ok(agent.warnings()?.iter().any(|warning| warning.contains("interface up0 is not guarded")))
    })?;
    ensure!(guarded(&host)?.is_empty() && agent.json(&["status"])?["interfaces"][0]["mode"] == "detached");
    let would = agent.change(&["reload", "--dry-run"])?;
    ensure!(would == ["interface up0: the guard is put back, if nothing is in its place"], "{would:?}");
    let done = agent.change(&["reload"])?;
    ensure!(done == ["interface up0: the guard was put back"], "{done:?}");
    next(&mut follower, FOLLOWED, EventKind::Reattached, "up0")?;
    ensure!(guarded(&host)? == ["up0"] && agent.warnings()?.is_empty(), "{:?}", agent.warnings()?);
    Ok(())
}
