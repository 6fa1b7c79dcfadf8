//! The agent as a service: what systemd is told, and what the agent may still do once it guards.
//!
//! Once for both hooks, since neither is about a frame; the one about taking over does so at both.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use libtest_mimic::Trial;
use tests::{
    agent::{Agent, Launch},
    cleanup::Folder,
    harness::{Need, trial_once},
    link,
    netns::Netns,
    wait,
};

const NEEDS: &[Need] = &[Need::Root, Need::BpfObject, Need::Tool("ip"), Need::Tool("env")];
const RIGHTS: &[Need] = &[Need::Root, Need::BpfObject, Need::Tool("ip"), Need::Tool("setpriv")];
/// What is said once a window arrives within some of them.
const SOON: Duration = Duration::from_secs(10);

/// Numbers of capabilities, as in <linux/capability.h>.
const DAC_OVERRIDE: u64 = 1 << 1;
const KILL: u64 = 1 << 5;
const NET_ADMIN: u64 = 1 << 12;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;
const RUNNING: u64 = NET_ADMIN | PERFMON | BPF;

/// As the unit starts it: a user without any rights but these.
const AS_SERVICE: &[&str] = &[
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all,+bpf,+net_admin,+perfmon",
    "--ambient-caps=-all,+bpf,+net_admin,+perfmon",
    "--bounding-set=-all,+bpf,+net_admin,+perfmon",
    "--no-new-privs",
    "--pdeathsig=KILL",
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_once("service: readiness, a sign of life a window, and the end are told", NEEDS, told),
        trial_once("service: whoever did not ask for signs of life gets none", NEEDS, no_watchdog),
        trial_once("privileges: root's agent keeps what running needs, on every thread", NEEDS, of_root),
        trial_once("privileges: a service's agent leaves nothing to what it starts", RIGHTS, of_service),
        trial_once("privileges: with the unit's capabilities an interface is set down and up", RIGHTS, link_down),
        trial_once(
            "privileges: with the unit's capabilities the next agent takes over, at both hooks",
            RIGHTS,
            takes_over,
        ),
    ]
}

/// A host with one interface to guard.
fn host() -> Result<Netns> {
    let netns = Netns::new("host")?;
    link::add(&netns, "up0", "peer0")?;
    Ok(netns)
}

/// In the place of systemd.
struct Manager {
    socket: UnixDatagram,
    path: String,
    _folder: Folder,
}

impl Manager {
    fn new() -> Result<Self> {
        let folder = Folder::new()?;
        let path = folder.path("notify");
        let socket = UnixDatagram::bind(&path).with_context(|| format!("cannot bind {}", path.display()))?;
        socket.set_read_timeout(Some(SOON))?;
        Ok(Self { socket, path: path.display().to_string(), _folder: folder })
    }

    /// Starts an agent for this manager, with more of its environment.
    fn start(&self, host: &Netns, environment: &[&str]) -> Result<Agent> {
        let notify = format!("NOTIFY_SOCKET={}", self.path);
        let wrapper: Vec<&str> = ["env", &notify].into_iter().chain(environment.iter().copied()).collect();
        Launch::new(host, &["up0"])?.through(&wrapper).start()
    }

    /// The next message, and when it came.
    fn next(&self) -> Result<(String, Instant)> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).context("the agent says nothing")?;
        Ok((String::from_utf8(buffer[..length].to_vec())?, Instant::now()))
    }

    /// The next message that begins so, of the next few.
    fn await_message(&self, start: &str) -> Result<String> {
        for _ in 0..10 {
            let (message, _) = self.next()?;
            if message.starts_with(start) {
                return Ok(message);
            }
        }
        bail!("the agent says much, and not {start:?}")
    }
}

/// systemd waits for so long.
const WATCHDOG: Duration = Duration::from_secs(5);

fn told() -> Result<()> {
    let (host, manager) = (host()?, Manager::new()?);
    let watchdog = format!("WATCHDOG_USEC={}", WATCHDOG.as_micros());
    let mut agent = manager.start(&host, &[&watchdog])?;
    let (first, _) = manager.next()?;
    ensure!(first == "READY=1\nSTATUS=guarding up0 (native) in enforce mode\n", "the first message is {first:?}");
    let mut beats = Vec::new();
    while beats.len() < 4 {
        let (message, at) = manager.next()?;
        ensure!(message == "WATCHDOG=1\n", "instead of a sign of life: {message:?}");
        beats.push(at);
    }
    // One for each window of a second, however late a busy machine is with one of them; and each in time.
    let gaps: Vec<Duration> = beats.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let time: Duration = gaps.iter().sum();
    ensure!(time >= Duration::from_secs(2), "three windows of a second took {time:?}");
    ensure!(gaps.iter().all(|gap| *gap < WATCHDOG), "systemd would have lost patience: {gaps:?}");
    agent.change(&["quarantine", "add", "up0", "--ttl", "1h", "--reason", "test"])?;
    let status = manager.await_message("STATUS=")?;
    ensure!(status.contains("1 quarantine in force"), "{status:?}");
    agent.stop(libc::SIGTERM)?;
    manager.await_message("STOPPING=1\n").map(drop)
}

fn no_watchdog() -> Result<()> {
    let (host, manager) = (host()?, Manager::new()?);
    let mut agent = manager.start(&host, &["WATCHDOG_USEC=5000000", "WATCHDOG_PID=1"])?;
    manager.await_message("READY=1\n")?;
    // Two windows and more have passed when two pictures have.
    let seen = |agent: &Agent| Ok::<_, anyhow::Error>(agent.json(&["status"])?["as_of"].clone());
    for _ in 0..2 {
        let before = seen(&agent)?;
        wait::until("a new picture", SOON, || Ok(seen(&agent)? != before))?;
    }
    agent.stop(libc::SIGTERM)?;
    let (message, _) = manager.next()?;
    ensure!(message == "STOPPING=1\n", "a sign of life for somebody else: {message:?}");
    Ok(())
}

/// A set of capabilities of each thread, by the thread's name.
fn sets(agent: &Agent, set: &str) -> Result<BTreeMap<String, u64>> {
    let folder = format!("/proc/{}/task", agent.pid());
    let mut sets = BTreeMap::new();
    for thread in fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let line = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default().trim();
        let bits = u64::from_str_radix(line(&format!("{set}:")), 16).context("no capabilities in /proc")?;
        *sets.entry(line("Name:").to_owned()).or_default() |= bits;
    }
    Ok(sets)
}

/// Every thread has `expected`, but for those that need nothing.
fn check_threads(agent: &Agent, expected: u64) -> Result<()> {
    // A thread takes its name when it first runs, which on a busy machine is after the agent answers.
    wait::until("the threads by their names", SOON, || {
        let threads = sets(agent, "CapPrm")?;
        Ok(threads.contains_key("map-reader") && threads.contains_key("log"))
    })?;
    for set in ["CapPrm", "CapEff"] {
        let threads = sets(agent, set)?;
        for (name, bits) in threads {
            let expected = if name == "log" || name == "service" { 0 } else { expected };
            ensure!(bits == expected, "{set} of the thread {name} is {bits:x}, not {expected:x}");
        }
    }
    for set in ["CapInh", "CapAmb"] {
        let threads = sets(agent, set)?;
        ensure!(threads.values().all(|bits| *bits == 0), "{set}: {threads:x?}");
    }
    Ok(())
}

fn of_root() -> Result<()> {
    let host = host()?;
    let agent = Agent::start(&host, &["up0"], "")?;
    check_threads(&agent, RUNNING | DAC_OVERRIDE | KILL)
}

/// A program of the `command` actuator says what it may.
fn of_service() -> Result<()> {
    let host = host()?;
    let launch = Launch::new(&host, &["up0"])?.for_everyone()?;
    let said = launch.folder().path("said");
    let script = format!("grep ^Cap /proc/self/status >{0}.part && mv {0}.part {0}", said.display());
    let class = "[class.metal]\nrate_pps = 50\nburst = 250\nactuators = [\"command\"]\n";
    let launch = launch.config(&format!("{class}[actuator.command]\nargv = [\"/bin/sh\", \"-c\", {script:?}]\n"))?;
    let agent = launch.through(AS_SERVICE).start()?;
    check_threads(&agent, RUNNING)?;
    agent.change(&["quarantine", "add", "up0", "--ttl", "1h", "--reason", "test"])?;
    wait::until("what the program says", SOON, || Ok(said.exists()))?;
    for line in fs::read_to_string(&said)?.lines().filter(|line| !line.starts_with("CapBnd")) {
        ensure!(line.ends_with("0000000000000000"), "a program of the agent has {line}");
    }
    Ok(())
}

fn link_down() -> Result<()> {
    let host = host()?;
    let launch = Launch::new(&host, &["up0"])?.for_everyone()?.through(AS_SERVICE);
    let inventory = launch.folder().write("inventory.csv", "server_id,interface\nem-1,up0\n")?;
    let mut agent = launch
        .config(&format!(
            "inventory = {:?}\n[class.metal]\nrate_pps = 50\nburst = 250\nactuators = [\"link_down\"]\n",
            inventory.display().to_string()
        ))?
        .start()?;
    let is_up = || Ok::<_, anyhow::Error>(host.exec(&["ip", "link", "show", "up0"])?.contains(",UP"));
    agent.change(&["quarantine", "add", "up0", "--ttl", "1h", "--reason", "test"])?;
    wait::until("the interface down", SOON, || Ok(!is_up()?)).with_context(|| agent.log())?;
    // An agent that ends meanwhile does not leave it down for ever: the next one knows that it was set down for this.
    agent.stop(libc::SIGKILL)?;
    let agent = agent.launch().clone().start()?;
    wait::until("the interface down again", SOON, || Ok(!is_up()?)).with_context(|| agent.log())?;
    agent.change(&["quarantine", "release", "up0"])?;
    wait::until("the interface up again", SOON, is_up).with_context(|| agent.log())
}

/// The rights that an agent has suffice to find what the one before it has left: no refusal, and nothing less is seen.
fn takes_over() -> Result<()> {
    let host = host()?;
    for hook in ["xdp", "tcx"] {
        let launch = Launch::new(&host, &["up0"])?.for_everyone()?.arguments(&["--hook", hook]).through(AS_SERVICE);
        let mut agent = launch.start()?;
        let seen = |agent: &Agent| -> Result<String> {
            let status = agent.json(&["status"])?;
            Ok(format!("{} {}", status["interfaces"][0]["mode"], status["warnings"]))
        };
        let before = seen(&agent)?;
        ensure!(!before.contains("pin"), "{before}");
        for _ in 0..2 {
            ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
            agent = agent.launch().clone().start().with_context(|| format!("hook {hook}"))?;
            ensure!(seen(&agent)? == before, "hook {hook}: {}, before: {before}", seen(&agent)?);
        }
        agent.stop(libc::SIGTERM)?;
        agent.detach()?;
    }
    Ok(())
}
