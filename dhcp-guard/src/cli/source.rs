//! Where the answer to a query comes from: the agent, or, where none runs, the maps that one has left.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use tokio::sync::OnceCell;

use super::{args::Global, settings};
use crate::{
    agent::{offline, picture::Picture},
    client::{Client, ClientError},
};

/// See the module.
pub(super) struct Source {
    socket: PathBuf,
    /// How to find the maps; none: they are not looked for.
    global: Option<Global>,
    /// What there is without an agent, once it was looked for.
    picture: OnceCell<Option<Picture>>,
}

impl Source {
    /// As the command line says.
    pub(super) fn new(global: &Global) -> anyhow::Result<Self> {
        let socket = settings::socket(global)?;
        Ok(Self { socket, global: Some(global.clone()), picture: OnceCell::new() })
    }

    /// The agent alone.
    #[cfg(test)]
    pub(super) fn agent(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), global: None, picture: OnceCell::new() }
    }

    /// The agent's socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whether what was answered is from the maps.
    pub(super) fn is_at_rest(&self) -> bool {
        self.picture.get().is_some_and(Option::is_some)
    }

    /// The agent's document at `path`, or the one that is made of what there is without an agent. That is told on stderr.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str, make: fn(&Picture) -> T) -> anyhow::Result<T> {
        let error = match Client::new(&self.socket).get(path).await {
            Ok(answer) => return Ok(answer),
            Err(error @ ClientError::NoAgent { .. }) => error,
            Err(error) => return Err(error.into()),
        };
        match self.picture.get_or_try_init(|| self.without_agent()).await? {
            Some(picture) => Ok(make(picture)),
            None => Err(error.into()),
        }
    }

    async fn without_agent(&self) -> anyhow::Result<Option<Picture>> {
        let Some(global) = &self.global else { return Ok(None) };
        let (config, path) = settings::config_for_asking(global)?;
        let picture = offline::picture(config, path.as_deref()).await?;
        if let Some(picture) = &picture {
            // If stderr is gone there is nobody to tell.
            _ = writeln!(std::io::stderr(), "dhcp-guard: {}", picture.context.warnings.join("; "));
        }
        Ok(picture)
    }
}
