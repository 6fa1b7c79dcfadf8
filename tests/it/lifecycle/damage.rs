//! What a start can find: foreign, half deleted, cut off, lost.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use dhcp_guard_common::layout::Meta;
use tests::{
    agent::{Agent, Launch, errors},
    link, process, wait,
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
    refuses(&launch.clone().only(&BOTH), &["interface up1", "the pin", "is not its", "remove it"])?;
    host.guards(&["up0"])?;
    ensure!(pin.exists(), "it was removed");
    // It is in the way of `detach` alone, which says so, and what it has taken off all the same.
    let output = process::output_within(launch.cli(&["detach"]), DEADLINE)?;
    let (said, error) = (String::from_utf8_lossy(&output.stdout), errors(&output));
    ensure!(output.status.code() == Some(2) && said == "the guard is off: up0\n", "{said}{error}");
    let remove = format!("`rm {}`", pin.display());
    ensure!(error.contains("not all of what is pinned in") && error.contains(&remove), "{error}");
    ensure!(pin.exists(), "it was removed");
    host.guards(&[])?;
    fs::remove_file(&pin)?;
    process::run(launch.cli(&["detach"]), "").map(drop)
}

pub(super) fn half_deleted() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &BOTH)?;
    left_by_an_agent(&launch)?;
    for missing in ["PORT_STATES", "META", "KNOWN", "link", "maps", "links"] {
        match missing {
            "link" => fs::remove_file(launch.link_pin("up0")?)?,
            "maps" => fs::remove_dir_all(generation(&launch)?)?,
            "links" => fs::remove_dir_all(launch.pin_dir().join("links"))?,
            map => fs::remove_file(generation(&launch)?.join(map))?,
        }
        let mut agent = launch.clone().start().with_context(|| format!("without {missing}"))?;
        host.guards(&BOTH).with_context(|| format!("without {missing}"))?;
        generation(&launch)?;
        ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    }
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
