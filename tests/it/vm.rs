//! `cargo xtask vm` itself: a guest that is broken on purpose is reported as broken, with the reason.

use std::{env, fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use tests::{
    cleanup::Folder,
    harness::{Need, XTASK, trial_once},
    process,
};

const VM: &[Need] = &[
    Need::BpfObject,
    Need::Xtask,
    Need::Tool("qemu-system-x86_64"),
    Need::Tool("depmod"),
    Need::Tool("apt-get"),
    Need::Tool("setpriv"),
];
/// The kernel that boots fastest of those that can be guarded.
const KERNEL: &str = "6.1";
/// Long enough for a guest that is alive to say something on a machine that is busy with something else.
const SILENCE: &str = "20";
/// Seconds for the guest, and as much again for whatever of it has to be built or downloaded.
const DEADLINE: Duration = Duration::from_secs(600);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial_once("vm: a program that the verifier rejects is reported, with the verifier's words", VM, rejected),
        trial_once("vm: a test that panics is reported, with the panic's words", VM, panicked),
        trial_once("vm: a guest that hangs is given up, and reported", VM, hung),
        trial_once("vm: a kernel that crashes is reported, with the kernel's words", VM, crashed),
    ]
}

/// What a run said that was broken in a certain way.
struct Broken {
    said: String,
    junit: String,
}

impl Broken {
    fn run(how: &str) -> Result<Self> {
        let folder = Folder::new()?;
        let junit = folder.path("junit.xml");
        let xtask = env::var_os(XTASK).context("no xtask")?;
        let mut command = Command::new(xtask);
        command.args(["vm", KERNEL, "--no-kvm", "--break", how, "--silence", SILENCE, "--junit"]).arg(&junit);
        process::die_with_parent(&mut command);
        let output = process::output_within(command, DEADLINE)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{how}: {}\n{said}\n{errors}", output.status);
        Ok(Self { said, junit: fs::read_to_string(junit).context("no JUnit file")? })
    }

    /// A test is reported as failed, with this reason: on its line and in the file; and all as so many failures.
    fn reports(&self, test: &str, reason: &str, failures: usize) -> Result<()> {
        let line = self.said.lines().position(|line| line.contains(&format!("  FAIL  {test}")));
        let line = line.with_context(|| format!("no failure of {test} in\n{}", self.said))?;
        let block = self
            .said
            .lines()
            .skip(line + 1)
            .take_while(|line| !line.contains("  PASS  ") && !line.contains("  FAIL  "));
        ensure!(
            block.clone().any(|line| line.contains(reason)),
            "{reason} is not the reason: {:?}",
            block.collect::<Vec<_>>()
        );
        let last = self.said.lines().last().unwrap_or_default();
        ensure!(last.contains(&format!(" {failures} failed, 0 skipped")), "{last}");
        ensure!(self.junit.contains(&format!(r#"failures="{failures}""#)), "{}", self.junit);
        Ok(())
    }
}

fn rejected() -> Result<()> {
    Broken::run("verifier")?.reports("sabotage: a program that the verifier rejects", "invalid access to packet", 1)
}

fn panicked() -> Result<()> {
    Broken::run("panic")?.reports("sabotage: a test that panics", "panicked: on purpose", 1)
}

fn hung() -> Result<()> {
    let broken = Broken::run("hang")?;
    let reason = format!("the guest hangs: it has said nothing for {SILENCE} s");
    broken.reports("boots, carries out its plan, and ends by itself", &reason, 2)?;
    broken.reports("the runner", "the guest did not come to it", 2)
}

fn crashed() -> Result<()> {
    let broken = Broken::run("crash")?;
    broken.reports("boots, carries out its plan, and ends by itself", "sysrq triggered crash", 3)?;
    broken.reports("its kernel's log tells of no fault", "the kernel panicked", 3)
}
