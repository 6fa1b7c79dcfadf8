//! Many floods at once: how many quarantines they come to at most. 7 April: a safety tool took away 1,574 load balancers.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use anyhow::{Result, ensure};
use dhcp_guard::model::{EventKind, State};
use tests::{
    agent::{Agent, Launch},
    follower::Follower,
    herd::{self, Boot, Herd},
    stampede::Stampede,
    topology::{Lab, Layout},
    wait,
};

use super::{
    BEGIN_DEADLINE, LEASE_DEADLINE, SEEN_DEADLINE, SERVER_PORT, explain, inventory, list, mac, stop, warnings,
    with_server_port,
};

/// A machine on each port.
const PORTS: usize = 70;
const FLOODERS: Range<usize> = 0..30;
/// Each: far more than five times a client's limit of 2.
const RATE: u64 = 300;
const FLOOD: Duration = Duration::from_secs(60);

pub(super) fn held_back() -> Result<()> {
    let lab = Lab::new(Layout::PerMachine, PORTS)?;
    // No more than three begin in ten minutes. Where more may, no more than a tenth of the ports.
    for (keys, most) in [("", 3), ("[quarantine]\nnew_per_window = 100\n", PORTS / 10)] {
        let launch = Launch::new(&lab.host, &with_server_port(&lab))?;
        let machines = inventory(&launch, &lab.guarded())?;
        let mut agent = launch.config(&format!("{machines}{keys}{SERVER_PORT}"))?.start()?;
        let quiet: Vec<_> = (FLOODERS.end..PORTS).map(|index| lab.injection(index)).collect();
        let herd = Herd::start(&quiet, &herd::members(quiet.len(), quiet.len(), Duration::ZERO, Boot::Disk, mac))?;
        herd.wait("leases of the others", LEASE_DEADLINE, |one| one.leases == 1)?;
        let mut follower = Follower::start(&agent)?;

        let flood = flood(&lab)?;
        follower.wait_for_kind(BEGIN_DEADLINE, EventKind::QuarantineHeldBack)?;
        wait::until("30 that deserve it", SEEN_DEADLINE * 2, || {
            Ok(with_state(&agent, "quarantined")?.len() + with_state(&agent, "held_back")?.len() == FLOODERS.len())
        })?;
        let in_quarantine = agent.quarantines()?;
        let began = follower.of_kind(EventKind::QuarantineBegan)?.len();
        ensure!(
            (began, in_quarantine.len()) == (most, most),
            "{began} began, {} are in quarantine",
            in_quarantine.len()
        );
        let spared = with_state(&agent, "held_back")?;
        ensure!(spared.len() == FLOODERS.len() - most, "held back: {spared:?}");
        for port in spared.iter().take(2) {
            let explained = explain(&agent, port)?;
            ensure!(explained.state == State::HeldBack, "{explained:?}");
            ensure!(explained.held_back.as_ref().is_some_and(|why| why.contains("cap")), "{explained:?}");
        }
        ensure!(!warnings(&agent)?.is_empty(), "nobody is warned of those held back");
        ensure!(agent.text(&["offenders"])?.contains("held back"), "{}", agent.text(&["offenders"])?);
        ensure!(follower.of_kind(EventKind::Systemic)?.is_empty(), "30 of 70 ports are not most of them");
        are_policed(&lab, flood)?;
        println!("{began} of {} in quarantine, {} held back: {:?}", FLOODERS.len(), spared.len(), warnings(&agent)?);
        stop(&mut agent)?;
    }
    Ok(())
}

pub(super) fn systemic() -> Result<()> {
    let lab = Lab::new(Layout::PerMachine, FLOODERS.len())?;
    let agent = Launch::new(&lab.host, &with_server_port(&lab))?.config(SERVER_PORT)?.start()?;
    let mut follower = Follower::start(&agent)?;
    let flood = flood(&lab)?;
    follower.wait_for_kind(BEGIN_DEADLINE, EventKind::Systemic)?;
    wait::until("30 that are held back", BEGIN_DEADLINE, || {
        Ok(with_state(&agent, "held_back")?.len() == FLOODERS.len())
    })?;
    ensure!(agent.quarantines()?.is_empty(), "{:?}", agent.quarantines()?);
    let began = follower.of_kind(EventKind::QuarantineBegan)?;
    ensure!(began.is_empty(), "{began:?}");
    ensure!(!warnings(&agent)?.is_empty(), "nobody is warned");
    are_policed(&lab, flood)?;
    println!("nobody of {} in quarantine: {:?}", FLOODERS.len(), warnings(&agent)?);
    Ok(())
}

fn flood(lab: &Lab) -> Result<Stampede> {
    let machines: Vec<_> = FLOODERS.map(|index| (lab.injection(index), lab.machines[index].mac)).collect();
    Stampede::start(&machines, RATE, FLOOD)
}

/// Ports of offenders in this state; each is a machine's.
fn with_state(agent: &Agent, state: &str) -> Result<BTreeSet<String>> {
    let offenders = agent.json(&["offenders"])?;
    let ports =
        list(&offenders, "offenders").filter(|one| one["state"] == state).filter_map(|one| one["port"].as_str());
    Ok(ports.map(str::to_owned).collect())
}

/// No more of the flood reached the server than the limits of the host let through.
fn are_policed(lab: &Lab, flood: Stampede) -> Result<()> {
    let elapsed = flood.began().elapsed();
    let sent = flood.stop();
    let counts = lab.server.counts()?;
    let passed: Vec<_> = FLOODERS.map(|index| counts.of(lab.machines[index].mac)).collect();
    // For each 20 at once and 2 a second, and once more so many for the agent before this one.
    let most = 2 * (20 + 2 * (elapsed.as_secs() + 2));
    ensure!(passed.iter().all(|passed| *passed <= most), "{most} of each may have passed: {passed:?} of {sent} each");
    Ok(())
}
