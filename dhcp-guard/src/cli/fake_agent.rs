//! For tests: an agent that always answers the same, on a socket of its own.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    http::{StatusCode, Uri},
    routing,
};
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::UnixListener;

pub(super) struct Agent {
    socket: PathBuf,
    routes: Router,
    dir: TempDir,
    asked: Asked,
}

/// What the agent was asked: paths with their queries, and what was posted to them.
#[derive(Clone, Default)]
pub(super) struct Asked(Arc<Mutex<Vec<(String, Value)>>>);

impl Asked {
    /// The only request so far.
    pub(super) fn once(&self) -> (String, Value) {
        let asked = self.0.lock().unwrap();
        assert_eq!(asked.len(), 1, "{asked:?}");
        asked[0].clone()
    }

    fn note(&self, uri: &Uri, body: Value) {
        self.0.lock().unwrap().push((uri.to_string(), body));
    }
}

impl Agent {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { socket: dir.path().join("agent.sock"), routes: Router::new(), dir, asked: Asked::default() }
    }

    /// Answers `path` with this document.
    pub(super) fn with(mut self, path: &str, answer: impl Serialize) -> Self {
        let answer = serde_json::to_value(answer).unwrap();
        let asked = self.asked.clone();
        let get = move |uri: Uri| async move {
            asked.note(&uri, Value::Null);
            Json(answer)
        };
        self.routes = self.routes.route(path, routing::get(get));
        self
    }

    /// Answers whatever is posted to `path` with this document.
    pub(super) fn with_change(self, path: &str, answer: impl Serialize) -> Self {
        self.posted(path, StatusCode::OK, serde_json::to_value(answer).unwrap())
    }

    /// Refuses whatever is posted to `path` with this sentence.
    pub(super) fn refusing(self, path: &str, status: StatusCode, sentence: &str) -> Self {
        self.posted(path, status, json!({ "error": sentence }))
    }

    fn posted(mut self, path: &str, status: StatusCode, answer: Value) -> Self {
        let asked = self.asked.clone();
        let post = move |uri: Uri, Json(body): Json<Value>| async move {
            asked.note(&uri, body);
            (status, Json(answer))
        };
        self.routes = self.routes.route(path, routing::post(post));
        self
    }

    /// Where to read what it was asked.
    pub(super) fn asked(&self) -> Asked {
        self.asked.clone()
    }

    /// Answers `path` with these documents, one a line, and ends.
    pub(super) fn with_lines(mut self, path: &str, lines: &[impl Serialize]) -> Self {
        let lines: String = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect();
        self.routes = self.routes.route(path, routing::get(move || async { lines }));
        self
    }

    /// Until the test's runtime ends. The socket is gone when the directory is dropped.
    pub(super) fn serve(self) -> (TempDir, PathBuf) {
        let listener = UnixListener::bind(&self.socket).unwrap();
        tokio::spawn(async { axum::serve(listener, self.routes).await });
        (self.dir, self.socket)
    }
}
