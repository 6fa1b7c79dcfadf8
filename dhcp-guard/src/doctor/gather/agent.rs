//! The agent, by its socket.

use std::{path::Path, time::Duration};

use crate::{
    client::{Client, ClientError},
    doctor::facts::Agent,
    model::Status,
};

/// An agent answers within milliseconds, or is in trouble.
const DEADLINE: Duration = Duration::from_secs(2);

/// Who answers there.
pub(super) async fn on(socket: &Path) -> Agent {
    match Client::new(socket).with_deadline(DEADLINE).get::<Status>("/v1/status").await {
        Ok(status) => Agent::Runs {
            pid: status.pid,
            version: status.version,
            guards: status.interfaces.into_iter().map(|it| (it.name, it.ifindex, it.mode)).collect(),
        },
        Err(ClientError::NoAgent { socket }) => Agent::None(socket),
        Err(error) => Agent::Unclear(format!("{:#}", anyhow::Error::new(error))),
    }
}
