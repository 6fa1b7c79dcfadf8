//! `cargo xtask lint`.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{process, setup, workspace::Workspace};

/// Runs every check, so that one run shows all there is to mend.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    setup::for_lint(workspace)?;
    let mut checks = vec![
        workspace.cargo(["fmt", "--all", "--", "--check"]),
        workspace.cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]),
        bpf_clippy(workspace),
        documentation(workspace),
    ];
    let mut deny = workspace.cargo(["deny", "--version"]);
    if process::ask(&mut deny).is_some() {
        checks.push(workspace.cargo(["deny", "check"]));
    } else {
        eprintln!("skipped: the check of the dependencies, because cargo-deny is not installed");
    }
    let errors: Vec<_> = checks.iter_mut().filter_map(|check| process::run(check).err()).collect();
    for error in &errors {
        eprintln!("error: {error:#}");
    }
    if errors.is_empty() {
        eprintln!("lint: {} checks passed", checks.len());
    }
    Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Most of the BPF crate exists for its own target only.
fn bpf_clippy(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo(["clippy", "--package", "dhcp-guard-ebpf", "--release", "--locked"]);
    command
        .args(["-Z", "build-std=core", "--target", "bpfel-unknown-none", "--target-dir"])
        .arg(workspace.bpf_target());
    // The unstable features and the processor that the build scripts ask for.
    command.env("RUSTC_BOOTSTRAP", "1").env("RUSTFLAGS", "-Ctarget-cpu=v3");
    command.args(["--", "-D", "warnings"]);
    command
}

fn documentation(workspace: &Workspace) -> Command {
    let mut command = workspace.cargo(["doc", "--no-deps", "--workspace", "--locked"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    command
}
