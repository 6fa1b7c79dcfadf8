//! Whatever hangs or fails around a quarantine does not delay it, nor the next one.
//!
//! Four agents side by side, each with two machines: one in order, and one each with a webhook that is never answered, a
//! command that never ends, a disk that is full. The second machine begins to flood when the first one is in quarantine,
//! so that whatever hangs is hanging then.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    net::TcpListener,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use dhcp_guard::model::{EventKind, QuarantineReport};
use tests::{
    agent::{Agent, Launch},
    follower::Follower,
    stampede::Stampede,
    topology::{Lab, Layout},
    wait,
};

use super::{BEGIN_DEADLINE, SEEN_DEADLINE, explain, inventory, is_on, time_to_quarantine, warnings};

/// Of each machine.
const RATE: u64 = 300;
const FLOOD: Duration = Duration::from_secs(60);
/// How much later than without may it come?
const TOLERANCE: Duration = Duration::from_secs(1);
/// Longer than the second flood needs, so that whatever hangs does so until then; the failure is reported after it.
const TIMEOUT_S: u64 = 14;
/// One may always be in quarantine; here two must.
const CAPS: &str = "[quarantine]\nat_once_percent = 100\n";
/// In a mount namespace of its own, the agent's state is on a disk of this size.
const DISK: &str = "mkdir -p \"$0\" && mount -t tmpfs -o size=64k none \"$0\" && exec \"$@\"";

/// What is wrong with an agent's surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    Nothing,
    Webhook,
    Command,
    Disk,
}

const ALL: [Wrong; 4] = [Wrong::Nothing, Wrong::Webhook, Wrong::Command, Wrong::Disk];

pub(super) fn delay_nobody() -> Result<()> {
    let lab = Lab::new(Layout::PerMachine, 2 * ALL.len())?;
    // The kernel accepts connections, and nobody ever reads from them.
    let silent = lab.host.run(|| TcpListener::bind("127.0.0.1:0"))?.context("cannot listen")?;
    // All at once, so that their seconds begin together.
    let agents: Vec<Watched> = thread::scope(|scope| {
        let start = |(index, wrong)| {
            let (lab, silent) = (&lab, &silent);
            scope.spawn(move || Watched::start(lab, index, wrong, silent))
        };
        let starting: Vec<_> = ALL.into_iter().enumerate().map(start).collect();
        starting
            .into_iter()
            .map(|agent| agent.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<_>>()
    })?;
    let mut agents = agents;
    for agent in agents.iter().filter(|agent| agent.wrong == Wrong::Disk) {
        fill_disk(&agent.agent)?;
    }

    let mut took = Vec::new();
    let mut floods = Vec::new();
    for turn in 0..2 {
        let machines = (0..ALL.len()).map(|agent| 2 * agent + turn);
        let machines: Vec<_> = machines.map(|index| (lab.injection(index), lab.machines[index].mac)).collect();
        floods.push(Stampede::start(&machines, RATE, FLOOD)?);
        took.push(agents.iter_mut().map(|agent| agent.time_of(turn)).collect::<Result<Vec<_>>>()?);
    }
    for times in &took {
        println!("from the first excess to the quarantine: {:?}", ALL.iter().zip(times).collect::<Vec<_>>());
    }
    for times in took {
        for (wrong, time) in ALL.iter().zip(&times) {
            ensure!(time.abs_diff(times[0]) <= TOLERANCE, "{wrong:?}: {time:?}, without {:?}", times[0]);
        }
    }
    let untold = agents.iter_mut().filter_map(|agent| agent.tells_what_failed().err());
    let untold: Vec<_> = untold.map(|error| format!("{error:#}")).collect();
    ensure!(untold.is_empty(), "what failed is not told of: {untold:?}");
    Ok(())
}

/// An agent, and what is wrong around it.
struct Watched {
    wrong: Wrong,
    ports: [String; 2],
    agent: Agent,
    follower: Follower,
}

impl Watched {
    fn start(lab: &Lab, index: usize, wrong: Wrong, silent: &TcpListener) -> Result<Self> {
        let ports = [0, 1].map(|turn| lab.machines[2 * index + turn].guarded.clone());
        let launch = Launch::new(&lab.host, &[&ports[0], &ports[1]])?;
        let class = |name: &str| format!("[class.metal]\nrate_pps = 50\nburst = 250\nactuators = [\"{name}\"]\n");
        let more = match wrong {
            Wrong::Nothing | Wrong::Disk => String::new(),
            Wrong::Webhook => {
                let url = format!("http://{}/", silent.local_addr()?);
                let class = class("webhook");
                format!("{class}[actuator.webhook]\nurl = \"{url}\"\nattempts = 1\ntimeout_s = {TIMEOUT_S}\n")
            }
            Wrong::Command => {
                let class = class("command");
                format!("{class}[actuator.command]\nargv = [\"/bin/sleep\", \"1000\"]\ntimeout_s = {TIMEOUT_S}\n")
            }
        };
        let machines = inventory(&launch, &[&ports[0], &ports[1]])?;
        let launch = launch.config(&format!("{machines}{CAPS}{more}"))?;
        let state_dir = launch.state_dir().display().to_string();
        let launch = match wrong {
            Wrong::Disk => launch.through(&["unshare", "--mount", "sh", "-c", DISK, &state_dir]),
            _ => launch,
        };
        let agent = launch.start()?;
        Ok(Self { wrong, ports, follower: Follower::start(&agent)?, agent })
    }

    /// How long it took until the machine of this turn was in quarantine.
    fn time_of(&mut self, turn: usize) -> Result<Duration> {
        let (wrong, port) = (self.wrong, &self.ports[turn]);
        let is_it = |event: &dhcp_guard::model::Event| {
            event.kind == EventKind::QuarantineBegan && event.port.as_ref() == Some(port)
        };
        self.follower.wait_for(BEGIN_DEADLINE, is_it).with_context(|| format!("{port}, {wrong:?}"))?;
        time_to_quarantine(|| self.quarantine(turn).map(Some)).with_context(|| format!("{port}, {wrong:?}"))
    }

    fn quarantine(&self, turn: usize) -> Result<QuarantineReport> {
        let all = self.agent.quarantines()?;
        let port = &self.ports[turn];
        let found = all.iter().find(|one| is_on(&one.covers, port)).cloned();
        found.with_context(|| format!("no quarantine of {port} among {all:?}"))
    }

    /// What failed is reported, and nothing else is.
    fn tells_what_failed(&mut self) -> Result<()> {
        let wrong = self.wrong;
        self.tells().with_context(|| format!("{wrong:?}"))
    }

    fn tells(&mut self) -> Result<()> {
        let deadline = Duration::from_secs(2 * TIMEOUT_S);
        match self.wrong {
            Wrong::Nothing => {
                ensure!(warnings(&self.agent)?.is_empty(), "{:?}", warnings(&self.agent)?);
                for turn in 0..2 {
                    let outcomes = self.quarantine(turn)?.outcomes;
                    ensure!(
                        outcomes.iter().all(|one| one.actuator == "data_plane" && one.error.is_none()),
                        "{outcomes:?}"
                    );
                }
                for kind in [EventKind::ActuatorFailed, EventKind::CannotSave] {
                    ensure!(self.follower.of_kind(kind)?.is_empty(), "{:?}", self.follower.of_kind(kind)?);
                }
            }
            Wrong::Webhook => self.tells_of("webhook", deadline)?,
            Wrong::Command => self.tells_of("command", deadline)?,
            Wrong::Disk => {
                self.follower.wait_for_kind(SEEN_DEADLINE, EventKind::CannotSave)?;
                let warned = |text: &String| text.contains("audit") || text.contains("state") || text.contains("disk");
                ensure!(warnings(&self.agent)?.iter().any(warned), "{:?}", warnings(&self.agent)?);
            }
        }
        Ok(())
    }

    /// In the event, in both documents, and in a warning.
    fn tells_of(&mut self, actuator: &str, deadline: Duration) -> Result<()> {
        self.follower.wait_for_kind(deadline, EventKind::ActuatorFailed)?;
        let failed = |quarantine: &QuarantineReport| {
            quarantine.outcomes.iter().any(|one| one.actuator == actuator && one.error.is_some())
        };
        wait::until("the outcome", SEEN_DEADLINE, || Ok(failed(&self.quarantine(0)?)))?;
        let quarantine = self.quarantine(0)?;
        let data_plane = quarantine.outcomes.iter().find(|one| one.actuator == "data_plane");
        ensure!(data_plane.is_some_and(|one| one.error.is_none()), "{quarantine:?}");
        let explained = explain(&self.agent, &self.ports[0])?;
        ensure!(explained.quarantine.as_ref().is_some_and(failed), "{explained:?}");
        let warnings = warnings(&self.agent)?;
        ensure!(warnings.iter().any(|text| text.contains(actuator)), "no warning names it: {warnings:?}");
        Ok(())
    }
}

/// Until nothing more goes onto the disk that only the agent sees.
fn fill_disk(agent: &Agent) -> Result<()> {
    let folder = agent.launch().state_dir();
    let folder = format!("/proc/{}/root{}", agent.pid(), folder.display());
    let small = fs::metadata(&folder).with_context(|| format!("cannot see {folder}"))?;
    let own = fs::metadata(agent.launch().folder().path(""))?;
    ensure!(
        std::os::unix::fs::MetadataExt::dev(&small) != std::os::unix::fs::MetadataExt::dev(&own),
        "no disk of its own"
    );
    let mut file = File::create(format!("{folder}/full"))?;
    loop {
        match file.write(&[0; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error).context("cannot fill the disk"),
        }
    }
}
