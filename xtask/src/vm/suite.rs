//! Which tests a guest runs: those that are about the kernel, in groups that are the columns of the table.
//!
//! Under emulation loading the program once takes seconds, so this is a choice: of each rule in the kernel what shows that it
//! works there, and everything that kernels differ in.

use clap::builder::PossibleValuesParser;
use serde::Serialize;

use super::{Sabotage, kernels::Kernel};

/// Tests that belong together.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Group {
    pub(crate) name: String,
    /// Parts of the names of its tests.
    pub(crate) tests: Vec<String>,
    /// Parts of the names of those that are left out all the same.
    pub(crate) without: Vec<String>,
    /// More than its tests take under emulation on a machine that has other work, too. Then they are killed.
    pub(crate) seconds: u64,
}

/// A group, and the kernels that it is for.
struct Entry {
    name: &'static str,
    /// The first kernel that it is for.
    from: (u32, u32),
    /// The first kernel after those.
    before: (u32, u32),
    seconds: u64,
    tests: &'static [&'static str],
}

/// The first kernel that can be guarded; `frags`.
pub(crate) const FLOOR: (u32, u32) = (5, 18);
/// The first one with TCX.
const TCX: (u32, u32) = (6, 6);
/// What takes its place before that; where there is TCX, it would be the same again.
const STAND_IN: &str = "[clsact]";
const ALL: (u32, u32) = (0, 0);
const NEVER: (u32, u32) = (u32::MAX, 0);

const SUITE: &[Entry] = &[
    Entry { name: "refused", from: ALL, before: FLOOR, seconds: 60, tests: &["refused: "] },
    Entry {
        name: "load",
        from: FLOOR,
        before: NEVER,
        seconds: 120,
        tests: &[
            "kernel: the program is far from the verifier's limits",
            "kernel: the clock ticks as user space believes [xdp]",
            "kernel: the debug log is free when it is off [xdp]",
        ],
    },
    Entry { name: "fixtures", from: FLOOR, before: NEVER, seconds: 180, tests: &["fixtures: "] },
    Entry {
        name: "rules",
        from: FLOOR,
        before: NEVER,
        seconds: 240,
        tests: &[
            "kernel: a client gets its burst and then its rate",
            "kernel: strangers share a part of the port, known clients keep the rest [xdp]",
            "kernel: all ports together are held to the host's budget [xdp]",
            "kernel: the mute of a port ends by its deadline with nobody doing anything",
            "kernel: an isolated client gets no frame through, others all",
            "kernel: an allowed client passes over every limit [xdp]",
            "kernel: events are told once, not for every packet [xdp]",
            "kernel: replies through a real interface are counted, and arrive",
            "kernel: replies under a tag beside the frame are counted for its port",
            "kernel: TCX ",
        ],
    },
    Entry {
        name: "hooks",
        from: TCX,
        before: NEVER,
        seconds: 240,
        tests: &[
            "hook: each interface gets the one that is right there",
            "hook: a bridge is guarded by TCX",
            "hook: VLANs are policed apart where the interface takes their tags off",
            "hook: TCX guards what another XDP program passes",
            "hook: whoever may not name the programs there chooses the same",
        ],
    },
    Entry {
        name: "hooks",
        from: FLOOR,
        before: TCX,
        seconds: 300,
        tests: &[
            "clsact: a flood is dropped, also after the agent, and `detach` leaves no filter",
            "clsact: VLANs are policed apart where the interface takes their tags off",
            "clsact: filters of others stay whatever the guard does",
            "clsact: whoever deletes the filter is noticed, and it is put back",
        ],
    },
    Entry {
        name: "lab",
        from: FLOOR,
        before: NEVER,
        seconds: 240,
        tests: &["guard: the same flood leaves clients alone behind the guard"],
    },
    Entry { name: "trunk", from: FLOOR, before: NEVER, seconds: 240, tests: &["trunk: "] },
    Entry { name: "bond", from: FLOOR, before: NEVER, seconds: 240, tests: &["bond: "] },
    Entry {
        name: "pins",
        from: FLOOR,
        before: NEVER,
        seconds: 300,
        tests: &[
            "lifecycle: killed again and again in a flood, nothing passes beyond the limit [xdp]",
            "lifecycle: a quarantine ends on time without an agent [xdp]",
            "lifecycle: to another version and back in a flood, without a gap [xdp]",
            "lifecycle: pins removed under the agent are made again [xdp]",
        ],
    },
    Entry {
        name: "i1",
        from: FLOOR,
        before: NEVER,
        seconds: 240,
        tests: &["quarantine: one machine floods, is muted within 15 s, and comes back [xdp]"],
    },
    Entry {
        name: "peer",
        from: FLOOR,
        before: NEVER,
        seconds: 180,
        tests: &[
            "peer: a policer ",
            "peer: the guard bounds it as a policer does, without a rule for its MAC [xdp]",
            "peer: the guard lets a known client through in the same flood [xdp]",
        ],
    },
];

/// The names of all groups, in the order of the table.
pub(crate) fn columns() -> Vec<&'static str> {
    let mut names: Vec<_> = SUITE.iter().map(|entry| entry.name).collect();
    names.dedup();
    names
}

/// What `--group` takes.
pub(crate) fn names() -> PossibleValuesParser {
    columns().into()
}

/// What a kernel's guest is to run: all, or the groups, or the tests that were named.
pub(crate) fn groups(kernel: &Kernel, named: &[String], tests: &[String], sabotage: Option<Sabotage>) -> Vec<Group> {
    if sabotage.is_some() {
        return vec![Group {
            name: "sabotage".into(),
            tests: vec!["sabotage: ".into()],
            without: Vec::new(),
            seconds: 60,
        }];
    }
    if !tests.is_empty() {
        return vec![Group { name: "chosen".into(), tests: tests.to_vec(), without: Vec::new(), seconds: 3600 }];
    }
    let is_for = |entry: &&Entry| (entry.from..entry.before).contains(&kernel.version);
    let is_named = |entry: &&Entry| named.is_empty() || named.iter().any(|name| name == entry.name);
    let without = if kernel.version < TCX { Vec::new() } else { vec![STAND_IN.to_owned()] };
    let group = |entry: &Entry| Group {
        name: entry.name.into(),
        tests: entry.tests.iter().map(|&part| part.into()).collect(),
        without: without.clone(),
        seconds: entry.seconds,
    };
    SUITE.iter().filter(is_for).filter(is_named).map(group).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn kernel(version: (u32, u32)) -> Kernel {
        Kernel { label: "test".into(), version, origin: String::new(), image: PathBuf::new(), modules: PathBuf::new() }
    }

    #[test]
    fn each_kernel_has_its_groups() {
        let names = |version| {
            let groups = groups(&kernel(version), &[], &[], None);
            groups.iter().map(|group| group.name.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names((5, 10)), ["refused"]);
        let all: Vec<_> = columns().into_iter().filter(|name| *name != "refused").collect();
        for version in [(5, 18), (6, 1), (6, 12), (7, 3)] {
            assert_eq!(names(version), all, "{version:?}");
        }
        let hooks = |version| groups(&kernel(version), &["hooks".into()], &[], None).remove(0).tests;
        assert!(hooks((6, 1)).iter().all(|part| part.starts_with("clsact: ")));
        assert!(hooks((6, 12)).iter().all(|part| part.starts_with("hook: ")));
    }
}
