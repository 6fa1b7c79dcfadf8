//! The corpora: the committed one of each target, and what a run adds.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};

use super::build::{Target, Targets};
use crate::{process, workspace::Workspace};

/// Where the new inputs of a target go, and those in the tree that it starts from.
pub(super) struct Corpus {
    pub(super) new: PathBuf,
    pub(super) committed: PathBuf,
}

/// Inputs longer than that find nothing that shorter ones do not: the longest headers, a BOOTP message, long options.
pub(super) const MAX_LEN: usize = 1024;

/// Corpora that keep what earlier runs found.
pub(super) fn growing(workspace: &Workspace, targets: &[&str]) -> Result<Vec<Corpus>> {
    each(workspace, targets, &workspace.target().join("fuzz-corpus"))
}

/// Corpora without anything but what is committed.
pub(super) fn fresh(workspace: &Workspace, targets: &[&str]) -> Result<Vec<Corpus>> {
    let folder = workspace.target().join("fuzz-short");
    empty(&folder)?;
    each(workspace, targets, &folder)
}

fn each(workspace: &Workspace, targets: &[&str], folder: &Path) -> Result<Vec<Corpus>> {
    let one = |target: &&str| {
        let new = folder.join(target);
        fs::create_dir_all(&new).with_context(|| format!("cannot make {}", new.display()))?;
        Ok(Corpus { new, committed: committed(workspace, target) })
    };
    targets.iter().map(one).collect()
}

fn committed(workspace: &Workspace, target: &str) -> PathBuf {
    workspace.root().join("tests/fuzz/corpus").join(target)
}

/// Makes the committed corpora anew: a smallest set of the seeds, of what is committed and of what runs have found, that
/// reaches every edge which all of them reach.
pub(super) fn keep(workspace: &Workspace, targets: &Targets) -> Result<()> {
    let seeds = workspace.target().join("fuzz-seeds");
    empty(&seeds)?;
    let mut generator = workspace.cargo(["run", "--quiet", "--locked", "--package=fuzz", "--bin=seeds", "--"]);
    process::run(generator.arg(&seeds))?;
    for Target { name, program } in &targets.0 {
        let kept = workspace.target().join("fuzz-kept").join(name);
        let committed = committed(workspace, name);
        let found = workspace.target().join("fuzz-corpus").join(name);
        for folder in [&kept, &committed, &found] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        empty(&kept)?;
        let mut merge = Command::new(program);
        merge.args(["-set_cover_merge=1", "-use_counters=0"]).arg(format!("-max_len={MAX_LEN}"));
        merge.args([&kept, &seeds.join(name), &committed, &found]);
        process::run(merge.stderr(Stdio::null()))?;
        let count = replace(&committed, &kept).with_context(|| format!("cannot write {}", committed.display()))?;
        println!("{name}: {count} inputs in {}", committed.display());
    }
    Ok(())
}

/// Puts the files of one folder in the place of those of another; how many.
fn replace(old: &Path, new: &Path) -> io::Result<usize> {
    fs::remove_dir_all(old)?;
    fs::create_dir(old)?;
    let mut count = 0;
    for file in fs::read_dir(new)? {
        let file = file?;
        fs::copy(file.path(), old.join(file.file_name()))?;
        count += 1;
    }
    Ok(count)
}

fn empty(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(folder),
    }
    .with_context(|| format!("cannot empty {}", folder.display()))
}
