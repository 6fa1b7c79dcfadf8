//! Which configuration, and which socket, a command is about.

use std::path::{Path, PathBuf};

use anyhow::Context;

use super::args::Global;
use crate::config::{Config, DEFAULT_FILE, DEFAULT_PIN_DIR, DEFAULT_SOCKET};

/// The file that is in force: the one that was named, or the default one if it exists.
pub(super) fn file(global: &Global) -> anyhow::Result<Option<PathBuf>> {
    if let Some(file) = &global.config {
        return Ok(Some(file.clone()));
    }
    let exists = Path::new(DEFAULT_FILE).try_exists();
    let exists = exists.with_context(|| format!("cannot look for the configuration {DEFAULT_FILE}"))?;
    Ok(exists.then(|| DEFAULT_FILE.into()))
}

/// The configuration in force, and the file it is from.
pub(super) fn config(global: &Global) -> anyhow::Result<(Config, Option<PathBuf>)> {
    let file = file(global)?;
    let mut config = file.as_deref().map_or_else(|| Ok(Config::default()), Config::load)?;
    if let Some(socket) = &global.socket {
        config.socket.clone_from(socket);
    }
    if let Some(folder) = &global.pin_dir {
        config.pin_dir.clone_from(folder);
    }
    Ok((config, file))
}

/// Where to ask. A configuration that was not asked for explicitly and that cannot be read (it may not be for everyone,
/// or be in the middle of an edit) is no reason not to: the agent that runs has an older one.
pub(super) fn socket(global: &Global) -> anyhow::Result<PathBuf> {
    match (&global.socket, &global.config) {
        (Some(socket), _) => Ok(socket.clone()),
        (None, Some(_)) => Ok(config(global)?.0.socket),
        (None, None) => Ok(config(global).map_or_else(|_| DEFAULT_SOCKET.into(), |(config, _)| config.socket)),
    }
}

/// Where the guard is pinned; a configuration that cannot be read is treated as in [`socket`].
pub(super) fn pin_dir(global: &Global) -> anyhow::Result<PathBuf> {
    match (&global.pin_dir, &global.config) {
        (Some(folder), _) => Ok(folder.clone()),
        (None, Some(_)) => Ok(config(global)?.0.pin_dir),
        (None, None) => Ok(config(global).map_or_else(|_| DEFAULT_PIN_DIR.into(), |(config, _)| config.pin_dir)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_the_named_one_or_the_configuration_s() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        std::fs::write(&file, "socket = '/from/file'\n").unwrap();
        let global = |socket: Option<&str>| Global {
            socket: socket.map(PathBuf::from),
            config: Some(file.clone()),
            ..Global::default()
        };
        assert_eq!(socket(&global(None)).unwrap(), Path::new("/from/file"));
        assert_eq!(socket(&global(Some("/named"))).unwrap(), Path::new("/named"));
        assert_eq!(config(&global(Some("/named"))).unwrap().0.socket, Path::new("/named"));
        std::fs::write(&file, "sockt = '/from/file'\n").unwrap();
        assert!(socket(&global(None)).is_err(), "a file that was named must be right");
        assert_eq!(socket(&global(Some("/named"))).unwrap(), Path::new("/named"), "and is not read without need");
    }
}
