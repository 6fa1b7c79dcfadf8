//! The kernels to boot: from Debian's packages, kept in cargo's target directory, or from files.

use std::{
    cmp::Ordering,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Options,
    apt::{Apt, Archive, Package},
    report::Run,
};
use crate::process;

/// A kernel that a claim is about.
struct Wanted {
    /// The beginning of its version: a series of kernels, or of series.
    series: &'static str,
    /// A suite of Debian that has it for years to come.
    suite: (Archive, &'static str),
}

/// In the order of the table. The first one is too old, and must be refused.
const WANTED: &[Wanted] = &[
    Wanted { series: "5.10", suite: (Archive::Security, "bullseye-security") },
    Wanted { series: "6.1", suite: (Archive::Security, "bookworm-security") },
    Wanted { series: "6.12", suite: (Archive::Security, "bookworm-security") },
    Wanted { series: "7", suite: (Archive::Main, "trixie-backports") },
];
/// Set (to anything) where nothing may be skipped.
const NO_SKIP: &str = "DHCP_GUARD_TESTS_NO_SKIP";
/// Kernels for machines like the guests: small, and with all that the lab needs.
const FLAVOUR: &str = "-cloud-amd64";
const PREFIX: &str = "linux-image-";
/// The packages that a kernel's own may be spread over; an image package of 7.x is empty and depends on the others.
const PARTS: &[&str] = &["linux-binary-", "linux-modules-"];

/// One kernel.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// What it is called in the report: its release.
    pub(crate) label: String,
    /// Its version: major, minor.
    pub(crate) version: (u32, u32),
    /// Where it is from: packages with their checksums.
    pub(crate) origin: String,
    /// What is booted.
    pub(crate) image: PathBuf,
    /// The folder with `modules.order`.
    pub(crate) modules: PathBuf,
}

/// Those that the command line asks for; and for each one that cannot be had a run that says why.
pub(crate) fn find(folder: &Path, options: &Options) -> Result<(Vec<Kernel>, Vec<Run>)> {
    if let (Some(image), Some(modules)) = (&options.kernel, &options.modules) {
        return Ok((vec![from_files(image, modules)?], Vec::new()));
    }
    if let Some(unknown) = options.series.iter().find(|series| WANTED.iter().all(|one| one.series != **series)) {
        let known: Vec<_> = WANTED.iter().map(|one| one.series).collect();
        bail!(
            "no kernel is called {unknown}: choose among {}, or name files with --kernel and --modules",
            known.join(", ")
        );
    }
    let is_asked_for = |one: &&Wanted| options.series.is_empty() || options.series.iter().any(|it| it == one.series);
    let wanted: Vec<_> = WANTED.iter().filter(is_asked_for).collect();
    let apt = Apt::open(&folder.join("apt"), &WANTED.iter().map(|one| one.suite).collect::<Vec<_>>())?;
    let offered = apt.packages(PREFIX)?;
    let (mut kernels, mut without) = (Vec::new(), Vec::new());
    for one in wanted {
        match newest(&offered, one.series) {
            Some(package) => kernels.push(from_packages(&folder.join("kernels"), &apt, package)?),
            None => {
                let why = format!("no package {PREFIX}{}*{FLAVOUR} in {}", one.series, one.suite.1);
                let is_wanted = !options.series.is_empty() || env::var_os(NO_SKIP).is_some();
                without.push(Run::without_kernel(one.series, why, is_wanted));
            }
        }
    }
    for kernel in &kernels {
        println!("kernel {}: {}", kernel.label, kernel.origin);
    }
    Ok((kernels, without))
}

fn from_files(image: &Path, modules: &Path) -> Result<Kernel> {
    ensure!(image.is_file(), "no kernel at {}: --kernel wants a bzImage (vmlinuz)", image.display());
    let order = modules.join("modules.order");
    ensure!(order.is_file(), "no modules at {}: --modules wants a folder like /lib/modules/RELEASE", modules.display());
    let modules = modules.canonicalize()?;
    let label = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let version = version_of(&label).with_context(|| {
        format!("{label} is no release of a kernel: --modules wants a folder like /lib/modules/RELEASE")
    })?;
    Ok(Kernel { label, version, origin: image.display().to_string(), image: image.to_owned(), modules })
}

/// The newest package of a series, if there is one.
fn newest<'a>(offered: &'a [Package], series: &str) -> Option<&'a Package> {
    let is_it = |package: &&Package| {
        let release = package.name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(FLAVOUR));
        release.and_then(|release| release.strip_prefix(series)).is_some_and(|rest| rest.starts_with('.'))
    };
    offered.iter().filter(is_it).max_by(|one, other| compare(&one.version, &other.version))
}

/// Debian's order of versions; only dpkg knows all of it.
fn compare(one: &str, other: &str) -> Ordering {
    let is = |relation: &str| {
        let status = Command::new("dpkg").args(["--compare-versions", one, relation, other]).status();
        status.is_ok_and(|status| status.success())
    };
    if is("lt") {
        Ordering::Less
    } else if is("gt") {
        Ordering::Greater
    } else {
        Ordering::Equal
    }
}

/// Unpacked, from the cache where that has the very same files.
fn from_packages(folder: &Path, apt: &Apt, package: &Package) -> Result<Kernel> {
    let release = package.name.strip_prefix(PREFIX).unwrap_or(&package.name).to_owned();
    let mut packages = vec![package.clone()];
    for part in package.depends.iter().filter(|name| PARTS.iter().any(|prefix| name.starts_with(prefix))) {
        packages.push(apt.package(part)?);
    }
    let folder = folder.join(format!("{release}_{}", package.version));
    let sums: String = packages.iter().map(|one| format!("{}  {}.deb\n", one.sha256, one.name)).collect();
    if !has_sums(&folder, &sums) {
        // What is there is half of something, or something else.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for one in &packages {
            let file = apt.download(one, &folder)?;
            fs::rename(&file, folder.join(format!("{}.deb", one.name)))?;
        }
        fs::write(folder.join(SUMS), &sums)?;
        ensure!(
            has_sums(&folder, &sums),
            "what apt has brought of {} has other checksums than the lists say",
            package.name
        );
    }
    let root = folder.join("root");
    if !root.exists() {
        let partial = folder.join("partial");
        for one in &packages {
            let file = folder.join(format!("{}.deb", one.name));
            process::run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(&partial))?;
        }
        fs::rename(&partial, &root)?;
    }
    let version = version_of(&release).with_context(|| format!("{} is no name of a kernel", package.name))?;
    let sums: Vec<_> =
        packages.iter().map(|one| format!("{} {} sha256 {}", one.name, one.version, one.sha256)).collect();
    let (image, modules) = locate(&root, &release)?;
    Ok(Kernel { label: release, version, origin: sums.join(", "), image, modules })
}

/// The record of checksums, as sha256sum reads it.
const SUMS: &str = "SHA256SUMS";

/// Whether a folder has the files with these checksums.
fn has_sums(folder: &Path, sums: &str) -> bool {
    let recorded = fs::read_to_string(folder.join(SUMS)).is_ok_and(|recorded| recorded == sums);
    let mut check = Command::new("sha256sum");
    check.args(["--check", "--quiet", SUMS]).current_dir(folder);
    recorded && process::ask(&mut check).is_some()
}

/// Kernel and modules of an unpacked package, wherever its release puts them.
fn locate(root: &Path, release: &str) -> Result<(PathBuf, PathBuf)> {
    let modules = ["usr/lib/modules", "lib/modules"].map(|place| root.join(place).join(release));
    let modules = modules.into_iter().find(|place| place.is_dir());
    let modules = modules.with_context(|| format!("the packages of {release} have no modules"))?;
    let images = [modules.join("vmlinuz"), root.join(format!("boot/vmlinuz-{release}"))];
    let image = images.into_iter().find(|place| place.is_file());
    Ok((image.with_context(|| format!("the packages of {release} have no kernel"))?, modules))
}

/// Major and minor number of a release.
fn version_of(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series() {
        let package = |name: &str, version: &str| Package {
            name: name.into(),
            version: version.into(),
            sha256: String::new(),
            depends: Vec::new(),
        };
        let offered = [
            package("linux-image-6.1.0-9-cloud-amd64", "6.1.27-1"),
            package("linux-image-6.1.0-57-cloud-amd64", "6.1.192-3"),
            package("linux-image-6.1.0-58-amd64", "6.1.193-1"),
            package("linux-image-6.12.117+deb12-cloud-amd64", "6.12.117-1"),
            package("linux-image-cloud-amd64", "9"),
        ];
        let name = |series| newest(&offered, series).map(|package| package.name.as_str());
        assert_eq!(name("6.1"), Some("linux-image-6.1.0-57-cloud-amd64"));
        assert_eq!(name("6.12"), Some("linux-image-6.12.117+deb12-cloud-amd64"));
        assert_eq!(name("7"), None);
    }

    #[test]
    fn versions_of_releases() {
        assert_eq!(version_of("5.10.0-46-cloud-amd64"), Some((5, 10)));
        assert_eq!(version_of("7.3.4+deb13-cloud-amd64"), Some((7, 3)));
        assert_eq!(version_of("linux"), None);
    }
}
