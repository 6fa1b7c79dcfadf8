//! The socket: taken from nobody, and gone with the agent.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{anyhow, bail};
use tokio::net::{UnixListener, UnixStream};

use crate::config::Access;

/// The socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct Listener {
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
}

/// The file, and what it was when it was made: another agent's, that took its place, is left alone.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), identity: identity(path) }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Takes the socket. A socket that nobody answers on is left over from an agent that was killed, and is replaced; a file
/// of any other kind is somebody's, and stays.
///
/// # Errors
/// Another agent answers on it, or the path cannot be used.
pub async fn bind(path: &Path, access: &Access) -> anyhow::Result<Listener> {
    let shown = path.display();
    match UnixStream::connect(path).await {
        Ok(stream) => {
            let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
            let who = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            bail!("socket {shown} is in use by another agent{who}: stop that one, or name another with --socket");
        }
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => remove_stale(path)?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => create_folder_of(path)?,
        Err(e) => return Err(unusable("use", "socket", path, &e)),
    }
    let listener = UnixListener::bind(path).map_err(|e| unusable("listen on", "socket", path, &e))?;
    let listener = Listener { listener, file: SocketFile::new(path) };
    // Owner and group may ask; nobody else. Where rights go by groups, whoever has none is to be told so.
    let mode = if access.is_by_group() { 0o666 } else { 0o660 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(|e| unusable("set the permissions of", "socket", path, &e))?;
    Ok(listener)
}

/// The kernel refuses connections to files of any kind; only a socket may be left over from an agent.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let kind = fs::metadata(path).map_err(|e| unusable("use", "socket", path, &e))?.file_type();
    if !kind.is_socket() {
        bail!(
            "cannot listen on {}: it is no socket, and is left alone; name another path with --socket",
            path.display()
        );
    }
    fs::remove_file(path).map_err(|e| unusable("remove", "stale socket", path, &e))
}

fn create_folder_of(socket: &Path) -> anyhow::Result<()> {
    match socket.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            fs::create_dir_all(folder).map_err(|e| unusable("create the folder of", "socket", socket, &e))
        }
        _ => Ok(()),
    }
}

fn unusable(attempt: &str, what: &str, path: &Path, error: &io::Error) -> anyhow::Error {
    anyhow!("cannot {attempt} {what} {}: {error}; name another with --socket", path.display())
}
