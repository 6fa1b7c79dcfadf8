//! What the guard costs, on this machine.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use tests::{
    bench::{self, Effort, Only, report},
    cleanup,
    harness::Need,
};

/// Measures what the guard costs: nanoseconds per frame, frames dropped per second, who gets a lease while a flood runs,
/// memory. Needs root and a machine that is not too busy.
///
/// Exit code: 0 all promised budgets are kept, 1 one is not, 2 something could not be measured.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Print one JSON document, and the table on standard error
    #[arg(long)]
    json: bool,
    /// Also draw the figures into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Few repetitions: a first look, not for quoting
    #[arg(long)]
    quick: bool,
    /// Measure only frames, floods and services with one of these words in their (JSON) name
    only: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match cleanup::on_signals().and_then(|()| run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all promises are kept.
fn run(arguments: &Arguments) -> Result<bool> {
    let missing: Vec<_> = Need::LAB.iter().filter_map(|need| need.missing()).collect();
    if !missing.is_empty() {
        bail!("cannot measure: {}", missing.join(", "));
    }
    // Before the measuring, which takes minutes: a path that cannot be written to should not cost them.
    if let Some(folder) = arguments.svg.as_ref().and_then(|path| path.parent()) {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let effort = if arguments.quick { Effort::QUICK } else { Effort::FULL };
    let figures = bench::measure(effort, &Only(arguments.only.clone()), |next| eprintln!("measuring: {next}"))?;
    if let Some(path) = &arguments.svg {
        fs::write(path, report::picture(&figures)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let table = report::text(&figures);
    if arguments.json {
        eprint!("{table}");
        println!("{:#}", report::json(&figures));
    } else {
        print!("{table}");
    }
    Ok(figures.over_budget().is_empty())
}
