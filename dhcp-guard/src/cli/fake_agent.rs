//! For tests: an agent that always answers the same, on a socket of its own.

use std::path::PathBuf;

use axum::{Json, Router, routing};
use serde::Serialize;
use tempfile::TempDir;
use tokio::net::UnixListener;

pub(super) struct Agent {
    socket: PathBuf,
    routes: Router,
    dir: TempDir,
}

impl Agent {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { socket: dir.path().join("agent.sock"), routes: Router::new(), dir }
    }

    /// Answers `path` with this document.
    pub(super) fn with(mut self, path: &str, answer: impl Serialize) -> Self {
        let answer = serde_json::to_value(answer).unwrap();
        self.routes = self.routes.route(path, routing::get(move || async { Json(answer) }));
        self
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
