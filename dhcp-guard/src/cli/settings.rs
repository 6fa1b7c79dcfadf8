//! Which configuration, and which socket, a command is about.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::Once,
};

use anyhow::Context;

use super::args::Global;
use crate::config::{Config, DEFAULT_FILE, DEFAULT_PIN_DIR, DEFAULT_SOCKET};

/// The file that is in force: the one that was named, or the default one if it exists.
pub(super) fn file(global: &Global) -> anyhow::Result<Option<PathBuf>> {
    file_or(global, Path::new(DEFAULT_FILE))
}

fn file_or(global: &Global, default: &Path) -> anyhow::Result<Option<PathBuf>> {
    if let Some(file) = &global.config {
        return Ok(Some(file.clone()));
    }
    let exists = default.try_exists();
    let exists = exists.with_context(|| format!("cannot look for the configuration {}", default.display()))?;
    Ok(exists.then(|| default.into()))
}

/// The configuration in force, and the file it is from.
pub(super) fn config(global: &Global) -> anyhow::Result<(Config, Option<PathBuf>)> {
    config_or(global, Path::new(DEFAULT_FILE))
}

fn config_or(global: &Global, default: &Path) -> anyhow::Result<(Config, Option<PathBuf>)> {
    let file = file_or(global, default)?;
    let config = file.as_deref().map_or_else(|| Ok(Config::default()), Config::load)?;
    Ok((on_command_line(global, config), file))
}

fn on_command_line(global: &Global, mut config: Config) -> Config {
    if let Some(socket) = &global.socket {
        config.socket.clone_from(socket);
    }
    if let Some(folder) = &global.pin_dir {
        config.pin_dir.clone_from(folder);
    }
    config
}

/// The same for whoever only asks. A configuration that was not asked for explicitly and that cannot be read (it may not be
/// for everyone, or be in the middle of an edit) is no reason not to: the agent that runs has an older one. But whoever asks
/// is told, because it may be another agent that is asked now.
pub(super) fn config_for_asking(global: &Global) -> anyhow::Result<(Config, Option<PathBuf>)> {
    static TOLD: Once = Once::new();
    let tell = |sentence: &str| {
        TOLD.call_once(|| {
            // If stderr is gone there is nobody to tell.
            _ = writeln!(std::io::stderr(), "dhcp-guard: {sentence}");
        });
    };
    for_asking(global, Path::new(DEFAULT_FILE), tell)
}

fn for_asking(global: &Global, default: &Path, tell: impl Fn(&str)) -> anyhow::Result<(Config, Option<PathBuf>)> {
    match config_or(global, default) {
        Err(error) if global.config.is_none() => {
            tell(&format!(
                "{error:#}; the defaults are taken instead, such as the socket {DEFAULT_SOCKET} and the pin folder \
                 {DEFAULT_PIN_DIR}, where the command line names no others"
            ));
            Ok((on_command_line(global, Config::default()), None))
        }
        other => other,
    }
}

/// Where to ask.
pub(super) fn socket(global: &Global) -> anyhow::Result<PathBuf> {
    match &global.socket {
        Some(socket) => Ok(socket.clone()),
        None => Ok(config_for_asking(global)?.0.socket),
    }
}

/// Where the guard is pinned that is to be taken off: never another one than the configuration says.
pub(super) fn pin_dir(global: &Global) -> anyhow::Result<PathBuf> {
    pin_dir_or(global, Path::new(DEFAULT_FILE))
}

fn pin_dir_or(global: &Global, default: &Path) -> anyhow::Result<PathBuf> {
    match &global.pin_dir {
        Some(folder) => Ok(folder.clone()),
        None => {
            let config = config_or(global, default);
            let config = config.context("cannot tell where the guard is pinned, so name the folder with --pin-dir")?;
            Ok(config.0.pin_dir)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        std::fs::write(&file, text).unwrap();
        (dir, file)
    }

    #[test]
    fn the_socket_is_the_named_one_or_the_configuration_s() {
        let (_dir, file) = file("socket = '/from/file'\n");
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

    #[test]
    fn who_asks_is_told_that_the_default_file_is_broken() {
        let (_dir, file) = file("socket = '/from/file'\n");
        let told = RefCell::new(Vec::new());
        let asked = |pins: Option<&str>| {
            let global = Global { pin_dir: pins.map(PathBuf::from), ..Global::default() };
            for_asking(&global, &file, |sentence| told.borrow_mut().push(sentence.to_owned())).unwrap().0
        };
        assert_eq!((asked(None).socket.as_path(), told.borrow().len()), (Path::new("/from/file"), 0));
        std::fs::write(&file, "socket = '/from/file'\nmod = 'monitor'\n").unwrap();
        let config = asked(Some("/named"));
        assert_eq!(
            (config.socket.as_path(), config.pin_dir.as_path()),
            (Path::new(DEFAULT_SOCKET), Path::new("/named"))
        );
        let told = told.borrow();
        assert!(told.len() == 1 && told[0].contains("a.toml is not valid: line 2: mod"), "{told:?}");
        assert!(told[0].contains(DEFAULT_SOCKET), "{told:?}");
    }

    #[test]
    fn no_other_guard_is_taken_off_than_the_configuration_s() {
        let (_dir, file) = file("pin_dir = '/from/file'\n");
        assert_eq!(pin_dir_or(&Global::default(), &file).unwrap(), Path::new("/from/file"));
        std::fs::write(&file, "pin_dir = '/from/file'\nmod = 'monitor'\n").unwrap();
        let error = format!("{:#}", pin_dir_or(&Global::default(), &file).unwrap_err());
        assert!(
            error.starts_with("cannot tell where the guard is pinned, so name the folder with --pin-dir: "),
            "{error}"
        );
        assert!(error.contains("line 2: mod"), "{error}");
        let named = Global { pin_dir: Some("/named".into()), ..Global::default() };
        assert_eq!(pin_dir_or(&named, &file).unwrap(), Path::new("/named"));
        assert_eq!(pin_dir_or(&Global::default(), Path::new("/nowhere/a.toml")).unwrap(), Path::new(DEFAULT_PIN_DIR));
    }
}
