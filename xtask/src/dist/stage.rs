//! The files of the package, in a folder as they will be in the root of a machine.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{Recipe, ask};
use crate::process;

/// Where the binary goes.
pub(super) const BINARY: &str = "usr/bin/dhcp-guard";
/// Where a Debian package explains itself.
const DOC: &str = "usr/share/doc/dhcp-guard";

/// Files that are in the repository as they will be in the package.
const AS_THEY_ARE: &[(&str, &str)] = &[
    ("packaging/dhcp-guard.service", "usr/lib/systemd/system/dhcp-guard.service"),
    ("packaging/dhcp-guard.sysusers", "usr/lib/sysusers.d/dhcp-guard.conf"),
    ("packaging/dhcp-guard.tmpfiles", "usr/lib/tmpfiles.d/dhcp-guard.conf"),
    ("packaging/dhcp-guard.toml", "etc/dhcp-guard/dhcp-guard.toml"),
    ("packaging/inventory.example.csv", "usr/share/doc/dhcp-guard/examples/inventory.example.csv"),
    ("packaging/debian/README.Debian", "usr/share/doc/dhcp-guard/README.Debian"),
    ("packaging/debian/lintian-overrides", "usr/share/lintian/overrides/dhcp-guard"),
];

/// Completions, where each shell looks for them.
const COMPLETIONS: &[(&str, &str)] = &[
    ("bash", "usr/share/bash-completion/completions/dhcp-guard"),
    ("zsh", "usr/share/zsh/vendor-completions/_dhcp-guard"),
    ("fish", "usr/share/fish/vendor_completions.d/dhcp-guard.fish"),
];

/// Puts all files into `to`.
pub(super) fn files(recipe: &Recipe<'_>, to: &Path) -> Result<()> {
    binary(recipe, &to.join(BINARY))?;
    for (from, place) in AS_THEY_ARE {
        write(&to.join(place), &read(&recipe.root.join(from))?)?;
    }
    for (shell, place) in COMPLETIONS {
        let script = ask(Command::new(recipe.agent).args(["completions", shell]))?;
        write(&to.join(place), &(script + "\n"))?;
    }
    let mut texts = manual(recipe, to)?;
    let mit = read(&recipe.root.join("LICENSE-MIT"))?;
    let copyright = read(&recipe.root.join("packaging/debian/copyright"))?;
    write(&to.join(DOC).join("copyright"), &copyright.replace("@MIT@", &indented(&mit)))?;
    for (name, text) in
        [("changelog", read(&recipe.root.join("CHANGELOG.md"))?), ("changelog.Debian", changelog(recipe)?)]
    {
        let place = to.join(DOC).join(name);
        write(&place, &text)?;
        texts.push(place);
    }
    compress(&texts)
}

/// The agent without its debug information, which is most of it.
fn binary(recipe: &Recipe<'_>, to: &Path) -> Result<()> {
    make_folder(to)?;
    let mut strip = Command::new("strip");
    strip.args(["--strip-all", "--remove-section=.comment", "-o"]).arg(to).arg(recipe.agent);
    process::run(&mut strip)?;
    mode(to, 0o755)
}

/// The manual pages; answers where they are.
fn manual(recipe: &Recipe<'_>, to: &Path) -> Result<Vec<PathBuf>> {
    let folder = to.join("usr/share/man/pages");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    process::run(Command::new(recipe.agent).args(["man", "--dir"]).arg(&folder))?;
    let mut places = Vec::new();
    let pages = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for page in pages {
        let page = page.with_context(|| format!("cannot list {}", folder.display()))?.path();
        let section = page.extension().and_then(|section| section.to_str()).context("a page without a section")?;
        let place = to.join(format!("usr/share/man/man{section}")).join(page.file_name().context("no name")?);
        write(&place, &read(&page)?)?;
        places.push(place);
    }
    fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    Ok(places)
}

/// The packaging's own changes.
fn changelog(recipe: &Recipe<'_>) -> Result<String> {
    let date = ask(Command::new("date").args(["-u", "-R", "-d"]).arg(format!("@{}", recipe.epoch)))?;
    Ok(format!(
        "dhcp-guard ({}) unstable; urgency=medium\n\n  * {DOC}/changelog.gz says what is new.\n\n \
         -- dhcp-guard developers <developers@dhcp-guard.invalid>  {date}\n",
        recipe.version
    ))
}

/// Text as Debian's copyright format wants it: indented, and empty lines as dots.
fn indented(text: &str) -> String {
    let line = |line: &str| if line.trim().is_empty() { " .".into() } else { format!(" {line}") };
    text.trim_end().lines().map(line).collect::<Vec<String>>().join("\n")
}

/// As Debian wants text that is long. The modes stay.
fn compress(files: &[PathBuf]) -> Result<()> {
    // Without name and time: the same text is the same bytes.
    process::run(Command::new("gzip").arg("-9n").args(files))
}

pub(super) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

pub(super) fn write(to: &Path, text: &str) -> Result<()> {
    make_folder(to)?;
    fs::write(to, text).with_context(|| format!("cannot write {}", to.display()))?;
    mode(to, 0o644)
}

pub(super) fn mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

/// The folder of a file. The caller's umask must not matter.
fn make_folder(of: &Path) -> Result<()> {
    let folder = of.parent().context("a file in no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_indented_for_debian() {
        assert_eq!(indented("MIT\n\nPermission is\nhereby\n"), " MIT\n .\n Permission is\n hereby");
    }
}
