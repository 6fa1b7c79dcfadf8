//! The command line: what it accepts ([`args`]), what it does, and how it looks (`render`).

pub mod args;
mod change;
mod config;
mod detach;
mod doctor;
mod events;
mod explain;
#[cfg(test)]
mod fake_agent;
mod log;
mod output;
mod query;
mod render;
mod run;
mod settings;
mod source;

use std::{ffi::OsString, io::Write, process::ExitCode};

use anyhow::Context;
use clap::Parser;

use self::{
    args::{Args, Command},
    output::{Output, StdoutClosed},
    source::Source,
};
use crate::client::ClientError;

/// What a command came to, where nothing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Exit code 0.
    Done,
    /// Exit code 1: the answer is "no".
    No,
}

impl From<()> for Outcome {
    fn from((): ()) -> Self {
        Self::Done
    }
}

/// Exit code where the answer is "no".
const NO: u8 = 1;
/// Exit code of a wrong command line and of every error.
const ERROR: u8 = 2;

/// The whole program: reads the command line, does what it says, and reports errors in one line on stderr.
#[must_use]
pub fn main() -> ExitCode {
    let args = match parse(std::env::args_os()) {
        Ok(args) => args,
        Err(code) => return code,
    };
    match dispatch(args) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::No) => ExitCode::from(NO),
        // Whoever read the output has seen enough.
        Err(error) if error.is::<StdoutClosed>() => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            let refused = matches!(error.downcast_ref(), Some(ClientError::AgainstRules(_)));
            ExitCode::from(if refused { NO } else { ERROR })
        }
    }
}

fn dispatch(args: Args) -> anyhow::Result<Outcome> {
    let Args { global, command } = args;
    let _log = log::start(match &command {
        // The kernel's program logs under its own name.
        Command::Run(run) if run.debug_kernel => "info,dhcp_guard_xdp=debug",
        Command::Run(_) => "info",
        _ => "warn",
    });
    let (socket, out) = (|| settings::socket(&global), &mut Output::stdout());
    let source = || Source::new(&global);
    match command {
        Command::Run(args) => run::run(&global, args),
        Command::Detach => detach::detach(&settings::pin_dir(&global)?, out),
        Command::Config { command } => config::config(&global, &command, out),
        Command::Doctor(args) => asking(doctor::doctor(&global, args, out)),
        Command::Status(args) => asking(query::status(&source()?, &args, out)),
        Command::Offenders(args) => asking(query::offenders(&source()?, &args, out)),
        Command::Ports(args) => asking(query::ports(&source()?, &args, out)),
        Command::Clients(args) => asking(query::clients(&source()?, &args, out)),
        Command::Explain(args) => asking(explain::explain(&socket()?, &args, out)),
        Command::Quarantine { command } => asking(change::quarantine(&source()?, command, out)),
        Command::Hold(args) => asking(change::hold(&socket()?, args, out)),
        Command::Undo(args) => asking(change::undo(&socket()?, args, out)),
        Command::Reload(args) => asking(change::reload(&socket()?, args, out)),
        Command::Allow { command } => asking(change::allow(&source()?, command, out)),
        Command::Events(args) => asking(events::events(&socket()?, &args, out)),
    }
}

/// Asks the agent, on this thread, and waits for the answer.
fn asking<T: Into<Outcome>>(question: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the event loop")?.block_on(question).map(Into::into)
}

/// Help and version go to stdout; a command line that makes no sense is one sentence on stderr.
fn parse(args: impl Iterator<Item = OsString>) -> Result<Args, ExitCode> {
    Args::try_parse_from(args).map_err(|error| {
        use clap::error::ErrorKind;
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                // If nobody reads it there is nobody to tell.
                _ = error.print();
                ExitCode::SUCCESS
            }
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                _ = error.print();
                ExitCode::from(ERROR)
            }
            _ => {
                complain(&usage_error(&error.render().to_string()));
                ExitCode::from(ERROR)
            }
        }
    })
}

/// clap explains over several lines; this is the same in one.
fn usage_error(rendered: &str) -> String {
    let lines = rendered.lines().map(str::trim).filter(|line| !line.is_empty());
    let said: Vec<&str> =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more")).collect();
    let said = said.join(" ").replace(" tip: ", "; ");
    let said = said.strip_prefix("error: ").unwrap_or(&said);
    format!("{said}; `--help` lists what is possible")
}

/// One sentence on stderr. If stderr is gone there is nobody to tell.
fn complain(sentence: &str) {
    let sentence = sentence.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    _ = writeln!(std::io::stderr(), "dhcp-guard: {sentence}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_errors_are_one_sentence() {
        let error = Args::try_parse_from(["dhcp-guard", "status", "--jsno"]).unwrap_err();
        assert_eq!(
            usage_error(&error.render().to_string()),
            "unexpected argument '--jsno' found; a similar argument exists: '--json'; `--help` lists what is possible"
        );
        let error = Args::try_parse_from(["dhcp-guard", "clients", "--mac", "eth0"]).unwrap_err();
        let sentence = usage_error(&error.render().to_string());
        assert!(sentence.contains("--mac") && sentence.contains("is not a MAC address"), "{sentence}");
        assert!(!sentence.contains('\n'), "{sentence}");
    }
}
