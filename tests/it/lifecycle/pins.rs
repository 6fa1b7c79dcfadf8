//! What becomes of the pins while an agent runs: removed, unmounted, hidden from others, moved away.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;
use dhcp_guard::{dataplane::hook::Hook, model::EventKind};
use tests::{
    agent::{Agent, Launch},
    follower::Follower,
    netns::Netns,
    process,
    program::current_hook,
    wait,
};

use super::{
    DEADLINE, Host,
    damage::{BOTH, generation, refuses},
};

/// Whatever is removed under a running agent is there again, or people know.
pub(super) fn removed() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &["up0"])?;
    let mut agent = launch.clone().start()?;
    let mut follower = Follower::start(&agent)?;
    for what in ["link", "map", "all"] {
        match what {
            "link" => fs::remove_file(launch.link_pin("up0")?)?,
            "map" => fs::remove_file(generation(&launch)?.join("PORTS"))?,
            _ => fs::remove_dir_all(launch.pin_dir())?,
        }
        let (_, event) = follower.wait_for_kind(DEADLINE, EventKind::PinsRemoved).context(what)?;
        ensure!(event.message.contains("pinned it all again"), "{}", event.message);
        ensure!(launch.link_pin("up0")?.exists() && generation(&launch)?.join("PORTS").exists(), "{what} is not there");
        follower.forget()?;
    }
    let other = Launch::new(&host.0, &["up1"])?.pins(launch.pin_dir().to_owned());
    refuses(&other, &["another agent uses the pin folder"])?;
    ensure!(agent.warnings()?.is_empty(), "{:?}", agent.warnings()?);
    ensure!(
        agent.stop(libc::SIGTERM)?.success() && agent.log().contains("the interfaces stay guarded"),
        "{}",
        agent.log()
    );
    host.guards(&["up0"])?;
    let agent = launch.clone().start()?;
    ensure!(agent.warnings()?.is_empty(), "{:?}", agent.warnings()?);
    drop(agent);
    process::run(launch.cli(&["detach"]), "").map(drop)
}

/// And where it cannot be made again, the guard goes on, and its end is told.
pub(super) fn unmounted() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &[])?.config("interfaces = [\"up0\"]\n")?;
    let mut agent = launch.clone().start()?;
    let mut umount = Command::new("umount");
    umount.arg("-l").arg(launch.pin_dir().parent().context("no mount point")?);
    process::run(umount, "")?;
    let says = |agent: &Agent, part: &str| Ok(agent.warnings()?.iter().any(|warning| warning.contains(part)));
    wait::until("a warning", DEADLINE, || says(&agent, "the guard ends with the agent"))?;
    agent.launch().folder().write("dhcp-guard.toml", "interfaces = [\"up0\", \"up1\"]\n")?;
    agent.change(&["reload"])?;
    host.guards(&BOTH)?;
    ensure!(
        agent.stop(libc::SIGTERM)?.success() && agent.log().contains("the guard goes off up0, up1"),
        "{}",
        agent.log()
    );
    wait::until("the end of the guard", DEADLINE, || Ok(host.guards(&[]).is_ok()))
}

/// With a /sys of its own, as `ip netns exec` makes it, over the machine's BPF file system.
pub(super) fn hidden() -> Result<()> {
    const AS_IP_DOES: &str = "mount -t bpf bpf /sys/fs/bpf && mount -t sysfs none /sys && exec \"$@\"";
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &["up0"])?.pins("/sys/fs/bpf/dhcp-guard".into());
    let mut agent = launch.through(&["unshare", "--mount", "sh", "-c", AS_IP_DOES, "sh"]).start()?;
    let warned = agent.log().contains("nsenter --net=/run/netns/NAME");
    ensure!(warned && agent.log().contains("protection would end with the agent"), "{}", agent.log());
    host.guards(&["up0"])?;
    ensure!(agent.stop(libc::SIGTERM)?.success() && agent.log().contains("taking the guard off"), "{}", agent.log());
    wait::until("the end of the guard", DEADLINE, || Ok(host.guards(&[]).is_ok()))
}

/// What is said of a pin that is elsewhere is not said any more when it is not.
pub(super) fn moved_away_and_back() -> Result<()> {
    const ELSEWHERE: &str = "holds a program in another network namespace";
    let host = Host::new()?;
    let other = Netns::new("other")?;
    let launch = Launch::new(&host.0, &[])?.config("interfaces = [\"up*\"]\n")?;
    let mut agent = launch.clone().start()?;
    host.guards(&BOTH)?;
    let pin = launch.link_pin("up1")?;
    agent.stop(libc::SIGKILL)?;
    host.0.ip(&format!("link set up1 netns {}\n", other.path()))?;
    // Nothing of ours is behind a name like ours.
    let foreign = launch.pin_dir().join("links/tcx-9999");
    MapData::from_pin(generation(&launch)?.join("PORT_COUNTERS"))?.pin(&foreign)?;
    let agent = launch.start()?;
    let says =
        |part: &str| -> Result<usize> { Ok(agent.warnings()?.iter().filter(|warning| warning.contains(part)).count()) };
    wait::until("what is elsewhere", DEADLINE, || Ok(says("is none of dhcp-guard's")? == 1))?;
    // What a moved filter of tc is on goes with it.
    if current_hook() != Some(Hook::Clsact) {
        ensure!(pin.exists() && says(ELSEWHERE)? > 0, "{:?}", agent.warnings()?);
    }
    other.ip(&format!("link set up1 netns {}\n", host.0.path()))?;
    host.0.ip("link set up1 up\n")?;
    wait::until("up1 to be guarded", DEADLINE, || Ok(host.guards(&BOTH).is_ok() && says(ELSEWHERE)? == 0))?;
    ensure!(foreign.exists(), "somebody else's pin was removed");
    Ok(())
}
