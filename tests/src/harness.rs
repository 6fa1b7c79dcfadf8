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
use dhcp_guard::dataplane::{features, hook::Hook, tcx};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::{
    agent::OTHER_BINARY,
    client::DHCLIENT,
    control,
    events::{self, Outcome},
    netns::Netns,
    program::{current_hook, with_hook},
    server::DNSMASQ,
};

/// Name the package, and the one that it is upgraded to; set by `cargo xtask test`.
pub const PACKAGES: [&str; 2] = ["DHCP_GUARD_DEB", "DHCP_GUARD_DEB_NEXT"];

/// Names the program of `cargo xtask`; set by `cargo xtask test`.
pub const XTASK: &str = "DHCP_GUARD_XTASK";

/// Set (to anything) where nothing may be skipped: a skipped test then fails, unless all that it lacks is another kernel
/// ([`Need::is_for_vm`]).
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
    /// A kernel that the guard refuses.
    OldKernel,
    /// TCX. Every test at that hook that makes interfaces needs it, and does not have to say so.
    Tcx,
    /// Filters of tc that match (flower) and limit (act_police).
    Flower,
}

/// The kernel index that the loopback interface has in every network namespace.
const LOOPBACK: u32 = 1;

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
            // By its number, because what the guard makes of it is what is tested.
            Self::OldKernel => (features::version(&features::release()) >= Some((5, 18)))
                .then(|| "needs a kernel before 5.18: `cargo xtask vm` boots one".into()),
            Self::Tcx => {
                (tcx::is_offered(LOOPBACK).is_ok_and(|offered| !offered)).then(|| "needs TCX, since kernel 6.6".into())
            }
            Self::Flower => try_flower()
                .is_err()
                .then(|| "needs tc flower and act_police: `cargo xtask vm` boots a kernel that has them".into()),
        }
    }

    /// Whether only another kernel can meet it: `cargo xtask vm` boots one, and where the test is skipped nobody can do
    /// anything about it ([`NO_SKIP`]).
    #[must_use]
    pub fn is_for_vm(self) -> bool {
        matches!(self, Self::OldKernel | Self::Tcx | Self::Flower)
    }
}

/// Whether the kernel takes a filter like those of the tests. It may have to load modules for it, so that only a try tells.
fn try_flower() -> Result<()> {
    let netns = Netns::new("flower")?;
    netns.ip("link add filtered0 type veth peer name filtered1\n")?;
    netns.exec(&["tc", "qdisc", "add", "dev", "filtered0", "clsact"])?;
    let filter = "filter add dev filtered0 ingress protocol ip flower ip_proto udp dst_port 67 \
                  action police pkts_rate 2 pkts_burst 20 conform-exceed drop/pass";
    netns.exec_with_input(&["tc", "-batch", "-"], &format!("{filter}\n")).map(drop)
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
    let attaches = hook == Some(Hook::Tcx) && needs.contains(&Need::Tool("ip"));
    Trial::ignorable_test(name.clone(), move || {
        events::started(&name);
        let needs = needs.iter().copied().chain(attaches.then_some(Need::Tcx));
        let missing: Vec<_> = needs.filter_map(|need| Some((need, need.missing()?))).collect();
        if missing.is_empty() {
            return carry_out(name, test);
        }
        let must_run = env::var_os(NO_SKIP).is_some() && missing.iter().any(|(need, _)| !need.is_for_vm());
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
