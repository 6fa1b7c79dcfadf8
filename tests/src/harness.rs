//! How a test of the lab says what it needs and how it is run.
//!
//! ```no_run
//! use tests::harness::{Need, run, trial};
//! run(vec![trial("lab: is root", Need::LAB, || Ok(()))]);
//! ```

mod need;

use std::{
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Parser;
use dhcp_guard::dataplane::hook::Hook;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{
    events::{self, Outcome},
    last_words,
    program::{current_hook, with_hook},
};

pub use self::need::{IN_GUEST, NO_SKIP, Need, PACKAGES, SABOTAGE, XTASK};

/// Tests that are listed with their time after a run: where to look when it takes too long.
const SLOWEST: usize = 20;

/// These tests for each hook: the names of [`trial`]s end in `[xdp]` or `[tcx]` then. Those of [`trial_once`] are for both.
pub fn on_both_hooks(trials: impl Fn() -> Vec<Trial>) -> Vec<Trial> {
    let mut both = with_hook(Some(Hook::Xdp), &trials);
    let tcx = with_hook(Some(Hook::Tcx), &trials);
    both.extend(tcx.into_iter().filter(|trial| trial.name().ends_with(suffix(Some(Hook::Tcx)))));
    both
}

fn suffix(hook: Option<Hook>) -> &'static str {
    match hook {
        Some(Hook::Xdp) => " [xdp]",
        Some(Hook::Tcx) => " [tcx]",
        Some(Hook::Clsact) => " [clsact]",
        Some(Hook::Auto) | None => "",
    }
}

/// A test that is skipped, with the reason, when a need is not met.
pub fn trial(name: &str, needs: &'static [Need], test: fn() -> Result<()>) -> Trial {
    let hook = current_hook();
    let name = format!("{name}{}", suffix(hook));
    make(name, hook, needs, move || with_hook(hook, test))
}

/// The same for one that is not about a hook, or about a certain one.
pub fn trial_once(name: &str, needs: &'static [Need], test: fn() -> Result<()>) -> Trial {
    make(name.to_owned(), None, needs, test)
}

/// The same for one hook, whichever the others are.
pub fn trial_at(hook: Hook, name: &str, needs: &'static [Need], test: fn() -> Result<()>) -> Trial {
    let hook = Some(hook);
    make(format!("{name}{}", suffix(hook)), hook, needs, move || with_hook(hook, test))
}

fn make(
    name: String,
    hook: Option<Hook>,
    needs: &'static [Need],
    test: impl FnOnce() -> Result<()> + Send + 'static,
) -> Trial {
    // Without an interface, a program runs on test frames, which older kernels do as well.
    let attaches = hook == Some(Hook::Tcx) && needs.iter().any(|need| need.makes_interfaces());
    Trial::ignorable_test(name.clone(), move || {
        events::started(&name);
        let needs = needs.iter().copied().chain(attaches.then_some(Need::Tcx));
        let missing: Vec<_> = needs.filter_map(|need| Some((need, need.missing()?))).collect();
        if missing.is_empty() {
            return carry_out(&name, test);
        }
        let must_run = missing.iter().any(|(need, _)| !need.may_be_missing());
        let reason = missing.into_iter().map(|(_, reason)| reason).collect::<Vec<_>>().join(", ");
        if must_run {
            let reason = format!("would be skipped: {reason}");
            events::ended(&name, &Outcome::Failed(&reason), Duration::ZERO);
            return Err(reason.into());
        }
        events::ended(&name, &Outcome::Skipped(&reason), Duration::ZERO);
        Ok(Completion::ignored_with(reason))
    })
}

fn carry_out(name: &str, test: impl FnOnce() -> Result<()>) -> Result<Completion, Failed> {
    let start = Instant::now();
    // What others have left, which is not this test's.
    last_words::take();
    // Nothing that the test has touched is used any more.
    let outcome = panic::catch_unwind(AssertUnwindSafe(test));
    let took = start.elapsed();
    TOOK.lock().unwrap_or_else(PoisonError::into_inner).push((took, name.to_owned()));
    let mut reason = match outcome {
        Ok(Ok(())) => {
            events::ended(name, &Outcome::Passed, took);
            return Ok(Completion::Completed);
        }
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => events::words_of(&*panic),
    };
    reason.push_str(&last_words::take());
    events::ended(name, &Outcome::Failed(&reason), took);
    Err(reason.into())
}

/// The command line of Rust's own test runner, which takes several filters.
#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    arguments: Arguments,
    #[arg(value_name = "FILTER")]
    more_filters: Vec<String>,
}

/// Runs the tests one after the other, unless the command line asks for more threads: they measure rates. Says at the end
/// which of them took longest.
#[must_use]
pub fn run(mut trials: Vec<Trial>) -> ExitCode {
    let CommandLine { mut arguments, more_filters } = CommandLine::parse();
    arguments.test_threads.get_or_insert(1);
    if !more_filters.is_empty() {
        let filters: Vec<String> = arguments.filter.take().into_iter().chain(more_filters).collect();
        trials.retain(|trial| filters.iter().any(|filter| trial.name().contains(filter)));
    }
    let code = libtest_mimic::run(&arguments, trials).exit_code();
    if !events::are_told() {
        print_slowest();
    }
    code
}

/// How long each test took.
static TOOK: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

fn print_slowest() {
    let mut took = TOOK.lock().unwrap_or_else(PoisonError::into_inner);
    took.sort_unstable_by(|one, other| other.cmp(one));
    if took.len() > SLOWEST {
        let all: Duration = took.iter().map(|(time, _)| *time).sum();
        println!("the slowest {SLOWEST} of {} tests, which took {:.0} s:", took.len(), all.as_secs_f64());
        took.iter().take(SLOWEST).for_each(|(time, name)| println!("{:>7.1} s  {name}", time.as_secs_f64()));
        println!();
    }
}
