//! The one thing of the lab that has a name on disk: temporary folders, for sockets and configuration files.
//!
//! Everything else vanishes with the process, however it ends. Folders are removed on drop, on SIGINT and SIGTERM, and
//! after a SIGKILL by the next process that makes one.

use std::{
    env,
    ffi::CString,
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process, ptr,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};

use anyhow::{Context as _, Result, ensure};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};
use tempfile::TempDir;

const PREFIX: &str = "dhcp-guard-lab-";
/// Where a folder has its BPF file system.
const BPFFS: &str = "bpf";

/// The folders of this process that exist now.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A temporary folder; removed on drop.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// Makes one, and removes those of processes that were killed before they could.
    pub fn new() -> Result<Self> {
        sweep();
        let prefix = format!("{PREFIX}{}-", process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().context("cannot make a temporary folder")?;
        folders().push(folder.path().to_owned());
        Ok(Self(folder))
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file in it.
    pub fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Makes a folder in it with a BPF file system of its own: what is pinned there goes with this folder.
    pub fn bpffs(&self) -> Result<PathBuf> {
        let path = self.path(BPFFS);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let target = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: C strings that outlive the call, and no further data.
        let result = unsafe { libc::mount(c"bpf".as_ptr(), target.as_ptr(), c"bpf".as_ptr(), 0, ptr::null()) };
        ensure!(result == 0, "cannot mount a BPF file system on {}: {}", path.display(), io::Error::last_os_error());
        Ok(path)
    }

    /// Lets every user read it and make files in it.
    pub fn open_to_everyone(&self) -> Result<()> {
        fs::set_permissions(self.0.path(), fs::Permissions::from_mode(0o777))
            .context("cannot open a folder to everyone")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        folders().retain(|path| path != self.0.path());
        unmount(self.0.path());
    }
}

/// From now on SIGINT and SIGTERM remove the folders and end the process, with the shell's exit code for the signal.
pub fn on_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot handle signals")?;
    let wait = move || {
        if let Some(signal) = signals.forever().next() {
            folders().iter().for_each(|path| remove(path));
            process::exit(128 + signal);
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait).context("cannot start a thread for signals")?;
    Ok(())
}

/// The folders of a process that exist now.
#[must_use]
pub fn folders_of(pid: u32) -> Vec<PathBuf> {
    all_folders().filter(|(owner, _)| *owner == pid).map(|(_, path)| path).collect()
}

/// Removes the folders of processes that are no more.
fn sweep() {
    for (owner, path) in all_folders() {
        if !Path::new("/proc").join(owner.to_string()).exists() {
            remove(&path);
        }
    }
}

/// Removes a folder, and what is mounted in it.
fn remove(folder: &Path) {
    unmount(folder);
    let _ = fs::remove_dir_all(folder);
}

/// Takes the BPF file system, if there is one, out of a folder. Nothing keeps what is pinned there then.
fn unmount(folder: &Path) {
    if let Ok(target) = CString::new(folder.join(BPFFS).as_os_str().as_bytes()) {
        // SAFETY: a C string that outlives the call. Most folders have none, and that is the only error there is.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
    }
}

/// All folders that a lab has made, with the process that did.
fn all_folders() -> impl Iterator<Item = (u32, PathBuf)> {
    fs::read_dir(env::temp_dir()).into_iter().flatten().filter_map(Result::ok).filter_map(|entry| {
        let name = entry.file_name();
        let owner = name.to_str()?.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()?;
        Some((owner, entry.path()))
    })
}

fn folders() -> MutexGuard<'static, Vec<PathBuf>> {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}
