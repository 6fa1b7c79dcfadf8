//! `cargo xtask vm`: the kernel-facing tests on the kernels of distributions, in QEMU.
//!
//! * [`kernels`]: which ones, from Debian's packages ([`apt`]) or from files; [`modules`]: what of a kernel is loaded.
//! * [`image`]: what the guest's memory begins with: the tests, the agents, the programs of the lab with their libraries
//!   ([`closure`]), and the first process (`tests/src/bin/vm-init.rs`); [`suite`]: which tests it runs.
//! * [`machine`]: QEMU, with KVM where that was seen to work; [`guest`]: what the first process tells; [`faults`]: what the
//!   kernel says on its console.
//! * [`report`]: a line for each test, the table, [`junit`].
//!
//! Nothing here needs root: the guest has its own. What went before is kept in `vm/` of cargo's target directory: packages,
//! unpacked kernels, and of the last run images, consoles and results.

mod apt;
mod closure;
mod faults;
mod guest;
mod image;
mod junit;
mod kernels;
mod machine;
mod modules;
mod report;
mod suite;

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::{setup, workspace::Workspace};

use self::{
    image::{Parts, Plan},
    kernels::Kernel,
    machine::Accelerator,
    report::{GUEST, Run, Verdict},
};

/// What `cargo xtask vm` takes.
#[derive(Args)]
pub(crate) struct Options {
    /// Only these kernels, by the series of the packages: 5.10, 6.1, 6.12, 7 (default: all)
    #[arg(value_name = "SERIES", conflicts_with = "kernel")]
    series: Vec<String>,
    /// Boot this kernel instead of a package's
    #[arg(long, value_name = "FILE", requires = "modules")]
    kernel: Option<PathBuf>,
    /// Where that kernel's modules are: the folder with `modules.order` in it
    #[arg(long, value_name = "DIR", requires = "kernel")]
    modules: Option<PathBuf>,
    /// Only these groups of tests (can be repeated)
    #[arg(long = "group", value_name = "GROUP", value_parser = suite::names())]
    groups: Vec<String>,
    /// Instead of the groups, all tests whose name contains this (can be repeated)
    #[arg(long = "test", value_name = "PART", conflicts_with = "groups")]
    tests: Vec<String>,
    /// Machines at once (default: one for each processor and one more, since they wait for some of their time)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// A guest is given up after so many seconds
    #[arg(long, value_name = "S", default_value_t = 900)]
    kernel_timeout: u64,
    /// No other machine is started after so many seconds, and those that run are given up
    #[arg(long, value_name = "S", default_value_t = 2400)]
    timeout: u64,
    /// A guest that says nothing for so many seconds hangs
    #[arg(long, value_name = "S", default_value_t = 60)]
    silence: u64,
    /// Emulate the processor also where KVM works
    #[arg(long)]
    no_kvm: bool,
    /// Make the guest break, to see that it is noticed
    #[arg(long = "break", value_name = "HOW")]
    sabotage: Option<Sabotage>,
    /// Where the results go as JUnit XML [default: vm/junit.xml in cargo's target directory]
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

/// How a guest can be made to break; `vm-init` has the same words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Sabotage {
    /// A BPF program that the verifier rejects
    Verifier,
    /// A test that panics
    Panic,
    /// A guest that hangs
    Hang,
    /// A kernel that crashes
    Crash,
}

/// When a guest is given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    /// At this time, whatever it does.
    pub(crate) end: Instant,
    /// When it has said nothing for so long.
    pub(crate) silence: Duration,
}

/// The task. Exit code 1: something failed, or nothing was tested.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let start = Instant::now();
    ensure!(
        cfg!(target_arch = "x86_64"),
        "`cargo xtask vm` boots x86-64 kernels only, and this machine is another one"
    );
    setup::for_vm(workspace)?;
    let folder = workspace.target().join("vm");
    let _lock = lock(&folder)?;
    let junit = options.junit.clone().unwrap_or_else(|| folder.join("junit.xml"));
    // The results of another run must not be taken for this one's.
    let _ = fs::remove_file(&junit);
    // Before anything is built: whoever has named a wrong one wants to know it now.
    let (kernels, mut runs) = kernels::find(&folder, options)?;
    let parts = Parts::build(workspace)?;
    let accelerator = match kernels.first() {
        Some(kernel) if !options.no_kvm => machine::probe(&folder, kernel, &parts)?,
        _ => Accelerator::Tcg,
    };
    println!("machines: {accelerator}");
    runs.extend(Session { folder: &folder, parts: &parts, accelerator, options, start }.run_all(&kernels));
    report::print_table(&runs);
    junit::write(&junit, &runs)?;
    let totals = report::totals(&runs);
    println!("\nJUnit: {}\nconsoles: {}", junit.display(), folder.join("guests").display());
    println!("{} kernels in {:.0} s\n\n{totals}", runs.len(), start.elapsed().as_secs_f64());
    let is_good = totals.failed == 0 && report::has_tested(&runs);
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Two runs at once would have the same files. Held until it is dropped.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    if file.try_lock().is_err() {
        println!("waiting for another `cargo xtask vm` in {} to end", folder.display());
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// What all guests of a run have in common.
struct Session<'a> {
    folder: &'a Path,
    parts: &'a Parts,
    accelerator: Accelerator,
    options: &'a Options,
    start: Instant,
}

impl Session<'_> {
    /// Boots the kernels, several at once; the results in the kernels' order.
    fn run_all(&self, kernels: &[Kernel]) -> Vec<Run> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let jobs = self.options.jobs.map_or(processors + 1, usize::from);
        // The first ones in the list need least time: one that needs much must not come last.
        let waiting = Mutex::new((0..kernels.len()).collect::<Vec<_>>());
        let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let done = Mutex::new(Vec::new());
        let work = || {
            while let Some(index) = next() {
                let run = self.run(&kernels[index]);
                done.lock().unwrap_or_else(PoisonError::into_inner).push((index, run));
            }
        };
        thread::scope(|scope| (0..jobs.min(kernels.len())).for_each(|_| drop(scope.spawn(work))));
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.sort_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, run)| run).collect()
    }

    /// What fails with one kernel is no reason to lose what the others have found.
    fn run(&self, kernel: &Kernel) -> Run {
        let mut run = Run::new(kernel);
        let began = Instant::now();
        if let Err(error) = self.boot(kernel, &mut run) {
            run.add(GUEST, "can be made", Verdict::Fail(format!("{error:#}")), 0.0);
        }
        run.took = began.elapsed();
        run
    }

    fn boot(&self, kernel: &Kernel, run: &mut Run) -> Result<()> {
        let Self { folder, parts, accelerator, options, start } = *self;
        let groups = suite::groups(kernel, &options.groups, &options.tests, options.sabotage);
        if groups.is_empty() {
            run.add(GUEST, "all of it", Verdict::Skip("none of these groups is for this kernel".into()), 0.0);
            return Ok(());
        }
        let now = Instant::now();
        let end = (start + Duration::from_secs(options.timeout)).min(now + Duration::from_secs(options.kernel_timeout));
        ensure!(now < end, "all of the {} s for all kernels are over", options.timeout);
        let deadlines = Deadlines { end, silence: Duration::from_secs(options.silence) };
        let folder = folder.join("guests").join(&kernel.label);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let modules = modules::for_lab(&kernel.modules, &folder)?;
        let plan = Plan { groups: &groups, slow: accelerator == Accelerator::Tcg, sabotage: options.sabotage };
        let image = image::write(&folder, parts, &modules, &plan)?;
        let machine = machine::start(kernel, &image, &folder, accelerator)?;
        guest::follow(machine, deadlines, &groups, run);
        Ok(())
    }
}
