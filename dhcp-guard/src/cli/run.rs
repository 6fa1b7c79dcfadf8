//! `run`: the configuration with what the command line adds, handed to the agent.

use std::time::Duration;

use anyhow::{Context, bail};

use super::{
    Outcome,
    args::{Global, RunArgs},
    settings,
};
use crate::{
    agent::{self, Options, privileges},
    config::{Config, DEFAULT_FILE, Overrides},
    dataplane::hook::Hook,
    model::Mode,
};

/// How long what still runs when the agent has ended may go on.
const END: Duration = Duration::from_secs(1);

pub(super) fn run(global: &Global, args: RunArgs) -> anyhow::Result<Outcome> {
    let (config, config_path) = settings::config(global)?;
    let debug_kernel = args.debug_kernel;
    let overrides = overrides(global, args);
    let config = started_with(config, &overrides)?;
    let options = Options { config_path, overrides, debug_kernel };
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).enable_all().on_thread_start(privileges::keep_what_running_needs).build();
    let runtime = runtime.context("cannot start the event loop")?;
    let ended = runtime.block_on(agent::run(config, options));
    // A file server that does not answer keeps a thread, and not the agent.
    runtime.shutdown_timeout(END);
    ended.map(|()| Outcome::Done)
}

/// What the command line says over the file.
fn overrides(global: &Global, args: RunArgs) -> Overrides {
    let RunArgs { interfaces, hook, mode, state_dir, even_if_blind, .. } = args;
    let Global { socket, pin_dir, .. } = global.clone();
    Overrides {
        interfaces,
        hook: hook.map(Hook::from),
        mode: mode.map(Mode::from),
        socket,
        state_dir,
        pin_dir,
        even_if_blind,
    }
}

/// The configuration that the agent starts with.
fn started_with(config: Config, overrides: &Overrides) -> anyhow::Result<Config> {
    let config = overrides.over(config);
    if config.interfaces.is_empty() {
        bail!("nothing to guard: name an interface with -i IF, or in `interfaces` of {DEFAULT_FILE}");
    }
    let problems = config.validate();
    if !problems.is_empty() {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        bail!("cannot run with these options: {}", problems.join("; "));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cli::args::ModeArg;

    fn with_args(config: Config, args: RunArgs) -> anyhow::Result<Config> {
        started_with(config, &overrides(&Global::default(), args))
    }

    fn args(interfaces: &[&str]) -> RunArgs {
        RunArgs { interfaces: interfaces.iter().map(ToString::to_string).collect(), ..RunArgs::default() }
    }

    #[test]
    fn the_command_line_wins() {
        let file = Config { interfaces: vec!["eth0".into()], ..Config::default() };
        assert_eq!(with_args(file.clone(), RunArgs::default()).unwrap(), file);
        assert!(!file.even_if_blind);
        let all_the_same = RunArgs { even_if_blind: true, ..RunArgs::default() };
        assert!(with_args(file.clone(), all_the_same).unwrap().even_if_blind);
        let more = RunArgs { mode: Some(ModeArg::Monitor), state_dir: Some("s".into()), ..args(&["tap1", "tap2"]) };
        let config = with_args(file, more).unwrap();
        assert_eq!(config.state_dir, Path::new("s"));
        assert_eq!((config.interfaces, config.mode), (vec!["tap1".into(), "tap2".into()], Mode::Monitor));
    }

    #[test]
    fn the_mode_of_the_command_line_is_that_of_every_class_and_port() {
        let file: Config = toml::from_str(
            "[class.new]\nrate_pps = 10\nburst = 50\nmode = 'enforce'\n\
             [[port]]\ninterface = 'eth0'\nclass = 'new'\n[[port]]\ninterface = 'eth0'\nvlans = [7]\nmode = 'enforce'\n",
        )
        .unwrap();
        let config = with_args(file, RunArgs { mode: Some(ModeArg::Monitor), ..args(&["eth0"]) }).unwrap();
        assert_eq!([[].as_slice(), &[7]].map(|vlans| config.rules_of("eth0", vlans).mode), [Mode::Monitor; 2]);
    }

    #[test]
    fn nothing_to_guard_and_nonsense_are_errors() {
        let error = |args| with_args(Config::default(), args).unwrap_err().to_string();
        assert!(error(args(&[])).starts_with("nothing to guard: name an interface with -i IF"));
        assert!(error(args(&["eth0", "eth0"])).contains("`eth0` is listed twice"));
        let no_folder = RunArgs { state_dir: Some("".into()), ..args(&["eth0"]) };
        assert!(error(no_folder).ends_with("state_dir: this is no folder's path, name one"));
        assert!(error(args(&["a b"])).contains("cannot be the name of an interface"));
    }
}
