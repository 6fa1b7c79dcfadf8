//! What survives a restart, in one file: `state.json` in the state folder.
//!
//! A quarantine that is forgotten lets an offender go, and a hold that is forgotten lets the automation loose: so the file
//! is whole or it is not there. It is written beside the present one, forced to the disk, and takes its place by a rename;
//! whatever fails on the way (a full disk, a power cut) leaves the old one as it was. A file that is not what this agent
//! writes is never half believed: it is set aside under a name of its own, nothing of it is used, and nothing of it is
//! lost.
//!
//! The folder is locked while the [`StateFile`] lives, because two agents in one folder would overwrite each other's state.
//!
//! How it is used: once at the start, before anything is put into force,
//! ```no_run
//! # use dhcp_guard::{governor::{Governor, Rules}, state_file::StateFile};
//! # fn start(rules: Rules, folder: &std::path::Path) -> Result<(), dhcp_guard::state_file::StateError> {
//! let mut file = StateFile::open(folder)?;
//! let loaded = file.load();
//! // `loaded.problem` is a warning. The orders put into force what was in force.
//! let (governor, orders) = Governor::restore(rules, loaded.saved, jiff::Timestamp::now());
//! # Ok(()) }
//! ```
//! and from then on by the thread of [`audit::Writer`](crate::audit::Writer), because saving waits for the disk.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::governor::Saved;

/// Name of the file.
const NAME: &str = "state.json";
/// Name under which a new one is written.
const DRAFT: &str = "state.json.new";
/// What it says that it is, so that another program's JSON is not taken for it.
const WHAT: &str = "dhcp-guard state";
/// The version that this agent writes, and the only one that it reads.
const VERSION: u64 = 1;
/// A file with more bytes than this is not ours: a full allowlist and a thousand quarantines take less than a tenth.
const MAX_BYTES: u64 = 64 << 20;
/// How often another name is tried for a file that is set aside.
const MAX_NAMES: u32 = 1_000;

/// Why the state cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The folder is not there and cannot be made, or cannot be opened.
    #[error("cannot use the state folder {}: {reason}; name another one with --state-dir", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// Another agent has the folder.
    #[error("another agent uses the state folder {}; name another one with --state-dir", .0.display())]
    InUse(PathBuf),
    /// The file could not be written. The one before is still there.
    #[error("cannot save the state to {}: {reason}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// A file that is not ours could not be set aside, and saving would destroy it.
    #[error("cannot save the state to {}: the file there is not this agent's, and cannot be set aside; move it away", .0.display())]
    InTheWay(PathBuf),
}

/// What was in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The state; empty if there was none, or none that can be used.
    pub saved: Saved,
    /// None: all is well. Else one sentence: what is wrong with the file, and what became of it.
    pub problem: Option<String>,
    /// There is no file. That is as it should be only where no agent was before.
    pub is_missing: bool,
}

/// The file, and the right to write it.
#[derive(Debug)]
pub struct StateFile {
    dir: PathBuf,
    path: PathBuf,
    /// In its place is nothing, or a file that can be replaced.
    replaceable: bool,
    /// Keeps the lock.
    _folder: File,
}

/// The file's content.
#[derive(Serialize, Deserialize)]
struct Document<S> {
    what: String,
    version: u64,
    saved: S,
}

/// What is read first: whether the rest can be read.
#[derive(Deserialize)]
struct Header {
    what: String,
    version: u64,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("cannot be read ({0})")]
    Unreadable(#[from] io::Error),
    #[error("is not a file")]
    NotAFile,
    #[error("is larger than any state")]
    TooLarge,
    #[error("is damaged ({0})")]
    Damaged(#[from] serde_json::Error),
    #[error("is not a state of dhcp-guard")]
    Foreign,
    #[error("is of version {0}, and this agent reads version {VERSION}")]
    OtherVersion(u64),
}

impl StateFile {
    /// Makes the folder if it is not there (for its owner and, so that the audit log can be read, its group), and takes its
    /// lock. No file is looked at yet.
    ///
    /// # Errors
    /// The folder cannot be made or opened, or another agent has it.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let error = |reason| StateError::Folder { dir: dir.to_owned(), reason };
        DirBuilder::new().recursive(true).mode(0o750).create(dir).map_err(error)?;
        let folder = File::open(dir).map_err(error)?;
        // A file system without locks is no reason to go without a state.
        if let Err(TryLockError::WouldBlock) = folder.try_lock() {
            return Err(StateError::InUse(dir.to_owned()));
        }
        Ok(Self { dir: dir.to_owned(), path: dir.join(NAME), replaceable: false, _folder: folder })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file. No file is an empty state. What is there and cannot be used is renamed to
    /// `state.json.corrupt-<time>`, and the state is empty.
    pub fn load(&mut self) -> Loaded {
        let unusable = match read(&self.path) {
            Ok(saved) => {
                self.replaceable = true;
                let is_missing = saved.is_none();
                return Loaded { saved: saved.unwrap_or_default(), problem: None, is_missing };
            }
            Err(unusable) => unusable,
        };
        let aside = self.set_aside();
        self.replaceable = aside.is_ok();
        let became = match aside {
            Ok(name) => format!("it is kept as {name}"),
            Err(reason) => {
                format!("it cannot be set aside ({reason}), so nothing is saved until somebody moves it away")
            }
        };
        let problem =
            format!("the state {} {unusable}: the agent starts with an empty one; {became}", self.path.display());
        Loaded { saved: Saved::default(), problem: Some(problem), is_missing: false }
    }

    /// Puts the state in the place of the one before, and comes back when it is on the disk: from milliseconds to, with a
    /// sick disk, for ever. Whatever is there and is not a state of this agent is set aside first.
    ///
    /// # Errors
    /// It could not be written; then the one before is still there. Or what is there can be neither used nor set aside.
    pub fn save(&mut self, saved: &Saved) -> Result<(), StateError> {
        if !self.replaceable {
            self.load();
        }
        if !self.replaceable {
            return Err(StateError::InTheWay(self.path.clone()));
        }
        let text = serde_json::to_vec(&Document { what: WHAT.to_owned(), version: VERSION, saved });
        let written = text.map_err(io::Error::from).and_then(|text| self.replace(&text));
        written.map_err(|reason| StateError::Write { path: self.path.clone(), reason })
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let draft = self.dir.join(DRAFT);
        let written = write_new(&draft, text).and_then(|()| fs::rename(&draft, &self.path));
        if written.is_err() {
            // On a full disk it would be in everybody's way.
            let _ = fs::remove_file(&draft);
        }
        written?;
        // A rename is on the disk when the folder is.
        File::open(&self.dir)?.sync_all()
    }

    /// Renames the file, to a name that nothing has. Nobody else does that here at the same time: the folder is locked.
    fn set_aside(&self) -> io::Result<String> {
        let stem = format!("{NAME}.corrupt-{}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
        let names = (0..MAX_NAMES).map(|i| if i == 0 { stem.clone() } else { format!("{stem}-{i}") });
        for name in names {
            let path = self.dir.join(&name);
            match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return fs::rename(&self.path, &path).map(|()| name);
                }
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        Err(io::Error::new(io::ErrorKind::AlreadyExists, "all names for it are taken"))
    }
}

/// The state in a folder, for looking only: also beside the agent that has the folder.
///
/// # Errors
/// In one sentence what is wrong with the file. The next agent would start with an empty state.
pub fn peek(dir: &Path) -> Result<Saved, String> {
    let path = dir.join(NAME);
    let saved = read(&path).map(Option::unwrap_or_default);
    saved.map_err(|unusable| format!("the state {} {unusable}", path.display()))
}

/// The state in a file; `None`: there is no file.
fn read(path: &Path) -> Result<Option<Saved>, Unusable> {
    // Without waiting: a FIFO in this place must not stop the agent's start.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    if !file.metadata()?.is_file() {
        return Err(Unusable::NotAFile);
    }
    let mut text = Vec::new();
    if file.take(MAX_BYTES + 1).read_to_end(&mut text)? as u64 > MAX_BYTES {
        return Err(Unusable::TooLarge);
    }
    parse(&text).map(Some)
}

fn parse(text: &[u8]) -> Result<Saved, Unusable> {
    // Any JSON at all is somebody's; what is none was probably ours once.
    let value: serde_json::Value = serde_json::from_slice(text)?;
    let header = Header::deserialize(&value).map_err(|_| Unusable::Foreign)?;
    match header {
        Header { what, .. } if what != WHAT => Err(Unusable::Foreign),
        Header { version: VERSION, .. } => Ok(Document::deserialize(value)?.saved),
        Header { version, .. } => Err(Unusable::OtherVersion(version)),
    }
}

/// A file that was not there before, with this content, on the disk. Only its owner may read it.
fn write_new(path: &Path, text: &[u8]) -> io::Result<()> {
    // Left behind by an agent that was killed while it wrote.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
