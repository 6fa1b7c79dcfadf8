//! What the guard costs, on this machine.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use tests::{
    bench::{self, Effort, Only, report},
    cleanup,
    harness::Need,
};

/// Measures what the guard costs: nanoseconds per frame, frames dropped per second, memory. Needs root and a machine that
/// is not too busy.
///
/// Exit code: 0 all promised budgets are kept, 1 one is not, 2 something could not be measured.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Print one JSON document instead of a table
    #[arg(long)]
    json: bool,
    /// Few repetitions: a first look, not for quoting
    #[arg(long)]
    quick: bool,
    /// Measure only frames and floods with one of these words in their (JSON) name
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
    let effort = if arguments.quick { Effort::QUICK } else { Effort::FULL };
    let figures = bench::measure(effort, &Only(arguments.only.clone()), |next| eprintln!("measuring: {next}"))?;
    if arguments.json {
        println!("{:#}", report::json(&figures));
    } else {
        print!("{}", report::text(&figures));
    }
    Ok(figures.over_budget().is_empty())
}
