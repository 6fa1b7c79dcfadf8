//! The first process of a clean root: mounts what a machine has, and becomes systemd.

use std::{
    ffi::{CStr, OsString},
    fs,
    os::unix::{
        fs::{PermissionsExt as _, symlink},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result};
use rustix::{
    fs::{CWD, FileType, Mode, makedev, mknodat},
    mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount, unmount},
    process::pivot_root,
};

/// Set for the process that is to become the first one of a clean root: its folder.
pub const INIT: &str = "DHCP_GUARD_LAB_INIT";
/// Where the machine's own root is for a moment.
const OLD_ROOT: &str = "mnt";
/// Would take a terminal of the machine for its own.
const MASKED: &[&str] = &["getty.target", "console-getty.service"];

/// Becomes systemd in `root`. Returns only if that fails.
#[must_use]
pub fn become_init(root: &OsString) -> ExitCode {
    let error = match prepare(Path::new(root)) {
        Ok(()) => {
            let mut systemd = Command::new("/lib/systemd/systemd");
            systemd.args(["--show-status=no", "--unit=multi-user.target"]);
            // It has to know that it is not on a machine of its own.
            systemd.env_clear().env("container", "dhcp-guard-lab").env("PATH", "/usr/sbin:/usr/bin");
            anyhow::Error::new(systemd.exec()).context("cannot become systemd")
        }
        Err(error) => error,
    };
    eprintln!("{error:#}");
    ExitCode::FAILURE
}

fn prepare(root: &Path) -> Result<()> {
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).context("cannot make the mounts private")?;
    mount_bind(root, root).with_context(|| format!("cannot bind {}", root.display()))?;
    for unit in MASKED {
        let place = root.join("etc/systemd/system").join(unit);
        symlink("/dev/null", &place).with_context(|| format!("cannot mask {unit}"))?;
    }
    file_systems(root)?;
    devices(&root.join("dev"))?;
    std::env::set_current_dir(root).with_context(|| format!("cannot enter {}", root.display()))?;
    pivot_root(".", OLD_ROOT).context("cannot change the root")?;
    unmount(Path::new("/").join(OLD_ROOT), UnmountFlags::DETACH).context("cannot leave the old root")
}

fn file_systems(root: &Path) -> Result<()> {
    let no_data: Option<&CStr> = None;
    let new = |kind: &str, place: &str, data: Option<&CStr>| {
        let path = root.join(place);
        mount(kind, &path, kind, MountFlags::empty(), data).with_context(|| format!("cannot mount {kind} on /{place}"))
    };
    new("proc", "proc", no_data)?;
    // The kernel is everybody's: its settings are not for this machine to change.
    let settings = root.join("proc/sys");
    mount_bind(&settings, &settings).context("cannot bind /proc/sys")?;
    mount_remount(&settings, MountFlags::BIND | MountFlags::RDONLY, c"").context("cannot protect /proc/sys")?;
    mount("sysfs", root.join("sys"), "sysfs", MountFlags::RDONLY, no_data).context("cannot mount /sys")?;
    new("cgroup2", "sys/fs/cgroup", no_data)?;
    // As systemd mounts it on a machine of its own.
    new("bpf", "sys/fs/bpf", Some(c"mode=700"))?;
    for place in ["dev", "run", "tmp"] {
        new("tmpfs", place, no_data)?;
    }
    Ok(())
}

/// Those that every program may expect, and no other.
fn devices(folder: &Path) -> Result<()> {
    // The last is whatever terminal the process has: none.
    let all = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    for (name, major, minor) in all {
        let mode = Mode::from_raw_mode(0o666);
        let path = folder.join(name);
        mknodat(CWD, &path, FileType::CharacterDevice, mode, makedev(major, minor))
            .with_context(|| format!("cannot make the device {name}"))?;
        // Whatever the umask is.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).context("cannot open a device to everyone")?;
    }
    for (name, to) in [("fd", "/proc/self/fd"), ("ptmx", "pts/ptmx")] {
        symlink(to, folder.join(name)).with_context(|| format!("cannot link /dev/{name}"))?;
    }
    Ok(())
}
