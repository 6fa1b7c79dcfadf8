//! What a start can find: foreign, half deleted, cut off, lost.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use dhcp_guard::{dataplane::hook::Hook, model::EventKind};
use dhcp_guard_common::layout::Meta;
use tests::{
    agent::{Agent, Launch, errors},
    follower::Follower,
    link,
    netns::Netns,
    process,
    program::current_hook,
    wait,
};

use super::{DEADLINE, Host, in_data_plane};

const BOTH: [&str; 2] = ["up0", "up1"];

/// The only set of maps.
fn generation(launch: &Launch) -> Result<PathBuf> {
    let entries = fs::read_dir(launch.pin_dir())?.collect::<std::io::Result<Vec<_>>>()?;
    let sets: Vec<PathBuf> = entries.iter().map(fs::DirEntry::path).filter(|path| !path.ends_with("links")).collect();
    ensure!(sets.len() == 1, "not one set of maps: {sets:?}");
    Ok(sets[0].clone())
}

/// Starts an agent that ends again and leaves its guard.
fn left_by_an_agent(launch: &Launch) -> Result<()> {
    let mut agent = launch.clone().start()?;
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    Ok(())
}

/// One sentence on standard error, with all of these parts.
fn refuses(launch: &Launch, parts: &[&str]) -> Result<()> {
    let output = launch.run_to_its_end()?;
    let sentence = errors(&output);
    ensure!(output.status.code() == Some(2), "{}: {sentence}", output.status);
    let line = sentence.lines().filter(|line| line.starts_with("dhcp-guard: ")).collect::<Vec<_>>();
    ensure!(line.len() == 1 && parts.iter().all(|part| line[0].contains(part)), "{parts:?} in: {sentence}");
    println!("{}", line[0]);
    Ok(())
}

pub(super) fn let_go() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &BOTH)?;
    left_by_an_agent(&launch)?;
    host.guards(&BOTH)?;
    let one = launch.only(&["up1"]);
    let agent = one.clone().start()?;
    host.guards(&["up1"])?;
    drop(agent);
    // One that is gone while nobody looks leaves nothing behind.
    host.0.ip("link delete up1\n")?;
    let agent = one.only(&["up0"]).start()?;
    link::add(&host.0, "up1", "peer1")?;
    host.guards(&["up0"])?;
    let links = fs::read_dir(agent.launch().pin_dir().join("links"))?.count();
    ensure!(links == 2, "not one link for the guard and one for the replies: {links}");
    Ok(())
}

pub(super) fn no_bpffs() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &["up0"])?;
    let elsewhere = launch.folder().path("no-bpffs");
    let mut agent = launch.pins(elsewhere).start()?;
    host.guards(&["up0"])?;
    let seen = agent.warnings()?;
    let says = |part: &str| seen.iter().any(|one| one.contains(part));
    ensure!(seen.len() == 1 && says("is not on a BPF file system") && says("mount -t bpf"), "{seen:?}");
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    wait::until("the end of the guard", DEADLINE, || Ok(host.guards(&[]).is_ok()))
}

pub(super) fn shared_folder() -> Result<()> {
    let host = Host::new()?;
    let first = Agent::start(&host.0, &["up0"], "")?;
    let second = Launch::new(&host.0, &["up1"])?.pins(first.launch().pin_dir().to_owned());
    refuses(&second, &["another agent uses the pin folder", "--pin-dir"])?;
    host.guards(&["up0"])
}

pub(super) fn foreign_pins() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &["up0"])?;
    left_by_an_agent(&launch)?;
    let meta = MapData::from_pin(generation(&launch)?.join("META"))?;
    let mut meta: Array<_, Meta> = Array::try_from(Map::Array(meta))?;
    let before = meta.get(&0, 0)?;
    meta.set(0, Meta { format: before.format + 1, ..before }, 0)?;
    let mut agent = launch.clone().start()?;
    let seen = agent.warnings()?;
    ensure!(seen.len() == 1 && seen[0].contains("cannot be taken over"), "{seen:?}");
    host.guards(&["up0"])?;
    agent.stop(libc::SIGTERM)?;
    let agent = launch.clone().start()?;
    ensure!(agent.warnings()?.is_empty(), "still after another start: {:?}", agent.warnings()?);
    drop(agent);

    // In the place of a link is something that is none.
    let pin = launch.link_pin("up1")?;
    MapData::from_pin(generation(&launch)?.join("PORTS"))?.pin(&pin)?;
    refuses(&launch.only(&BOTH), &["interface up1", "the pin", "is not its", "remove it"])?;
    host.guards(&["up0"])?;
    ensure!(pin.exists(), "it was removed");
    Ok(())
}

pub(super) fn half_deleted() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &BOTH)?;
    left_by_an_agent(&launch)?;
    for missing in ["PORT_STATES", "META", "KNOWN", "foreign KNOWN", "link", "maps", "links"] {
        match missing {
            "foreign KNOWN" => {
                let known = generation(&launch)?.join("KNOWN");
                fs::remove_file(&known)?;
                MapData::from_pin(generation(&launch)?.join("META"))?.pin(&known)?;
                let answer = launch.cli(&["clients"]).output()?;
                ensure!(
                    errors(&answer).contains("the map KNOWN is not there, or in its place is another"),
                    "{answer:?}"
                );
            }
            "link" => {
                fs::remove_file(launch.link_pin("up0")?)?;
                // The kernel takes the program off in its own time.
                wait::until("the guard to be off", DEADLINE, || Ok(host.guards(&["up1"]).is_ok()))?;
            }
            "maps" => fs::remove_dir_all(generation(&launch)?)?,
            "links" => {
                fs::remove_dir_all(launch.pin_dir().join("links"))?;
                wait::until("the guard to be off", DEADLINE, || Ok(host.guards(&[]).is_ok()))?;
            }
            map => fs::remove_file(generation(&launch)?.join(map))?,
        }
        let mut agent = launch.clone().start().with_context(|| format!("without {missing}"))?;
        host.guards(&BOTH).with_context(|| format!("without {missing}"))?;
        let expected = match missing {
            // All else is there, and nothing is lost.
            "link" | "links" => None,
            "META" | "maps" => Some("begin anew"),
            "foreign KNOWN" => Some("begins anew"),
            _ => Some("could not be taken over"),
        };
        let warnings = agent.warnings()?;
        let is_told = expected.is_none_or(|part| warnings.iter().any(|warning| warning.contains(part)));
        ensure!(is_told && (expected.is_some() || warnings.is_empty()), "without {missing}: {warnings:?}");
        generation(&launch)?;
        ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    }
    Ok(())
}

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

/// An agent with a quarantine that has reached the maps and the state file.
fn with_quarantine(launch: &Launch) -> Result<Agent> {
    let agent = launch.clone().start()?;
    agent.change(&["quarantine", "add", "up0/02:00:00:00:00:01", "--ttl", "1h", "--reason", "by hand"])?;
    agent.change(&["allow", "add", "up1", "--reason", "by hand"])?;
    in_data_plane(&agent)?;
    Ok(agent)
}

pub(super) fn truncated_state() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &BOTH)?;
    let mut agent = with_quarantine(&launch)?;
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    let path = launch.state_dir().join("state.json");
    let whole = fs::read(&path)?;
    for length in (0..whole.len()).step_by(100) {
        fs::write(&path, &whole[..length])?;
        let mut agent = launch.clone().start().with_context(|| format!("{length} of {} bytes", whole.len()))?;
        let seen = agent.warnings()?;
        ensure!(seen.iter().any(|one| one.contains("state.json")), "{length} bytes: {seen:?}");
        ensure!(agent.json(&["status"])?["hold"] == true, "{length} bytes: the automation goes on");
        ensure!(agent.quarantines()?.len() == 1, "{length} bytes: {:?}", agent.quarantines()?);
        agent.stop(libc::SIGKILL)?;
    }
    println!("{} bytes, cut off at every 100th", whole.len());
    Ok(())
}

pub(super) fn lost_state() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &BOTH)?;
    let mut agent = with_quarantine(&launch)?;
    let expires = agent.quarantines()?[0].expires_at;
    agent.stop(libc::SIGKILL)?;
    fs::remove_file(launch.state_dir().join("state.json"))?;
    let mut agent = launch.clone().start()?;
    let listed = agent.quarantines()?;
    ensure!(listed.len() == 1 && listed[0].reason.contains("in force when the agent started"), "{listed:?}");
    let shift = listed[0].expires_at.duration_since(expires).unsigned_abs();
    ensure!(shift < std::time::Duration::from_secs(2), "it ends {shift:?} earlier or later than before");
    agent.change(&["quarantine", "release", &listed[0].id.to_string()])?;
    wait::until("nobody in quarantine", DEADLINE, || Ok(agent.quarantines()?.is_empty()))?;
    agent.stop(libc::SIGTERM)?;
    let agent = launch.clone().start()?;
    ensure!(agent.quarantines()?.is_empty(), "it is back: {:?}", agent.quarantines()?);
    drop(agent);
    process::run(launch.cli(&["detach"]), "").map(drop)
}
