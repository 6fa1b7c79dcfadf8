//! `config check` and `config show`.

use std::path::Path;

use serde::Serialize;

use super::{
    Outcome,
    args::{ConfigCommand, Global},
    output::Output,
    settings,
};
use crate::{
    config::{Config, ConfigError, DEFAULT_FILE},
    inventory::Inventory,
};

pub(super) fn config(global: &Global, command: &ConfigCommand, out: &mut Output) -> anyhow::Result<Outcome> {
    match command {
        ConfigCommand::Show(format) => {
            let (config, _) = settings::config(global)?;
            if format.json {
                out.json(&config)?;
            } else {
                out.text(&toml::to_string(&config)?)?;
            }
            Ok(Outcome::Done)
        }
        ConfigCommand::Check(format) => {
            let report = check(settings::file(global)?.as_deref())?;
            if format.json {
                out.json(&report)?;
            } else {
                out.text(&report.render())?;
            }
            Ok(if report.valid { Outcome::Done } else { Outcome::No })
        }
    }
}

/// What `config check --json` prints.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    /// None: there is no file, so the defaults are in force.
    file: Option<String>,
    valid: bool,
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// A file that cannot be read is an error of its own: nothing can be said about it.
fn check(file: Option<&Path>) -> Result<Report, ConfigError> {
    let config = match file.map_or_else(|| Ok(Config::default()), Config::load) {
        Ok(config) => Ok(config),
        Err(ConfigError::Invalid { problems, .. }) => Err(problems),
        Err(error) => return Err(error),
    };
    let file = file.map(|file| file.display().to_string());
    Ok(match config {
        Ok(config) => Report { file, valid: true, errors: Vec::new(), warnings: warnings(&config) },
        Err(problems) => {
            let errors = problems.iter().map(ToString::to_string).collect();
            Report { file, valid: false, errors, warnings: Vec::new() }
        }
    })
}

/// What `run` would warn about, too.
fn warnings(config: &Config) -> Vec<String> {
    let (_, problems) = Inventory::load_or_warn(config.inventory.as_deref());
    [config.warnings(), problems].concat()
}

impl Report {
    fn render(&self) -> String {
        let mut text = match &self.file {
            None => format!("config: there is no {DEFAULT_FILE}, the defaults are in force: ok\n"),
            Some(file) if self.valid => format!("config {file}: ok\n"),
            Some(file) => format!("config {file}: {}\n", crate::human::counted(self.errors.len() as u64, "problem")),
        };
        self.errors.iter().for_each(|error| text += &format!("  {error}\n"));
        self.warnings.iter().for_each(|warning| text += &format!("  warning: {warning}\n"));
        text
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use tempfile::TempDir;

    use super::*;

    fn file(text: &str) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.toml");
        fs::write(&file, text).unwrap();
        (dir, file)
    }

    fn run(file: &Path, command: &ConfigCommand) -> (Outcome, String) {
        let (mut out, written) = Output::buffer();
        let global = Global { config: Some(file.to_owned()), ..Global::default() };
        let outcome = config(&global, command, &mut out).unwrap();
        (outcome, written.text())
    }

    const CHECK: ConfigCommand = ConfigCommand::Check(super::super::args::Format { json: false });
    const CHECK_JSON: ConfigCommand = ConfigCommand::Check(super::super::args::Format { json: true });

    #[test]
    fn a_good_file_is_ok() {
        let (_dir, file) = file("interfaces = ['eth0']\n");
        assert_eq!(run(&file, &CHECK), (Outcome::Done, format!("config {}: ok\n", file.display())));
    }

    #[test]
    fn all_problems_of_a_bad_file_are_listed_and_the_answer_is_no() {
        let (_dir, file) = file("mod = 'monitor'\n[limits]\nclient_burst = 0\n");
        let expected = format!(
            "config {}: 2 problems\n  line 1: mod: there is no such key, did you mean `mode`?\n  \
             line 3: limits.client_burst: 0 is out of range, use 1 to 1,000,000\n",
            file.display()
        );
        assert_eq!(run(&file, &CHECK), (Outcome::No, expected));
        let (outcome, json) = run(&file, &CHECK_JSON);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(outcome, Outcome::No);
        assert_eq!((&json["file"], &json["valid"]), (&file.display().to_string().into(), &false.into()));
        assert_eq!((json["errors"].as_array().unwrap().len(), json["warnings"].as_array().unwrap().len()), (2, 0));
    }

    #[test]
    fn warnings_do_not_make_a_file_bad() {
        let (dir, file) = file("inventory = 'PATH'\n[[port]]\ninterface = 'eth7'\n");
        let inventory = dir.path().join("i.csv");
        fs::write(&inventory, "server_id,interface\n,eth0\n").unwrap();
        let text = fs::read_to_string(&file).unwrap().replace("PATH", inventory.to_str().unwrap());
        fs::write(&file, text).unwrap();
        let (outcome, text) = run(&file, &CHECK);
        assert_eq!(outcome, Outcome::Done);
        assert!(text.contains("  warning: port[0]: interface eth7 is not guarded"), "{text}");
        assert!(text.contains("i.csv: line 2: server_id is empty"), "{text}");
        fs::remove_file(&inventory).unwrap();
        assert!(run(&file, &CHECK).1.contains("  warning: cannot read the inventory"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let global = Global { config: Some("/nowhere/a.toml".into()), ..Global::default() };
        let error = config(&global, &CHECK, &mut Output::buffer().0).unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot read the configuration /nowhere/a.toml: No such file"));
    }

    #[test]
    fn what_is_shown_is_what_is_in_force() {
        let (_dir, file) = file("interfaces = ['eth0']\nmode = 'monitor'\n");
        let (_, text) = run(&file, &ConfigCommand::Show(super::super::args::Format { json: false }));
        let config = Config::load(&file).unwrap();
        assert_eq!(Config::from_toml(&text).unwrap(), config);
        let (_, json) = run(&file, &ConfigCommand::Show(super::super::args::Format { json: true }));
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
    }

    #[test]
    fn without_a_file_the_defaults_are_in_force() {
        let report = check(None).unwrap();
        assert!(report.valid && report.file.is_none());
        assert!(report.render().contains("the defaults are in force: ok"));
    }
}
