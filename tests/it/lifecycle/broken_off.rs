//! A start that is broken off: by SIGKILL, or by the kernel's refusal, at any step of it that others can see. strace does it
//! from outside, so that nothing in the agent knows of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::model::Covered;
use tests::{
    agent::{Agent, Launch, errors},
    attached,
    cleanup::Folder,
    flood::{Flood, Limits, Mode},
    link,
    mac::Mac,
    process::{self, Process},
    topology::{Lab, Layout},
    trickle::{Source, Trickle},
    wait,
};

use super::{CLIENT_LIMIT, DEADLINE, FLOODER, Host, in_data_plane};

/// System calls by which a start changes what is not its own: maps, programs, links and pins; filters of tc; folders and files.
const CALLS: &str = "bpf,sendto,?rename,?renameat,renameat2,?unlink,unlinkat,?mkdir,mkdirat";
/// Of the calls of a kind, in how many a start is broken off, the first and the last among them: each takes two starts.
const OF_A_KIND: usize = 3;

/// A system call of a start.
#[derive(Clone, Debug)]
struct Step {
    /// Which, and how many of it there were.
    call: String,
    nth: usize,
    /// With its arguments, as strace writes it.
    line: String,
}

impl Step {
    /// What it is for: calls of a kind stand for each other.
    fn kind(&self) -> &str {
        let command = || self.line.strip_prefix("bpf(")?.split([',', ')']).next();
        command().unwrap_or(&self.call)
    }

    /// Whether others can tell that it was made: what only asks is none.
    fn changes(&self) -> bool {
        const CHANGES: [&str; 8] = [
            "BPF_MAP_CREATE",
            "BPF_PROG_LOAD",
            "BPF_OBJ_PIN",
            "BPF_LINK_CREATE",
            "BPF_LINK_UPDATE",
            "BPF_LINK_DETACH",
            "BPF_MAP_UPDATE_ELEM",
            "BPF_MAP_DELETE_ELEM",
        ];
        match self.call.as_str() {
            "bpf" => CHANGES.contains(&self.kind()),
            // What netlink is to confirm it is not only asked.
            "sendto" => self.line.contains("NLM_F_ACK") && !self.line.contains("_GET"),
            _ => !self.line.contains("EEXIST") && !self.line.contains("ENOENT"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} {})", self.kind(), self.call, self.nth)
    }
}

/// Some of each kind, the last and the first among them; of one the last, since the first ones try what the kernel can.
fn sample(steps: &[Step], of_a_kind: usize) -> Vec<Step> {
    let mut kinds = BTreeMap::<&str, Vec<&Step>>::new();
    steps.iter().for_each(|step| kinds.entry(step.kind()).or_default().push(step));
    let some = |steps: Vec<&Step>| -> Vec<Step> {
        let (count, last) = (steps.len().min(of_a_kind), steps.len() - 1);
        (0..count).map(|place| steps[last - place * last / (count - 1).max(1)].clone()).collect()
    };
    kinds.into_values().flat_map(some).collect()
}

fn listed(steps: &[Step]) -> String {
    steps.iter().map(Step::to_string).collect::<Vec<_>>().join(", ")
}

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

    /// The agent under strace, which does nothing to it.
    fn watching(&self, launch: &Launch) -> Launch {
        self.through(launch, &format!("trace={CALLS}"))
    }

    /// The agent under strace, which does this to it at a step.
    fn at(&self, launch: &Launch, step: &Step, what: &str) -> Launch {
        self.through(launch, &format!("inject={}:{what}:when={}", step.call, step.nth))
    }

    fn through(&self, launch: &Launch, what: &str) -> Launch {
        let (log, calls) = (self.log.display().to_string(), format!("trace={CALLS}"));
        launch.clone().through(&["strace", "-qq", "-o", &log, "-e", &calls, "-e", what])
    }

    /// The steps so far, in their order.
    fn steps(&self) -> Result<Vec<Step>> {
        let text = fs::read_to_string(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        let mut seen = BTreeMap::<String, usize>::new();
        let step = |line: &str| {
            let call = line.split_once('(')?.0.to_owned();
            let is_call = call.chars().all(|letter| letter.is_ascii_alphanumeric());
            let nth = is_call.then(|| seen.entry(call.clone()).and_modify(|count| *count += 1).or_insert(1))?;
            Some(Step { nth: *nth, call, line: line.to_owned() })
        };
        Ok(text.lines().filter_map(step).collect())
    }
}

/// The steps of a start in this state of things.
fn steps(launch: &Launch) -> Result<Vec<Step>> {
    let tracer = Tracer::new()?;
    let mut agent = tracer.watching(launch).start()?;
    // What comes later is no start any more.
    let steps = tracer.steps();
    stop_traced(&mut agent)?;
    let steps = steps?;
    ensure!(steps.len() > 50, "{} steps of a start: {}", steps.len(), listed(&steps));
    Ok(steps)
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

/// A start that is killed at this step. False: it did not come to it, which may be where a step depends on time.
fn kill_at(tracer: &Tracer, launch: &Launch, step: &Step) -> Result<bool> {
    match tracer.at(launch, step, "signal=KILL").start() {
        Ok(mut agent) => stop_traced(&mut agent).map(|()| false),
        Err(why) => {
            let why = format!("{why:#}");
            ensure!(!why.contains("dhcp-guard: "), "it was not killed: {why}");
            Ok(true)
        }
    }
}

/// Starts that came to the steps at which they were to be killed; nearly all of them must.
fn said(killed: usize, sample: &[Step]) -> Result<()> {
    ensure!(killed + 3 >= sample.len(), "only {killed} of {} starts were killed", sample.len());
    println!("killed at {killed} of these steps: {}", listed(sample));
    Ok(())
}

/// Nothing but one set of maps is there.
fn is_tidy(launch: &Launch) -> Result<()> {
    let sets = fs::read_dir(launch.pin_dir())?.filter_map(Result::ok).filter(|entry| entry.file_name() != "links");
    let sets = sets.count();
    ensure!(sets == 1, "{sets} sets of maps");
    let links = fs::read_dir(launch.pin_dir().join("links"))?.filter_map(Result::ok);
    let next: Vec<_> =
        links.map(|entry| entry.file_name()).filter(|name| name.as_encoded_bytes().starts_with(b"next")).collect();
    ensure!(next.is_empty(), "half-made pins are left: {next:?}");
    Ok(())
}

/// A next start without strace guards both, whatever was left.
pub(super) fn recovers(host: &Host, launch: &Launch) -> Result<()> {
    let mut agent = launch.clone().start()?;
    host.guards(&["up0", "up1"])?;
    is_tidy(launch)?;
    ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    Ok(())
}

/// Where nothing is guarded yet.
pub(super) fn killed_at_first() -> Result<()> {
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &["up0", "up1"])?;
    let all = steps(&launch)?;
    process::run(launch.cli(&["detach"]), "")?;
    let tracer = Tracer::new()?;
    let sample = sample(&all.into_iter().filter(Step::changes).collect::<Vec<_>>(), OF_A_KIND);
    let mut killed = 0;
    for step in &sample {
        let at = || format!("killed at {step}");
        killed += usize::from(kill_at(&tracer, &launch, step).with_context(at)?);
        recovers(&host, &launch).with_context(at)?;
        process::run(launch.cli(&["detach"]), "")?;
    }
    said(killed, &sample)
}

/// What no start may take from anybody, however it ends: a quarantine, a known client, a limit that is spent, counters.
struct InForce {
    lab: Lab,
    launch: Launch,
    /// Of the limit.
    start: Instant,
    /// DHCP packets of the muted client, the one over its limit, the known one, and of the port of the latter two.
    counted: [u64; 4],
    _muted: Trickle,
    _spender: Trickle,
}

/// In quarantine.
const MUTED: Mac = Mac([2, 0, 0, 0, 0x77, 1]);
/// What each of them sends a second, and has sent before.
const RATE: u64 = 50;
const BEFORE: u64 = 2000;
/// Longer than a test goes on.
const LONG: Duration = Duration::from_secs(600);

impl InForce {
    fn new() -> Result<Self> {
        let lab = Lab::new(Layout::PerMachine, 2)?;
        let mac = lab.machines[1].mac;
        let known = format!("[[known_client]]\ninterface = \"em1\"\nmac = \"{mac}\"\n");
        let config = format!("[quarantine]\nautomatic = false\n{known}");
        let launch = Launch::new(&lab.host, &lab.guarded())?.config(&config)?;
        let mut agent = launch.clone().start()?;
        let start = Instant::now();
        agent.change(&["quarantine", "add", &format!("em0/{MUTED}"), "--ttl", "1h", "--reason", "a test"])?;
        in_data_plane(&agent)?;
        let flood = |index: usize, mac: Mac, count: u64| -> Result<()> {
            Flood::start(&lab.injection(index), Mode::One(mac), Limits::packets(count).at(10_000))?.wait().map(drop)
        };
        flood(0, MUTED, BEFORE)?;
        flood(1, FLOODER, BEFORE)?;
        flood(1, mac, 10)?;
        let trickle = |index: usize, mac: Mac| Trickle::start_at(&lab.injection(index), Source::One(mac), RATE, LONG);
        let (muted, spender) = (trickle(0, MUTED)?, trickle(1, FLOODER)?);
        let least = [BEFORE, BEFORE, 10, BEFORE + 10];
        let mut this = Self { lab, launch, start, counted: [0; 4], _muted: muted, _spender: spender };
        wait::until("all packets in the counts", DEADLINE, || {
            this.counted = this.counts(&agent)?;
            Ok(this.counted.iter().zip(least).all(|(count, least)| *count >= least))
        })?;
        ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
        Ok(this)
    }

    fn counts(&self, agent: &Agent) -> Result<[u64; 4]> {
        let (clients, ports) = (agent.json(&["clients"])?, agent.json(&["ports"])?);
        let clients = clients["clients"].as_array().context("no clients")?;
        let of = |mac: Mac| clients.iter().find(|one| one["mac"] == mac.to_string());
        let packets = |mac: Mac| of(mac).and_then(|one| one["packets"].as_u64()).unwrap_or(0);
        let mac = self.lab.machines[1].mac;
        ensure!(of(mac).is_none_or(|one| one["known"] == true), "the known client is not known: {:?}", of(mac));
        let ports = ports["ports"].as_array().context("no ports")?;
        let port = |name: &str| ports.iter().find(|one| one["port"] == name);
        let muted = port("em0").and_then(|one| one["reasons"]["drop_quarantine"].as_u64()).unwrap_or(0);
        let all = port("em1").and_then(|one| one["packets"].as_u64()).unwrap_or(0);
        Ok([muted, packets(FLOODER), packets(mac), all])
    }

    /// With or without an agent: the guard is on, nothing of the muted client passes, and of the other no more than may.
    fn holds(&self) -> Result<()> {
        // Whatever it is called: where the kernel refuses to try whether it takes names, programs have none.
        let mut guarded: Vec<_> = attached::programs(&self.lab.host)?.into_iter().map(|one| one.interface).collect();
        guarded.sort();
        ensure!(guarded == ["em0", "em1"], "{guarded:?} are guarded");
        let counts = self.lab.server.counts()?;
        let (muted, passed) = (counts.of(MUTED), counts.of(FLOODER));
        ensure!(muted == 0, "{muted} packets of a client in quarantine reached the server");
        let most = CLIENT_LIMIT.allowed(self.start.elapsed());
        ensure!(passed <= most, "{passed} packets reached the server, the limit admits {most}");
        Ok(())
    }

    /// The next start has all of it.
    fn recovers(&mut self) -> Result<()> {
        let mut agent = self.launch.clone().start()?;
        is_tidy(&self.launch)?;
        let guarded = attached::guarded(&self.lab.host)?;
        ensure!(guarded == ["em0", "em1"], "{guarded:?} are guarded by name");
        let after = self.counts(&agent)?;
        let went_on = self.counted.iter().zip(&after).all(|(before, after)| after >= before);
        ensure!(went_on, "counters went back: {after:?}, before {:?}", self.counted);
        self.counted = after;
        let quarantines = agent.quarantines()?;
        ensure!(quarantines.len() == 1 && quarantines[0].reason == "a test", "{quarantines:?}");
        self.holds()?;
        ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
        Ok(())
    }
}

/// Where a guard is.
pub(super) fn killed_again() -> Result<()> {
    let mut world = InForce::new()?;
    let all = steps(&world.launch)?;
    let tracer = Tracer::new()?;
    let sample = sample(&all.into_iter().filter(Step::changes).collect::<Vec<_>>(), OF_A_KIND);
    let mut killed = 0;
    for step in &sample {
        let at = || format!("killed at {step}");
        killed += usize::from(kill_at(&tracer, &world.launch, step).with_context(at)?);
        world.holds().with_context(at)?;
        world.recovers().with_context(at)?;
    }
    println!("of {} and {} packets none and the limit's passed", world.counted[0], world.counted[1]);
    said(killed, &sample)
}

pub(super) fn in_want() -> Result<()> {
    let mut world = InForce::new()?;
    let sample = sample(&steps(&world.launch)?, 1);
    let tracer = Tracer::new()?;
    let (mut refused, mut started) = (0, 0);
    for (place, step) in sample.iter().enumerate() {
        let error = ["ENOSPC", "EMFILE", "ENOMEM"][place % 3];
        let at = || format!("{error} at {step}");
        match tracer.at(&world.launch, step, &format!("error={error}")).start() {
            Ok(mut agent) => {
                stop_traced(&mut agent)?;
                started += 1;
            }
            Err(why) => {
                let why = format!("{why:#}");
                let sentences = why.lines().filter(|line| line.starts_with("dhcp-guard: ")).count();
                ensure!(sentences == 1, "{}: not one sentence: {why}", at());
                refused += 1;
            }
        }
        world.holds().with_context(at)?;
        world.recovers().with_context(at)?;
    }
    // And really without descriptors.
    let output = world.launch.clone().through(&["prlimit", "--nofile=24:24"]).run_to_its_end()?;
    let said = errors(&output);
    ensure!(output.status.code() == Some(2) && said.contains("Too many open files"), "{}: {said}", output.status);
    world.holds()?;
    world.recovers()?;
    println!("{refused} starts refused with a sentence, {started} went on: {}", listed(&sample));
    Ok(())
}

/// Killed while it saves a quarantine: the file is the old or the new one, and what it does not have the maps do.
pub(super) fn killed_saving() -> Result<()> {
    const SAVES: [&str; 4] = ["openat", "write", "fsync", "rename"];
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &["up0", "up1"])?;
    recovers(&host, &launch)?;
    let draft = launch.state_dir().join("state.json.new").display().to_string();
    let named = |one: &Covered| format!("{}/{}", one.port, one.mac.as_deref().unwrap_or_default());
    // Who was listed before, and whom the agent has said that it has put there.
    let mut due = BTreeSet::new();
    for (number, call) in SAVES.into_iter().enumerate() {
        let at = || format!("killed at {call}");
        // The first is the start's own.
        let inject = format!("inject={call}:signal=KILL:when=2");
        let wrapper =
            ["strace", "-f", "-qq", "-o", "/dev/null", "-P", &draft, "-e", &format!("trace={call}"), "-e", &inject];
        let mut agent = launch.clone().through(&wrapper).start().with_context(at)?;
        let who = format!("up0/02:00:00:00:00:{number:02x}");
        // Perhaps nobody is there any more to answer, or to carry it out.
        let words = ["quarantine", "add", &who, "--ttl", "1h", "--reason", "a test"];
        if launch.cli(&words).output()?.status.success() {
            due.insert(who);
        }
        agent.ended(DEADLINE).with_context(at)?;
        let mut agent = launch.clone().start().with_context(at)?;
        let listed: BTreeSet<String> = agent.quarantines()?.iter().flat_map(|one| &one.covers).map(named).collect();
        ensure!(listed.is_superset(&due), "{}: {listed:?} are listed, {due:?} should be", at());
        due = listed;
        ensure!(agent.warnings()?.is_empty(), "{}: {:?}", at(), agent.warnings()?);
        ensure!(agent.stop(libc::SIGTERM)?.success(), "{}", agent.log());
    }
    Ok(())
}

/// Whether what strace has started is in the call that puts a program on an interface, which is where strace holds it.
fn is_attaching(strace: &Process) -> Result<bool> {
    const BPF_LINK_CREATE: u32 = 28;
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", strace.id()))?;
    let call = fs::read_to_string(format!("/proc/{}/syscall", children.trim()))?;
    Ok(call.starts_with(&format!("{} {BPF_LINK_CREATE:#x} ", libc::SYS_bpf)))
}

fn is_attach(step: &Step) -> bool {
    step.kind() == "BPF_LINK_CREATE"
}

/// The kernel's features are asked for with such calls, too: the last ones are for the interfaces.
fn first_attach(steps: &[Step]) -> Result<Step> {
    let attaches: Vec<&Step> = steps.iter().filter(|step| is_attach(step)).collect();
    let first = attaches.iter().rev().nth(3).context("two programs on two interfaces are four calls")?;
    Ok((*first).clone())
}

/// What an agent says that ends by itself, and must refuse to start.
fn refused(mut process: Process) -> Result<String> {
    let mut status = None;
    wait::until("the end of the start", DEADLINE + Duration::from_secs(3), || {
        status = process.ended()?;
        Ok(status.is_some())
    })?;
    let said = process.last_lines();
    ensure!(status.is_some_and(|status| status.code() == Some(2)), "{status:?}: {said}");
    Ok(said)
}

/// The first call that puts a program on an interface takes long, and the interface goes meanwhile.
pub(super) fn interface_goes() -> Result<()> {
    /// No two starts need make the same calls: each says where it would have been.
    const ATTEMPTS: usize = 5;
    let host = Host::new()?;
    let launch = Launch::new(&host.0, &["up0", "up1"])?;
    let mut step = first_attach(&steps(&launch)?)?;
    for attempt in 0..ATTEMPTS {
        process::run(launch.cli(&["detach"]), "")?;
        let tracer = Tracer::new()?;
        let slow = tracer.at(&launch, &step, "delay_enter=3s").begin()?;
        wait::until("the slow call", DEADLINE, || Ok(is_attaching(&slow).unwrap_or(false)))?;
        host.0.ip("link delete up0\n")?;
        let said = refused(slow)?;
        link::add(&host.0, "up0", "peer0")?;
        let now = tracer.steps()?;
        // Where the slow call was another one, the refusal says nothing.
        if now.iter().any(|one| one.nth == step.nth && one.call == step.call && is_attach(one)) {
            let sentences: Vec<&str> = said.lines().filter(|line| line.starts_with("dhcp-guard: ")).collect();
            ensure!(sentences.len() == 1 && sentences[0].contains("up0"), "{said}");
            println!("{} (attempt {attempt})", sentences[0]);
            host.guards(&[])?;
            return recovers(&host, &launch);
        }
        step = first_attach(&steps(&launch)?)?;
    }
    anyhow::bail!("no start made the calls of the one before it, {ATTEMPTS} times")
}
