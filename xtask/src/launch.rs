//! Tasks that build a program and become it.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::Value;

use crate::{
    process, setup,
    workspace::{AGENT_VARIABLE, Workspace},
};

/// `cargo xtask build`.
pub(crate) fn build(workspace: &Workspace) -> Result<ExitCode> {
    setup::for_build(workspace)?;
    println!("{}", build_agent(workspace)?.display());
    Ok(ExitCode::SUCCESS)
}

/// `cargo xtask run`.
pub(crate) fn agent(workspace: &Workspace, args: &[OsString]) -> Result<ExitCode> {
    setup::for_build(workspace)?;
    let agent = build_agent(workspace)?;
    become_program(Command::new(&agent).arg("run").args(args))
}

/// `cargo xtask demo` and `cargo xtask bench`: a binary of the crate `tests`, told where the agent is.
pub(crate) fn lab_program(workspace: &Workspace, name: &str, args: &[OsString]) -> Result<ExitCode> {
    setup::for_lab(workspace)?;
    let agent = build_agent(workspace)?;
    let program = build_binary(workspace, "tests", name, &["--release"])?;
    become_program(Command::new(program).args(args).env(AGENT_VARIABLE, agent))
}

/// The agent as it is shipped.
pub(crate) fn build_agent(workspace: &Workspace) -> Result<PathBuf> {
    build_binary(workspace, "dhcp-guard", "dhcp-guard", &["--release"])
}

/// The agent with its maps laid out otherwise, for the tests that upgrade to another version and back. They need its program,
/// which is the same whatever the profile; for release, the agent around it would take a minute more to build.
pub(crate) fn build_other_agent(workspace: &Workspace) -> Result<PathBuf> {
    let built = build_binary(workspace, "dhcp-guard", "dhcp-guard", &["--features", "other-layout"])?;
    // The next build of that profile takes its place.
    let kept = built.with_file_name("dhcp-guard-other-layout");
    fs::copy(&built, &kept).with_context(|| format!("cannot copy {} to {}", built.display(), kept.display()))?;
    Ok(kept)
}

/// Makes cargo say what it has built, in a form that programs read.
const MESSAGES: &str = "--message-format=json-render-diagnostics";

/// The tests of the lab, as a program that runs them.
pub(crate) fn build_tests(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo =
        workspace.cargo(["test", "--release", "--locked", "--package", "tests", "--test", "it", "--no-run", MESSAGES]);
    executable_made_by(&mut cargo, "it")
}

/// The first process of the guests of `cargo xtask vm`, linked statically. Only the last step of its build is another one, so
/// that nothing that it depends on is built again.
pub(crate) fn build_init(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = workspace.cargo(["rustc", "--release", "--locked", "--package", "tests", "--bin", "vm-init"]);
    cargo.args([MESSAGES, "--", "-C", "target-feature=+crt-static"]);
    executable_made_by(&mut cargo, "vm-init")
}

/// Builds and answers where cargo put the binary.
fn build_binary(workspace: &Workspace, package: &str, binary: &str, more: &[&str]) -> Result<PathBuf> {
    let mut cargo = workspace.cargo(["build", "--locked", "--package", package, "--bin", binary]);
    // Always with this package among the selected: without it other features would be unified, and with the tests, the demo
    // or the benchmarks all dependencies would be built again.
    cargo.args(["--package", "tests", MESSAGES]).args(more);
    executable_made_by(&mut cargo, binary)
}

/// Runs cargo, which is to make this executable: where it is.
fn executable_made_by(cargo: &mut Command, name: &str) -> Result<PathBuf> {
    let shown = process::line(cargo);
    eprintln!("+ {shown}");
    let mut child =
        cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run `{shown}`"))?;
    let messages = child.stdout.take().ok_or_else(|| anyhow!("`{shown}` has no output"))?;
    let mut executable = None;
    for message in BufReader::new(messages).lines() {
        let message = message.with_context(|| format!("cannot read the output of `{shown}`"))?;
        executable = executable_of(&message, name).or(executable);
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{shown}`"))?;
    ensure!(status.success(), "`{shown}` failed ({status}); see the errors above");
    executable.ok_or_else(|| anyhow!("`{shown}` built no `{name}`"))
}

/// The path in cargo's message about this binary; None for every other message.
fn executable_of(message: &str, binary: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(message).ok()?;
    let ours = message["reason"] == "compiler-artifact" && message["target"]["name"] == binary;
    message["executable"].as_str().filter(|_| ours).map(PathBuf::from)
}

/// Replaces this process, so that signals reach the program and its exit code is the task's.
fn become_program(command: &mut Command) -> Result<ExitCode> {
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", Path::new(command.get_program()).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executable_in_the_messages_of_cargo() {
        let check = |message, expected: Option<&str>| {
            assert_eq!(executable_of(message, "demo"), expected.map(PathBuf::from), "{message}");
        };
        let artifact = r#"{"reason":"compiler-artifact","target":{"name":"demo"},"executable":"/t/release/demo"}"#;
        check(artifact, Some("/t/release/demo"));
        check(r#"{"reason":"compiler-artifact","target":{"name":"bench"},"executable":"/t/release/bench"}"#, None);
        check(r#"{"reason":"compiler-artifact","target":{"name":"demo"},"executable":null}"#, None);
        check(r#"{"reason":"build-finished","success":true}"#, None);
        check("not JSON", None);
    }
}
