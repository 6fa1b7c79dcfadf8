//! `cargo xtask fuzz`, and the short run of it in `cargo xtask test`.
//!
//! No cargo-fuzz, no nightly: the pinned compiler has the passes that instrument, and `libfuzzer-sys` brings libFuzzer. There is no address sanitizer, because the code under test has no `unsafe`; debug assertions and
//! overflow checks are on (`[profile.fuzz]`).

mod build;
mod corpus;
mod log;
mod run;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};

use self::{
    build::Targets,
    run::{End, Length},
};
use crate::{setup, totals::Totals, workspace::Workspace};

/// The fuzz targets, which are binaries of the crate `fuzz`.
pub(crate) const TARGETS: [&str; 2] = ["frame_walk", "option_walk"];

/// The short run. Its seed is fixed, so that it tells the same of the same code: on a machine fast enough to get
/// through all runs in the time.
const SHORT: Length = Length { runs: 200_000, time: Duration::from_secs(60), seed: 1 };

/// `cargo xtask fuzz`: all targets side by side.
pub(crate) fn run(workspace: &Workspace, minutes: u32, only: &[String], keep: bool) -> Result<ExitCode> {
    setup::for_fuzz()?;
    let names: Vec<_> = TARGETS.into_iter().filter(|name| only.is_empty() || only.iter().any(|o| o == name)).collect();
    let targets = Targets::build(workspace, &names)?;
    let length = Length { runs: u64::MAX, time: Duration::from_secs(60) * minutes, seed: 0 };
    let corpora = corpus::growing(workspace, &names)?;
    let outcomes = run::all(workspace, &targets, &corpora, length)?;
    for outcome in &outcomes {
        println!("\n{}", outcome.tail);
    }
    println!();
    for outcome in &outcomes {
        println!("{outcome}");
    }
    if outcomes.iter().any(|outcome| matches!(outcome.end, End::Found(_))) {
        return Ok(ExitCode::FAILURE);
    }
    ensure!(outcomes.iter().all(|outcome| outcome.end == End::NothingFound), "interrupted");
    if keep {
        corpus::keep(workspace, &targets).context("the corpus in the tree is as it was")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The short run: each target counts as one test.
pub(crate) fn short(workspace: &Workspace, filters: &[String]) -> Result<Totals> {
    let wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| test_name(name).contains(filter.as_str()));
    let names: Vec<_> = TARGETS.into_iter().filter(|name| wanted(name)).collect();
    let mut totals = Totals::default();
    if names.is_empty() {
        return Ok(totals);
    }
    println!();
    if let Err(error) = setup::for_fuzz() {
        for name in names {
            println!("test {} ... ignored, {error}", test_name(name));
            totals.skipped += 1;
        }
        return Ok(totals);
    }
    let targets = Targets::build(workspace, &names).context("the fuzz targets did not run")?;
    let corpora = corpus::fresh(workspace, &names)?;
    for outcome in run::all(workspace, &targets, &corpora, SHORT)? {
        let name = test_name(&outcome.target);
        if outcome.end == End::NothingFound {
            println!("test {name} ... ok");
            totals.passed += 1;
        } else {
            println!("test {name} ... FAILED\n{}\n{outcome}", outcome.tail);
            totals.failed += 1;
        }
    }
    Ok(totals)
}

fn test_name(target: &str) -> String {
    format!("fuzz: {target}")
}
