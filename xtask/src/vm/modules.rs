//! What of a kernel's modules the lab needs, with all that these need, in an order in which they can be loaded.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::process;

/// Nothing in the guest loads modules when they are asked for, so all are named here. Some kernels have some of them built
/// in, and some have no such module at all: what a test misses, it says.
const WANTED: &[&str] = &[
    "veth",
    "bridge",
    "8021q",
    "bonding",
    "tun",
    "tap",
    "dummy",
    "macvlan",
    "sch_ingress",
    "cls_flower",
    "cls_bpf",
    "cls_u32",
    "cls_matchall",
    "act_police",
    "act_gact",
    "act_mirred",
    "act_bpf",
    "nf_tables",
    "nft_limit",
    "nft_counter",
    "nft_objref",
    "nft_quota",
    "nft_dynset",
    "overlay",
];

/// The files, in order. `scratch` is a folder that is not among the modules.
pub(crate) fn for_lab(modules: &Path, scratch: &Path) -> Result<Vec<PathBuf>> {
    let index = modules.join("modules.dep");
    if !index.exists() {
        make_index(modules, &scratch.join("depmod"))?;
    }
    let text = fs::read_to_string(&index).with_context(|| format!("cannot read {}", index.display()))?;
    let files = in_order(&text, WANTED);
    Ok(files.into_iter().map(|file| modules.join(file)).collect())
}

/// Packages have none: their script makes it. depmod wants a root, and the modules in its lib/modules.
fn make_index(modules: &Path, root: &Path) -> Result<()> {
    let release = modules.file_name().context("a folder of modules without a name")?;
    // Left by a run that was broken off.
    let _ = fs::remove_dir_all(root);
    let place = root.join("lib/modules");
    fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let link = place.join(release);
    let made = std::os::unix::fs::symlink(modules, &link)
        .with_context(|| format!("cannot link {}", link.display()))
        .and_then(|()| process::run(Command::new("depmod").arg("--basedir").arg(root).arg(release)));
    let _ = fs::remove_dir_all(root);
    made
}

/// The wanted ones of a `modules.dep`, each behind what it needs.
fn in_order<'a>(index: &'a str, wanted: &[&str]) -> Vec<&'a str> {
    let lines: Vec<(&str, Vec<&str>)> = index
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(file, needs)| (file, needs.split_whitespace().collect()))
        .collect();
    let by_name: HashMap<String, &(&str, Vec<&str>)> = lines.iter().map(|line| (name_of(line.0), line)).collect();
    let (mut seen, mut order) = (HashSet::new(), Vec::new());
    for (file, needs) in wanted.iter().filter_map(|name| by_name.get(*name)) {
        // depmod lists all that a module needs, those that others need behind them.
        for one in needs.iter().rev().chain([file]) {
            if seen.insert(*one) {
                order.push(*one);
            }
        }
    }
    order
}

/// `kernel/net/sched/cls_flower.ko.xz` is cls_flower.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let index = "kernel/net/llc/llc.ko.xz:\n\
                     kernel/net/802/stp.ko.xz: kernel/net/llc/llc.ko.xz\n\
                     kernel/net/bridge/bridge.ko.xz: kernel/net/802/stp.ko.xz kernel/net/llc/llc.ko.xz\n\
                     kernel/net/802/garp.ko.xz: kernel/net/802/stp.ko.xz kernel/net/llc/llc.ko.xz\n\
                     kernel/net/8021q/8021q.ko.xz: kernel/net/802/garp.ko.xz kernel/net/802/stp.ko.xz kernel/net/llc/llc.ko.xz\n\
                     kernel/net/sched/cls-flower.ko:\n";
        let order: Vec<_> =
            in_order(index, &["bridge", "8021q", "built_in", "cls_flower"]).into_iter().map(name_of).collect();
        assert_eq!(order, ["llc", "stp", "bridge", "garp", "8021q", "cls_flower"]);
    }
}
