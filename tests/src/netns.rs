//! Network namespaces without names: a namespace lives as long as somebody holds its file descriptor or a process runs
//! in it. When this process goes, however it goes, the kernel removes the namespaces and every link in them.

use std::{
    ffi::{CString, OsStr},
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    panic,
    process::Command,
    sync::Arc,
    thread,
};

use anyhow::{Context as _, Result};

use crate::process;

/// A network namespace; clones are the same namespace.
#[derive(Clone, Debug)]
pub struct Netns {
    label: Arc<str>,
    fd: Arc<OwnedFd>,
}

impl Netns {
    /// Makes a namespace with loopback up and without IPv6. `label` is for messages only.
    pub fn new(label: &str) -> Result<Self> {
        // A thread of its own, because unshare moves the thread that calls it.
        let make = || -> Result<OwnedFd> {
            // SAFETY: no pointers; only this thread is moved.
            check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).context("unshare(CLONE_NEWNET)")?;
            open_current()
        };
        let fd = thread::scope(|scope| join(scope.spawn(make)))
            .with_context(|| format!("cannot make the network namespace `{label}`"))?;
        let netns = Self { label: label.into(), fd: Arc::new(fd) };
        netns.run(silence_ipv6)??;
        netns.exec(&["ip", "link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// The namespace that the calling thread is in.
    pub fn current() -> Result<Self> {
        Ok(Self { label: "current".into(), fd: Arc::new(open_current()?) })
    }

    /// The namespace that a process is in.
    pub fn of_process(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        let file = File::open(&path).with_context(|| format!("cannot open the network namespace {path}"))?;
        Ok(Self { label: format!("of process {pid}").into(), fd: Arc::new(file.into()) })
    }

    /// What it is called in messages.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// A path by which tools can reach the namespace while this process lives (`ip link set … netns PATH`).
    #[must_use]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.fd.as_raw_fd())
    }

    /// Runs `work` inside the namespace, on a thread of its own, and waits for it. A panic goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let enter_and_work = || -> Result<T> {
            self.enter()?;
            Ok(work())
        };
        thread::scope(|scope| join(scope.spawn(enter_and_work)))
    }

    /// Moves the calling thread into the namespace, for good: for threads that were started for it.
    pub fn enter(&self) -> Result<()> {
        enter(self.fd.as_raw_fd()).with_context(|| format!("cannot enter the network namespace `{}`", self.label))
    }

    /// A command that will run in this network namespace (and in no other new namespace, so that /sys and the BPF file
    /// system stay what they are), and that dies with the thread that starts it.
    ///
    /// Use [`process::Process::start`] for what has to live longer than the calling thread.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let fd = Arc::clone(&self.fd);
        // SAFETY: between fork and exec only setns, which is async-signal-safe. The descriptor is kept open by the Arc
        // that moves into the closure.
        unsafe { command.pre_exec(move || enter(fd.as_raw_fd())) };
        process::die_with_parent(&mut command);
        command
    }

    /// Runs a command to its end and answers what it wrote; fails with the command line and its complaint.
    pub fn exec(&self, words: &[&str]) -> Result<String> {
        self.exec_with_input(words, "")
    }

    /// Like [`Netns::exec`], with something on standard input.
    pub fn exec_with_input(&self, words: &[&str], input: &str) -> Result<String> {
        let (program, arguments) = words.split_first().context("an empty command")?;
        let mut command = self.command(program);
        command.args(arguments);
        process::run(command, input).with_context(|| format!("in the namespace `{}`", self.label))
    }

    /// Runs many `ip` commands at once, one in a line.
    pub fn ip(&self, batch: &str) -> Result<()> {
        self.exec_with_input(&["ip", "-batch", "-"], batch).map(drop)
    }

    /// The index of an interface.
    pub fn ifindex(&self, interface: &str) -> Result<u32> {
        let name = CString::new(interface).context("an interface name with a NUL in it")?;
        // SAFETY: a NUL-terminated string that lives through the call.
        let index = self.run(|| match unsafe { libc::if_nametoindex(name.as_ptr()) } {
            0 => Err(io::Error::last_os_error()),
            index => Ok(index),
        })?;
        index.with_context(|| format!("no interface `{interface}` in the namespace `{}`", self.label))
    }
}

/// No IPv6 on any link to come: no address detection, no router solicitations, nothing in the counters but the test.
fn silence_ipv6() -> Result<()> {
    for scope in ["all", "default"] {
        let path = format!("/proc/sys/net/ipv6/conf/{scope}/disable_ipv6");
        match fs::write(&path, "1") {
            // A kernel without IPv6 is quiet already.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.with_context(|| format!("cannot write {path}"))?,
        }
    }
    Ok(())
}

/// The calling thread's namespace.
fn open_current() -> Result<OwnedFd> {
    const PATH: &str = "/proc/thread-self/ns/net";
    Ok(File::open(PATH).with_context(|| format!("cannot open {PATH}"))?.into())
}

/// setns, also between fork and exec.
fn enter(fd: RawFd) -> io::Result<()> {
    // SAFETY: no pointers; moves the calling thread only.
    check(unsafe { libc::setns(fd, libc::CLONE_NEWNET) })
}

/// The C convention for "failed, see errno".
fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits for a scoped thread and lets its panic go on here.
fn join<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
}
