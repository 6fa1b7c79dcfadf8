//! Another version of the agent, whose maps are laid out otherwise, takes over, and the first one again.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::dataplane::hook::Hook;
use tests::{
    agent::{self, Agent, Launch},
    attached,
    flood::{Flood, Limits, Mode},
    process,
    program::current_hook,
    topology::{Lab, Layout},
    wait,
};

use super::{CLIENT_LIMIT, DEADLINE, FLOODER, allowed, clients};

fn in_force(agent: &Agent) -> Result<Vec<(u64, String)>> {
    Ok(agent.quarantines()?.into_iter().map(|one| (one.id, one.expires_at.to_string())).collect())
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
    agent.change(&["quarantine", "add", "uplink0/02:00:00:00:77:01", "--ttl", "1h", "--reason", "a test"])?;
    let mut before = Vec::new();
    wait::until("all clients in the counts", DEADLINE, || {
        before = clients(&agent)?;
        Ok(before.len() >= CLIENTS)
    })?;
    let quarantines = in_force(&agent)?;

    // Of other hooks netlink does not tell.
    let monitor = (current_hook() == Some(Hook::Xdp)).then(|| LinkMonitor::start(&lab)).transpose()?;
    let start = Instant::now();
    let flood = Flood::start(&lab.injection(0), Mode::One(FLOODER), Limits::time(Duration::from_secs(60)))?;
    let mut before_it = attached::guard(&lab.host, "uplink0")?;
    let link = attached::link(&lab.host, "uplink0")?;
    for (name, launch) in [("the other version", &other), ("this version again", &own), ("the other one again", &other)]
    {
        agent.stop(libc::SIGTERM)?;
        agent = launch.clone().start().with_context(|| name.to_owned())?;
        let now = attached::guard(&lab.host, "uplink0")?;
        ensure!(now.program != before_it.program, "{name}: the program is still the one before: {now:?}");
        ensure!(attached::link(&lab.host, "uplink0")? == link, "{name}: the guard was off, another link holds it");
        before_it = now;
        let after = clients(&agent)?;
        ensure!(after == before, "{name}\nbefore: {before:?}\nafter: {after:?}");
        ensure!(in_force(&agent)? == quarantines, "{name}: {:?}, before: {quarantines:?}", in_force(&agent)?);
        let status = agent.json(&["status"])?;
        ensure!(status["warnings"].as_array().is_some_and(Vec::is_empty), "{name}: {}", status["warnings"]);
    }
    flood.stop()?;
    let elapsed = start.elapsed();
    let passed = lab.server.counts()?.of(FLOODER);
    let (allowed, due) = (allowed(elapsed), CLIENT_LIMIT.1 + CLIENT_LIMIT.0 * elapsed.as_secs() / 2);
    ensure!(passed <= allowed, "{passed} packets of the flood reached the server, {allowed} may in {elapsed:?}");
    ensure!(passed >= due, "{passed} packets reached the server, its limit admits at least {due}");
    let seen = monitor.map_or_else(|| Ok(Vec::new()), LinkMonitor::stop)?;
    ensure!(seen.iter().all(|line| line.contains("xdp")), "netlink saw the guard go: {seen:?}");
    println!(
        "three changes in {elapsed:?}: {passed} of {allowed} reached the server; netlink: {} messages",
        seen.len()
    );
    Ok(())
}

/// What `ip monitor link` says about the guarded interface.
struct LinkMonitor {
    process: std::process::Child,
    lines: thread::JoinHandle<Vec<String>>,
}

impl LinkMonitor {
    fn start(lab: &Lab) -> Result<Self> {
        let mut command = lab.host.command("ip");
        command.args(["-oneline", "monitor", "link", "dev", "uplink0"]).stdout(Stdio::piped()).stdin(Stdio::null());
        let mut process = command.spawn().context("cannot start `ip monitor`")?;
        let output = BufReader::new(process.stdout.take().context("no output")?);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let lines = thread::spawn(move || {
            let mut lines = Vec::new();
            for line in output.lines().map_while(Result::ok) {
                let _ = ready.send(());
                lines.push(line);
            }
            lines
        });
        // It listens once it has seen a change that is none for the guard.
        let mut length = 1000;
        wait::until("a message of the monitor", DEADLINE, || {
            length += 1;
            lab.host.ip(&format!("link set uplink0 txqueuelen {length}\n"))?;
            Ok(is_ready.try_recv().is_ok())
        })?;
        Ok(Self { process, lines })
    }

    fn stop(mut self) -> Result<Vec<String>> {
        self.process.kill()?;
        self.process.wait()?;
        self.lines.join().map_err(|_| anyhow::anyhow!("the reader of the monitor failed"))
    }
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
        let sets = std::fs::read_dir(launch.pin_dir())?.filter_map(Result::ok);
        let sets: Vec<_> = sets.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        ensure!(sets.iter().filter(|name| name.starts_with('v')).count() == 1, "old maps are left: {sets:?}");
    }
    drop(agent);
    let output = process::run(launch.cli(&["detach"]), "")?;
    ensure!(output == "the guard is off: uplink0\n", "{output}");
    ensure!(attached::guarded(&lab.host)?.is_empty(), "it is not off: {:?}", attached::guarded(&lab.host)?);
    Ok(())
}
