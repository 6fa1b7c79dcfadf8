//! The control group that is the root of those of a clean root. systemd makes one for each service below it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::wait;

const PREFIX: &str = "dhcp-guard-lab-";
/// The kernel needs a moment to be done with the processes of a machine that was killed.
const EMPTY_DEADLINE: Duration = Duration::from_secs(5);

/// A control group; removed, with all below it, on drop.
#[derive(Debug)]
pub(super) struct Cgroup(PathBuf);

/// The way in, for a process between fork and exec.
#[derive(Debug)]
pub(super) struct Entrance(File);

impl Cgroup {
    /// Makes one, and removes those of processes that were killed before they could.
    pub(super) fn new() -> Result<Self> {
        let hierarchy = hierarchy()?;
        sweep(&hierarchy);
        let path = hierarchy.join(format!("{PREFIX}{}", process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make the control group {}", path.display()))?;
        Ok(Self(path))
    }

    /// The way in.
    pub(super) fn entrance(&self) -> Result<Entrance> {
        let path = self.0.join("cgroup.procs");
        let file = OpenOptions::new().write(true).open(&path);
        file.map(Entrance).with_context(|| format!("cannot open {}", path.display()))
    }
}

impl Entrance {
    /// Moves the calling process in. Allocates nothing.
    pub(super) fn enter(&self) -> io::Result<()> {
        (&self.0).write_all(b"0")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // If it cannot be removed the next one tries again.
        let _ = wait::until("the end of a control group", EMPTY_DEADLINE, || Ok(remove(&self.0).is_ok()));
    }
}

/// Where control groups of version 2 are: at the usual place, or beside those of version 1.
fn hierarchy() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|mount| mount[2] == "cgroup2");
    mount.map(|mount| mount[1].into()).context("no control groups of version 2 are mounted")
}

/// Control groups are removed from below; what is in the folders besides is the kernel's.
fn remove(group: &Path) -> io::Result<()> {
    for entry in fs::read_dir(group)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

fn sweep(hierarchy: &Path) {
    for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner).exists()) {
            let _ = remove(&entry.path());
        }
    }
}
