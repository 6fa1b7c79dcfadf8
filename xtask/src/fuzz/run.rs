//! Running fuzz targets side by side.

use std::{
    fmt, fs,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    build::{Target, Targets},
    corpus::{Corpus, MAX_LEN},
    log::{self, Status},
};
use crate::workspace::Workspace;

/// When a run ends, whichever comes first.
#[derive(Clone, Copy)]
pub(super) struct Length {
    /// Inputs to try.
    pub(super) runs: u64,
    /// Time to take.
    pub(super) time: Duration,
    /// Of the random numbers; 0 for another one each time.
    pub(super) seed: u32,
}

/// How a target ended.
pub(super) struct Outcome {
    pub(super) target: String,
    status: Status,
    took: Duration,
    pub(super) end: End,
    /// The end of what libFuzzer had to say.
    pub(super) tail: String,
}

/// Why it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All is done, and nothing broke.
    NothingFound,
    /// Something broke: the file with the input, or what became of the process.
    Found(String),
    /// Ctrl-C.
    Interrupted,
}

impl End {
    fn of(status: Option<ExitStatus>, log: &str) -> Self {
        /// libFuzzer's own.
        const INTERRUPTED: i32 = 72;
        match status {
            Some(status) if status.success() => Self::NothingFound,
            Some(status) if status.code() == Some(INTERRUPTED) => Self::Interrupted,
            _ => {
                let ended = || format!("it ended with {}", status.map(|s| s.to_string()).unwrap_or_default());
                Self::Found(log::artifact(log).map_or_else(ended, Into::into))
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { runs, coverage, per_second } = self.status;
        let seconds = self.took.as_secs();
        write!(f, "{}: {runs} runs in {seconds} s, {per_second} a second, {coverage} edges: ", self.target)?;
        match &self.end {
            End::NothingFound => write!(f, "nothing found"),
            End::Found(what) => write!(f, "FOUND: {what}"),
            End::Interrupted => write!(f, "interrupted, nothing found by then"),
        }
    }
}

/// A target that runs.
struct Running<'a> {
    target: &'a Target,
    child: Child,
    log: PathBuf,
    ended: Option<(ExitStatus, Duration)>,
}

/// How often to look whether a target has ended, and to say how far it is.
const LOOK: Duration = Duration::from_millis(100);
const SAY: Duration = Duration::from_secs(60);

/// Runs all targets at the same time, to the end of the slowest. One that finds something does not stop the others.
pub(super) fn all(
    workspace: &Workspace,
    targets: &Targets,
    corpora: &[Corpus],
    length: Length,
) -> Result<Vec<Outcome>> {
    let start = Instant::now();
    let mut running = Vec::new();
    for (target, corpus) in targets.0.iter().zip(corpora) {
        running.push(Running::start(workspace, target, corpus, length)?);
    }
    let mut said = start;
    while running.iter().any(|running| running.ended.is_none()) {
        thread::sleep(LOOK);
        for running in &mut running {
            running.look(start)?;
        }
        if said.elapsed() >= SAY {
            said = Instant::now();
            running.iter().for_each(|running| eprintln!("{:>4} s  {}", start.elapsed().as_secs(), running.progress()));
        }
    }
    Ok(running.iter().map(Running::outcome).collect())
}

impl<'a> Running<'a> {
    fn start(workspace: &Workspace, target: &'a Target, corpus: &Corpus, length: Length) -> Result<Self> {
        let name = target.name;
        let log = folder(workspace, "fuzz-log")?.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let artifacts = folder(workspace, "fuzz-found")?.join(format!("{name}-"));
        let mut command = Command::new(&target.program);
        command
            .args([format!("-max_total_time={}", length.time.as_secs()), format!("-max_len={MAX_LEN}")])
            .args([format!("-seed={}", length.seed), format!("-artifact_prefix={}", artifacts.display())])
            // No input takes longer than microseconds.
            .args(["-timeout=10", "-print_final_stats=1"])
            .args((length.runs != u64::MAX).then(|| format!("-runs={}", length.runs)))
            .args([&corpus.new, &corpus.committed]);
        // The pipe is the leash that `fuzz::leash` describes: it closes when this process ends, however it does.
        command.env("FUZZ_LEASH", "1").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(output);
        eprintln!("+ {}", crate::process::line(&command));
        let child = command.spawn().with_context(|| format!("cannot start {}", target.program.display()))?;
        Ok(Self { target, child, log, ended: None })
    }

    fn look(&mut self, start: Instant) -> Result<()> {
        if self.ended.is_none() {
            let status = self.child.try_wait().with_context(|| format!("cannot wait for {}", self.target.name))?;
            self.ended = status.map(|status| (status, start.elapsed()));
        }
        Ok(())
    }

    fn read_log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn progress(&self) -> String {
        let Status { runs, coverage, per_second } = Status::last(&self.read_log()).unwrap_or_default();
        let ended = if self.ended.is_some() { ", ended" } else { "" };
        format!("{}: {runs} runs, {per_second} a second, {coverage} edges{ended}", self.target.name)
    }

    fn outcome(&self) -> Outcome {
        let log = self.read_log();
        let (status, took) = self.ended.map_or((None, Duration::ZERO), |(status, took)| (Some(status), took));
        let end = End::of(status, &log);
        // A panic comes with a long trace behind it.
        let tail = log::tail(&log, if matches!(end, End::Found(_)) { 80 } else { 8 });
        Outcome { target: self.target.name.into(), status: Status::last(&log).unwrap_or_default(), took, end, tail }
    }
}

fn folder(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let folder = workspace.target().join(name);
    fs::create_dir_all::<&Path>(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
