//! The project's automation: `cargo xtask <task>`.
//!
//! It depends on no other crate of the workspace, because `setup` has to run before those can be built whole. What is
//! heavy (demo, benchmarks, tests) is a binary of another crate; this one builds it and hands over.

mod dist;
mod fuzz;
mod launch;
mod lint;
mod packages;
mod process;
mod setup;
mod test;
mod toolchain;
mod totals;
mod vm;
mod workspace;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Exit code for a task that could not be done at all.
pub(crate) const EXIT_ERROR: u8 = 2;

/// Automation of the dhcp-guard repository.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing to build, test and show the project (nothing is touched when nothing is missing)
    Setup,
    /// Build the agent for release and print the path of the binary
    Build,
    /// Build everything and play the demo in the lab
    Demo {
        /// Passed on to the demo
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Build the agent and start it: `cargo xtask run -- -i eth0`
    Run {
        /// Passed on to `dhcp-guard run`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Build the Debian package and print its path
    Dist,
    /// Build everything and run the benchmarks (`--json` for one document on standard output)
    Bench {
        /// Passed on to the benchmarks
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run all tests; the last line is `N passed, N failed, N skipped`
    Test {
        /// Only the pure tests: no root, no lab, no BPF toolchain
        #[arg(long)]
        quick: bool,
        /// Only the tests whose name contains one of these
        filters: Vec<String>,
    },
    /// Boot the kernels that the guard claims to run on, in QEMU, and run the tests in them that are about the kernel
    Vm(vm::Options),
    /// Try random and mutated inputs on the parser, starting from the committed corpus; exit code 1 if one breaks it
    Fuzz {
        /// How long
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        minutes: u32,
        /// Only this target (can be repeated)
        #[arg(long = "target", value_name = "TARGET", value_parser = fuzz::TARGETS)]
        targets: Vec<String>,
        /// Make the committed corpus anew from the seeds, what it was, and what runs have found
        #[arg(long)]
        keep: bool,
    },
    /// Check format, clippy (user space and BPF), documentation and, where cargo-deny is installed, the dependencies
    Lint,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(EXIT_ERROR)
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match task {
        Task::Setup => setup::run(&workspace),
        Task::Build => launch::build(&workspace),
        Task::Demo { args } => launch::lab_program(&workspace, "demo", &args),
        Task::Run { args } => launch::agent(&workspace, &args),
        Task::Dist => dist::run(&workspace),
        Task::Bench { args } => launch::lab_program(&workspace, "bench", &args),
        Task::Test { quick, filters } => test::run(&workspace, quick, &filters),
        Task::Vm(options) => vm::run(&workspace, &options),
        Task::Fuzz { minutes, targets, keep } => fuzz::run(&workspace, minutes, &targets, keep),
        Task::Lint => lint::run(&workspace),
    }
}
