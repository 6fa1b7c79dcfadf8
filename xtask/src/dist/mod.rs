//! `cargo xtask dist`: the Debian package.
//!
//! * [`stage`]: the files of the package, in a folder; [`control`]: what dpkg is told about them.
//! * `dpkg-deb` makes the package of it: it is on every Debian, and it is what Debian's own tools end in.
//!
//! The same sources make the same bytes: all times are that of the last commit, or `SOURCE_DATE_EPOCH`.

mod control;
mod stage;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};

use crate::{launch, process, setup, workspace::Workspace};

/// The revision of the packaging of one release.
const REVISION: &str = "1";
/// The revision of the package that the tests upgrade to: higher, and otherwise the same.
const NEXT_REVISION: &str = "1+next";

/// `cargo xtask dist`: builds the package and prints its path.
pub(crate) fn run(workspace: &Workspace) -> Result<ExitCode> {
    setup::for_build(workspace)?;
    let agent = launch::build_agent(workspace)?;
    println!("{}", build(workspace, &agent, REVISION)?.display());
    Ok(ExitCode::SUCCESS)
}

/// The package, and the one that an upgrade of it comes to.
pub(crate) fn for_tests(workspace: &Workspace, agent: &Path) -> Result<[PathBuf; 2]> {
    Ok([build(workspace, agent, REVISION)?, build(workspace, agent, NEXT_REVISION)?])
}

/// What a package is made from.
struct Recipe<'a> {
    /// The repository.
    root: &'a Path,
    /// The agent as it was built.
    agent: &'a Path,
    /// The package's version.
    version: String,
    /// Debian's name of this machine's architecture.
    architecture: String,
    /// The time of everything in it, in seconds since 1970.
    epoch: String,
}

fn build(workspace: &Workspace, agent: &Path, revision: &str) -> Result<PathBuf> {
    let recipe = Recipe {
        root: workspace.root(),
        agent,
        version: format!("{}-{revision}", env!("CARGO_PKG_VERSION")),
        architecture: ask(Command::new("dpkg").arg("--print-architecture"))?,
        epoch: epoch(workspace.root())?,
    };
    let folder = workspace.target().join("dist");
    let name = format!("dhcp-guard_{}_{}", recipe.version, recipe.architecture);
    let (staged, package) = (folder.join(&name), folder.join(format!("{name}.deb")));
    if staged.exists() {
        fs::remove_dir_all(&staged).with_context(|| format!("cannot empty {}", staged.display()))?;
    }
    stage::files(&recipe, &staged)?;
    control::files(&recipe, &staged)?;
    let mut command = Command::new("dpkg-deb");
    command.env("SOURCE_DATE_EPOCH", &recipe.epoch).args(["--root-owner-group", "-Zxz", "--build"]);
    process::run(command.arg(&staged).arg(&package))?;
    Ok(package)
}

/// The time that everything in the package has.
fn epoch(root: &Path) -> Result<String> {
    if let Ok(epoch) = env::var("SOURCE_DATE_EPOCH") {
        return Ok(epoch);
    }
    ask(Command::new("git").current_dir(root).args(["log", "-1", "--format=%ct"]))
        .context("the package needs a time: build it in a clone, or set SOURCE_DATE_EPOCH")
}

/// The answer of a program that cannot be done without.
fn ask(command: &mut Command) -> Result<String> {
    let line = process::line(command);
    let answer = process::ask(command).with_context(|| format!("`{line}` has no answer: is it installed?"))?;
    ensure!(!answer.is_empty(), "`{line}` answers nothing");
    Ok(answer)
}
