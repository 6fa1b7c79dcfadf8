//! The guard itself: the real binary as a process in the lab, asked through its real command line.

use std::{
    env, fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use dhcp_guard::{
    dataplane::{
        hook::Hook,
        pins::{LinkKind, PinFolder},
    },
    model::{Changed, QuarantineReport, Quarantines},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    cleanup::Folder,
    netns::Netns,
    process::{self, Process},
    program::current_hook,
    wait,
};

/// Names the binary to test; set by `cargo xtask`.
pub const BINARY: &str = "DHCP_GUARD_BIN";
/// Names the same with another layout of its maps; set by `cargo xtask`.
pub const OTHER_BINARY: &str = "DHCP_GUARD_OTHER_BIN";
/// Loading takes a fraction of a second; this is for a machine that is busy with a flood.
const START_DEADLINE: Duration = Duration::from_secs(20);
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// The binary: the one `cargo xtask` names, else the one beside the tests.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os(BINARY) {
        return Ok(path.into());
    }
    let own = env::current_exe().context("where am I")?;
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("dhcp-guard")).find(|path| path.is_file());
    beside.with_context(|| format!("no dhcp-guard binary: build it with `cargo xtask build`, or name it in {BINARY}"))
}

/// The binary of another version, whose maps are laid out otherwise.
pub fn other_binary() -> Result<PathBuf> {
    env::var_os(OTHER_BINARY).map(PathBuf::from).with_context(|| format!("no other version: name it in {OTHER_BINARY}"))
}

/// How an agent is to be started: a folder of its own with an empty configuration, unless told otherwise.
#[derive(Clone, Debug)]
pub struct Launch {
    host: Netns,
    folder: Arc<Folder>,
    binary: PathBuf,
    socket: PathBuf,
    config: PathBuf,
    state_dir: PathBuf,
    pin_dir: PathBuf,
    wrapper: Vec<String>,
    arguments: Vec<String>,
}

impl Launch {
    /// On these interfaces of `host`, by the hook that the test is about.
    pub fn new(host: &Netns, interfaces: &[&str]) -> Result<Self> {
        let folder = Folder::new()?;
        let config = folder.write("dhcp-guard.toml", "")?;
        let (socket, state_dir, pin_dir) = (folder.path("socket"), folder.path("state"), folder.bpffs()?.join("guard"));
        let hook = match current_hook() {
            Some(Hook::Xdp) => &["--hook", "xdp"][..],
            Some(Hook::Tcx) => &["--hook", "tcx"],
            Some(Hook::Clsact) => &["--hook", "clsact"],
            Some(Hook::Auto) | None => &[],
        };
        let interfaces = interfaces.iter().flat_map(|interface| ["-i", interface]);
        let arguments = interfaces.chain(hook.iter().copied()).map(str::to_owned).collect();
        let (host, folder) = (host.clone(), Arc::new(folder));
        let (binary, wrapper) = (binary()?, Vec::new());
        Ok(Self { host, folder, binary, socket, config, state_dir, pin_dir, wrapper, arguments })
    }

    /// With this in its configuration file.
    pub fn config(self, content: &str) -> Result<Self> {
        self.folder.write("dhcp-guard.toml", content)?;
        Ok(self)
    }

    /// With another configuration file.
    #[must_use]
    pub fn config_file(self, config: PathBuf) -> Self {
        Self { config, ..self }
    }

    /// With another socket than the folder's.
    #[must_use]
    pub fn socket(self, socket: PathBuf) -> Self {
        Self { socket, ..self }
    }

    /// On these interfaces instead.
    #[must_use]
    pub fn only(mut self, interfaces: &[&str]) -> Self {
        while let Some(place) = self.arguments.iter().position(|argument| argument == "-i") {
            self.arguments.drain(place..place + 2);
        }
        self.arguments.extend(interfaces.iter().flat_map(|interface| ["-i", interface]).map(str::to_owned));
        self
    }

    /// With further arguments of `run`.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(ToString::to_string));
        self
    }

    /// Through a command that takes the agent's command line as its last arguments, and becomes it.
    #[must_use]
    pub fn through(self, wrapper: &[&str]) -> Self {
        Self { wrapper: wrapper.iter().map(ToString::to_string).collect(), ..self }
    }

    /// With a copy of the binary, in a folder that every user may use.
    pub fn for_everyone(self) -> Result<Self> {
        let copy = self.folder.path("dhcp-guard");
        fs::copy(&self.binary, &copy).with_context(|| format!("cannot copy {}", self.binary.display()))?;
        self.folder.open_to_everyone()?;
        Ok(Self { binary: copy, ..self })
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Path of its control socket.
    #[must_use]
    pub fn socket_path(&self) -> &Path {
        &self.socket
    }

    /// The folder for what survives its end.
    #[must_use]
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The folder in which the guard outlives it.
    #[must_use]
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// Where the link is pinned that holds the guard on an interface.
    pub fn link_pin(&self, interface: &str) -> Result<PathBuf> {
        let kind = match current_hook() {
            Some(Hook::Xdp | Hook::Auto) | None => LinkKind::Xdp,
            Some(Hook::Tcx) => LinkKind::Tcx,
            Some(Hook::Clsact) => LinkKind::Clsact,
        };
        let folder = PinFolder::peek(&self.pin_dir)?.context("nothing is pinned")?;
        Ok(folder.link(kind, self.host.ifindex(interface)?))
    }

    /// With another pin folder than its own.
    #[must_use]
    pub fn pins(self, pin_dir: PathBuf) -> Self {
        Self { pin_dir, ..self }
    }

    /// With another binary.
    #[must_use]
    pub fn binary(self, binary: PathBuf) -> Self {
        Self { binary, ..self }
    }

    /// A command of the CLI, through the same wrapper, for the agent on the same socket.
    #[must_use]
    pub fn cli(&self, words: &[&str]) -> Command {
        let mut command = self.wrapped();
        command
            .arg("--socket")
            .arg(&self.socket)
            .arg("--pin-dir")
            .arg(&self.pin_dir)
            .args(words)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Starts it and waits until it guards.
    pub fn start(self) -> Result<Agent> {
        let (ready, guarding) = mpsc::channel();
        let on_line = move |line: &str| {
            if line.contains("; control API on ") {
                let _ = ready.send(());
            }
        };
        let process = Process::start(self.run(), on_line)?;
        // The sender goes with the output: an agent that gives up ends the wait at once.
        if guarding.recv_timeout(START_DEADLINE).is_err() {
            bail!("the agent did not start:\n{}", process.last_lines());
        }
        Ok(Agent { process, launch: self })
    }

    /// Starts it and waits for nothing.
    pub fn begin(&self) -> Result<Process> {
        Process::start(self.run(), |_| ())
    }

    /// Starts it and waits for its end, which must come by itself.
    pub fn run_to_its_end(&self) -> Result<Output> {
        process::output_within(self.run(), START_DEADLINE)
    }

    fn run(&self) -> Command {
        let mut command = self.wrapped();
        command.arg("--config").arg(&self.config).arg("--socket").arg(&self.socket);
        command.arg("--pin-dir").arg(&self.pin_dir).arg("run");
        command.arg("--state-dir").arg(&self.state_dir).args(&self.arguments);
        command.env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    fn wrapped(&self) -> Command {
        match self.wrapper.split_first() {
            None => self.host.command(&self.binary),
            Some((wrapper, words)) => {
                let mut command = self.host.command(wrapper);
                command.args(words).arg(&self.binary);
                command
            }
        }
    }
}

/// A running agent; killed on drop.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    launch: Launch,
}

impl Agent {
    /// Starts an agent on these interfaces of `host`, with a configuration file of this content, and waits until it
    /// guards.
    pub fn start(host: &Netns, interfaces: &[&str], config: &str) -> Result<Self> {
        Launch::new(host, interfaces)?.config(config)?.start()
    }

    /// The same with further arguments of `run`.
    pub fn start_with(host: &Netns, interfaces: &[&str], config: &str, arguments: &[&str]) -> Result<Self> {
        Launch::new(host, interfaces)?.config(config)?.arguments(arguments).start()
    }

    /// A command of the CLI, sent to this agent.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        self.launch.cli(words)
    }

    /// What the CLI prints for people.
    pub fn text(&self, words: &[&str]) -> Result<String> {
        let output = self.command(words).output().context("cannot run the CLI")?;
        ensure!(output.status.success(), "`dhcp-guard {}` failed: {}", words.join(" "), errors(&output));
        String::from_utf8(output.stdout).context("the CLI's output is not UTF-8")
    }

    /// What the CLI answers with `--json`.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.text(&[words, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("not one JSON document: {text}"))
    }

    /// The same as the type that the agent makes it from.
    pub fn ask<T: DeserializeOwned>(&self, words: &[&str]) -> Result<T> {
        let answer = self.json(words)?;
        serde_json::from_value(answer.clone()).with_context(|| format!("not the document that was expected: {answer}"))
    }

    /// A change that is granted; what changed, one sentence each.
    pub fn change(&self, words: &[&str]) -> Result<Vec<String>> {
        Ok(self.ask::<Changed>(words)?.changes)
    }

    /// The quarantines there are.
    pub fn quarantines(&self) -> Result<Vec<QuarantineReport>> {
        Ok(self.ask::<Quarantines>(&["quarantine", "list"])?.quarantines)
    }

    /// What makes the guard blind or weak, one sentence each.
    pub fn warnings(&self) -> Result<Vec<String>> {
        let status = self.json(&["status"])?;
        let warnings = status["warnings"].as_array().context("no warnings")?;
        Ok(warnings.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// The offenders that have not recovered, of a list from [`Agent::json`] or this agent's present one.
    pub fn offenders(&self) -> Result<Vec<Value>> {
        let answer = self.json(&["offenders"])?;
        let list = answer["offenders"].as_array().context("no list of offenders")?;
        Ok(list.iter().filter(|offender| offender["state"] == "offender").cloned().collect())
    }

    /// Takes the guard off that it has left; what the command says.
    pub fn detach(&self) -> Result<String> {
        self.text(&["detach"])
    }

    /// How it was started: to start it again.
    #[must_use]
    pub fn launch(&self) -> &Launch {
        &self.launch
    }

    /// Path of the control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.launch.socket.clone()
    }

    /// The last lines that it logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.last_lines()
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: libc::c_int) -> Result<()> {
        let pid = i32::try_from(self.process.id())?;
        // SAFETY: no memory involved; the process is our child and has not been reaped, so the id is its own.
        ensure!(unsafe { libc::kill(pid, signal) } == 0, "cannot signal the agent");
        Ok(())
    }

    /// Sends a signal and waits for the end.
    pub fn stop(&mut self, signal: libc::c_int) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.ended(STOP_DEADLINE)
    }

    /// Waits for the end.
    pub fn ended(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let mut status = None;
        wait::until("the end of the agent", deadline, || {
            status = self.process.ended()?;
            Ok(status.is_some())
        })?;
        Ok(status.unwrap_or_else(|| ExitStatus::from_raw(0)))
    }
}

/// Standard error in one piece.
#[must_use]
pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
