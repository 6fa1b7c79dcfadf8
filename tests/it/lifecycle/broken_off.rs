//! A start that is broken off: by SIGKILL, or by the kernel's refusal, at any of its BPF system calls. strace does it from
//! outside, so that nothing in the agent knows of it.

use std::{
    fs,
    ops::RangeInclusive,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::dataplane::remains::Remains;
use tests::{
    agent::{Agent, Launch, errors},
    cleanup::Folder,
    link,
    process::{self, Process},
    wait,
};

use super::{DEADLINE, Host, in_data_plane};

/// Calls at which a start is broken off; evenly over all of it, since each needs three starts.
const PLACES: usize = 14;

/// How many descriptors a start has: from too few for anything to enough for everything.
const DESCRIPTORS: RangeInclusive<u32> = 15..=80;

/// Where strace writes, and how it is called before an agent's command line.
struct Tracer {
    _folder: Folder,
    log: PathBuf,
}

impl Tracer {
    fn new() -> Result<Self> {
        let folder = Folder::new()?;
        Ok(Self { log: folder.path("trace"), _folder: folder })
    }

    /// The agent under strace, which does this to BPF system calls; nothing if empty.
    fn through(&self, launch: &Launch, inject: &str) -> Launch {
        let log = self.log.display().to_string();
        let inject = if inject.is_empty() { "trace=bpf".to_owned() } else { format!("inject=bpf:{inject}") };
        launch.clone().through(&["strace", "-qq", "-o", &log, "-e", "trace=bpf", "-e", &inject])
    }

    /// The commands of the BPF system calls so far, in their order.
    fn calls(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        let command = |line: &str| Some(line.split_once("bpf(")?.1.split(',').next()?.to_owned());
        Ok(text.lines().filter_map(command).collect())
    }
}

/// The calls of a start in this state of things.
fn calls(launch: &Launch) -> Result<Vec<String>> {
    let tracer = Tracer::new()?;
    let mut agent = tracer.through(launch, "").start()?;
    stop_traced(&mut agent)?;
    let calls = tracer.calls()?;
    ensure!(calls.len() > 50, "{} BPF calls of a start: {calls:?}", calls.len());
    Ok(calls)
}

/// strace passes SIGTERM on to nobody: the agent is its child.
fn stop_traced(agent: &mut Agent) -> Result<()> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", agent.pid()))?;
    for child in children.split_whitespace() {
        // SAFETY: no memory involved; the process is a child of ours that lives, since strace waits for it.
        unsafe { libc::kill(child.parse()?, libc::SIGTERM) };
    }
    agent.ended(DEADLINE).map(drop)
}

/// Some of the calls' numbers, the first and the last among them.
fn places(count: usize) -> Vec<usize> {
    (0..PLACES).map(|place| 1 + place * (count - 1) / (PLACES - 1)).collect()
}

/// A next start without strace guards both, whatever was left, and nothing but one set of maps is there then.
fn recovers(host: &Host, launch: &Launch) -> Result<()> {
    let mut agent = launch.clone().start()?;
    host.guards(&["up0", "up1"])?;
    let sets = fs::read_dir(launch.pin_dir())?.filter_map(Result::ok).filter(|entry| entry.file_name() != "links");
    let sets = sets.count();
    ensure!(sets == 1, "{sets} sets of maps");
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    Ok(())
}

pub(super) fn killed_anywhere() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &["up0", "up1"])?;
    let tracer = Tracer::new()?;
    let kill = |number: usize| -> Result<()> {
        let output = tracer.through(&launch, &format!("signal=KILL:when={number}")).run_to_its_end()?;
        ensure!(!output.status.success(), "call {number}: it was not killed: {}", errors(&output));
        Ok(())
    };
    // From nothing.
    let first = calls(&launch)?.len();
    process::run(launch.cli(&["detach"]), "")?;
    for number in places(first) {
        kill(number)?;
        recovers(&host, &launch).with_context(|| format!("killed at BPF call {number} of {first}"))?;
        process::run(launch.cli(&["detach"]), "")?;
    }
    // Where a guard is.
    recovers(&host, &launch)?;
    let again = calls(&launch)?.len();
    for number in places(again) {
        kill(number)?;
        host.guards(&["up0", "up1"]).with_context(|| format!("killed at BPF call {number} of {again}"))?;
        recovers(&host, &launch).with_context(|| format!("killed at BPF call {number} of {again}"))?;
    }
    println!("killed at {PLACES} of {first} BPF calls of a first start, and of {again} of the next");
    Ok(())
}

pub(super) fn in_want() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &["up0", "up1"])?;
    recovers(&host, &launch)?;
    let count = calls(&launch)?.len();
    let tracer = Tracer::new()?;
    let (mut refused, mut started) = (0, 0);
    for (place, number) in places(count).into_iter().enumerate() {
        let error = ["ENOSPC", "EMFILE", "ENOMEM"][place % 3];
        let traced = tracer.through(&launch, &format!("error={error}:when={number}"));
        match traced.start() {
            Ok(mut agent) => {
                stop_traced(&mut agent)?;
                started += 1;
            }
            Err(why) => {
                let why = format!("{why:#}");
                let sentences = why.lines().filter(|line| line.starts_with("dhcp-guard: ")).count();
                ensure!(sentences == 1, "{error} at BPF call {number} of {count}: not one sentence: {why}");
                refused += 1;
            }
        }
        let at = || format!("{error} at BPF call {number} of {count}");
        host.guards(&["up0", "up1"]).with_context(at)?;
        recovers(&host, &launch).with_context(at)?;
    }
    // And really without descriptors.
    let output = launch.clone().through(&["prlimit", "--nofile=24:24"]).run_to_its_end()?;
    let said = errors(&output);
    ensure!(output.status.code() == Some(2) && said.contains("Too many open files"), "{}: {said}", output.status);
    host.guards(&["up0", "up1"])?;
    recovers(&host, &launch)?;
    println!("{PLACES} of {count} BPF calls refused: {refused} starts refused with a sentence, {started} went on");
    Ok(())
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
    for count in DESCRIPTORS {
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
    println!("{started} of {} starts went on", DESCRIPTORS.count());
    Ok(())
}

pub(super) fn all_or_none() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &["up0", "up1"])?;
    let mut started = 0;
    for count in DESCRIPTORS {
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
    println!("{started} of {} starts went on", DESCRIPTORS.count());
    recovers(&host, &launch)
}

/// The first call that puts a program on an interface takes long, and the interface goes meanwhile.
pub(super) fn interface_goes() -> Result<()> {
    const CREATE: &str = "BPF_LINK_CREATE";
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &["up0", "up1"])?;
    let calls = calls(&launch)?;
    process::run(launch.cli(&["detach"]), "")?;
    // The kernel's features are asked for with such calls, too: the last ones are for the interfaces.
    let creates: Vec<usize> = calls.iter().zip(1..).filter(|(call, _)| *call == CREATE).map(|(_, at)| at).collect();
    let number = creates.iter().rev().nth(3).context("two programs on two interfaces are four calls")?;
    let tracer = Tracer::new()?;
    let mut slow: Process = tracer.through(&launch, &format!("delay_enter=3s:when={number}")).begin()?;
    wait::until("the call before", DEADLINE, || Ok(tracer.calls().is_ok_and(|calls| calls.len() + 1 >= *number)))?;
    host.0.ip("link delete up0\n")?;
    let mut status = None;
    wait::until("the end of the start", DEADLINE + Duration::from_secs(3), || {
        status = slow.ended()?;
        Ok(status.is_some())
    })?;
    let said = slow.last_lines();
    ensure!(status.is_some_and(|status| status.code() == Some(2)), "{status:?}: {said}");
    let sentences: Vec<&str> = said.lines().filter(|line| line.starts_with("dhcp-guard: ")).collect();
    ensure!(sentences.len() == 1 && sentences[0].contains("up0"), "{said}");
    println!("{}", sentences[0]);
    link::add(&host.0, "up0", "peer0")?;
    host.guards(&[])?;
    recovers(&host, &launch)
}
