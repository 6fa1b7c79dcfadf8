//! Building the fuzz targets.

use std::path::PathBuf;

use anyhow::Result;

use crate::{process, workspace::Workspace};

/// Coverage as libFuzzer wants it: a counter and an address for each edge, and a call for each comparison, so that it can
/// guess the values that are compared with.
const INSTRUMENTATION: &str = "[\"-Cpasses=sancov-module\", \"-Cllvm-args=-sanitizer-coverage-level=4\", \
     \"-Cllvm-args=-sanitizer-coverage-inline-8bit-counters\", \"-Cllvm-args=-sanitizer-coverage-pc-table\", \
     \"-Cllvm-args=-sanitizer-coverage-trace-compares\"]";

/// What is instrumented: our parser and its reference. In the parsers that these are compared with, libFuzzer would find
/// ten times as much to explore, and none of it of interest.
const INSTRUMENTED: [&str; 2] = ["dhcp-guard-common", "fuzz"];

/// Targets that have been built.
pub(super) struct Targets(pub(super) Vec<Target>);

/// A target that has been built.
pub(super) struct Target {
    pub(super) name: &'static str,
    pub(super) program: PathBuf,
}

impl Targets {
    /// Builds these targets.
    pub(super) fn build(workspace: &Workspace, names: &[&'static str]) -> Result<Self> {
        let folder = workspace.target().join("fuzz");
        let mut cargo =
            workspace.cargo(["build", "--profile=fuzz", "--locked", "--package=fuzz", "--features=libfuzzer"]);
        cargo.args(names.iter().flat_map(|name| ["--bin", name])).arg("--target-dir").arg(&folder);
        // Cargo has flags of single packages, but not on the stable channel yet.
        cargo.env("RUSTC_BOOTSTRAP", "1").arg("-Zprofile-rustflags");
        for package in INSTRUMENTED {
            cargo.args(["--config", &format!("profile.fuzz.package.{package}.rustflags={INSTRUMENTATION}")]);
        }
        process::run(&mut cargo)?;
        let programs = folder.join("fuzz");
        Ok(Self(names.iter().map(|name| Target { name, program: programs.join(name) }).collect()))
    }
}
