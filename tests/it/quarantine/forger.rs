//! A machine floods with the MAC of another one. Who is muted: never the other one.

use std::time::Duration;

use anyhow::{Result, ensure};
use dhcp_guard::model::EventKind;
use tests::{
    agent::{Agent, Launch},
    client::{self, leases},
    flood::{Flood, Limits, Mode},
    follower::Follower,
    topology::{Lab, Layout},
};

use super::{BEGIN_DEADLINE, LEASE_DEADLINE, SERVER_PORT, explain, is_on, only_quarantine, with_server_port};

/// Ports, as the machines on them.
const VICTIM: usize = 0;
const FORGER: usize = 1;
const RATE: u64 = 1000;

pub(super) fn alone() -> Result<()> {
    let lab = Lab::new(Layout::PerMachine, 4)?;
    let launch = Launch::new(&lab.host, &with_server_port(&lab))?.config(SERVER_PORT)?;
    forge(&lab, &launch.start()?)
}

pub(super) fn named() -> Result<()> {
    let lab = Lab::new(Layout::PerMachine, 4)?;
    let launch = Launch::new(&lab.host, &with_server_port(&lab))?;
    let (victim, forger) = (lab.machines[VICTIM].mac, lab.machines[FORGER].mac);
    let rows = format!("server_id,interface,mac\nem-victim,em0,{victim}\nem-forger,em1,\nem-forger,em1,{forger}\n");
    let inventory = launch.folder().write("inventory.csv", &rows)?.display().to_string();
    let agent = launch.config(&format!("inventory = {inventory:?}\n{SERVER_PORT}"))?.start()?;
    forge(&lab, &agent)?;
    let quarantine = only_quarantine(&agent)?;
    ensure!(quarantine.server_id.as_deref() == Some("em-forger"), "the machine that is named: {quarantine:?}");
    Ok(())
}

/// The forger floods in the victim's name, is put into quarantine, and the victim does not notice.
fn forge(lab: &Lab, agent: &Agent) -> Result<()> {
    let mut follower = Follower::start(agent)?;
    let mut victim = lab.clients(VICTIM..VICTIM + 1)?;
    let mut served = |when: &str| -> Result<()> {
        let outcomes = client::run_all(&mut victim, LEASE_DEADLINE)?;
        let right = leases(&outcomes).len() == 1;
        ensure!(right, "the victim {when}: {outcomes:?}");
        Ok(())
    };
    served("before the flood")?;
    let mode = Mode::One(lab.machines[VICTIM].mac);
    let limits = Limits::time(Duration::from_secs(60)).at(RATE);
    let flood = Flood::start(&lab.injection(FORGER), mode, limits)?;
    served("in the flood")?;
    let (_, began) = follower.wait_for_kind(BEGIN_DEADLINE, EventKind::QuarantineBegan)?;
    ensure!(began.port.as_deref() == Some("em1"), "{began:?}");
    let quarantine = only_quarantine(agent)?;
    ensure!(is_on(&quarantine.covers, "em1"), "it covers the victim's port: {quarantine:?}");
    let explained = explain(agent, "em0")?;
    ensure!(explained.quarantine.is_none() && explained.held_back.is_none(), "{explained:?}");
    for _ in 0..3 {
        served("while the forger is muted")?;
    }
    flood.stop()?;
    Ok(())
}
