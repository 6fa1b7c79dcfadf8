//! A metal port with 250 machines inside, which are all switched on together.

use std::time::Duration;

use anyhow::{Result, ensure};
use dhcp_guard::model::EventKind;
use tests::{
    agent::Launch,
    follower::Follower,
    herd::{self, Boot, Herd},
    topology::{Lab, Layout},
};

use super::{SERVER_PORT, list, mac, with_server_port};

const MACHINES: usize = 250;
/// A hypervisor cannot read 250 disks at once.
const BOOT: Duration = Duration::from_secs(20);
const DEADLINE: Duration = Duration::from_secs(60);

pub(super) fn on_one_port() -> Result<()> {
    let lab = Lab::new(Layout::PerMachine, 1)?;
    let agent = Launch::new(&lab.host, &with_server_port(&lab))?.config(SERVER_PORT)?.start()?;
    let mut follower = Follower::start(&agent)?;
    let herd = Herd::start(&[lab.injection(0)], &herd::members(MACHINES, 1, BOOT, Boot::Disk, mac))?;
    herd.wait("a lease of each machine", DEADLINE, |one| one.leases == 1)?;
    let progress = herd.stop()?;
    let slowest = progress.iter().filter_map(|one| one.took).max().unwrap_or_default();
    let repeated: u32 = progress.iter().map(|one| one.repeated).sum();
    let sent: u32 = progress.iter().map(|one| one.sent).sum();
    println!("{MACHINES} leases, the slowest after {slowest:.1?}; {sent} messages, {repeated} of them repeated");

    let offenders = agent.json(&["offenders"])?;
    ensure!(list(&offenders, "offenders").count() == 0, "{offenders}");
    ensure!(agent.quarantines()?.is_empty(), "{:?}", agent.quarantines()?);
    for kind in [EventKind::OffenderFound, EventKind::QuarantineBegan, EventKind::Systemic] {
        let events = follower.of_kind(kind)?;
        ensure!(events.is_empty(), "of machines that only booted: {events:?}");
    }
    Ok(())
}
