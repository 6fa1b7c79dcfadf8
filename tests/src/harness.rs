//! How a test of the lab says what it needs and how it is run.
//!
//! ```no_run
//! use tests::harness::{Need, run, trial};
//! run(vec![trial("lab: is root", Need::LAB, || Ok(()))]);
//! ```

use std::{
    env,
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
    link::Kind as Link,
    program::{current_hook, with_hook},
    server::DNSMASQ,
};

/// Name the package, and the one that it is upgraded to; set by `cargo xtask test`.
pub const PACKAGES: [&str; 2] = ["DHCP_GUARD_DEB", "DHCP_GUARD_DEB_NEXT"];

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
    /// A kind of links that distributions' kernels have.
    Link(Link),
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
            Self::Package => (PACKAGES.iter().any(|name| env::var_os(name).is_none()))
                .then(|| "needs the Debian package: run it through `cargo xtask test`, on Debian".into()),
            Self::Link(link) => (!link.is_here()).then(|| {
                format!("needs {}, which this kernel has not: `cargo xtask vm` boots kernels that have", link.name())
            }),
        }
    }

    /// Whether it is a kernel that has to meet it: where this one does not, the test is run in virtual machines, and counts as
    /// skipped here even where nothing may be skipped.
    #[must_use]
    pub fn is_for_vm(self) -> bool {
        matches!(self, Self::Link(_))
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
        let (missing, unmet): (Vec<_>, Vec<&Need>) =
            needs.iter().filter_map(|need| Some((need.missing()?, need))).unzip();
        if missing.is_empty() {
            return timed(name, test)
                .map(|()| Completion::Completed)
                .map_err(|error| Failed::from(format!("{error:#}")));
        }
        let reason = missing.join(", ");
        if env::var_os(NO_SKIP).is_some() && !unmet.iter().all(|need| need.is_for_vm()) {
            return Err(format!("would be skipped: {reason}").into());
        }
        Ok(Completion::ignored_with(reason))
    })
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
    print_slowest();
    code
}

/// How long each test took.
static TOOK: Mutex<Vec<(Duration, String)>> = Mutex::new(Vec::new());

fn timed<T>(name: String, test: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let outcome = test();
    TOOK.lock().unwrap_or_else(PoisonError::into_inner).push((start.elapsed(), name));
    outcome
}

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
