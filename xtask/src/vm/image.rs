//! What a guest's memory begins with: an archive in cpio's format `newc`, which the kernel unpacks
//! (`Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! Two archives, one behind the other: what all guests have, and what is one kernel's.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use cpio::newc::{self, Builder, ModeFileType};
use serde_json::json;

use super::{Sabotage, closure, suite::Group};
use crate::{launch, packages, process, workspace::Workspace};

/// Programs of the machine that the tests run.
const PROGRAMS: &[&str] = &[
    "dnsmasq", "dhclient", "nft", "ip", "tc", "bridge", "ethtool", "setpriv", "unshare", "mount", "umount", "nsenter",
    "strace", "sh", "true", "sleep", "cat", "mkfifo", "stat",
];
/// Where they go, whatever folder they are from.
const BIN: &str = "usr/bin";
/// Names for the same folder, by which programs and tests call each other.
const SAME_FOLDER: &[&str] = &["bin", "sbin", "usr/sbin"];
/// What the first process mounts something on, and what programs write into.
const FOLDERS: &[&str] = &[
    "dev",
    "etc",
    "proc",
    "root",
    "run",
    "sys",
    "tmp",
    "usr",
    BIN,
    "var",
    "var/lib",
    "var/lib/dhcp",
    "var/lib/misc",
    "var/log",
    "vm",
    "vm/modules",
    "mnt",
];
const LINKS: &[(&str, &str)] = &[("var/run", "/run")];
/// Users, as far as the lab's programs look them up.
const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\ndnsmasq:x:101:65534::/:/bin/false\n",
    ),
    ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
    ("etc/hosts", "127.0.0.1 localhost\n"),
];
/// Tables that iproute2 reads names from.
const TABLES: &[&str] = &["/etc/protocols", "/etc/services"];

/// What all guests have, as one archive.
pub(crate) struct Parts {
    base: PathBuf,
    init: PathBuf,
}

impl Parts {
    /// Builds the agents, the tests and the first process, and packs them.
    pub(crate) fn build(workspace: &Workspace) -> Result<Self> {
        let other = launch::build_other_agent(workspace)?;
        let agent = launch::build_agent(workspace)?;
        let tests = launch::build_tests(workspace)?;
        let init = launch::build_init(workspace)?;
        let folder = workspace.target().join("vm/parts");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let ours = [("init", &init), ("vm/it", &tests), ("vm/dhcp-guard", &agent), ("vm/dhcp-guard-other", &other)];
        let mut stripped = Vec::new();
        for (name, file) in ours {
            let to = folder.join(name.replace('/', "-"));
            process::run(Command::new("strip").arg("-o").arg(&to).arg(file))
                .context("strip is of the package binutils")?;
            stripped.push((name, to));
        }
        let base = folder.join("base.cpio");
        pack_base(&base, &stripped).with_context(|| format!("cannot write {}", base.display()))?;
        let init = folder.join("init");
        Ok(Self { base, init })
    }

    /// The first process alone.
    pub(crate) fn init(&self) -> &Path {
        &self.init
    }
}

fn pack_base(to: &Path, ours: &[(&str, PathBuf)]) -> Result<()> {
    let mut archive = Archive::create(to)?;
    FOLDERS.iter().try_for_each(|name| archive.folder(name))?;
    SAME_FOLDER.iter().try_for_each(|name| archive.link(name, &format!("/{BIN}")))?;
    LINKS.iter().try_for_each(|(name, target)| archive.link(name, target))?;
    FILES.iter().try_for_each(|(name, text)| archive.bytes(name, text.as_bytes(), 0o644))?;
    for table in TABLES.iter().filter(|table| Path::new(table).is_file()) {
        archive.file(table.trim_start_matches('/'), Path::new(table))?;
    }
    let mut libraries = BTreeSet::new();
    for (name, file) in ours {
        archive.file(name, file)?;
        libraries.extend(closure::libraries(file)?);
    }
    // One that the machine lacks is missed by the tests that need it, which say so.
    for (name, file) in PROGRAMS.iter().filter_map(|name| Some((name, packages::find(name)?))) {
        archive.file(&format!("{BIN}/{name}"), &file)?;
        libraries.extend(closure::libraries(&file)?);
    }
    for library in &libraries {
        archive.with_folders(library)?;
    }
    archive.finish()
}

/// What a guest is to do.
pub(crate) struct Plan<'a> {
    pub(crate) groups: &'a [Group],
    /// Whether its processor is emulated.
    pub(crate) slow: bool,
    pub(crate) sabotage: Option<Sabotage>,
}

/// The image for one guest, in its folder: its path.
pub(crate) fn write(folder: &Path, parts: &Parts, modules: &[PathBuf], plan: &Plan<'_>) -> Result<PathBuf> {
    let own = folder.join("own.cpio");
    let mut archive = Archive::create(&own)?;
    let mut names = Vec::new();
    for (index, module) in modules.iter().enumerate() {
        let file = module.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("vm/modules/{index:02}-{file}");
        archive.file(&name, module)?;
        names.push(format!("/{name}"));
    }
    let Plan { groups, slow, sabotage } = plan;
    let plan = json!({ "modules": names, "groups": groups, "slow": slow, "sabotage": sabotage });
    archive.bytes("vm/plan.json", plan.to_string().as_bytes(), 0o644)?;
    archive.finish()?;
    let image = folder.join("image.cpio");
    let mut whole = File::create(&image).with_context(|| format!("cannot write {}", image.display()))?;
    for part in [&parts.base, &own] {
        io::copy(&mut File::open(part)?, &mut whole).with_context(|| format!("cannot write {}", image.display()))?;
    }
    fs::remove_file(&own)?;
    Ok(image)
}

/// An image with the first process and nothing to do, to see whether a machine starts.
pub(crate) fn write_empty(to: &Path, init: &Path) -> Result<()> {
    let mut archive = Archive::create(to)?;
    for name in ["dev", "proc", "run", "sys", "tmp", "vm"] {
        archive.folder(name)?;
    }
    archive.file("init", init)?;
    archive.bytes("vm/plan.json", br#"{"modules":[],"groups":[],"slow":false,"sabotage":null}"#, 0o644)?;
    archive.finish()
}

/// An archive that is being written.
struct Archive {
    out: BufWriter<File>,
    /// Names that are in it: none comes twice.
    known: BTreeSet<String>,
}

impl Archive {
    fn create(to: &Path) -> Result<Self> {
        let out = File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
        Ok(Self { out: BufWriter::new(out), known: BTreeSet::new() })
    }

    fn folder(&mut self, name: &str) -> Result<()> {
        self.entry(name, ModeFileType::Directory, 0o755, b"")
    }

    fn link(&mut self, name: &str, target: &str) -> Result<()> {
        self.entry(name, ModeFileType::Symlink, 0o777, target.as_bytes())
    }

    fn bytes(&mut self, name: &str, content: &[u8], mode: u32) -> Result<()> {
        self.entry(name, ModeFileType::Regular, mode, content)
    }

    /// A file of the machine, with its content and the rights that it has, whatever links lead to it.
    fn file(&mut self, name: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        self.bytes(name, &content, mode)
    }

    /// The same at the place that it has on the machine, with all folders above it.
    fn with_folders(&mut self, file: &Path) -> Result<()> {
        let name = file.to_string_lossy().trim_start_matches('/').to_owned();
        let mut above: Vec<_> = Path::new(&name).ancestors().skip(1).filter_map(Path::to_str).collect();
        above.reverse();
        for folder in above.into_iter().filter(|folder| !folder.is_empty()) {
            self.folder(folder)?;
        }
        self.file(&name, file)
    }

    fn entry(&mut self, name: &str, kind: ModeFileType, mode: u32, content: &[u8]) -> Result<()> {
        if !self.known.insert(name.to_owned()) {
            return Ok(());
        }
        let number = u32::try_from(self.known.len()).context("too many files")?;
        let length = u32::try_from(content.len()).with_context(|| format!("{name} is too large"))?;
        let header = Builder::new(name).ino(number).mode(mode).nlink(1).set_mode_file_type(kind);
        let mut writer = header.write(&mut self.out, length);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }

    fn finish(self) -> Result<()> {
        Ok(newc::trailer(self.out)?.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_found_again() {
        let folder = std::env::temp_dir().join(format!("xtask-cpio-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (script, archive) = (folder.join("script"), folder.join("archive"));
        fs::write(&script, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o750)).unwrap();
        let mut written = Archive::create(&archive).unwrap();
        written.link("bin", "/usr/bin").unwrap();
        written.with_folders(&script).unwrap();
        written.with_folders(&script).unwrap();
        written.finish().unwrap();
        let (mut file, mut seen) = (File::open(&archive).unwrap(), Vec::new());
        loop {
            let mut entry = newc::Reader::new(file).unwrap();
            if entry.entry().is_trailer() {
                break;
            }
            let (name, mode) = (entry.entry().name().to_owned(), entry.entry().mode());
            let mut content = String::new();
            io::Read::read_to_string(&mut entry, &mut content).unwrap();
            seen.push((name, mode, content));
            file = entry.finish().unwrap();
        }
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(seen.first(), Some(&("bin".into(), 0o120_777, "/usr/bin".into())));
        let last = script.to_string_lossy().trim_start_matches('/').to_owned();
        assert_eq!(seen.last(), Some(&(last, 0o100_750, "#!/bin/sh\n".into())));
        assert!(seen[1..seen.len() - 1].iter().all(|(_, mode, _)| *mode == 0o040_755), "{seen:?}");
        let mut names: Vec<_> = seen.iter().map(|(name, ..)| name).collect();
        names.dedup();
        assert_eq!(names.len(), seen.len(), "something is in it twice: {seen:?}");
    }
}
