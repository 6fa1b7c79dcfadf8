//! The first process of a guest of `cargo xtask vm`: prepares the machine, runs the groups of tests that the image's plan
//! names, tells the host what became of them, and switches the machine off.
//!
//! Linked statically, so that it runs whatever else is in the image. What it tells is one JSON document a line on the second
//! serial port; the first one is the kernel's console, so that neither can be taken for the other:
//!
//! | `event` | with | means |
//! |---|---|---|
//! | `up` | `kernel` | the machine runs this kernel |
//! | `problem` | `text` | something of the image is not as it should be |
//! | `beat` | | the guest is alive |
//! | `group` | `name` | a group begins |
//! | `started`, `ended` | see `tests::events` | a test begins, has ended |
//! | `output` | `line` | a test has said something |
//! | `done` | `name`, `failed`, `text` | the group has ended, with failures or without; a text only if not as it should |
//! | `kernel` | `level`, `text` | a line of the kernel's log, warnings and worse |
//! | `end` | | that was all |

use std::{
    ffi::CStr,
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    mount::{MountFlags, mount},
    system::{RebootCommand, finit_module, reboot},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tests::{
    agent::{BINARY, OTHER_BINARY},
    events,
    flood::SLOW_MACHINE,
    harness::{IN_GUEST, NO_SKIP, SABOTAGE},
};

/// What is to be done; written by xtask into the image.
#[derive(Deserialize)]
struct Plan {
    /// Kernel modules, in an order in which they can be loaded.
    modules: Vec<String>,
    groups: Vec<Group>,
    /// Whether a processor is emulated: see `tests::flood::SLOW_MACHINE`.
    slow: bool,
    /// What to do wrong, to see whether the host notices.
    sabotage: Option<Sabotage>,
}

/// Tests that belong together.
#[derive(Deserialize)]
struct Group {
    name: String,
    /// Parts of the names of its tests.
    tests: Vec<String>,
    /// Parts of the names of those that are left out all the same.
    without: Vec<String>,
    /// After so many seconds it is killed.
    seconds: u64,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Sabotage {
    /// One of the tests does it: `tests/it/sabotage.rs`.
    Verifier,
    Panic,
    /// The guest goes silent, and does not end.
    Hang,
    /// The kernel crashes.
    Crash,
}

const PLAN: &str = "/vm/plan.json";
/// The tests, and the agents that they start.
const TESTS: &str = "/vm/it";
const ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    (BINARY, "/vm/dhcp-guard"),
    (OTHER_BINARY, "/vm/dhcp-guard-other"),
    (events::EVENTS, EVENTS),
    // Everything is in the image: what is skipped all the same is what this kernel has not.
    (NO_SKIP, IN_GUEST),
];
/// Where the tests say what becomes of them.
const EVENTS: &str = "/run/events";
/// The exit code of a runner one of whose tests has failed.
const FAILED: i32 = 101;
/// What the runner prints on top; nobody reads it.
const RUNNER_LOG: &str = "--logfile=/run/runner.log";
/// Written behind a test's last event by us, so that we know that we have read that.
const SYNC: &str = "sync";
/// The host takes a guest that says nothing for much longer than this for dead.
const BEAT: Duration = Duration::from_secs(3);
/// For so long what a group has said last is waited for.
const LINGER: Duration = Duration::from_secs(5);
/// `MODULE_INIT_COMPRESSED_FILE` of include/uapi/linux/module.h (kernel 5.17).
const COMPRESSED: i32 = 4;
/// Warnings, of the levels of syslog; what is less urgent is not sent.
const WARNING: u32 = 4;
const FILE_SYSTEMS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("devpts", "/dev/pts"),
    ("tmpfs", "/dev/shm"),
    ("tmpfs", "/run"),
    ("tmpfs", "/tmp"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

fn main() {
    // Where this fails the kernel panics, because its first process has ended, and the host sees that.
    let host = prepare().expect("a machine that can tell");
    if let Err(error) = carry_out(host) {
        host.problem(&format!("{error:#}"));
    }
    host.tell(&json!({ "event": "end" }));
    rustix::fs::sync();
    let error = reboot(RebootCommand::PowerOff);
    panic!("the machine cannot be switched off: {error:?}");
}

/// The way to the host.
struct Host(Mutex<File>);

impl Host {
    fn tell(&self, document: &Value) {
        self.tell_line(&document.to_string());
    }

    fn tell_line(&self, line: &str) {
        let mut port = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Who cannot be told is told nothing: the host notices.
        let _ = port.write_all(format!("{line}\n").as_bytes());
    }

    fn problem(&self, text: &str) {
        self.tell(&json!({ "event": "problem", "text": text }));
    }
}

/// File systems, and the way to the host.
fn prepare() -> Result<&'static Host> {
    let no_data: Option<&CStr> = None;
    for (kind, place) in FILE_SYSTEMS {
        fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
        mount(*kind, *place, *kind, MountFlags::empty(), no_data)
            .with_context(|| format!("cannot mount {kind} on {place}"))?;
    }
    symlink("/proc/self/fd", "/dev/fd").context("cannot link /dev/fd")?;
    let port = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/ttyS1");
    let port = port.context("cannot open the second serial port")?;
    let mut attributes = tcgetattr(&port).context("cannot ask the serial port")?;
    attributes.make_raw();
    tcsetattr(&port, OptionalActions::Now, &attributes).context("cannot set the serial port up")?;
    Ok(Box::leak(Box::new(Host(Mutex::new(port)))))
}

fn carry_out(host: &'static Host) -> Result<()> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("cannot ask for the kernel's release")?;
    host.tell(&json!({ "event": "up", "kernel": kernel.trim() }));
    let plan = fs::read(PLAN).with_context(|| format!("cannot read {PLAN}"))?;
    let plan: Plan = serde_json::from_slice(&plan).with_context(|| format!("{PLAN} is no plan"))?;
    for module in &plan.modules {
        if let Err(error) = load(module) {
            host.problem(&format!("cannot load {module}: {error:#}"));
        }
    }
    match plan.sabotage {
        Some(Sabotage::Hang) => hang(),
        Some(Sabotage::Crash) => fs::write("/proc/sysrq-trigger", "c").context("the kernel does not crash")?,
        Some(Sabotage::Verifier | Sabotage::Panic) | None => {}
    }
    thread::spawn(move || beat(host));
    let events = listen(host)?;
    for group in &plan.groups {
        host.tell(&json!({ "event": "group", "name": group.name }));
        let outcome = run(host, group, &plan, &events);
        let failed = matches!(outcome, Ok(true));
        let text = outcome.err().map(|error| format!("{error:#}"));
        host.tell(&json!({ "event": "done", "name": group.name, "failed": failed, "text": text }));
    }
    tell_kernel_log(host)
}

fn load(module: &str) -> Result<()> {
    let file = File::open(module)?;
    let flags = if module.ends_with(".ko") { 0 } else { COMPRESSED };
    Ok(finit_module(&file, c"", flags)?)
}

fn hang() -> ! {
    loop {
        thread::park();
    }
}

fn beat(host: &Host) {
    loop {
        thread::sleep(BEAT);
        host.tell(&json!({ "event": "beat" }));
    }
}

/// Passes on what the tests say of themselves; the answer gets a word whenever [`SYNC`] was read.
fn listen(host: &'static Host) -> Result<mpsc::Receiver<()>> {
    mknodat(CWD, EVENTS, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
        .with_context(|| format!("cannot make {EVENTS}"))?;
    // For writing, too, so that it never ends.
    let fifo =
        OpenOptions::new().read(true).write(true).open(EVENTS).with_context(|| format!("cannot open {EVENTS}"))?;
    let (synced, events) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(fifo).lines().map_while(Result::ok) {
            if line == SYNC {
                let _ = synced.send(());
            } else {
                host.tell_line(&line);
            }
        }
    });
    Ok(events)
}

/// Runs the tests of a group, and passes on all that they say. Whether one of them has failed.
fn run(host: &'static Host, group: &Group, plan: &Plan, events: &mpsc::Receiver<()>) -> Result<bool> {
    let mut command = Command::new(TESTS);
    command.args(group.without.iter().map(|part| format!("--skip={part}")));
    command.args(&group.tests).arg(RUNNER_LOG).env_clear().envs(ENVIRONMENT.iter().copied());
    if plan.slow {
        command.env(SLOW_MACHINE, "1");
    }
    match plan.sabotage {
        Some(Sabotage::Verifier) => drop(command.env(SABOTAGE, "verifier")),
        Some(Sabotage::Panic) => drop(command.env(SABOTAGE, "panic")),
        Some(Sabotage::Hang | Sabotage::Crash) | None => {}
    }
    let (reader, writer) = io::pipe().context("no pipe")?;
    command.stdin(Stdio::null()).stdout(writer.try_clone().context("no pipe")?).stderr(writer);
    let child = command.spawn().with_context(|| format!("cannot run {TESTS}"))?;
    // Holds the pipe's other end, which would never end otherwise.
    drop(command);
    let (writer, silent) = mpsc::channel::<()>();
    thread::spawn(move || {
        for line in BufReader::new(reader).split(b'\n').map_while(Result::ok) {
            host.tell(&json!({ "event": "output", "line": String::from_utf8_lossy(&line) }));
        }
        drop(writer);
    });
    let ended = end_within(child, Duration::from_secs(group.seconds));
    fs::write(EVENTS, format!("{SYNC}\n")).context("cannot follow the events")?;
    // Whoever outlives the tests and keeps their output open must not hold up the next ones.
    let _ = (silent.recv_timeout(LINGER), events.recv_timeout(LINGER));
    match ended? {
        None => bail!("not done after {} s, and killed", group.seconds),
        Some(status) if status.success() => Ok(false),
        Some(status) if status.code() == Some(FAILED) => Ok(true),
        Some(status) => bail!("the runner ended with {status}"),
    }
}

/// Waits for a child, and kills it after that time; none: it was killed.
fn end_within(mut child: Child, time: Duration) -> Result<Option<ExitStatus>> {
    let process = rustix::process::Pid::from_child(&child);
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait()));
    if let Ok(status) = ended.recv_timeout(time) {
        return Ok(Some(status?));
    }
    rustix::process::kill_process(process, rustix::process::Signal::KILL)?;
    ended.recv()??;
    Ok(None)
}

/// What the kernel has said that is not everyday: `Documentation/ABI/testing/dev-kmsg`.
fn tell_kernel_log(host: &Host) -> Result<()> {
    let mut log = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(Path::new("/dev/kmsg"))?;
    let mut record = [0; 8192];
    loop {
        let length = match log.read(&mut record) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            // Some were overwritten before they were read: the next ones are there.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => continue,
            Err(error) => return Err(error).context("cannot read the kernel's log"),
        };
        let record = String::from_utf8_lossy(&record[..length]);
        let Some((prefix, text)) = record.split_once(';') else { continue };
        // The facility is in the bits above.
        let level = prefix.split(',').next().and_then(|word| word.parse::<u32>().ok()).map(|word| word & 7);
        if let Some(level) = level.filter(|level| *level <= WARNING) {
            let text = text.lines().next().unwrap_or_default();
            host.tell(&json!({ "event": "kernel", "level": level, "text": text }));
        }
    }
}
