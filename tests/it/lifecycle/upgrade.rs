//! Another version of the agent, whose maps are laid out otherwise, takes over, and the first one again.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::{dataplane::hook::Hook, model::QuarantineReport};
use serde_json::Value;
use tests::{
    agent::{self, Agent, Launch},
    attached,
    flood::{Flood, Limits, Mode},
    mac::Mac,
    process::{self, Process},
    program::current_hook,
    topology::{Lab, Layout},
    trickle::{Source, Trickle},
    wait,
};

use super::{CLIENT_LIMIT, Client, DEADLINE, FLOODER, clients, in_data_plane};

/// In quarantine, and it sends all the time, within its limit: nothing but the quarantine stops it.
const MUTED: Mac = Mac([2, 0, 0, 0, 0x77, 1]);
/// What an end in the maps may differ by from the same in the state file, and more.
const SAME_END: Duration = Duration::from_secs(2);

/// What must not be lost: whoever is in quarantine gets nothing through, whoever was counted still is.
struct Kept {
    clients: Vec<Client>,
    quarantine: QuarantineReport,
}

impl Kept {
    /// As it is once all clients are in the counts.
    fn wait_for(agent: &Agent, count: usize) -> Result<Self> {
        let mut all = Vec::new();
        wait::until("all clients in the counts", DEADLINE, || {
            all = clients(agent)?;
            Ok(all.len() >= count)
        })?;
        let quarantine = agent.quarantines()?.into_iter().next().context("nobody is in quarantine")?;
        Ok(Self { clients: all, quarantine })
    }

    /// After a change all is as it was, and packets of the muted one came and did not pass.
    fn is_kept(&self, lab: &Lab, agent: &Agent) -> Result<()> {
        let after = clients(agent)?;
        ensure!(after == self.clients, "before: {:?}\nafter: {after:?}", self.clients);
        let listed = agent.quarantines()?;
        ensure!(listed.len() == 1 && listed[0].covers == self.quarantine.covers, "{listed:?}");
        let shift = listed[0].expires_at.duration_since(self.quarantine.expires_at).unsigned_abs();
        ensure!(shift < SAME_END, "the quarantine ends {shift:?} earlier or later than before");
        // Counters of ports begin anew where the layout is another one.
        wait::until("two packets of the muted client in the counts", DEADLINE, || {
            Ok(agent.json(&["ports"])?["ports"][0]["reasons"]["drop_quarantine"].as_u64() >= Some(2))
        })?;
        let passed = lab.server.counts()?.of(MUTED);
        ensure!(passed == 0, "{passed} packets of a client in quarantine reached the server");
        Ok(())
    }
}

pub(super) fn there_and_back() -> Result<()> {
    const CLIENTS: usize = 4;
    let lab = Lab::new(Layout::Uplink, CLIENTS)?;
    let known = |machine: &tests::topology::Machine| {
        format!("[[known_client]]\ninterface = \"uplink0\"\nmac = \"{}\"\n", machine.mac)
    };
    let known: String = lab.machines.iter().take(2).map(known).collect();
    let own = Launch::new(&lab.host, &lab.guarded())?.config(&known)?;
    let other = own.clone().binary(agent::other_binary()?);
    let mut agent = own.clone().start()?;
    lab.get_leases(0..CLIENTS, DEADLINE)?;
    agent.change(&["quarantine", "add", &format!("uplink0/{MUTED}"), "--ttl", "1h", "--reason", "a test"])?;
    in_data_plane(&agent)?;
    let time = Duration::from_secs(120);
    let muted = Trickle::start_at(&lab.injection(0), Source::One(MUTED), CLIENT_LIMIT.rate, time)?;
    let kept = Kept::wait_for(&agent, CLIENTS)?;

    let monitor = Monitor::start(&lab)?;
    let start = Instant::now();
    let flood = Flood::start(&lab.injection(0), Mode::One(FLOODER), Limits::time(time))?;
    let mut before_it = attached::guard(&lab.host, "uplink0")?;
    let link = attached::link(&lab.host, "uplink0")?;
    // The first change with all that was kept, the others with the maps alone.
    let changes = [
        ("the other version", &other, false),
        ("this version again", &own, true),
        ("the other one again", &other, true),
    ];
    for (name, launch, forgets) in changes {
        agent.stop(libc::SIGTERM)?;
        let state = launch.state_dir().join("state.json");
        if forgets && state.exists() {
            fs::remove_file(state)?;
        }
        agent = launch.clone().start().with_context(|| name.to_owned())?;
        let now = attached::guard(&lab.host, "uplink0")?;
        ensure!(now.program != before_it.program, "{name}: the program is still the one before: {now:?}");
        ensure!(attached::link(&lab.host, "uplink0")? == link, "{name}: the guard was off, another link holds it");
        before_it = now;
        kept.is_kept(&lab, &agent).with_context(|| name.to_owned())?;
        let warnings = agent.warnings()?;
        let is_right = |warning: &String| forgets && (warning.contains("state.json") || warning.contains("state file"));
        ensure!(warnings.is_empty() != forgets && warnings.iter().all(is_right), "{name}: {warnings:?}");
    }
    flood.stop()?;
    let elapsed = start.elapsed();
    let passed = lab.server.counts()?.of(FLOODER);
    let (allowed, due) =
        (CLIENT_LIMIT.allowed(elapsed), CLIENT_LIMIT.burst + CLIENT_LIMIT.rate * elapsed.as_secs() / 2);
    ensure!(passed <= allowed, "{passed} packets of the flood reached the server, {allowed} may in {elapsed:?}");
    ensure!(passed >= due, "{passed} packets reached the server, its limit admits at least {due}");
    let sent = muted.stop();
    println!(
        "three changes in {elapsed:?}: {passed} of {allowed} reached the server, and none of {sent} in quarantine"
    );
    would_be_seen(&lab, agent, link, &monitor)
}

/// What has shown that the guard was on all the time: it shows, too, when it is not.
fn would_be_seen(lab: &Lab, mut agent: Agent, link: u32, monitor: &Monitor) -> Result<()> {
    let seen = monitor.detached();
    ensure!(seen.is_empty(), "netlink saw the guard go: {seen:?}");
    agent.stop(libc::SIGTERM)?;
    attached::take_off(&lab.host, "uplink0")?;
    if current_hook() == Some(Hook::Xdp) {
        wait::until("netlink to tell that the guard is off", DEADLINE, || Ok(!monitor.detached().is_empty()))?;
    }
    let _agent = agent.launch().clone().start()?;
    ensure!(attached::link(&lab.host, "uplink0")? != link, "the link is the same after the guard was off");
    Ok(())
}

/// What `ip monitor link` says about the other end of the guarded link.
///
/// That is where netlink tells of it: without a native program a veth has other features at its peer (segmentation offload),
/// and that is an event. One program in the place of another is none. Of other hooks netlink does not tell.
struct Monitor {
    _process: Process,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Monitor {
    fn start(lab: &Lab) -> Result<Self> {
        let end = lab.injection(0);
        let mut command = end.netns.command("ip");
        command.args(["-oneline", "monitor", "link", "dev", &end.interface]);
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let said = Arc::clone(&lines);
        let process = Process::start(command, move |line| {
            said.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        })?;
        let monitor = Self { _process: process, lines };
        // It listens once it has seen a change that is none for the guard.
        let mut length = 1000;
        wait::until("a message of the monitor", DEADLINE, || {
            length += 1;
            end.netns.ip(&format!("link set {} txqueuelen {length}\n", end.interface))?;
            Ok(!monitor.lines().is_empty())
        })?;
        Ok(monitor)
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Messages that a guard is off, or was off and is on again.
    fn detached(&self) -> Vec<String> {
        self.lines().into_iter().filter(|line| line.contains("FEATURE CHANGE")).collect()
    }
}

/// Nobody but the maps knows who was learned.
pub(super) fn learned() -> Result<()> {
    const LEARNED: Mac = Mac([2, 0, 0, 0, 0x77, 2]);
    let lab = Lab::new(Layout::Uplink, 1)?;
    let own = Launch::new(&lab.host, &lab.guarded())?.config("[learning]\nafter_s = 1\n")?;
    let other = own.clone().binary(agent::other_binary()?);
    let mut agent = own.clone().start()?;
    let known_by = |agent: &Agent| -> Result<Value> {
        let clients = agent.json(&["clients"])?;
        let clients = clients["clients"].as_array().context("no clients")?;
        let one = clients.iter().find(|one| one["mac"] == LEARNED.to_string());
        Ok(one.map_or(Value::Null, |one| one["known_by"].clone()))
    };
    let trickle = Trickle::start_at(&lab.injection(0), Source::One(LEARNED), 1, DEADLINE)?;
    wait::until("a client that is learned", DEADLINE, || Ok(known_by(&agent)? == "learned"))?;
    // From here on it is silent, so that nobody learns it again.
    let _ = trickle.stop();
    for (name, launch) in [("the other version", &other), ("this version again", &own)] {
        ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
        agent = launch.clone().start().context(name)?;
        ensure!(known_by(&agent)? == "learned", "{name}: {}", agent.json(&["clients"])?);
    }
    Ok(())
}

/// The same version with larger tables: new maps, with what was in the old ones.
pub(super) fn other_size() -> Result<()> {
    const CLIENTS: usize = 3;
    let lab = Lab::new(Layout::Uplink, CLIENTS)?;
    let launch = Launch::new(&lab.host, &lab.guarded())?;
    let mut agent = launch.clone().start()?;
    lab.get_leases(0..CLIENTS, DEADLINE)?;
    let mut before = Vec::new();
    wait::until("all clients in the counts", DEADLINE, || {
        before = clients(&agent)?;
        Ok(before.len() >= CLIENTS)
    })?;
    for capacity in ["ports = 2048\nstrangers = 100000\nknown_clients = 500", "ports = 64\nstrangers = 4096"] {
        agent.stop(libc::SIGTERM)?;
        agent = launch.clone().config(&format!("[capacity]\n{capacity}\n"))?.start()?;
        let after = clients(&agent)?;
        ensure!(after == before, "{capacity}\nbefore: {before:?}\nafter: {after:?}");
        let sets = fs::read_dir(launch.pin_dir())?.filter_map(Result::ok);
        let sets: Vec<_> = sets.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        ensure!(sets.iter().filter(|name| name.starts_with('v')).count() == 1, "old maps are left: {sets:?}");
    }
    drop(agent);
    let output = process::run(launch.cli(&["detach"]), "")?;
    ensure!(output == "the guard is off: uplink0\n", "{output}");
    ensure!(attached::guarded(&lab.host)?.is_empty(), "it is not off: {:?}", attached::guarded(&lab.host)?);
    Ok(())
}
