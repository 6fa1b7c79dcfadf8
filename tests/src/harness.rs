//! How a test of the lab says what it needs and how it is run.
//!
//! ```no_run
//! use tests::harness::{Need, run, trial};
//! run(vec![trial("lab: is root", Need::LAB, || Ok(()))]);
//! ```

use std::{
    env,
    panic::{self, AssertUnwindSafe},
    path::Path,
    process::ExitCode,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Parser;
use dhcp_guard::dataplane::hook::Hook;
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{
    agent::OTHER_BINARY,
    client::DHCLIENT,
    control,
    events::{self, Outcome},
    program::{current_hook, with_hook},
    server::DNSMASQ,
};

/// Name the package, and the one that it is upgraded to; set by `cargo xtask test`.
pub const PACKAGES: [&str; 2] = ["DHCP_GUARD_DEB", "DHCP_GUARD_DEB_NEXT"];

/// Names the program of `cargo xtask`; set by `cargo xtask test`.
pub const XTASK: &str = "DHCP_GUARD_XTASK";

/// Set (to anything) where nothing may be skipped: a skipped test then fails.
pub const NO_SKIP: &str = "DHCP_GUARD_TESTS_NO_SKIP";

/// Tests that are listed with their time after a run: where to look when it takes too long.
const SLOWEST: usize = 20;

/// What a test cannot run without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The rights to make namespaces and load programs.
    Root,
    /// An executable, by name (looked for in PATH and in the system's administrators' folders) or by path.
    Tool(&'static str),
    /// A build with the BPF toolchain.
    BpfObject,
    /// An agent of another version.
    OtherVersion,
    /// The Debian package, and the one that it is upgraded to.
    Package,
    /// The project's automation.
    Xtask,
}

impl Need {
    /// What a [`crate::topology::Lab`] with real clients and a flood needs.
    pub const LAB: &[Self] = &[
        Self::Root,
        Self::BpfObject,
        Self::Tool("ip"),
        Self::Tool("bridge"),
        Self::Tool("ethtool"),
        Self::Tool("nft"),
        Self::Tool(DNSMASQ),
        Self::Tool(DHCLIENT),
    ];

    /// Why the need is not met, or nothing if it is.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        match self {
            // SAFETY: no arguments.
            Self::Root => (unsafe { libc::geteuid() } != 0).then(|| "needs root".into()),
            Self::Tool(name) => (!exists(name)).then(|| format!("needs `{name}`: run `cargo xtask setup`")),
            Self::OtherVersion => env::var_os(OTHER_BINARY)
                .is_none()
                .then(|| format!("needs an agent of another version, named in {OTHER_BINARY}: run `cargo xtask test`")),
            Self::BpfObject => (!control::object_is_built())
                .then(|| "needs the BPF programs: run `cargo xtask setup` and build again".into()),
            Self::Xtask => {
                env::var_os(XTASK).is_none().then(|| format!("needs xtask, named in {XTASK}: run `cargo xtask test`"))
            }
            Self::Package => (PACKAGES.iter().any(|name| env::var_os(name).is_none()))
                .then(|| "needs the Debian package: run it through `cargo xtask test`, on Debian".into()),
        }
    }
}

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
    make(name, needs, move || with_hook(hook, test))
}

/// The same for one that is not about a hook, or about a certain one.
pub fn trial_once(name: &str, needs: &'static [Need], test: fn() -> Result<()>) -> Trial {
    make(name.to_owned(), needs, test)
}

/// The same for one hook, whichever the others are.
pub fn trial_at(hook: Hook, name: &str, needs: &'static [Need], test: fn() -> Result<()>) -> Trial {
    let hook = Some(hook);
    make(format!("{name}{}", suffix(hook)), needs, move || with_hook(hook, test))
}

fn make(name: String, needs: &'static [Need], test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::ignorable_test(name.clone(), move || {
        events::started(&name);
        let missing: Vec<_> = needs.iter().filter_map(|need| need.missing()).collect();
        if missing.is_empty() {
            return carry_out(name, test);
        }
        let reason = missing.join(", ");
        if env::var_os(NO_SKIP).is_some() {
            let reason = format!("would be skipped: {reason}");
            events::ended(&name, &Outcome::Failed(&reason), Duration::ZERO);
            return Err(reason.into());
        }
        events::ended(&name, &Outcome::Skipped(&reason), Duration::ZERO);
        Ok(Completion::ignored_with(reason))
    })
}

fn carry_out(name: String, test: impl FnOnce() -> Result<()>) -> Result<Completion, Failed> {
    let start = Instant::now();
    // Nothing that the test has touched is used any more.
    let outcome = panic::catch_unwind(AssertUnwindSafe(test));
    let took = start.elapsed();
    TOOK.lock().unwrap_or_else(PoisonError::into_inner).push((took, name.clone()));
    let reason = match outcome {
        Ok(Ok(())) => {
            events::ended(&name, &Outcome::Passed, took);
            return Ok(Completion::Completed);
        }
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => events::words_of(&*panic),
    };
    events::ended(&name, &Outcome::Failed(&reason), took);
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

/// Whether an executable is there.
fn exists(tool: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    Path::new(tool).is_file() || folders.into_iter().any(|folder| folder.join(tool).is_file())
}
