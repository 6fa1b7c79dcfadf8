//! The folders for pins and for the state.

use super::Row;
use crate::{
    dataplane::pins::USUAL_MOUNT,
    doctor::facts::{Agent, Facts, Pins, StateDir},
    model::Finding,
};

pub(super) fn bpffs(facts: &Facts) -> Vec<Finding> {
    const LOST: &str = "nothing can be pinned, so protection would end with the agent";
    let Some(pins) = &facts.pins else { return Vec::new() };
    let (row, dir) = (Row::file("bpffs", &pins.dir), pins.dir.display());
    let finding = if pins.on_bpffs && !pins.read_only {
        row.ok("it is on a BPF file system that can be written to")
    } else if pins.on_bpffs {
        let mount = mount_point(pins);
        row.weak(
            format!("it is on a BPF file system that is mounted read-only: {LOST}"),
            format!("`mount -o remount,rw {mount}`"),
        )
    } else if pins.shadowed {
        row.weak(
            format!(
                "it is on no BPF file system here, because another mount hides it, as that of `ip netns exec` does: {LOST}"
            ),
            "enter only the network namespace: `nsenter --net=/run/netns/NAME dhcp-guard …`, or `umount` what hides it \
             (`findmnt -R /sys` lists the mounts)",
        )
    } else if pins.is_mounted_at_start && !matches!(facts.agent, Some(Agent::Runs { .. })) {
        row.info(
            format!("it is on no BPF file system yet; the agent mounts one at {USUAL_MOUNT} when it starts"),
            format!("nothing, or `mount -t bpf bpf {USUAL_MOUNT}`"),
        )
    } else if pins.dir.starts_with(USUAL_MOUNT) {
        row.weak(
            format!("it is on no BPF file system, none is mounted at {USUAL_MOUNT}: {LOST}"),
            format!("`mount -t bpf bpf {USUAL_MOUNT}`"),
        )
    } else {
        row.weak(
            format!("it is on no BPF file system: {LOST}"),
            format!("use the default folder, {USUAL_MOUNT}/dhcp-guard, or mount one: `mount --mkdir -t bpf bpf {dir}`"),
        )
    };
    vec![finding]
}

/// The usual one, if it is there; else what is there.
fn mount_point(pins: &Pins) -> String {
    if pins.dir.starts_with(USUAL_MOUNT) { USUAL_MOUNT.to_owned() } else { pins.nearest.display().to_string() }
}

/// That it cannot make the folder, and what else it finds there, an agent says itself.
pub(super) fn state_dir_at_start(facts: &Facts) -> Vec<Finding> {
    facts.state_dir.iter().filter(|state| state.is_there).filter_map(unwritable).collect()
}

fn unwritable(state: &StateDir) -> Option<Finding> {
    let why = state.unwritable.as_ref()?;
    Some(Row::file("state_dir", &state.dir).weak(
        format!("the state folder cannot be used ({why}): quarantines, hold and allowlist do not survive a restart"),
        format!(
            "`install -d -m 750 {}` as the agent's user, or name another folder with --state-dir",
            state.dir.display()
        ),
    ))
}

pub(super) fn state_dir(facts: &Facts) -> Vec<Finding> {
    let Some(state) = &facts.state_dir else { return Vec::new() };
    let row = || Row::file("state_dir", &state.dir);
    let dir = state.dir.display();
    let full = state.full.then(|| {
        row().weak(
            "the file system of the state folder is full: quarantines, hold and allowlist may not survive a restart",
            format!("make room there (`df {dir}`), or name another folder with --state-dir"),
        )
    });
    let unusable = state.unusable.as_ref().map(|what| {
        row().weak(
            format!("{what}: the next agent starts with an empty one, and with all automatic quarantine on hold"),
            format!("move it away, or put back a copy (`ls {dir}` shows what earlier ones were kept)"),
        )
    });
    let all: Vec<Finding> = unwritable(state).into_iter().chain(full).chain(unusable).collect();
    if all.is_empty() {
        vec![row().ok("it can be written to, as far as its rights and its file system say")]
    } else {
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check, with};
    use super::*;
    use crate::model::Severity::{Info, Weak};

    const DIR: &str = "/sys/fs/bpf/dhcp-guard";

    fn pins(change: impl FnOnce(&mut Pins)) -> Facts {
        with(|facts| change(facts.pins.as_mut().unwrap()))
    }

    #[test]
    fn a_bpf_file_system_that_is_not_there() {
        let missing = |pins: &mut Pins| (pins.on_bpffs, pins.shadowed) = (false, false);
        check("bpffs", &pins(missing), Weak, DIR, &["none is mounted", "`mount -t bpf bpf /sys/fs/bpf`"]);
        let mut yet = pins(|pins| (pins.on_bpffs, pins.is_mounted_at_start) = (false, true));
        check("bpffs", &yet, Weak, DIR, &["none is mounted"]);
        yet.agent = Some(Agent::None("/s".into()));
        check("bpffs", &yet, Info, DIR, &["when it starts", "`mount -t bpf bpf /sys/fs/bpf`"]);
        let shadowed = |pins: &mut Pins| (pins.on_bpffs, pins.shadowed) = (false, true);
        check("bpffs", &pins(shadowed), Weak, DIR, &["ip netns exec", "nsenter --net=/run/netns/NAME", "findmnt"]);
        check("bpffs", &pins(|pins| pins.read_only = true), Weak, DIR, &["`mount -o remount,rw /sys/fs/bpf`"]);
        let elsewhere = pins(|pins| (pins.dir, pins.on_bpffs) = ("/run/pins".into(), false));
        check("bpffs", &elsewhere, Weak, "/run/pins", &["/sys/fs/bpf/dhcp-guard", "-t bpf bpf /run/pins`"]);
    }

    #[test]
    fn a_state_folder_that_is_no_use() {
        let unwritable = |is_there| {
            with(|facts| {
                let state = facts.state_dir.as_mut().unwrap();
                (state.is_there, state.unwritable) = (is_there, Some("read-only".into()));
            })
        };
        let parts = ["(read-only)", "do not survive a restart", "`install -d -m 750 /var/lib/dhcp-guard`"];
        check("state_dir", &unwritable(true), Weak, "/var/lib/dhcp-guard", &parts);
        let said_at_start = |is_there| {
            let findings = super::super::at_start(&unwritable(is_there));
            findings.iter().filter(|finding| finding.id == "state_dir").count()
        };
        assert_eq!([true, false].map(said_at_start), [1, 0]);
        let full = with(|facts| facts.state_dir.as_mut().unwrap().full = true);
        check("state_dir", &full, Weak, "/var/lib/dhcp-guard", &["is full", "`df /var/lib/dhcp-guard`"]);
        let foreign = with(|facts| facts.state_dir.as_mut().unwrap().unusable = Some("the state is foreign".into()));
        check("state_dir", &foreign, Weak, "/var/lib/dhcp-guard", &["the state is foreign", "on hold", "move it away"]);
    }
}
