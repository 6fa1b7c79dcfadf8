//! Folders that the agent needs, looked at without changing them.

use std::{
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use caps::{CapSet, Capability};
use rustix::fs::{Access, StatVfsMountFlags, access, statvfs};

use crate::{
    dataplane::{
        pins::{LinkPin, PinFolder, USUAL_MOUNT, is_on_bpffs},
        remains::heartbeat_age,
    },
    doctor::facts::{Pins, StateDir},
    state_file,
};

/// What can be said of the folder for pins.
pub(super) fn pins(dir: &Path) -> Pins {
    let nearest = nearest(dir);
    let on_bpffs = is_on_bpffs(dir);
    let read_only = statvfs(&nearest).is_ok_and(|it| it.f_flag.contains(StatVfsMountFlags::RDONLY));
    let shadowed = is_shadowed(dir);
    let may_mount = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap_or(false);
    Pins {
        dir: dir.to_owned(),
        on_bpffs,
        read_only: on_bpffs && read_only,
        shadowed,
        is_mounted_at_start: !on_bpffs && !shadowed && may_mount && dir.starts_with(USUAL_MOUNT),
        programs: pinned_programs(dir),
        heartbeat_age_s: heartbeat_age(dir).map(|age| age.as_secs()),
        nearest,
    }
}

/// What is to be pinned there would not be where it belongs.
pub(super) fn is_shadowed(dir: &Path) -> bool {
    !is_on_bpffs(dir) && is_hidden(dir)
}

/// The folder, or else the nearest one above it that is there.
fn nearest(path: &Path) -> PathBuf {
    path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

/// A BPF file system belongs there and is not seen: another mount of this mount namespace is on top of it, or it is only
/// in the mount namespace of the host's first process (`ip netns exec` mounts a /sys of its own).
fn is_hidden(dir: &Path) -> bool {
    let mounts = fs::read("/proc/self/mountinfo").unwrap_or_default();
    if mounts.split(|byte| *byte == b'\n').filter_map(bpf_mount).any(|mount| dir.starts_with(mount)) {
        return true;
    }
    is_on_bpffs(&Path::new("/proc/1/root").join(dir.strip_prefix("/").unwrap_or(dir)))
}

/// Where a BPF file system is mounted, of a line of mountinfo (proc(5)).
fn bpf_mount(line: &[u8]) -> Option<&Path> {
    let mut words = line.split(|byte| *byte == b' ');
    let place = words.nth(4)?;
    let kind = words.skip_while(|word| *word != b"-").nth(1)?;
    (kind == b"bpf").then(|| Path::new(std::ffi::OsStr::from_bytes(place)))
}

/// Programs that are pinned there, themselves or by their links.
fn pinned_programs(dir: &Path) -> Vec<u32> {
    let links = PinFolder::peek(dir).ok().flatten().and_then(|pins| pins.links().ok()).unwrap_or_default();
    links.iter().filter_map(LinkPin::program).collect()
}

/// What can be said of the folder for what survives a restart.
pub(super) fn state_dir(dir: &Path) -> StateDir {
    let unwritable = if dir.exists() && !dir.is_dir() {
        Some("it is not a folder".to_owned())
    } else {
        let nearest = nearest(dir);
        let writable = access(&nearest, Access::WRITE_OK | Access::EXEC_OK);
        writable.err().map(|error| format!("{}: {}", nearest.display(), std::io::Error::from(error)))
    };
    let full = statvfs(nearest(dir)).is_ok_and(|it| it.f_blocks > 0 && it.f_bavail == 0);
    StateDir { dir: dir.to_owned(), is_there: dir.is_dir(), unwritable, full, unusable: state_file::peek(dir).err() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpf_mounts_are_found_among_others() {
        let of = |line: &str| bpf_mount(line.as_bytes()).map(Path::to_owned);
        assert_eq!(
            of("32 24 0:28 / /sys/fs/bpf rw,nosuid shared:11 master:1 - bpf bpf rw,mode=700"),
            Some("/sys/fs/bpf".into())
        );
        assert_eq!(of("24 30 0:22 / /sys rw - sysfs sysfs rw"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn a_folder_that_is_not_there_is_judged_by_the_one_above() {
        let dir = tempfile::tempdir().unwrap();
        let pins = pins(&dir.path().join("a/b"));
        assert_eq!((pins.nearest.as_path(), pins.on_bpffs, pins.programs), (dir.path(), false, vec![]));
        let state = state_dir(&dir.path().join("a/b"));
        assert_eq!((state.unwritable, state.unusable), (None, None));
    }

    #[test]
    fn a_state_that_is_none_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("state.json"), "{}").unwrap();
        let unusable = state_dir(dir.path()).unusable.unwrap();
        assert!(unusable.ends_with("is not a state of dhcp-guard"), "{unusable}");
        let file = dir.path().join("state.json");
        assert_eq!(state_dir(&file).unwritable.as_deref(), Some("it is not a folder"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was changed");
    }
}
