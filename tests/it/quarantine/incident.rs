//! One machine floods the region's DHCP servers by mistake. 17 January: 58 minutes until it was isolated.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use dhcp_guard::model::{Event, EventKind, Kind, State};
use tests::{
    agent::{Agent, Launch},
    client::{self, leases},
    flood::{Flood, Limits, Mode},
    follower::Follower,
    herd::{self, Boot, Herd},
    topology::{Lab, Layout},
};

use super::{
    BEGIN_DEADLINE, LEASE_DEADLINE, PROMISED, SERVER_PORT, explain, list, mac, only_quarantine, time_to_quarantine,
    with_server_port,
};

/// As in the incident.
const RATE: u64 = 4000;
/// Machines: the flooder, three with a real client, four more whose leases are renewed all the time.
const MACHINES: usize = 8;
const REAL: std::ops::Range<usize> = 1..4;
/// Leases that are to be renewed as often as dnsmasq can be made to say: every three seconds.
const EAGER: &[&str] = &["--dhcp-option=option:T1,3", "--dhcp-option=option:T2,60"];
/// Short times, so that a test can wait for them; the thresholds are the defaults.
const FIRST_S: f64 = 6.0;
const TIMES: &str = "[quarantine]\nfirst_s = 6\nquiet_s = 2\n";
/// It is over when it was quiet for `quiet_s`, and for `first_s` at least; then the agent must notice.
const RELEASE_DEADLINE: Duration = Duration::from_secs(15);

pub(super) fn one_machine() -> Result<()> {
    let lab = Lab::with_server(Layout::PerMachine, MACHINES, EAGER)?;
    let launch = Launch::new(&lab.host, &with_server_port(&lab))?;
    let rows = "server_id,name,owner,interface\nem-0042,rack 7 unit 3,acme,em0\nem-0043,rack 7 unit 4,acme,em1\n";
    let inventory = launch.folder().write("inventory.csv", rows)?.display().to_string();
    let agent = launch.config(&format!("inventory = {inventory:?}\n{TIMES}{SERVER_PORT}"))?.start()?;
    let mut follower = Follower::start(&agent)?;

    let others: Vec<_> = (REAL.end..MACHINES).map(|index| lab.injection(index)).collect();
    let herd = Herd::start(&others, &herd::members(others.len(), others.len(), Duration::ZERO, Boot::Disk, mac))?;
    let mut real = lab.clients(REAL)?;
    let mut all_served = |when: &str| -> Result<()> {
        let outcomes = client::run_all(&mut real, LEASE_DEADLINE)?;
        ensure!(leases(&outcomes).len() == REAL.len(), "{when}: {outcomes:?}");
        Ok(())
    };
    all_served("before the flood")?;
    herd.wait("leases of the herd", LEASE_DEADLINE, |one| one.leases == 1)?;

    let start = Instant::now();
    let flood = flood(&lab)?;
    all_served("in the flood")?;
    let (at, began) = follower.wait_for_kind(BEGIN_DEADLINE, EventKind::QuarantineBegan)?;
    let muted_after = at.duration_since(start);
    ensure!(muted_after <= PROMISED, "in quarantine {muted_after:?} after the first packet");
    // Soon: it is made longer while the flood goes on.
    let first = expires_in(&agent)?;
    names_the_machine(&agent, &began)?;
    nothing_comes_through(&lab)?;
    all_served("while it is muted")?;
    flood.stop()?;
    follower.wait_for_kind(RELEASE_DEADLINE, EventKind::QuarantineEnded)?;
    ensure!(agent.quarantines()?.is_empty(), "released, and still listed");
    all_served("after its release")?;

    follower.forget()?;
    let flood = self::flood(&lab)?;
    follower.wait_for_kind(BEGIN_DEADLINE, EventKind::QuarantineBegan)?;
    let second = expires_in(&agent)?;
    all_served("while it is muted again")?;
    flood.stop()?;
    ensure!((1.5..=2.5).contains(&(second / first)), "the first one {first} s, the second one {second} s");

    let progress = herd.stop()?;
    let untroubled = progress.iter().all(|one| one.repeated + one.lost + one.refused == 0 && one.renewals >= 5);
    ensure!(untroubled, "others were troubled: {progress:?}");
    println!(
        "muted {:.1} s after its first packet; for {first:.1} s at first, then for {second:.1} s; {} renewals of others",
        muted_after.as_secs_f64(),
        progress.iter().map(|one| one.renewals).sum::<u32>(),
    );
    Ok(())
}

fn flood(lab: &Lab) -> Result<Flood> {
    let limits = Limits::time(Duration::from_secs(60)).at(RATE);
    Flood::start(&lab.injection(0), Mode::One(lab.machines[0].mac), limits)
}

/// Everything that tells of the quarantine tells of the same machine.
fn names_the_machine(agent: &Agent, began: &Event) -> Result<()> {
    let named = (began.port.as_deref(), began.server_id.as_deref());
    ensure!(named == (Some("em0"), Some("em-0042")), "the event names {named:?}: {began:?}");

    let quarantine = only_quarantine(agent)?;
    let covers: Vec<_> = quarantine.covers.iter().map(|covered| covered.port.as_str()).collect();
    ensure!(covers == ["em0"], "it covers {covers:?}");
    ensure!(quarantine.server_id.as_deref() == Some("em-0042"), "{quarantine:?}");
    ensure!(quarantine.by == "engine" && quarantine.repeat == 0, "{quarantine:?}");

    let offenders = agent.json(&["offenders"])?;
    let in_quarantine: Vec<_> = list(&offenders, "offenders").filter(|one| one["state"] == "quarantined").collect();
    ensure!(!in_quarantine.is_empty(), "no offender is in quarantine: {offenders}");
    let is_it = |one: &serde_json::Value| one["port"] == "em0" && one["server_id"] == "em-0042";
    ensure!(list(&offenders, "offenders").all(is_it), "{offenders}");

    let explained = explain(agent, "em0")?;
    ensure!((explained.kind, explained.state) == (Kind::Port, State::Quarantined), "{explained:?}");
    let own = explained.quarantine.as_ref();
    ensure!(own.map(|own| own.id) == Some(quarantine.id), "{explained:?}");
    time_to_quarantine(|| Ok(explain(agent, "em0")?.quarantine))?;
    ensure!(agent.text(&["explain", "em0"])?.contains("em0"), "{}", agent.text(&["explain", "em0"])?);
    Ok(())
}

/// For how long the only quarantine is.
fn expires_in(agent: &Agent) -> Result<f64> {
    let quarantine = only_quarantine(agent)?;
    let length = quarantine.expires_at.duration_since(quarantine.since).as_secs_f64();
    ensure!(length >= FIRST_S, "{length} s are less than the first one has: {quarantine:?}");
    Ok(length)
}

/// Of a machine that is only held to its limit some packets would.
fn nothing_comes_through(lab: &Lab) -> Result<()> {
    let flooder = lab.machines[0].mac;
    let before = lab.server.counts()?.of(flooder);
    // why: long enough for a limit of two a second to let some packets through.
    thread::sleep(Duration::from_secs(2));
    let after = lab.server.counts()?.of(flooder);
    ensure!(after == before, "{} packets of the muted machine reached the server", after - before);
    Ok(())
}
