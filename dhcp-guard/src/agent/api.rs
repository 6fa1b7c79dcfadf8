//! The control API: HTTP + JSON on a Unix socket. Queries only; they are answered from the latest picture and never
//! touch the decision loop or the maps.

use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow, bail};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::IntoResponse,
    routing::get,
};
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{broadcast::error::RecvError, watch},
};

use super::{Context, decide::Picture, journal::Journal, report};
use crate::model::{ApiError, Clients, Events, Offenders, Ports, Status};

/// What the handlers answer from.
#[derive(Clone, Debug)]
pub struct Shared {
    /// What does not change.
    pub context: Arc<Context>,
    /// Events.
    pub journal: Arc<Journal>,
    /// The latest picture.
    pub pictures: watch::Receiver<Arc<Picture>>,
}

/// The socket; its file goes when this is dropped.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    file: SocketFile,
}

/// The file, and what it was when it was made: another agent's, that took its place, is left alone.
#[derive(Debug)]
struct SocketFile {
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
pub async fn bind(path: &Path) -> anyhow::Result<Listener> {
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
    // Owner and group may ask; nobody else.
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
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

/// Serves until it is told to stop. Followers are cut off then, not waited for.
///
/// # Errors
/// If the socket breaks.
pub async fn serve(listener: Listener, shared: Shared, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
    let Listener { listener, file: _removed_at_the_end } = listener;
    let router = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/offenders", get(offenders))
        .route("/v1/ports", get(ports))
        .route("/v1/clients", get(clients))
        .route("/v1/events", get(events))
        .route("/v1/events/follow", get(follow))
        .fallback(unknown)
        .method_not_allowed_fallback(only_questions)
        .with_state(shared);
    tokio::select! {
        result = axum::serve(listener, router).into_future() => result.context("the control API's socket broke"),
        _ = stopped.changed() => Ok(()),
    }
}

async fn status(State(shared): State<Shared>) -> Json<Status> {
    Json(report::status(&shared.context, &shared.picture()))
}

async fn offenders(State(shared): State<Shared>) -> Json<Offenders> {
    Json(report::offenders(&shared.context, &shared.picture()))
}

async fn ports(State(shared): State<Shared>) -> Json<Ports> {
    Json(report::ports(&shared.context, &shared.picture()))
}

async fn clients(State(shared): State<Shared>) -> Json<Clients> {
    Json(report::clients(&shared.context, &shared.picture()))
}

#[derive(Debug, Deserialize)]
struct Latest {
    limit: Option<usize>,
}

async fn events(
    State(shared): State<Shared>,
    latest: Result<Query<Latest>, QueryRejection>,
) -> Result<Json<Events>, (StatusCode, Json<ApiError>)> {
    let Ok(Query(latest)) = latest else {
        return Err(refusal(StatusCode::BAD_REQUEST, "limit must be a number of events: /v1/events?limit=100"));
    };
    Ok(Json(Events { events: shared.journal.latest(latest.limit.unwrap_or(100)) }))
}

/// New events, one JSON document a line, until the asker goes away.
async fn follow(State(shared): State<Shared>) -> impl IntoResponse {
    let events = futures_util::stream::unfold(shared.journal.follow(), |mut follower| async move {
        loop {
            match follower.recv().await {
                Ok(event) => {
                    let mut line = serde_json::to_vec(&event).unwrap_or_default();
                    line.push(b'\n');
                    return Some((Ok::<_, Infallible>(Bytes::from(line)), follower));
                }
                // Too slow: the gap shows in the events' numbers.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    ([("content-type", "application/x-ndjson")], Body::from_stream(events.boxed()))
}

async fn unknown() -> (StatusCode, Json<ApiError>) {
    refusal(
        StatusCode::NOT_FOUND,
        "there is nothing here: ask for /v1/status, /v1/offenders, /v1/ports, /v1/clients, /v1/events or \
         /v1/events/follow",
    )
}

async fn only_questions() -> (StatusCode, Json<ApiError>) {
    refusal(StatusCode::METHOD_NOT_ALLOWED, "this can only be asked (GET), not changed")
}

fn refusal(status: StatusCode, sentence: &str) -> (StatusCode, Json<ApiError>) {
    (status, Json(ApiError { error: sentence.to_owned() }))
}

impl Shared {
    fn picture(&self) -> Arc<Picture> {
        Arc::clone(&self.pictures.borrow())
    }
}
