//! The server dies, and its clients retry. 7 November: machines lost their network for up to an hour; they were the
//! victims.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dhcp_guard::model::EventKind;
use tests::{
    agent::{Agent, Launch},
    follower::Follower,
    herd::{self, Boot, Herd},
    topology::{Lab, Layout},
    wait,
};

use super::{SEEN_DEADLINE, SERVER_PORT, list, mac, warnings, with_server_port};

const PORTS: usize = 20;
const CLIENTS: usize = 200;
/// They are switched on one by one, firmware first.
const BOOT: Duration = Duration::from_secs(15);
const BOOT_DEADLINE: Duration = Duration::from_secs(45);
/// Leases of two minutes, the shortest that dnsmasq gives; so that they are renewed within a test, that is due early: by
/// asking the server itself, and a little later by asking everybody.
const OPTIONS: &[&str] = &["--dhcp-option=option:T1,10", "--dhcp-option=option:T2,40"];
/// The design's promise.
const SYSTEMIC_DEADLINE: Duration = Duration::from_secs(60);
/// How long the server is away; no lease runs out within it.
const AWAY: Duration = Duration::from_secs(45);
/// Who is switched off and on meanwhile, and so looks for a server that is not there.
const REBOOTED: std::ops::Range<usize> = 0..20;
/// The longest pause of a client is 22 s, between two attempts.
const RECOVERY: Duration = Duration::from_secs(40);

pub(super) fn nobody_is_blamed() -> Result<()> {
    let mut lab = Lab::with_server(Layout::PerMachine, PORTS, OPTIONS)?;
    let agent = Launch::new(&lab.host, &with_server_port(&lab))?.config(SERVER_PORT)?.start()?;
    let mut follower = Follower::start(&agent)?;
    let places: Vec<_> = (0..PORTS).map(|index| lab.injection(index)).collect();
    let mut herd = Herd::start(&places, &herd::members(CLIENTS, PORTS, BOOT, Boot::Network, mac))?;
    herd.wait("a renewal of each client", BOOT_DEADLINE, |one| one.renewals >= 1)?;
    ensure!(warnings(&agent)?.is_empty(), "before anything happened: {:?}", warnings(&agent)?);

    let death = Instant::now();
    lab.server.kill();
    herd.power_cycle(REBOOTED)?;
    let (noticed, systemic) = follower.wait_for_kind(SYSTEMIC_DEADLINE, EventKind::Systemic)?;
    wait::until("a warning", SEEN_DEADLINE, || Ok(!warnings(&agent)?.is_empty()))?;
    let warned = warnings(&agent)?;
    wait::until("the end of the outage", AWAY, || {
        nobody_is_in_quarantine(&agent)?;
        Ok(death.elapsed() >= AWAY)
    })?;

    let back = herd.now();
    lab.server.restart()?;
    herd.wait("leases and renewals of everybody", RECOVERY, |one| one.address.is_some() && one.last_ack > Some(back))?;
    let recovered = herd.now() - back;
    nobody_is_in_quarantine(&agent)?;
    let progress = herd.stop()?;
    let lost = progress.iter().filter(|one| one.lost > 0).count();
    ensure!(lost == 0, "{lost} clients lost their leases");
    for kind in [EventKind::QuarantineBegan, EventKind::QuarantineHeldBack, EventKind::OffenderFound] {
        let events = follower.of_kind(kind)?;
        ensure!(events.is_empty(), "of clients that only retried: {events:?}");
    }
    println!(
        "noticed {:.0} s after the death ({}), warned of ({warned:?}); {} messages of {CLIENTS} clients, {} repeated; all \
         served {:.0} s after its return",
        noticed.duration_since(death).as_secs_f64(),
        systemic.message,
        progress.iter().map(|one| one.sent).sum::<u32>(),
        progress.iter().map(|one| one.repeated).sum::<u32>(),
        recovered.as_secs_f64(),
    );
    Ok(())
}

/// As `quarantine list` and `offenders` have it.
fn nobody_is_in_quarantine(agent: &Agent) -> Result<()> {
    let quarantines = agent.quarantines()?;
    ensure!(quarantines.is_empty(), "in quarantine: {quarantines:?}");
    let offenders = agent.json(&["offenders"])?;
    let blamed: Vec<_> = list(&offenders, "offenders").filter(|one| one["state"] != "recovered").collect();
    ensure!(blamed.is_empty(), "blamed: {blamed:?}");
    Ok(())
}
