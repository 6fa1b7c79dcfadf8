//! The guard itself: the real binary as a process in the lab, asked through its real command line.

use std::{
    env,
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{cleanup::Folder, netns::Netns, process::Process, wait};

/// Names the binary to test; set by `cargo xtask`.
pub const BINARY: &str = "DHCP_GUARD_BIN";
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

/// A running agent; killed on drop.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    folder: Folder,
    host: Netns,
}

impl Agent {
    /// Starts an agent on these interfaces of `host`, with a configuration file of this content, and waits until it
    /// guards.
    pub fn start(host: &Netns, interfaces: &[&str], config: &str) -> Result<Self> {
        Self::start_with(host, interfaces, config, &[])
    }

    /// The same with further arguments of `run`.
    pub fn start_with(host: &Netns, interfaces: &[&str], config: &str, arguments: &[&str]) -> Result<Self> {
        let folder = Folder::new()?;
        let config = folder.write("dhcp-guard.toml", config)?;
        let mut command = host.command(binary()?);
        command.arg("--config").arg(config).arg("--socket").arg(folder.path("socket")).arg("run").args(arguments);
        command.args(interfaces.iter().flat_map(|interface| ["-i", interface])).env_remove("RUST_LOG");
        let (ready, guarding) = mpsc::channel();
        let on_line = move |line: &str| {
            if line.contains("; control API on ") {
                let _ = ready.send(());
            }
        };
        let process = Process::start(command, on_line)?;
        // The sender goes with the output: an agent that gives up ends the wait at once.
        if guarding.recv_timeout(START_DEADLINE).is_err() {
            bail!("the agent did not start:\n{}", process.last_lines());
        }
        Ok(Self { process, folder, host: host.clone() })
    }

    /// A command of the CLI, sent to this agent.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = self.host.command(binary()?);
        command.arg("--socket").arg(self.socket()).args(words).env("NO_COLOR", "1").stdin(Stdio::null());
        Ok(command)
    }

    /// What the CLI prints for people.
    pub fn text(&self, words: &[&str]) -> Result<String> {
        let output = self.command(words)?.output().context("cannot run the CLI")?;
        ensure!(output.status.success(), "`dhcp-guard {}` failed: {}", words.join(" "), errors(&output));
        String::from_utf8(output.stdout).context("the CLI's output is not UTF-8")
    }

    /// What the CLI answers with `--json`.
    pub fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.text(&[words, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("not one JSON document: {text}"))
    }

    /// The offenders that have not recovered, of a list from [`Agent::json`] or this agent's present one.
    pub fn offenders(&self) -> Result<Vec<Value>> {
        let answer = self.json(&["offenders"])?;
        let list = answer["offenders"].as_array().context("no list of offenders")?;
        Ok(list.iter().filter(|offender| offender["state"] == "offender").cloned().collect())
    }

    /// Path of the control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path("socket")
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

    /// Sends a signal and waits for the end.
    pub fn stop(&mut self, signal: libc::c_int) -> Result<ExitStatus> {
        let pid = i32::try_from(self.process.id())?;
        // SAFETY: no memory involved; the process is our child and has not been reaped, so the id is its own.
        ensure!(unsafe { libc::kill(pid, signal) } == 0, "cannot signal the agent");
        let mut status = None;
        wait::until("the end of the agent", STOP_DEADLINE, || {
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
