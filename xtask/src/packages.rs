//! The programs of the lab and the compiler of the fuzz targets, and the Debian packages that bring them.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    process,
    setup::{Report, State},
};

/// A needed program and its Debian package.
pub(crate) type Program = (&'static str, &'static str);

/// What the lab is made of, in the order of the report.
pub(crate) const LAB: &[Program] = &[
    // Not `dnsmasq`, which would start a service.
    ("dnsmasq", "dnsmasq-base"),
    ("dhclient", "isc-dhcp-client"),
    ("nft", "nftables"),
    ("ip", "iproute2"),
    ("ethtool", "ethtool"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
    ("tc", "iproute2"),
    ("bridge", "iproute2"),
    ("tar", "tar"),
    // Breaks the agent's start off wherever it calls the kernel.
    ("strace", "strace"),
    // A clean Debian, to install the package in.
    ("mmdebstrap", "mmdebstrap"),
];

/// What the fuzz targets are built with: libFuzzer is C++.
pub(crate) const FUZZ: &[Program] = &[("c++", "g++")];

/// What the guests of `cargo xtask vm` are made with, besides what the lab is made of.
pub(crate) const VM: &[Program] =
    &[("qemu-system-x86_64", "qemu-system-x86"), ("depmod", "kmod"), ("strip", "binutils"), ("ldd", "libc-bin")];

/// Where the programs of an administrator are; not in everyone's PATH.
const SYSTEM_DIRS: &[&str] = &["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Installs the missing programs where that is possible, and says what to do where it is not.
pub(crate) fn ensure(programs: &[Program], report: &mut Report) {
    let missing = missing(programs);
    if !missing.is_empty() && is_root() && present("apt-get") {
        apt_install(&packages(&missing));
    }
    for &(program, package) in programs {
        let was_missing = missing.contains(&program);
        let state = match (was_missing, was_missing && !present(program)) {
            (false, _) => State::Ok,
            (true, false) => State::Installed,
            (true, true) => State::Missing,
        };
        report.add(state, if was_missing { format!("{program} (package {package})") } else { program.into() });
    }
    let missing = self::missing(programs);
    if !missing.is_empty() {
        report.advise(advice(&missing));
    }
}

/// What to do about programs that could not be installed.
fn advice(missing: &[&str]) -> String {
    format!(
        "Missing: {}; as root on Debian or Ubuntu: apt-get update && apt-get install -y --no-install-recommends {}",
        missing.join(", "),
        packages(missing).join(" ")
    )
}

/// Those of the programs that are not there.
pub(crate) fn missing(programs: &[Program]) -> Vec<&'static str> {
    programs.iter().map(|(program, _)| *program).filter(|program| !present(program)).collect()
}

/// The packages that bring these programs, each once.
fn packages(programs: &[&str]) -> Vec<&'static str> {
    let mut packages = Vec::new();
    for (program, package) in LAB.iter().chain(FUZZ).chain(VM) {
        if programs.contains(program) && !packages.contains(package) {
            packages.push(package);
        }
    }
    packages
}

pub(crate) fn present(program: &str) -> bool {
    find(program).is_some()
}

/// Where a program is.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path).chain(SYSTEM_DIRS.iter().map(PathBuf::from));
    places.map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// The effective user, as the kernel shows it.
fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Installs all that can be. Failures are not the caller's concern: it looks for the programs themselves.
fn apt_install(packages: &[&str]) {
    if has_package_lists() && apt_get("install", packages) {
        return;
    }
    apt_get("update", &[]);
    if packages.len() > 1 && apt_get("install", packages) {
        return;
    }
    // One package that this release does not have must not keep the others away.
    for package in packages {
        apt_get("install", &[package]);
    }
}

/// Minimal images come without any list, and then every install fails.
fn has_package_lists() -> bool {
    let is_list = |name: &Path| name.to_string_lossy().contains("_Packages");
    fs::read_dir("/var/lib/apt/lists")
        .is_ok_and(|lists| lists.flatten().any(|list| is_list(Path::new(&list.file_name()))))
}

fn apt_get(action: &str, packages: &[&str]) -> bool {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg(action).args(["-y", "-qq"]);
    // Another apt on the machine is waited for, instead of failing at once.
    command.args(["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]);
    if action == "install" {
        command.arg("--no-install-recommends");
    }
    match process::run(command.args(packages)) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("warning: {error:#}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_of_programs() {
        let check = |programs: &[&str], expected: &[&str]| assert_eq!(packages(programs), expected, "{programs:?}");
        check(&[], &[]);
        check(&["nft", "dnsmasq"], &["dnsmasq-base", "nftables"]);
        check(&["setpriv", "unshare"], &["util-linux"]);
        check(&["not-ours"], &[]);
    }

    #[test]
    fn the_advice_can_be_pasted() {
        assert_eq!(
            advice(&["dhclient", "unshare"]),
            "Missing: dhclient, unshare; as root on Debian or Ubuntu: \
             apt-get update && apt-get install -y --no-install-recommends isc-dhcp-client util-linux"
        );
    }

    #[test]
    fn programs_are_found_in_path() {
        assert!(present("sh"));
        assert!(!present("no-such-program-of-the-lab"));
    }
}
