//! `cargo xtask setup`, and the part of it that every other task begins with.

use std::{fmt, process::ExitCode};

use anyhow::{Result, ensure};

use crate::{
    EXIT_ERROR,
    packages::{self, Program},
    toolchain,
    workspace::Workspace,
};

/// How a needed thing was found, or left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It was there.
    Ok,
    /// It was not there; now it is.
    Installed,
    /// It is not there.
    Missing,
}

/// What was needed, what was found, what to do about the rest.
#[derive(Debug, Default)]
pub(crate) struct Report {
    items: Vec<(State, String)>,
    advice: Vec<String>,
}

impl Report {
    /// Notes one needed thing.
    pub(crate) fn add(&mut self, state: State, what: impl Into<String>) {
        self.items.push((state, what.into()));
    }

    /// Notes what a person has to do.
    pub(crate) fn advise(&mut self, sentence: String) {
        self.advice.push(sentence);
    }

    fn any(&self, state: State) -> bool {
        self.items.iter().any(|(found, _)| *found == state)
    }
}

/// One line when nothing was missing, else a table.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.any(State::Installed) && !self.any(State::Missing) {
            let all: Vec<_> = self.items.iter().map(|(_, what)| what.as_str()).collect();
            return writeln!(f, "setup: nothing is missing ({})", all.join(", "));
        }
        for (state, what) in &self.items {
            let state = match state {
                State::Ok => "ok",
                State::Installed => "installed",
                State::Missing => "MISSING",
            };
            writeln!(f, "{state:<9}  {what}")?;
        }
        self.advice.iter().try_for_each(|sentence| writeln!(f, "{sentence}"))
    }
}

/// The task: installs everything, and goes on after a failure, so that one run shows all that is left to do.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    let mut report = Report::default();
    let toolchain = toolchain::ensure(workspace, &mut report);
    if toolchain.is_err() {
        report.add(State::Missing, "BPF toolchain (the error below says what of it)");
    }
    packages::ensure(&[packages::LAB, packages::FUZZ, packages::VM].concat(), &mut report);
    print!("{report}");
    toolchain?;
    Ok(if report.any(State::Missing) { ExitCode::from(EXIT_ERROR) } else { ExitCode::SUCCESS })
}

/// For tasks that only build.
pub(crate) fn for_build(workspace: &Workspace) -> Result<()> {
    let mut report = Report::default();
    toolchain::ensure(workspace, &mut report)?;
    eprint!("{report}");
    Ok(())
}

/// For tasks that use the lab. Its programs may stay missing: the lab counts as skipped what it cannot do.
pub(crate) fn for_lab(workspace: &Workspace) -> Result<()> {
    with(workspace, packages::LAB)
}

/// For the tests in the lab, and of what boots other kernels. The same holds of its programs.
pub(crate) fn for_tests(workspace: &Workspace) -> Result<()> {
    with(workspace, &[packages::LAB, packages::VM].concat())
}

/// For the task that boots other kernels. What of the lab's programs is missing, the tests in the guests say.
pub(crate) fn for_vm(workspace: &Workspace) -> Result<()> {
    for_tests(workspace)?;
    ensure!(packages::missing(packages::VM).is_empty(), "no kernel can be booted without what is missing above");
    Ok(())
}

/// Toolchain and programs: installs what is missing, and says so.
fn with(workspace: &Workspace, programs: &[Program]) -> Result<()> {
    let mut report = Report::default();
    toolchain::ensure(workspace, &mut report)?;
    packages::ensure(programs, &mut report);
    eprint!("{report}");
    Ok(())
}

/// For tasks that build the fuzz targets.
pub(crate) fn for_fuzz() -> Result<()> {
    let mut report = Report::default();
    packages::ensure(packages::FUZZ, &mut report);
    eprint!("{report}");
    ensure!(!report.any(State::Missing), "the fuzz targets cannot be built without a C++ compiler");
    Ok(())
}

/// For `lint`: the components alone; what is embedded in the agent does not matter to it.
pub(crate) fn for_lint(workspace: &Workspace) -> Result<()> {
    let mut report = Report::default();
    toolchain::components(workspace, &[toolchain::RUST_SRC, toolchain::CLIPPY, toolchain::RUSTFMT], &mut report)?;
    eprint!("{report}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_when_nothing_is_missing() {
        let mut report = Report::default();
        report.add(State::Ok, "rust-src");
        report.add(State::Ok, "nft");
        assert_eq!(report.to_string(), "setup: nothing is missing (rust-src, nft)\n");
    }

    #[test]
    fn a_table_when_something_was() {
        let mut report = Report::default();
        report.add(State::Ok, "rust-src");
        report.add(State::Installed, "nft");
        report.add(State::Missing, "dhclient");
        report.advise("Install it.".into());
        assert_eq!(report.to_string(), "ok         rust-src\ninstalled  nft\nMISSING    dhclient\nInstall it.\n");
    }
}
