//! A machine of its own for the package: a minimal Debian with systemd as its first process, in namespaces.
//!
//! * `base`: what it begins with, made once from the packages of the machine's own Debian release.
//! * `init`: its file systems, and then systemd.
//! * `cgroup`: where its services are.
//!
//! It shares nothing with this machine but the kernel: files, mounts, processes, network, host name and control groups are
//! its own, and the kernel's settings (/proc/sys, /sys) are read-only in it. It is gone with the process that made it; its
//! folder and its control group are swept by the next one where that was killed.

mod base;
mod cgroup;
mod init;

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

pub use self::init::{INIT, become_init};
use crate::{
    cleanup::Folder,
    process::{self, Process},
    wait,
};
use cgroup::Cgroup;

/// systemd starts within two seconds here.
const BOOT_DEADLINE: Duration = Duration::from_secs(60);
/// Installing a package of some megabytes; starting a service.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// A running clean Debian; gone when it is dropped.
#[derive(Debug)]
pub struct CleanRoot {
    root: PathBuf,
    first_process: u32,
    process: Process,
    // After the process, which is in it.
    _cgroup: Cgroup,
    _folder: Folder,
}

impl CleanRoot {
    /// Makes and boots one. The first ever takes half a minute and needs the Debian mirror.
    pub fn boot() -> Result<Self> {
        let base = base::archive()?;
        let folder = Folder::new()?;
        let root = folder.path("root");
        fs::create_dir(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let mut unpack = Command::new("tar");
        unpack.arg("-C").arg(&root).arg("-xf").arg(&base);
        process::run(unpack, "")?;
        let cgroup = Cgroup::new()?;
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child", "--"])
            .arg(std::env::current_exe().context("where am I")?)
            .env(INIT, &root);
        let enter = cgroup.entrance()?;
        // SAFETY: between fork and exec only write(2), which is async-signal-safe, to a descriptor that the closure owns.
        unsafe { command.pre_exec(move || enter.enter()) };
        process::die_with_parent(&mut command);
        let process = Process::start(command, |_| ())?;
        let mut machine = Self { root, first_process: 0, process, _cgroup: cgroup, _folder: folder };
        machine.wait_until_up()?;
        Ok(machine)
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let unshare = self.process.id();
        let children = format!("/proc/{unshare}/task/{unshare}/children");
        wait::until("the first process of the clean root", BOOT_DEADLINE, || {
            self.process.check_running()?;
            let child = fs::read_to_string(&children).unwrap_or_default();
            self.first_process = child.trim().parse().unwrap_or(0);
            Ok(self.first_process != 0)
        })?;
        wait::until("the boot of the clean root", BOOT_DEADLINE, || {
            self.process.check_running()?;
            let state = self.output(&["systemctl", "is-system-running"])?;
            // Some of what Debian starts makes no sense without hardware, so it may be "degraded".
            Ok(matches!(String::from_utf8_lossy(&state.stdout).trim(), "running" | "degraded"))
        })
        .with_context(|| self.process.last_lines())
    }

    /// Runs a command in it, to its end.
    pub fn output(&self, words: &[&str]) -> Result<Output> {
        let mut command = Command::new("nsenter");
        let target = self.first_process.to_string();
        command.args(["--target", &target, "--mount", "--pid", "--net", "--uts", "--ipc", "--root", "--wd", "--"]);
        command.args(words).env_clear().envs([
            ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ("DEBIAN_FRONTEND", "noninteractive"),
            ("LC_ALL", "C.UTF-8"),
        ]);
        process::output_within(command, COMMAND_DEADLINE)
    }

    /// The same where it must succeed: what it wrote to standard output.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        let output = self.output(words)?;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(
            output.status.success(),
            "`{}` in the clean root: {}\n{stdout}{stderr}",
            words.join(" "),
            output.status
        );
        Ok(stdout.into_owned())
    }

    /// A path of it, as this machine sees it. Only of what is on its disk: what it mounts is elsewhere.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside.trim_start_matches('/'))
    }

    /// Puts a file into it.
    pub fn copy(&self, from: &Path, inside: &str) -> Result<()> {
        fs::copy(from, self.path(inside)).map(drop).with_context(|| format!("cannot copy {}", from.display()))
    }

    /// The process, as this machine numbers it, that `inside` numbers so.
    pub fn process(&self, inside: u32) -> Result<u32> {
        for entry in fs::read_dir("/proc").context("cannot list /proc")? {
            let Ok(pid) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
            let same_machine = || self.shares_pid_namespace(pid);
            if numbers.split_whitespace().nth(1) == Some(&inside.to_string()) && same_machine() {
                return Ok(pid);
            }
        }
        anyhow::bail!("no process {inside} in the clean root")
    }

    fn shares_pid_namespace(&self, pid: u32) -> bool {
        let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        namespace(pid).is_some() && namespace(pid) == namespace(self.first_process)
    }
}
