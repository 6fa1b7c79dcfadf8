//! Packages of other releases of Debian, without the machine's own apt learning of them.
//!
//! A private set of lists and sources, on the mirrors that the machine is configured for; apt itself verifies them, with
//! Debian's keys. Needs no root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};

use crate::process;

/// Where a suite is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Archive {
    /// `debian`
    Main,
    /// `debian-security`
    Security,
}

/// Debian's keys, where its own images have them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// For so long the lists are not asked for again.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// Indexes that other packages on the machine ask for, and that are larger than all else.
const UNUSED_INDEXES: &[&str] =
    &["DEP-11", "DEP-11-icons", "DEP-11-icons-small", "DEP-11-icons-hidpi", "DEP-11-icons-large"];

/// A package, in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Of the file, as the signed list says.
    pub(crate) sha256: String,
    /// Names of packages that it cannot do without; alternatives are left out.
    pub(crate) depends: Vec<String>,
}

/// See the module.
pub(crate) struct Apt {
    folder: PathBuf,
}

impl Apt {
    /// Sources for these suites, and their lists, from the network unless those are fresh.
    pub(crate) fn open(folder: &Path, suites: &[(Archive, &str)]) -> Result<Self> {
        let apt = Self { folder: folder.to_owned() };
        for sub in ["lists/partial", "cache/archives/partial", "etc"] {
            let path = folder.join(sub);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        // What is installed here does not matter.
        apt.write("status", "")?;
        let sources = sources(&configured()?, suites, Path::new(KEYRING).exists());
        ensure!(
            !sources.is_empty(),
            "apt is configured for no mirror of Debian: name a kernel with --kernel and --modules"
        );
        let known = fs::read_to_string(folder.join("etc/sources.list")).ok();
        let is_fresh = known.as_ref() == Some(&sources) && apt.age().is_some_and(|age| age < FRESH);
        if !is_fresh {
            apt.write("etc/sources.list", &sources)?;
            // One suite that is not there any more must not hide the others: whoever wants a package of it is told.
            println!("asking the mirrors of Debian for kernels");
            match run(apt.command("apt-get").args(["--error-on=any", "update"])) {
                Ok(()) => apt.write("updated", "")?,
                Err(error) => eprintln!("warning: {error:#}; going on with the lists that are there"),
            }
        }
        Ok(apt)
    }

    /// All packages whose name begins with this, in all versions.
    pub(crate) fn packages(&self, prefix: &str) -> Result<Vec<Package>> {
        let names = self.ask(&["pkgnames", prefix])?;
        let names: Vec<_> = names.lines().collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        Ok(parse(&self.ask(&[&["show"], names.as_slice()].concat())?))
    }

    /// One package by name, in its highest version.
    pub(crate) fn package(&self, name: &str) -> Result<Package> {
        let shown = self.ask(&["show", "--no-all-versions", name])?;
        parse(&shown).pop().with_context(|| format!("no list has the package {name}"))
    }

    /// Brings a package's file into a folder; its path.
    pub(crate) fn download(&self, package: &Package, into: &Path) -> Result<PathBuf> {
        let exactly = format!("{}={}", package.name, package.version);
        println!("downloading {exactly}");
        let brought = run(self.command("apt-get").args(["download", &exactly]).current_dir(into));
        if brought.is_err() {
            // The lists may name what the mirror has replaced since: the next run asks for new ones.
            let _ = fs::remove_file(self.folder.join("updated"));
        }
        brought.with_context(|| format!("{exactly} cannot be had; run it again, with a connection to the mirror"))?;
        let file = fs::read_dir(into)?.flatten().map(|entry| entry.path()).find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(&format!("{}_", package.name)) && name.ends_with(".deb")
        });
        file.with_context(|| format!("apt has brought no file of {exactly}"))
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command("apt-cache");
        command.args(arguments);
        process::ask(&mut command).with_context(|| format!("apt-cache {} failed", arguments.join(" ")))
    }

    /// Everything that is configured stays as it is but for where things are: proxies and the like are needed here, too.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let place = |name: &str| self.folder.join(name).display().to_string();
        let options = [
            ("Dir::Etc::sourcelist", place("etc/sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::Etc::preferences", "/dev/null".into()),
            ("Dir::Etc::preferencesparts", "/dev/null".into()),
            ("Dir::State", place("")),
            ("Dir::State::lists", place("lists")),
            ("Dir::State::status", place("status")),
            ("Dir::Cache", place("cache")),
            ("Acquire::Languages", "none".into()),
            // The files are ours, also when root runs this.
            ("APT::Sandbox::User", "".into()),
        ];
        for (name, value) in options {
            command.arg("-o").arg(format!("{name}={value}"));
        }
        for index in UNUSED_INDEXES {
            command.arg("-o").arg(format!("Acquire::IndexTargets::deb::{index}::DefaultEnabled=false"));
        }
        command
    }

    fn age(&self) -> Option<Duration> {
        let updated = fs::metadata(self.folder.join("updated")).and_then(|file| file.modified()).ok()?;
        SystemTime::now().duration_since(updated).ok()
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Runs a command whose line is too long to be shown, and that says something only if it fails.
fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().context("cannot run apt-get")?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "apt-get failed: {}", String::from_utf8_lossy(&said).trim());
    Ok(())
}

/// The mirrors that the machine is configured for: address and suite.
fn configured() -> Result<Vec<(String, String)>> {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI) $(RELEASE)", "Created-By: Packages"]);
    let targets = process::ask(&mut command).context(
        "apt-get does not answer: packages of kernels are Debian's; name a kernel with --kernel and --modules",
    )?;
    let lines = targets.lines().filter_map(|line| line.split_once(' ')).filter(|(uri, _)| is_debians(uri));
    Ok(lines.map(|(uri, suite)| (uri.into(), suite.into())).collect())
}

/// Whether a mirror is of Debian's archives, whose places have had the same names for ever; other vendors' have others.
fn is_debians(uri: &str) -> bool {
    let place = uri.trim_end_matches('/').rsplit('/').next();
    matches!(place, Some("debian" | "debian-security"))
}

/// Lines for sources.list: the suites on those of the mirrors that have such.
fn sources(configured: &[(String, String)], suites: &[(Archive, &str)], has_keyring: bool) -> String {
    let signed_by = if has_keyring { format!("[signed-by={KEYRING}] ") } else { String::new() };
    let line = |(archive, suite): &(Archive, &str)| {
        let is_it = |(_, configured): &&(String, String)| match archive {
            Archive::Security => configured.ends_with("-security"),
            Archive::Main => !configured.contains('-'),
        };
        let (mirror, _) = configured.iter().find(is_it)?;
        Some(format!("deb {signed_by}{mirror} {suite} main\n"))
    };
    let mut lines: Vec<String> = suites.iter().filter_map(line).collect();
    lines.dedup();
    lines.concat()
}

/// What `apt-cache show` prints.
fn parse(shown: &str) -> Vec<Package> {
    let package = |stanza: &str| {
        let field =
            |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned);
        let depends = field("Depends").unwrap_or_default();
        let depends = depends.split(',').filter(|one| !one.contains('|'));
        let depends = depends.filter_map(|one| one.split_whitespace().next().map(str::to_owned)).collect();
        Some(Package { name: field("Package")?, version: field("Version")?, sha256: field("SHA256")?, depends })
    };
    shown.split("\n\n").filter_map(package).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_of_others_are_none_of_debians() {
        assert!(is_debians("http://mirror/debian/") && is_debians("http://mirror/debian-security"));
        assert!(!is_debians("http://mirror/ubuntu/") && !is_debians("http://vendor/debian/tool"));
    }

    #[test]
    fn suites_are_looked_for_where_such_are() {
        let configured = [
            ("http://mirror/debian/".to_owned(), "bookworm".to_owned()),
            ("http://mirror/debian/".to_owned(), "bookworm-updates".to_owned()),
            ("http://mirror/debian-security/".to_owned(), "bookworm-security".to_owned()),
        ];
        let suites = [(Archive::Security, "bullseye-security"), (Archive::Main, "trixie-backports")];
        let expected = "deb http://mirror/debian-security/ bullseye-security main\n\
                        deb http://mirror/debian/ trixie-backports main\n";
        assert_eq!(sources(&configured, &suites, false), expected);
        assert!(sources(&configured, &suites, true).starts_with("deb [signed-by=/usr/share/keyrings/"));
        assert_eq!(sources(&configured[..2], &suites, false), "deb http://mirror/debian/ trixie-backports main\n");
        assert_eq!(sources(&configured, &[suites[0], suites[0]], false).lines().count(), 1, "twice the same");
        assert_eq!(sources(&[], &suites, false), "");
    }

    #[test]
    fn packages_are_read_from_what_apt_shows() {
        let shown = "Package: linux-image-7\nVersion: 7-1\nDepends: kmod, linux-binary-7 (= 7-1), a | b\nSHA256: 00ff\n\n\
                     Package: odd\nVersion: 1\n\nPackage: other\nVersion: 2\nSHA256: 11\n";
        let package = |name: &str, version: &str, sha256: &str, depends: &[&str]| Package {
            name: name.into(),
            version: version.into(),
            sha256: sha256.into(),
            depends: depends.iter().map(|&one| one.into()).collect(),
        };
        let expected =
            [package("linux-image-7", "7-1", "00ff", &["kmod", "linux-binary-7"]), package("other", "2", "11", &[])];
        assert_eq!(parse(shown), expected);
    }
}
