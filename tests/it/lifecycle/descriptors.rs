//! Starts with few descriptors: nothing that is there may be taken for gone because the kernel could not be asked.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::dataplane::remains::Remains;
use tests::{agent::Launch, process};

use super::{Host, broken_off::recovers, in_data_plane};

/// How many a start has: from too few for anything to enough for everything.
fn descriptors() -> impl Iterator<Item = u32> {
    (15..=80).step_by(2)
}

/// The same start with so few descriptors.
fn with_descriptors(launch: &Launch, count: u32) -> Launch {
    launch.clone().through(&["prlimit", &format!("--nofile={count}:{count}")])
}

/// Starts that find a guard, on interfaces that only match a pattern: whoever lacks a descriptor may take nothing for gone.
pub(super) fn few_descriptors() -> Result<()> {
    const KNOWN: &str = "02:00:00:00:77:01";
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &["up*"])?;
    let named = format!("[[known_client]]\ninterface = 'up1'\nmac = '{KNOWN}'\n");
    let mut agent = launch.clone().config(&named)?.start()?;
    agent.change(&["quarantine", "add", "up0", "--ttl", "1h", "--reason", "a test"])?;
    in_data_plane(&agent)?;
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    // From here on nobody names it: it counts as learned.
    let launch = launch.config("")?;
    let mut started = 0;
    for count in descriptors() {
        if let Ok(mut agent) = with_descriptors(&launch, count).start() {
            started += 1;
            agent.stop(libc::SIGTERM)?;
        }
        let remains = Remains::open(launch.pin_dir())?.with_context(|| format!("nothing is left with {count}"))?;
        let in_force = remains.in_force()?.len();
        let clients = host.0.run(|| remains.snapshot(Instant::now()))??.clients;
        let known = clients.iter().filter(|one| one.known).count();
        ensure!((in_force, known) == (1, 1), "{count} descriptors: {in_force} quarantines, {known} known clients");
        host.guards(&["up0", "up1"]).with_context(|| format!("{count} descriptors"))?;
    }
    println!("{started} of {} starts went on", descriptors().count());
    Ok(())
}

/// A first start: what it cannot do on all interfaces, it does on none.
pub(super) fn all_or_none() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &["up0", "up1"])?;
    let mut started = 0;
    for count in descriptors() {
        let at = || format!("{count} descriptors");
        match with_descriptors(&launch, count).start() {
            Ok(mut agent) => {
                started += 1;
                host.guards(&["up0", "up1"]).with_context(at)?;
                agent.stop(libc::SIGTERM)?;
                process::run(launch.cli(&["detach"]), "")?;
            }
            Err(why) => host.guards(&[]).with_context(|| format!("{why:#}")).with_context(at)?,
        }
    }
    println!("{started} of {} starts went on", descriptors().count());
    recovers(&host, &launch)
}
