//! What dpkg is told about the files: control, conffiles, checksums, scripts.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{
    Recipe, ask,
    stage::{BINARY, mode, read, write},
};

/// What happens around installing and removing.
const SCRIPTS: &[&str] = &["postinst", "prerm", "postrm"];

/// Adds them to the folder that [`super::stage::files`] has filled.
pub(super) fn files(recipe: &Recipe<'_>, staged: &Path) -> Result<()> {
    let files = files_below(staged)?;
    let bytes: u64 = files.iter().filter_map(|file| fs::metadata(file).ok()).map(|file| file.len()).sum();
    let binary = staged.join(BINARY);
    let binary = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    let source = recipe.root.join("packaging/debian");
    let control = read(&source.join("control"))?
        .replace("@VERSION@", &recipe.version)
        .replace("@ARCHITECTURE@", &recipe.architecture)
        .replace("@INSTALLED_SIZE@", &bytes.div_ceil(1024).to_string())
        .replace("@LIBC@", &needed_libc(&binary).context("the agent needs no glibc: was it built for this system?")?);
    let to = staged.join("DEBIAN");
    write(&to.join("control"), &control)?;
    write(&to.join("md5sums"), &(md5sums(staged, &files)? + "\n"))?;
    let conffiles: String = files.iter().filter_map(|file| conffile(staged, file)).collect();
    write(&to.join("conffiles"), &conffiles)?;
    for script in SCRIPTS {
        let place = to.join(script);
        write(&place, &read(&source.join(script))?)?;
        mode(&place, 0o755)?;
    }
    folders_below(staged)?.iter().try_for_each(|folder| mode(folder, 0o755))
}

/// All files, in the order of their paths.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let (_, mut files) = walk(folder)?;
    files.sort();
    Ok(files)
}

fn folders_below(folder: &Path) -> Result<Vec<PathBuf>> {
    walk(folder).map(|(folders, _)| folders)
}

/// Folders, the first one included, and files.
fn walk(folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut folders, mut files, mut open) = (Vec::new(), Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = open.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
        folders.push(folder);
    }
    Ok((folders, files))
}

fn md5sums(staged: &Path, files: &[PathBuf]) -> Result<String> {
    let names = files.iter().map(|file| file.strip_prefix(staged)).collect::<Result<Vec<_>, _>>()?;
    ask(Command::new("md5sum").current_dir(staged).args(names))
}

/// Whatever is in /etc is the administrator's: dpkg asks before it writes over it.
fn conffile(staged: &Path, file: &Path) -> Option<String> {
    let name = file.strip_prefix(staged).ok()?;
    name.starts_with("etc").then(|| format!("/{}\n", name.display()))
}

/// The oldest glibc that has all symbols which a binary asks for, from their versions (`GLIBC_2.34`).
fn needed_libc(binary: &[u8]) -> Option<String> {
    const PREFIX: &[u8] = b"GLIBC_2.";
    let places = binary.windows(PREFIX.len()).enumerate().filter(|(_, bytes)| *bytes == PREFIX);
    let minor = |start: usize| {
        let digits = binary[start..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.map(|byte| char::from(*byte)).collect::<String>().parse::<u32>().ok()
    };
    places.filter_map(|(place, _)| minor(place + PREFIX.len())).max().map(|minor| format!("2.{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_symbol_says_which_libc_is_needed() {
        assert_eq!(needed_libc(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0GLIBC_2.\0"), Some("2.34".into()));
        assert_eq!(needed_libc(b"GLIBC_PRIVATE"), None);
    }

    #[test]
    fn what_is_in_etc_is_a_conffile() {
        let file = |path| conffile(Path::new("/s"), Path::new(path));
        assert_eq!(file("/s/etc/dhcp-guard/a.toml"), Some("/etc/dhcp-guard/a.toml\n".into()));
        assert_eq!(file("/s/usr/etc/a"), None);
    }
}
