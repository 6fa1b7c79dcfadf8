//! `cargo xtask test`: every runner, one sum.

use std::{
    env,
    io::{Read as _, Write as _, stdout},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    dist, fuzz, launch, packages, process, setup,
    totals::{Scanner, Totals},
    workspace::{AGENT_VARIABLE, OTHER_AGENT_VARIABLE, Workspace, XTASK_VARIABLE},
};

/// The crates whose tests need nothing but a compiler.
const PURE: &[&str] = &["dhcp-guard-common", "dhcp-guard", "xtask", "fuzz"];

/// The variables that tell the tests which package to install, and which one to upgrade it to.
const PACKAGE_VARIABLES: [&str; 2] = ["DHCP_GUARD_DEB", "DHCP_GUARD_DEB_NEXT"];

/// Runs every step, even after one has failed; the last line of the output is the sum.
pub(crate) fn run(workspace: &Workspace, quick: bool, filters: &[String]) -> Result<ExitCode> {
    let mut totals = Totals::default();
    // A step that cannot even start is a failure like any other: it must not hide the result of the other steps.
    let mut step = |outcome: Result<Totals>| match outcome {
        Ok(counted) => totals += counted,
        Err(error) => {
            println!("error: {error:#}");
            totals.failed += 1;
        }
    };
    step(cargo_test(&mut pure(workspace, filters)));
    if !quick {
        step(fuzz::short(workspace, filters));
        step(integration(workspace, filters));
    }
    if totals.skipped > 0 {
        println!("\nskipped, so neither passed nor failed: {} (marked `ignored` above)", totals.skipped);
    }
    println!("\n{totals}");
    Ok(if totals.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn pure(workspace: &Workspace, filters: &[String]) -> Command {
    let mut command = workspace.cargo(["test", "--locked", "--no-fail-fast"]);
    command.args(PURE.iter().flat_map(|name| ["--package", name])).arg("--").args(filters);
    command
}

/// The lab and the tests in it. For release, agent and tests alike, because they make and meet floods.
fn integration(workspace: &Workspace, filters: &[String]) -> Result<Totals> {
    setup::for_tests(workspace).context("the tests in the lab did not run")?;
    let other = launch::build_other_agent(workspace).context("the tests in the lab did not run")?;
    let agent = launch::build_agent(workspace).context("the tests in the lab did not run")?;
    let mut command = workspace.cargo(["test", "--release", "--locked", "--no-fail-fast", "--package", "tests"]);
    // Elsewhere there is neither dpkg nor a Debian to install a package in, and its tests are skipped.
    if packages::present("dpkg-deb") {
        let built = dist::for_tests(workspace, &agent).context("the tests in the lab did not run")?;
        command.envs(PACKAGE_VARIABLES.iter().zip(built));
    }
    command.env(XTASK_VARIABLE, env::current_exe().context("this program has no path")?);
    cargo_test(command.env(AGENT_VARIABLE, agent).env(OTHER_AGENT_VARIABLE, other).arg("--").args(filters))
}

/// Runs one `cargo test`; its output passes through unchanged and is counted on the way.
fn cargo_test(command: &mut Command) -> Result<Totals> {
    let shown = process::line(command);
    println!("\n+ {shown}");
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{shown}`"))?;
    let mut output = child.stdout.take().ok_or_else(|| anyhow!("`{shown}` has no output"))?;
    let mut scanner = Scanner::default();
    let mut buffer = [0; 8192];
    loop {
        let length = output.read(&mut buffer).with_context(|| format!("cannot read the output of `{shown}`"))?;
        if length == 0 {
            break;
        }
        stdout()
            .write_all(&buffer[..length])
            .and_then(|()| stdout().flush())
            .context("cannot write to standard output")?;
        scanner.feed(&buffer[..length]);
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{shown}`"))?;
    let mut totals = scanner.finish();
    if !status.success() && totals.failed == 0 {
        // It did not build, or a runner died before it could count: no test failed, and yet not all passed.
        println!("error: `{shown}` did not finish ({status}), which counts as one failure");
        totals.failed = 1;
    }
    Ok(totals)
}
