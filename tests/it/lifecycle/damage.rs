//! What a start can find: foreign, half deleted, cut off, lost.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData, MapType};
use dhcp_guard_common::layout::Meta;
use jiff::Timestamp;
use tests::{
    agent::{Agent, Launch, errors},
    attached, link,
    odd_map::Shape,
    process, wait,
};

use super::{DEADLINE, Host, in_data_plane};

pub(super) const BOTH: [&str; 2] = ["up0", "up1"];

/// The only set of maps.
pub(super) fn generation(launch: &Launch) -> Result<PathBuf> {
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
pub(super) fn refuses(launch: &Launch, parts: &[&str]) -> Result<()> {
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

/// The default pin folder, in a mount namespace of the agent's own that a shell prepares.
fn in_own_mounts(host: &Host, before: &str) -> Result<Launch> {
    let script = format!("{{ {before}; }} && exec \"$@\"");
    let launch = Launch::new(&host.0, &["up0"])?.through(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    Ok(launch.pins("/sys/fs/bpf/dhcp-guard".into()))
}

/// However many are mounted over each other.
const UNMOUNT: &str = "while umount /sys/fs/bpf 2>/dev/null; do :; done";

pub(super) fn mounts_bpffs() -> Result<()> {
    let host = Host::new()?;
    let mut agent = in_own_mounts(&host, UNMOUNT)?.start()?;
    host.guards(&["up0"])?;
    ensure!(agent.log().contains("nothing was mounted on /sys/fs/bpf"), "{}", agent.log());
    let links = fs::read_dir(format!("/proc/{}/root/sys/fs/bpf/dhcp-guard/links", agent.pid()))?.count();
    ensure!(links == 2, "not one link for the guard and one for the replies: {links}");
    // A namespace is there for as long as somebody has it open, and so is what is pinned in it.
    let mounts = fs::File::open(format!("/proc/{}/ns/mnt", agent.pid()))?;
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    host.guards(&["up0"]).context("it is not pinned: it went with its agent")?;
    drop(mounts);
    wait::until("the end of the guard, with its pins", DEADLINE, || Ok(host.guards(&[]).is_ok()))
}

pub(super) fn unusable_bpffs() -> Result<()> {
    let host = Host::new()?;
    // Read-only; and nothing that a file system could be mounted on, with the program hidden that mounts it.
    let ways = [
        ("read-only", format!("{UNMOUNT}; mount -t bpf -o ro bpf /sys/fs/bpf"), "Read-only file system"),
        ("hidden", "mount -t tmpfs none /sys/fs".to_owned(), "is not on a BPF file system"),
    ];
    for (way, before, part) in ways {
        let mut agent = in_own_mounts(&host, &before)?.start().context(way)?;
        host.guards(&["up0"]).context(way)?;
        let seen = agent.warnings()?;
        let is_right = |one: &String| one.contains(part) && one.contains("so the guard ends with its agent");
        ensure!(seen.len() == 1 && seen.iter().all(is_right), "{way}: {seen:?}");
        println!("{way}: {}", seen[0]);
        ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
        wait::until("the end of the guard", DEADLINE, || Ok(host.guards(&[]).is_ok())).context(way)?;
    }
    Ok(())
}

/// One map of a set is not what it must be. Whoever used it would write past the end of its values, or of what it reads them
/// into.
pub(super) fn odd_maps() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &["up0"])?;
    let mut agent = launch.clone().start()?;
    agent.change(&["quarantine", "add", "up0/02:00:00:00:00:01", "--ttl", "1h", "--reason", "by hand"])?;
    in_data_plane(&agent)?;
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    let link = attached::link(&host.0, "up0")?;
    for name in ["PORTS", "PORT_STATES", "PORT_COUNTERS", "HOST_STATE", "KNOWN", "RULES", "HEADS", "STRANGERS", "CPU"] {
        let set = generation(&launch)?;
        let pin = set.join(name);
        let right = Shape::of(&pin)?;
        let other = if right.kind == MapType::Hash { MapType::Array } else { MapType::Hash };
        let odd = [
            Shape { value: right.value.saturating_sub(8).max(4), ..right },
            Shape { value: right.value + 8, ..right },
            Shape { entries: right.entries * 2, ..right },
            Shape { kind: other, key: 4, ..right },
        ];
        // Each map in two of the ways, all of them in turn.
        let turn = name.len() % 2;
        for odd in odd.into_iter().skip(turn).step_by(2).filter(|odd| *odd != right) {
            let pin = generation(&launch)?.join(name);
            fs::remove_file(&pin)?;
            odd.pin(&pin)?;
            replaces(&host, &launch, link).with_context(|| format!("{name} is {odd:?}"))?;
            let after = Shape::of(&generation(&launch)?.join(name))?;
            ensure!(after == right && !pin.exists(), "{name} is {after:?}, and not {right:?}");
        }
    }
    Ok(())
}

/// The next agent makes maps of its own, the guard is on all the time, and the quarantine in force.
fn replaces(host: &Host, launch: &Launch, link: u32) -> Result<()> {
    let mut agent = launch.clone().start()?;
    host.guards(&["up0"])?;
    ensure!(attached::link(&host.0, "up0")? == link, "the guard was off");
    let seen = agent.warnings()?;
    let is_right = |one: &String| one.contains("could not be taken over") || one.contains("begins anew");
    ensure!(seen.iter().all(is_right), "{seen:?}");
    seen.iter().for_each(|one| println!("{one}"));
    ensure!(agent.quarantines()?.len() == 1, "{:?}", agent.quarantines()?);
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    Ok(())
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

/// An agent with a quarantine, for longer than the engine's last, that has reached the maps and the state file.
fn with_quarantine(launch: &Launch) -> Result<Agent> {
    let agent = launch.clone().start()?;
    agent.change(&["quarantine", "add", "up0/02:00:00:00:00:01", "--ttl", "24h", "--reason", "by hand"])?;
    agent.change(&["allow", "add", "up1", "--reason", "by hand"])?;
    in_data_plane(&agent)?;
    Ok(agent)
}

pub(super) fn truncated_state() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &BOTH)?;
    let mut agent = with_quarantine(&launch)?;
    let expires = agent.quarantines()?[0].expires_at;
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
        ensure_same_end(expires, agent.quarantines()?[0].expires_at).with_context(|| format!("{length} bytes"))?;
        agent.stop(libc::SIGKILL)?;
    }
    println!("{} bytes, cut off at every 100th", whole.len());
    Ok(())
}

/// A start does not change when a quarantine ends.
fn ensure_same_end(before: Timestamp, after: Timestamp) -> Result<()> {
    let shift = after.duration_since(before).unsigned_abs();
    ensure!(shift < Duration::from_secs(2), "it ends {shift:?} earlier or later than before");
    Ok(())
}

pub(super) fn lost_state() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &BOTH)?;
    // A first start has nothing to miss, and the next one has a file, though nothing has changed.
    for _ in 0..2 {
        let mut agent = launch.clone().start()?;
        ensure!(agent.warnings()?.is_empty() && agent.json(&["status"])?["hold"] == false, "{:?}", agent.warnings()?);
        ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    }
    let mut agent = with_quarantine(&launch)?;
    let before = agent.quarantines()?;
    agent.stop(libc::SIGKILL)?;
    fs::remove_file(launch.state_dir().join("state.json"))?;
    let mut agent = launch.clone().start()?;
    let seen = agent.warnings()?;
    ensure!(seen.iter().any(|one| one.contains("state.json") && one.contains("hold off")), "{seen:?}");
    ensure!(agent.json(&["status"])?["hold"] == true, "the automation goes on");
    let listed = agent.quarantines()?;
    ensure!(listed.len() == 1 && listed[0].reason.contains("in force when the agent started"), "{listed:?}");
    ensure!(listed[0].id > before[0].id + 1000, "a number that was used may be used again: {}", listed[0].id);
    ensure_same_end(before[0].expires_at, listed[0].expires_at)?;
    agent.change(&["hold", "off", "--reason", "checked"])?;
    agent.change(&["quarantine", "release", &listed[0].id.to_string()])?;
    wait::until("nobody in quarantine", DEADLINE, || Ok(agent.quarantines()?.is_empty()))?;
    agent.stop(libc::SIGTERM)?;
    let agent = launch.clone().start()?;
    ensure!(agent.quarantines()?.is_empty(), "it is back: {:?}", agent.quarantines()?);
    ensure!(agent.json(&["status"])?["hold"] == false, "the hold is back");
    drop(agent);
    process::run(launch.cli(&["detach"]), "").map(drop)
}
