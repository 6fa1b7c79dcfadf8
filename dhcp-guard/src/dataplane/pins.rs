//! The folder on a BPF file system by which the data plane outlives its agent.
//!
//! ```text
//! links/xdp-<ifindex>         what holds the program on an interface
//! links/tcx-<ifindex>         the same at the other hook
//! links/clsact-<ifindex>      the program itself, where a filter of tc runs it
//! links/replies-<ifindex>     what holds the program that sees replies leave
//! links/clsact-replies-<ifindex>    that program itself
//! links/next-clsact-…         one that is to take the place of another
//! v<layout>-<number>/<MAP>    a set of maps; a new one is made when the old one does not fit any more
//! ```
//!
//! Here is only where things are; what they are for is in [`load`](super::load), [`attach`](super::attach) and `heritage`. The folder is locked while a [`PinFolder`] lives: two agents cannot share one.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use aya::programs::TcAttachType;
use log::{info, warn};
use rustix::mount::MountFlags;

use super::{clsact::Pinned, sys};

/// Where the BPF file system is by convention: systemd mounts it there.
pub const USUAL_MOUNT: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// Name of the folder with the links.
const LINKS: &str = "links";
/// Begins the name of what is to take the place of another pin.
const NEXT: &str = "next-";
/// Why a pin cannot be opened.
pub(super) const OF_ANOTHER_USER: &str =
    "another user's agent has pinned it; that user's `dhcp-guard detach` takes it off";

/// Why nothing can be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The folder is on another file system.
    #[error(
        "{} is not on a BPF file system, so the guard ends with its agent: mount one with `mount -t bpf bpf {USUAL_MOUNT}`, or \
         name a folder on one with --pin-dir",
        .0.display()
    )]
    NotBpffs(PathBuf),
    /// Another agent has the folder.
    #[error("another agent uses the pin folder {}: name another one with --pin-dir", .0.display())]
    InUse(PathBuf),
    /// The folder cannot be used.
    #[error("cannot use the pin folder {}, so the guard ends with its agent: {reason}", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        reason: io::Error,
    },
}

/// What a link, or a filter of tc, holds on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinkKind {
    /// The program that judges, by XDP.
    Xdp,
    /// The same by TCX.
    Tcx,
    /// The same as a filter of tc.
    Clsact,
    /// The one that sees replies leave.
    Replies,
    /// The same as a filter of tc.
    ClsactReplies,
}

impl LinkKind {
    const ALL: [Self; 5] = [Self::Xdp, Self::Tcx, Self::Clsact, Self::Replies, Self::ClsactReplies];

    /// Whether it can drop anything.
    #[must_use]
    pub fn judges(self) -> bool {
        !matches!(self, Self::Replies | Self::ClsactReplies)
    }

    /// The way that a filter of tc is on; none: it is no filter.
    fn filter(self) -> Option<TcAttachType> {
        match self {
            Self::Clsact => Some(TcAttachType::Ingress),
            Self::ClsactReplies => Some(TcAttachType::Egress),
            Self::Xdp | Self::Tcx | Self::Replies => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Replies => "replies",
            Self::ClsactReplies => "clsact-replies",
        }
    }
}

/// A pinned link, or program of a filter, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPin {
    /// What it holds.
    pub kind: LinkKind,
    /// On which interface, as it was when it was pinned.
    pub ifindex: u32,
    /// Where it is.
    pub path: PathBuf,
}

/// A folder with a set of maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// The layout that its name says.
    pub layout: u32,
    /// Larger than those of the sets before it.
    pub number: u32,
    /// Where it is.
    pub path: PathBuf,
}

/// See the module.
#[derive(Debug)]
pub struct PinFolder {
    dir: PathBuf,
    /// None: only looked into.
    lock: Option<File>,
}

impl PinFolder {
    /// Makes the folder if it is not there, and takes its lock. Where nothing is mounted on `/sys/fs/bpf`, as in a container
    /// or without systemd, a BPF file system is, as bpftool and ip do it.
    ///
    /// # Errors
    /// See [`PinError`].
    pub fn open(dir: &Path) -> Result<Self, PinError> {
        if !is_on_bpffs(dir) && dir.starts_with(USUAL_MOUNT) {
            mount_bpffs();
        }
        if !is_on_bpffs(dir) {
            return Err(PinError::NotBpffs(dir.to_owned()));
        }
        make(dir).map_err(|reason| PinError::Folder { dir: dir.to_owned(), reason })?;
        Ok(Self { dir: dir.to_owned(), lock: Some(lock(dir)?) })
    }

    /// Makes the folder again where somebody has removed it, and takes its lock. Where its file system is gone, that is for
    /// others to mount.
    ///
    /// # Errors
    /// See [`PinError`].
    pub fn restore(&mut self) -> Result<(), PinError> {
        if !is_on_bpffs(&self.dir) {
            return Err(PinError::NotBpffs(self.dir.clone()));
        }
        let failed = |reason| PinError::Folder { dir: self.dir.clone(), reason };
        if is_missing(&self.dir.join(LINKS)) {
            make(&self.dir).map_err(failed)?;
        }
        if !self.has_lock() {
            self.lock = Some(lock(&self.dir)?);
        }
        Ok(())
    }

    /// Whether what is locked is what is there.
    fn has_lock(&self) -> bool {
        let place = |it: fs::Metadata| (it.dev(), it.ino());
        let locked = self.lock.as_ref().and_then(|lock| lock.metadata().ok()).map(place);
        locked.is_some() && locked == fs::metadata(&self.dir).ok().map(place)
    }

    /// For looking only, also beside the agent that has it; `None`: there is nothing.
    ///
    /// # Errors
    /// It may not be looked into.
    pub fn peek(dir: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(dir.join(LINKS)) {
            Ok(_) => Ok(is_on_bpffs(dir).then(|| Self { dir: dir.to_owned(), lock: None })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where a link is pinned, or would be.
    #[must_use]
    pub fn link(&self, kind: LinkKind, ifindex: u32) -> PathBuf {
        self.dir.join(LINKS).join(format!("{}-{ifindex}", kind.name()))
    }

    /// All pinned links.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn links(&self) -> io::Result<Vec<LinkPin>> {
        let mut links: Vec<LinkPin> = names(&self.dir.join(LINKS))?
            .filter_map(|(name, path)| {
                let (kind, ifindex) = name.strip_prefix(NEXT).unwrap_or(&name).rsplit_once('-')?;
                let kind = LinkKind::ALL.into_iter().find(|one| one.name() == kind)?;
                Some(LinkPin { kind, ifindex: ifindex.parse().ok()?, path })
            })
            .collect();
        links.sort_by_key(|link| (link.kind, link.ifindex));
        Ok(links)
    }

    /// The sets of maps, the latest last.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn generations(&self) -> io::Result<Vec<Generation>> {
        let mut generations: Vec<Generation> = names(&self.dir)?
            .filter_map(|(name, path)| {
                let (layout, number) = name.strip_prefix('v')?.split_once('-')?;
                Some(Generation { layout: layout.parse().ok()?, number: number.parse().ok()?, path })
            })
            .collect();
        generations.sort_by_key(|generation| generation.number);
        Ok(generations)
    }

    /// Makes the folder for another set of maps.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new_generation(&self, layout: u32) -> io::Result<Generation> {
        let latest = self.generations()?.last().map_or(0, |generation| generation.number);
        let number = latest.saturating_add(1);
        let path = self.dir.join(format!("v{layout}-{number}"));
        fs::create_dir(&path)?;
        Ok(Generation { layout, number, path })
    }

    /// Takes everything off that a link holds, then removes all maps. Where something cannot be taken off, all else is all the
    /// same, and the maps stay, because what is still on uses some of them.
    ///
    /// # Errors
    /// The folder cannot be read: nothing is off.
    pub fn clear(&self) -> io::Result<Cleared> {
        let mut cleared = Cleared::default();
        for link in self.links()? {
            let guards = link.kind.judges() && link.holds().is_ok_and(|holds| holds);
            match link.take_off() {
                Ok(()) if guards => cleared.off.push(link.ifindex),
                Ok(()) => {}
                Err(reason) => cleared.left.push(StillPinned { pin: link.path, reason }),
            }
        }
        if cleared.left.is_empty() {
            self.generations()?.iter().for_each(Generation::remove);
            // Where somebody has put something else, it stays. The folder itself does: whoever made it may be the only one who
            // can.
            let _ = fs::remove_dir(self.dir.join(LINKS));
        }
        Ok(cleared)
    }
}

/// What [`PinFolder::clear`] came to.
#[derive(Debug, Default)]
pub struct Cleared {
    /// Indexes of the interfaces that the guard was taken off.
    pub off: Vec<u32>,
    /// What could not be taken off.
    pub left: Vec<StillPinned>,
}

/// Something that could not be taken off.
#[derive(Debug, thiserror::Error)]
#[error("the pin {} could not be taken off ({reason}): {}", pin.display(), what_now(pin, reason))]
pub struct StillPinned {
    /// Where it is pinned.
    pub pin: PathBuf,
    /// Why.
    pub reason: io::Error,
}

fn what_now(pin: &Path, reason: &io::Error) -> String {
    let pin = pin.display();
    match reason.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("make its file system writable (`mount -o remount,rw {USUAL_MOUNT}`), then try again")
        }
        io::ErrorKind::PermissionDenied => OF_ANOTHER_USER.to_owned(),
        // Nothing of ours has the place: whoever put it there may need it.
        io::ErrorKind::InvalidInput => {
            format!("it is not dhcp-guard's; if nobody needs it, remove it (`rm {pin}`), then try again")
        }
        _ => "try again".to_owned(),
    }
}

impl LinkPin {
    /// Takes off what it holds, if it holds anything, and removes it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn take_off(&self) -> io::Result<()> {
        if let Some(way) = self.kind.filter() {
            Pinned::read(&self.path, self.ifindex, way)?.take_off()?;
            return fs::remove_file(&self.path);
        }
        match sys::link_facts(&self.path) {
            Ok(facts) if facts.ifindex != 0 => sys::take_off(&self.path),
            Ok(_) => fs::remove_file(&self.path),
            Err(error) => Err(error),
        }
    }

    /// Whether it holds a program on an interface.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.holds().is_ok_and(|holds| holds)
    }

    /// Whether it holds nothing any more: its interface is gone, or somebody has taken the program off.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.holds().is_ok_and(|holds| !holds)
    }

    /// Whether it holds a program on an interface, of whatever network namespace.
    ///
    /// # Errors
    /// The kernel's; `InvalidInput`: what is there is none of ours.
    pub fn holds(&self) -> io::Result<bool> {
        match self.kind.filter() {
            Some(way) => Pinned::read(&self.path, self.ifindex, way).map(Pinned::is_on),
            None => sys::link_facts(&self.path).map(|facts| facts.ifindex != 0),
        }
    }

    /// Kernel id of the program that it holds, or held; none: it cannot be read.
    #[must_use]
    pub fn program(&self) -> Option<u32> {
        match self.kind.filter() {
            Some(way) => Pinned::read(&self.path, self.ifindex, way).map(|pinned| pinned.program).ok(),
            None => sys::link_facts(&self.path).map(|facts| facts.program).ok(),
        }
    }
}

impl Generation {
    /// Where a map is pinned.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Removes it. Maps that a program uses live on, without a name. What cannot be removed now is tried again at the next
    /// start.
    pub fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            warn!("cannot remove the pinned maps in {}: {error}", self.path.display());
        }
    }
}

/// Where that is pinned which is to take the place of what a pin holds.
pub(super) fn of_next(pin: &Path) -> PathBuf {
    let mut name = OsString::from(NEXT);
    name.push(pin.file_name().unwrap_or_default());
    pin.with_file_name(name)
}

/// The folder, with the one for links.
fn make(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir.join(LINKS))
}

/// For as long as the answer lives.
fn lock(dir: &Path) -> Result<File, PinError> {
    let failed = |reason| PinError::Folder { dir: dir.to_owned(), reason };
    let lock = File::open(dir).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(PinError::InUse(dir.to_owned())),
        Err(TryLockError::Error(reason)) => Err(failed(reason)),
    }
}

/// Whether there is nothing at a path. Where nobody can tell, there may be.
pub(super) fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// What is in a folder, by name.
fn names(dir: &Path) -> io::Result<impl Iterator<Item = (String, PathBuf)>> {
    let entries = fs::read_dir(dir)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries.into_iter().filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))))
}

/// Whether a folder that is there, or is to be made, is on a BPF file system.
#[must_use]
pub fn is_on_bpffs(dir: &Path) -> bool {
    let existing = dir.ancestors().find(|folder| folder.exists());
    let statistics = existing.and_then(|folder| rustix::fs::statfs(folder).ok());
    statistics.is_some_and(|statistics| statistics.f_type as u64 & 0xffff_ffff == BPF_FS_MAGIC)
}

fn mount_bpffs() {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
    match rustix::mount::mount("bpf", USUAL_MOUNT, "bpf", flags, c"mode=0700") {
        Ok(()) => info!("nothing was mounted on {USUAL_MOUNT}: there is a BPF file system now"),
        Err(error) => warn!("cannot mount a BPF file system on {USUAL_MOUNT}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, PinFolder) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(LINKS)).unwrap();
        let pins = PinFolder { dir: folder.path().to_owned(), lock: None };
        (folder, pins)
    }

    #[test]
    fn names_say_what_a_link_holds_and_where() {
        let (_folder, pins) = folder();
        for (kind, ifindex) in [
            (LinkKind::ClsactReplies, 7),
            (LinkKind::Replies, 7),
            (LinkKind::Clsact, 7),
            (LinkKind::Xdp, 12),
            (LinkKind::Xdp, 3),
        ] {
            fs::write(pins.link(kind, ifindex), "").unwrap();
        }
        fs::write(of_next(&pins.link(LinkKind::Clsact, 8)), "").unwrap();
        fs::write(pins.dir.join(LINKS).join("xdp-eth0"), "").unwrap();
        fs::write(pins.dir.join(LINKS).join("somebody's"), "").unwrap();
        let links: Vec<_> = pins.links().unwrap().into_iter().map(|link| (link.kind, link.ifindex)).collect();
        let judging = [(LinkKind::Xdp, 3), (LinkKind::Xdp, 12), (LinkKind::Clsact, 7), (LinkKind::Clsact, 8)];
        assert_eq!(links[..4], judging);
        assert_eq!(links[4..], [(LinkKind::Replies, 7), (LinkKind::ClsactReplies, 7)]);
    }

    #[test]
    fn the_latest_generation_is_the_last_whatever_its_layout() {
        let (_folder, pins) = folder();
        for name in ["v6-2", "v5-10", "v5-1", "v5-", "v5", "other"] {
            fs::create_dir(pins.dir.join(name)).unwrap();
        }
        let new = pins.new_generation(6).unwrap();
        assert_eq!(new.path, pins.dir.join("v6-11"));
        let found: Vec<_> = pins.generations().unwrap().iter().map(|one| (one.layout, one.number)).collect();
        assert_eq!(found, [(5, 1), (6, 2), (5, 10), (6, 11)]);
        new.remove();
        assert!(!new.path.exists());
    }

    #[test]
    fn what_cannot_be_taken_off_is_named_with_what_to_do() {
        let (_folder, pins) = folder();
        pins.new_generation(6).unwrap();
        for (kind, ifindex) in [(LinkKind::Tcx, 99), (LinkKind::Xdp, 98)] {
            fs::write(pins.link(kind, ifindex), "").unwrap();
        }
        let cleared = pins.clear().unwrap();
        assert_eq!(
            (cleared.off.as_slice(), cleared.left.len(), pins.generations().unwrap().len()),
            ([].as_slice(), 2, 1)
        );
        let said =
            |kind: io::ErrorKind| StillPinned { pin: pins.link(LinkKind::Tcx, 99), reason: kind.into() }.to_string();
        let foreign = said(io::ErrorKind::InvalidInput);
        assert!(foreign.contains("/links/tcx-99 could not") && foreign.contains("(`rm /"), "{foreign}");
        assert!(said(io::ErrorKind::ReadOnlyFilesystem).contains("`mount -o remount,rw /sys/fs/bpf`"));
        assert!(said(io::ErrorKind::PermissionDenied).contains("that user's `dhcp-guard detach`"));
    }

    #[test]
    fn another_file_system_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = PinFolder::open(&folder.path().join("pins")).unwrap_err().to_string();
        assert!(error.contains("is not on a BPF file system") && error.contains("--pin-dir"), "{error}");
        assert!(!folder.path().join("pins").exists(), "and nothing is made there");
        assert!(PinFolder::peek(folder.path()).unwrap().is_none());
    }
}
